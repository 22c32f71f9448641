// The agent runs elsewhere. What is sent there is signed as Netlify signs its rewrites: it takes nothing else.
import { createHmac } from "node:crypto";

const BACKEND = "https://backend.example";
const HOP = new Set(["connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"]);

const coded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A JSON Web Signature that is good for five minutes. */
function signature() {
  const secret = process.env.STEPRELAY_PROXY_SECRET;
  if (!secret) throw new Error("STEPRELAY_PROXY_SECRET is not set for functions: netlify env:set STEPRELAY_PROXY_SECRET …");
  const claims = { iss: "netlify", site_url: process.env.URL, exp: Math.floor(Date.now() / 1000) + 300 };
  const signed = `${coded({ alg: "HS256", typ: "JWT" })}.${coded(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** Sends a request on: its method, headers and body, to a path of the backend. What comes back is streamed. */
export async function call(request, path, more = {}) {
  const kept = [...request.headers].filter(([name]) => !HOP.has(name) && !name.startsWith("x-steprelay-") && name !== "x-nf-sign");
  const body = request.method === "GET" || request.method === "HEAD" ? undefined : await request.arrayBuffer();
  const headers = { ...Object.fromEntries(kept), "x-nf-sign": signature(), ...more };
  const answer = await fetch(new URL(path, BACKEND), { method: request.method, headers, body, redirect: "manual" });
  const passed = new Headers(answer.headers);
  for (const name of [...HOP, "content-encoding"]) passed.delete(name); // fetch has decoded it
  return new Response(answer.body, { status: answer.status, headers: passed });
}
