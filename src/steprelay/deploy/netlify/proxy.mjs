// Python behind a Netlify function: one ASGI server a function instance, reached over a Unix socket.
//
//   request ─ dial a living child ─ send once ─▶ python3 (serve.py) ─▶ answer, chunk by chunk
//
// Dialling comes first: a dead child is replaced while nothing has been sent. What was sent is never sent again, since
// Python may have begun; its callers are idempotent. The child is never killed for being slow: it is told when its host's
// wall comes, ends before that, and ends by itself when the pipe to its standard input does.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { request as send, STATUS_CODES } from "node:http";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** Milliseconds Netlify lets a function of each kind live. Nothing tells what is left, so we keep our own clock. */
export const LIMIT = { request: 60_000, background: 15 * 60_000, scheduled: 30_000 };
const RESERVE_MS = 4_000; // Python is told to be done so much before the limit,
const GRACE_MS = 3_000; // and the connection is cut so much after that
const BOOT_MS = 20_000;
const FUNCTION = "/.netlify/functions/agent-step";
const HOP = new Set(["connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"]);
const BOOT = "import sys; from steprelay.deploy.netlify.serve import main; main(*sys.argv[1:])";

const home = findHome();
const bundle = JSON.parse(readFileSync(join(home, "bundle.json"), "utf8"));
const { STEPRELAY_SOCKET: shared } = process.env; // for development: a server that somebody else keeps running
let child;
let used = false;

/** Answers a request of a client. */
export async function forward(request, context, limit = LIMIT.request) {
  const began = arrival();
  try {
    const url = new URL(request.url);
    const answer = await exchange({
      began,
      limit,
      path: innerPath(url) + url.search,
      method: request.method,
      headers: { ...passed(request.headers), host: url.host, ...(context?.ip && { "x-steprelay-client-ip": context.ip }) },
      body: request.body && Buffer.from(await request.arrayBuffer()),
      signal: request.signal,
    });
    return respond(answer);
  } catch (error) {
    return refuse(error);
  }
}

/** The background driver: carries the run that a signed message names, for as long as this instance may live. */
export async function carry(request, context, limit = LIMIT.background) {
  const body = Buffer.from(await request.arrayBuffer());
  const headers = { ...passed(request.headers), host: new URL(request.url).host, prefer: "wait" };
  try {
    const answer = await exchange({ began: arrival(), limit, path: "/api/carry", method: "POST", headers, body });
    const text = (await Readable.from(answer).toArray()).join("");
    if (answer.statusCode >= 300) console.error(`start-job-background: ${answer.statusCode} ${text}`);
  } catch (error) {
    if (error instanceof Unsent) throw error; // Netlify tries again in a minute, and the message is still good
    console.error(`start-job-background: ${error.message}; the sweep will find the run`);
  }
  // Nobody reads this. If somebody does, this is no background function, and the waker that sees it says so.
  return new Response(null, { status: 202, headers: { "x-steprelay-waited": "1" } });
}

/** The scheduled function: has Python look for runs that nobody carries. */
export async function sweep(request, context, limit = LIMIT.scheduled) {
  const headers = { host: new URL(request.url).host, authorization: `Bearer ${process.env.STEPRELAY_SECRET}` };
  const answer = await exchange({ began: arrival(), limit, path: "/api/sweep", method: "POST", headers });
  const text = (await Readable.from(answer).toArray()).join("");
  if (answer.statusCode >= 300) throw new Error(`sweep: ${answer.statusCode} ${text}`);
  return new Response(text, { headers: { "content-type": "application/json" } });
}

// ------------------------------------------------------------ the child

/** Nothing was sent: whoever asked may ask again. */
class Unsent extends Error {}

class Late extends Error {}

class Child {
  dead = false;
  path = `/tmp/steprelay-${randomBytes(6).toString("hex")}.sock`; // at most 107 bytes

  constructor() {
    this.process = spawn(join(home, "bin/python3"), ["-c", BOOT, this.path, bundle.app], {
      cwd: join(home, "app"),
      env: environment(),
      stdio: ["pipe", "pipe", "pipe", "pipe"], // the last: a byte when it listens
    });
    const [stdin, stdout, stderr, up] = this.process.stdio;
    stdin.on("error", () => {});
    createInterface({ input: stdout }).on("line", (line) => console.log(line));
    createInterface({ input: stderr }).on("line", (line) => console.error(line));
    this.ended = new Promise((resolve) => {
      this.process.once("error", resolve);
      this.process.once("exit", (code, signal) => resolve(new Error(`Python ended: ${signal ?? `exit code ${code}`}`)));
    }).then((why) => {
      this.dead = true;
      rmSync(this.path, { force: true });
      return why;
    });
    this.listens = once(up, "data");
    this.listens.catch(() => {});
    for (const handle of [this.process, ...this.process.stdio]) handle.unref(); // an idle child keeps no instance awake
  }

