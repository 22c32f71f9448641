// A stand-in for Netlify in one process that stays warm: routing, 202 for background functions, limits that kill.
//
//   node platform.mjs SITE [--undeclared MS]      the background function is an ordinary one that lives MS milliseconds
//
// Prints its port. POST /platform/sweep is the clock; GET /platform/log is what functions wrote.
import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { Readable } from "node:stream";

const [site, , undeclared] = process.argv.slice(2);
const log = [];
for (const level of ["log", "error"]) console[level] = (...words) => log.push(words.join(" "));

const load = async (name) => (await import(`${site}/netlify/functions/${name}.mjs`)).default;
const [step, carry, sweep] = await Promise.all(["agent-step", "start-job-background", "sweep"].map(load));
const context = { ip: "192.0.2.7" };

function webRequest(req, signal) {
  const body = req.method === "GET" || req.method === "HEAD" ? undefined : Readable.toWeb(req);
  return new Request(`http://${req.headers.host}${req.url}`, { method: req.method, headers: req.headers, body, duplex: "half", signal });
}

async function answer(res, response) {
  res.writeHead(response.status, [...response.headers].flat());
  if (!response.body) return res.end();
  try {
    for await (const chunk of response.body) res.write(chunk);
    res.end();
  } catch {
    res.destroy(); // cut in the middle
  }
}

/** The end of an instance: everything in it dies, here what the function started. */
function killChildren() {
  execFileSync("pkill", ["-9", "-P", String(process.pid), "python"]);
}

async function background(req, res) {
  const request = webRequest(req);
  if (undeclared) {
    const late = setTimeout(() => (killChildren(), res.destroy()), Number(undeclared));
    const response = await carry(request, context).catch(() => new Response(null, { status: 500 }));
    clearTimeout(late);
    return answer(res, response);
  }
  const whole = new Request(request.url, { method: "POST", headers: request.headers, body: await request.arrayBuffer() });
  res.writeHead(202).end();
  await carry(whole, context).catch((error) => log.push(`to be tried again: ${error.message}`));
}

const server = createServer(async (req, res) => {
  const { pathname } = new URL(req.url, "http://localhost");
  if (pathname === "/platform/log") return res.end(log.join("\n"));
  if (pathname === "/platform/sweep") {
    const told = await sweep(webRequest(req), context).catch((e) => new Response(e.message, { status: 500 }));
    return answer(res, told ?? new Response(null, { status: 204 })); // a scheduled function may say nothing
  }
  if (pathname === "/.netlify/functions/start-job-background") return background(req, res);
  if (pathname === "/api/carry" && process.env.PLATFORM_SPLIT) return background(req, res); // a rewrite of that site
  if (process.env.PLATFORM_CUT && pathname.endsWith("/life")) setTimeout(() => res.destroy(), Number(process.env.PLATFORM_CUT)); // a host of shorter breath
  const gone = new AbortController();
  res.on("close", () => res.writableFinished || gone.abort());
  await answer(res, await step(webRequest(req, gone.signal), context));
});
process.stdin.on("data", () => {}).on("end", () => process.exit(0)); // whoever started us is gone
const port = Number(new URL(process.env.STEPRELAY_PUBLIC_URL ?? "http://localhost:0").port);
server.listen(port, "127.0.0.1", () => process.stdout.write(`${server.address().port}\n`));
