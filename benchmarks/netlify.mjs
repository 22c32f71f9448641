// One function instance, from its start: `node netlify.mjs BUNDLE ROUNDS` prints what it measured as JSON, in milliseconds.
import { readdirSync, readFileSync } from "node:fs";
import { request } from "node:http";
import { pathToFileURL } from "node:url";

const [bundle, rounds] = process.argv.slice(2);
const before = new Set(readdirSync("/tmp"));
const { forward } = await import(pathToFileURL(`${bundle}/proxy.mjs`));
const told = await forward(new Request("http://localhost/api/health"), {});
const health = await told.json();
const cold = performance.now(); // since this process began
const { user, system } = process.cpuUsage();
const [child] = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, "utf8").trim().split(" ");
const times = readFileSync(`/proc/${child}/stat`, "utf8").split(") ")[1].split(" ");
const cpu = { node: (user + system) / 1000, python: (Number(times[11]) + Number(times[12])) * 10 }; // ticks of 10 ms

const socket = readdirSync("/tmp").find((name) => name.startsWith("steprelay-") && name.endsWith(".sock") && !before.has(name));
const direct = () =>
  new Promise((resolve, reject) => {
    const out = request({ socketPath: `/tmp/${socket}`, path: "/api/nothing", agent: false }, (answer) => answer.resume().on("end", resolve));
    out.on("error", reject).end();
  });
const through = async () => (await forward(new Request("http://localhost/api/nothing"), {})).text();

async function median(act) {
  const spent = [];
  for (let i = 0; i < rounds; i++) {
    const began = performance.now();
    await act();
    spent.push(performance.now() - began);
  }
  return spent.sort((a, b) => a - b)[Math.floor(rounds / 2)];
}

await median(through); // both warm
const [called, passed] = [await median(direct), await median(through)];
const rss = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;
console.log(JSON.stringify({ status: health.status, cold, cpu, direct: called, through: passed, node: rss(process.pid), python: rss(child) }));
process.exit(0);
