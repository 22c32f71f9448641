import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { Dev, nap, upTo } from "../../driver/test/support/dev.js";
import { type Options, relay } from "../src/index.js";

/** What the task uses of the SDK, in memory: a task is what it was made of, and a wait is heard of before it is over. */
const waits = vi.hoisted(() => ({ seconds: [] as number[], during: async (_: number): Promise<unknown> => undefined }));
vi.mock("@trigger.dev/sdk", async (original) => ({
  ...(await original<typeof import("@trigger.dev/sdk")>()),
  task: (made: object) => made,
  wait: {
    for: async ({ seconds }: { seconds: number }) => {
      waits.seconds.push(seconds);
      await waits.during(seconds);
    },
  },
}));

interface Made {
  run(payload: { run: string }, params: { ctx: { run: { id: string } } }): Promise<unknown>;
  onCancel(params: { payload: { run: string } }): Promise<void>;
}

let dev: Dev;
beforeAll(async () => {
  dev = await Dev.open();
}, 60_000);
afterAll(() => dev.close());
beforeEach(() => {
  waits.seconds = [];
  waits.during = (seconds) => nap(seconds * 1_000);
});

const made = (more: Options = {}) => relay({ url: dev.url, key: dev.key, ...more }) as unknown as Made;
const ctx = (id: string) => ({ ctx: { run: { id } } });

test("the task carries a run to its end and tells what became of it, without its words", async () => {
  await dev.start("end", "trigger", { steps: 4, waits: { 1: 1 } });
  const told = await made().run({ run: "end" }, ctx("run_1"));
  expect(told).toEqual({ run: "end", status: "COMPLETED", carrier: "trigger" });
  expect(dev.called("end")).toEqual(upTo(4));
  expect(await dev.carriers("end")).toEqual(Array(4).fill("trigger"));
  expect(waits.seconds[0]).toBeGreaterThan(0.5);
});

test("an attempt that died is followed by one that goes on", async () => {
  await dev.start("dies", "trigger", { steps: 5, waits: { 2: 0.3 } });
  waits.during = async () => {
    waits.during = (seconds) => nap(seconds * 1_000);
    throw new Error("the machine is gone");
  };
  await expect(made().run({ run: "dies" }, ctx("run_2"))).rejects.toThrow("gone");
  expect(dev.called("dies")).toEqual(upTo(3));
  expect(await made().run({ run: "dies" }, ctx("run_2"))).toMatchObject({ status: "COMPLETED" });
  expect(dev.called("dies")).toEqual(upTo(5));
});

test("a cancelled task run cancels its run for good", async () => {
  await dev.start("stop", "trigger", { steps: 5, waits: { 1: 3600 } });
  waits.during = () => made().onCancel({ payload: { run: "stop" } });
  expect(await made().run({ run: "stop" }, ctx("run_3"))).toMatchObject({ status: "CANCELLED" });
  expect(dev.called("stop")).toEqual(upTo(2));
});

test("what will be refused again ends the task run, without another attempt", async () => {
  const { AbortTaskRunError } = await import("@trigger.dev/sdk");
  await expect(made().run({ run: "nobody" }, ctx("run_4"))).rejects.toThrow(AbortTaskRunError);
  await expect(made({ key: "not the key" }).run({ run: "end" }, ctx("run_5"))).rejects.toThrow(AbortTaskRunError);
  await expect(made({ key: "" }).run({ run: "end" }, ctx("run_6"))).rejects.toThrow("STEPRELAY_KEY");
});

test("the carrier is the task's id", async () => {
  await dev.start("named", "agents", { steps: 2 });
  await made({ id: "agents" }).run({ run: "named" }, ctx("run_7"));
  expect(await dev.carriers("named")).toEqual(["agents", "agents"]);
});
