import { ErrorDoNotRetry, asyncWorkloadFn } from "@netlify/async-workloads";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dev, nap, upTo } from "../../driver/test/support/dev.js";
import { LEGS, type Options, relay } from "../src/index.js";
import { Workload } from "./workload.js";

let dev: Dev;
beforeAll(async () => {
  dev = await Dev.open();
}, 60_000);
afterAll(() => dev.close());

const CARRIER = "netlify-async";
const workload = (more: Options = {}) => new Workload(relay({ url: dev.url, key: dev.key, ...more }));

test("the workload carries a run to its end, one act an invocation, and keeps none of its words", async () => {
  await dev.start("end", CARRIER, { steps: 5 });
  const it = workload();
  await it.send("end");
  expect(dev.called("end")).toEqual(upTo(5));
  expect(await dev.carriers("end")).toEqual(Array(5).fill(CARRIER));
  expect(it.failures).toEqual([]);
  expect(it.invocations).toBe(7); // a look, five steps, and the end
  expect(JSON.stringify([...it.kept[0]!])).not.toContain("words");
});

test("a timer of the run is a sleep of the workload", async () => {
  await dev.start("timer", CARRIER, { steps: 3, waits: { 0: 1 } });
  const it = workload();
  it.during = nap;
  await it.send("timer");
  expect(dev.called("timer")).toEqual(upTo(3));
  expect(it.slept[0]).toBeGreaterThan(500);
  expect(it.slept.every(Number.isInteger)).toBe(true);
});

test("an act whose result was lost is done again, and no step is taken twice", async () => {
  await dev.start("lost", CARRIER, { steps: 4 });
  const it = workload();
  const lost = new Set<string>();
  it.loses = (id) => !lost.has(id) && lost.size < 4 && Boolean(lost.add(id));
  await it.send("lost");
  expect(it.failures).toHaveLength(4);
  expect(dev.called("lost")).toEqual(upTo(4));
});

test("a run that a person stops while the workload sleeps is not carried on", async () => {
  await dev.start("stop", CARRIER, { steps: 4, asks: [1] });
  const it = workload();
  it.during = () => dev.ask("/runs/stop/cancel", {});
  await it.send("stop");
  expect(dev.called("stop")).toEqual(upTo(2));
  expect((await dev.ask("/runs/stop")).status).toBe("CANCELLED");
});

test("what will be refused again is not tried again", async () => {
  for (const it of [workload(), workload({ key: "not the key" }), workload({ key: "" })]) {
    await it.send("nobody");
    expect(it.failures).toEqual([expect.any(ErrorDoNotRetry)]);
  }
});

test("a long run goes on in the next event, and each keeps little", async () => {
  const steps = LEGS + 3;
  await dev.start("long", CARRIER, { steps });
  const it = workload();
  await it.send("long");
  expect(dev.called("long")).toEqual(upTo(steps));
  expect(it.kept).toHaveLength(2);
  expect(JSON.stringify([...it.kept[0]!]).length).toBeLessThan(200 * LEGS);
}, 60_000);

test("the real SDK takes the handler", () => {
  expect(asyncWorkloadFn(relay({ url: dev.url, key: dev.key }))).toBeTypeOf("function");
});
