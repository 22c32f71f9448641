import { afterAll, beforeAll, expect, test } from "vitest";
import { type At, type Host, Leg, PATIENCE, Refused, carry } from "../src/index.js";
import { Dev, nap, upTo } from "./support/dev.js";

let dev: Dev;
beforeAll(async () => {
  dev = await Dev.open();
}, 60_000);
afterAll(() => dev.close());

/** An engine that does every act at once and remembers none. `slept`: how long it was told to sleep. */
class Plain implements Host {
  slept: number[] = [];
  constructor(private pause: (ms: number) => Promise<unknown> = nap) {}
  step = (_: string, act: () => Promise<At>) => act();
  sleep = async (_: string, ms: number) => {
    this.slept.push(ms);
    await this.pause(ms);
  };
}

const leg = (how: typeof fetch = fetch) => new Leg("trigger", { url: `${dev.url}/`, key: dev.key, fetch: how });

test("a run is carried to its end, each step by its carrier", async () => {
  await dev.start("end", "trigger", { steps: 5 });
  expect(await carry(leg(), "end", "a", new Plain())).toEqual({ run: "end", status: "COMPLETED", carrier: "trigger" });
  expect(dev.called("end")).toEqual(upTo(5));
  expect(await dev.carriers("end")).toEqual(Array(5).fill("trigger"));
});

test("a timer of the run is a sleep of the engine", async () => {
  await dev.start("timer", "trigger", { steps: 3, waits: { 0: 1.2 } });
  const host = new Plain();
  await carry(leg(), "timer", "a", host);
  expect(dev.called("timer")).toEqual(upTo(3));
  expect(host.slept[0]).toBeGreaterThan(1_000);
  expect(host.slept[0]).toBeLessThanOrEqual(1_200);
});

test("a person is asked about less and less often, and the answer goes on", async () => {
  await dev.start("ask", "trigger", { steps: 3, asks: [1] });
  const host = new Plain(async () => {
    if (host.slept.length < 4) return;
    await dev.ask("/runs/ask/input", [{ interruptId: "q1", status: "resolved", payload: "Yes" }]);
  });
  expect((await carry(leg(), "ask", "a", host))?.status).toBe("COMPLETED");
  expect(host.slept).toEqual([5_000, 7_500, 11_250, 16_875]);
  expect(dev.called("ask")).toEqual(upTo(3));
});

test("a step whose answer was lost is answered again and not taken again", async () => {
  await dev.start("lost", "trigger", { steps: 4 });
  const host = new Plain(async () => {});
  let requests = 0;
  const loses: typeof fetch = async (...request) => {
    const answer = await fetch(...request);
    if (requests++ % 2) throw new TypeError("the connection died");
    return answer;
  };
  await carry(leg(loses), "lost", "a", host);
  expect(dev.called("lost")).toEqual(upTo(4));
  expect(host.slept.length).toBeGreaterThanOrEqual(4);
});

test("a server that says when is asked again then; one that stays away is the engine's to try again", async () => {
  await dev.start("away", "trigger", { steps: 2 });
  const answers = [
    new Response("{}", { status: 503, headers: { "retry-after": "7" } }),
    new Response("", { status: 429 }),
  ];
  const host = new Plain(async () => {});
  await carry(
    leg(async (...request) => answers.shift() ?? fetch(...request)),
    "away",
    "a",
    host,
  );
  expect(host.slept).toEqual([7_000, 2_000]);
  const never = new Plain(async () => {});
  const failing = carry(
    leg(async () => new Response("{}", { status: 502 })),
    "away",
    "a",
    never,
  );
  await expect(failing).rejects.toThrow("502");
  expect(never.slept).toHaveLength(PATIENCE);
  expect(Math.max(...never.slept)).toBe(60_000);
});

test("a run is gone on with where it stands, even when the first look at it fails", async () => {
  await dev.start("stands", "trigger", { steps: 4 });
  await carry(leg(), "stands", "a", new Plain(), 2);
  const answers = [new Response("", { status: 502 }), new Response("", { status: 502 })];
  const host = new Plain(async () => {});
  const end = await carry(
    leg(async (...request) => answers.shift() ?? fetch(...request)),
    "stands",
    "b",
    host,
  );
  expect(end?.status).toBe("COMPLETED");
  expect(host.slept).toEqual([1_000, 2_000]);
  expect(dev.called("stands")).toEqual(upTo(4));
});

test("what will be refused again is not tried again", async () => {
  await expect(carry(leg(), "nobody", "a", new Plain())).rejects.toThrow(Refused);
  const stranger = new Leg("trigger", { url: dev.url, key: "not the key" });
  await expect(carry(stranger, "end", "a", new Plain())).rejects.toThrow(Refused);
  expect(() => new Leg("trigger", { key: "k" })).toThrow("STEPRELAY_URL");
});

test("of two that carry one run, one goes on and no step is taken twice", async () => {
  await dev.start("two", "trigger", { steps: 12, slow: { 0: 0.1, 1: 0.1, 5: 0.1 } });
  const ends = await Promise.all(
    ["a", "b"].map((by) => carry(leg(), "two", by, new Plain((ms) => nap(Math.min(ms, 50))))),
  );
  expect(dev.called("two")).toEqual(upTo(12));
  expect(ends.filter((end) => end?.status === "COMPLETED")).not.toHaveLength(0);
});

test("a run that is given to another carrier is let go", async () => {
  await dev.start("given", "trigger", { steps: 9, waits: { 1: 3600 } });
  const host = new Plain(() => dev.ask("/runs/given/hand-over", { carrier: "client" }));
  expect(await carry(leg(), "given", "a", host)).toMatchObject({ status: "WAITING", carrier: "client" });
  expect(dev.called("given")).toEqual(upTo(2));
});

test("a cancel ends the run, unless it is somebody else's", async () => {
  await dev.start("cancel", "trigger", { steps: 3, waits: { 0: 3600 } });
  const host = new Plain(() => leg().cancel("cancel"));
  expect((await carry(leg(), "cancel", "a", host))?.status).toBe("CANCELLED");
  await leg().cancel("cancel");
  await dev.start("late", "trigger", { steps: 3 });
  const answers = [new Response("", { status: 503 }), new Response("", { status: 500 })];
  await leg(async (...request) => answers.shift() ?? fetch(...request)).cancel("late");
  expect((await dev.ask("/runs/late")).status).toBe("CANCELLED");
  await dev.start("other", "client", { steps: 3 });
  await leg().cancel("other");
  expect((await dev.ask("/runs/other")).status).toBe("RUNNING");
});

test("after so many requests a successor goes on", async () => {
  await dev.start("legs", "trigger", { steps: 5 });
  expect(await carry(leg(), "legs", "a", new Plain(), 3)).toBeUndefined();
  expect(dev.called("legs")).toEqual(upTo(3));
  expect((await carry(leg(), "legs", "b", new Plain(), 3))?.status).toBe("COMPLETED");
  expect(dev.called("legs")).toEqual(upTo(5));
});