  /** Waits until it listens. */
  async ready() {
    const timer = new AbortController();
    const late = sleep(BOOT_MS, undefined, { signal: timer.signal }).then(() => new Error("Python did not start in time"));
    const why = await Promise.race([this.listens.then(() => null), this.ended, late]);
    timer.abort();
    late.catch(() => {});
    if (!why) return;
    this.process.kill("SIGKILL"); // it has begun nothing
    throw new Unsent(why.message);
  }

  /** Takes no more requests, finishes those it has, and ends. */
  retire() {
    this.dead = true;
    this.process.stdin.end();
  }
}

function living() {
  if (!child || child.dead) child = new Child();
  return child;
}

/** A connection to a living child. Throws Unsent. */
async function dial() {
  if (shared) return connected(shared);
  for (let tries = 0; tries < 3; tries++) {
    const candidate = living();
    await candidate.ready();
    try {
      return await connected(candidate.path);
    } catch {
      await Promise.race([candidate.ended, sleep(100)]); // it dies; if it does not, it is deaf
      if (!candidate.dead) candidate.retire();
    }
  }
  throw new Unsent("Python ends as soon as it is started");
}

async function connected(path) {
  const socket = connect(path);
  await once(socket, "connect");
  return socket;
}

function environment() {
  const copied = join(home, "lib/copied");
  return {
    ...process.env,
    NETLIFY: "true",
    STEPRELAY_PUBLIC_URL: process.env.STEPRELAY_PUBLIC_URL ?? bundle.url ?? process.env.URL ?? "",
    SSL_CERT_FILE: process.env.SSL_CERT_FILE ?? join(home, "cacert.pem"),
    PYTHONHOME: home,
    PYTHONDONTWRITEBYTECODE: "1",
    PYTHONNOUSERSITE: "1",
    PYTHONUNBUFFERED: "1",
    HOME: "/tmp",
    TMPDIR: "/tmp",
    ...(existsSync(copied) && { LD_LIBRARY_PATH: copied }),
  };
}

/** The folder of the bundle: ours, or seen from the function into which this file was bundled. */
function findHome() {
  const here = dirname(fileURLToPath(import.meta.url));
  const roots = [here, join(here, "../../python"), join(process.env.LAMBDA_TASK_ROOT ?? here, "python"), join(process.cwd(), "python")];
  const found = roots.find((root) => existsSync(join(root, "bundle.json")));
  if (!found) throw new Error(`there is no Python in ${roots.join(" or ")}; run: steprelay build netlify`);
  return found;
}

// ------------------------------------------------------------ one request

/** When this request's time began: with the instance, if it is its first. */
function arrival() {
  const first = !used;
  used = true;
  return first ? Math.max(performance.timeOrigin, Date.now() - 10_000) : Date.now();
}

/** Sends a request, once, and answers when the head of the answer is there. Throws Unsent, Late, or what broke. */
async function exchange({ began, limit, path, method, headers, body, signal }) {
  const socket = await dial();
  const asked = child;
  const wall = Math.max(0, Math.round(began + limit - RESERVE_MS - Date.now()));
  return new Promise((resolve, reject) => {
    const out = send({
      createConnection: () => socket,
      path,
      method,
      headers: { ...headers, ...(body && { "content-length": body.length }), "x-steprelay-wall-ms": String(wall) },
      signal,
    });
    const cut = setTimeout(() => {
      if (!out.res) asked?.retire(); // not even a head: it is stuck
      out.destroy(new Late(`no answer by the wall, ${wall} ms`));
    }, wall + GRACE_MS);
    out.once("close", () => clearTimeout(cut));
    out.on("error", reject);
    out.once("response", (answer) => {
      out.res = answer;
      resolve(answer);
    });
    out.end(body);
  });
}

function respond(answer) {
  const headers = new Headers();
  for (const [name, values] of Object.entries(answer.headersDistinct))
    if (!HOP.has(name)) for (const value of values) headers.append(name, value);
  const status = answer.statusCode;
  const empty = status === 204 || status === 205 || status === 304 || answer.req.method === "HEAD";
  if (empty) answer.resume();
  return new Response(empty ? null : Readable.toWeb(answer), { status, headers });
}

async function refuse(error) {
  console.error(`agent-step: ${error.name} ${error.code ?? ""} ${error.message}`);
  if (error instanceof Late) return problem(504, "wall_reached", "The time of this request was over before there was an answer.");
  return problem(502, "python_unavailable", "Python did not answer; the log of this function says why. Ask again.");
}

function problem(status, code, detail) {
  const headers = { "content-type": "application/problem+json", "cache-control": "no-store", "retry-after": "1" };
  return new Response(JSON.stringify({ type: "about:blank", title: STATUS_CODES[status], status, detail, code }), { status, headers });
}

/** Headers of a client, less what only we may say. */
function passed(headers) {
  return Object.fromEntries([...headers].filter(([name]) => !HOP.has(name) && !name.startsWith("x-steprelay-")));
}

/** What Python calls it: `/api/…` comes as it is, or rewritten to a path below the function's own. */
function innerPath({ pathname }) {
  return pathname.startsWith(`${FUNCTION}/`) ? `/api${pathname.slice(FUNCTION.length)}` : pathname;
}

if (!shared) living(); // at module scope: Python starts while the instance does
