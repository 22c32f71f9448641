import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { pulse, RelayError, respond, start } from "../src/index.js";
import { carry, follow, text, until } from "./support/follow.js";
import { Relay, type Fault } from "./support/server.js";

const STEPS = [["One ", "tea, ", "twö."], ["Three ", "🫖 four."], ["Five."]];
const WHOLE = STEPS.map((words) => words.join(""));

let relay: Relay;
beforeAll(async () => void (relay = await Relay.open()));
afterAll(() => relay.close());
beforeEach(() => {
  Object.assign(relay, {
    faults: [],
    script: { steps: STEPS },
    gate: undefined,
    faulty: (r: string) => r.endsWith("/step"),
  });
  relay.log.length = 0;
});

const asked = () => relay.log.filter((line) => line.includes("/step"));

test("a run costs one request to make it and one for each step", async () => {
  const { snapshot, run } = await carry(relay.url);
  expect(snapshot.status).toBe("COMPLETED");
  expect([0, 1, 2].map((i) => text(snapshot, i))).toEqual(WHOLE);
  expect(relay.log).toEqual(["POST /runs", ...[0, 1, 2].map((i) => `POST /runs/${run.sessionId}/step ${i}`)]);
  expect(snapshot.usage).toMatchObject({ requests: 3, inputTokens: 30 });
});

test.each<[string, Fault[], string[]]>([
  ["no connection", [{ refuse: true }, { refuse: true }], WHOLE],
  ["408", [{ status: 408 }], WHOLE],
  ["425", [{ status: 425 }], WHOLE],
  ["429", [{ status: 429 }], WHOLE],
  ["503", [{ status: 503 }, { status: 500 }], WHOLE],
  ["an answer that is cut", [{ cut: 90 }], WHOLE],
  ["an answer that is cut before its envelope", [{ cut: 700 }], WHOLE],
  ["every event twice", [{ twice: true }, { twice: true }, { twice: true }], WHOLE],
  ["a byte at a time", [{ dribble: 1 }], WHOLE],
  ["a proxy that answers JSON", [{ plain: true }, {}, { plain: true }], WHOLE],
  ["a connection that falls silent", [{ hang: 60 }], WHOLE],
  ["a process killed in the middle", [{ kill: true, cut: 150 }], ["One '2tea, '2twö.'2", ...WHOLE.slice(1)]],
  [
    "two processes killed",
    [
      { kill: true, cut: 150 },
      { kill: true, cut: 250 },
    ],
    ["One '3tea, '3twö.'3", ...WHOLE.slice(1)],
  ],
])("%s is survived", async (_, faults, wanted) => {
  relay.faults = faults;
  const broken = faults.filter((f) => f.refuse || f.status || f.cut || f.hang);
  const silence = faults.some((f) => f.hang) ? 300 : undefined;
  const { snapshot, run, events } = await carry(relay.url, { silence });
  expect(events.filter((e) => e.type === "retry").length).toBeGreaterThanOrEqual(broken.length);
  expect([0, 1, 2].map((i) => text(snapshot, i))).toEqual(wanted);
  expect(relay.texts(run.sessionId)).toEqual(wanted);
});

test.each([400, 403, 404, 422])("%i is final", async (status) => {
  relay.faults = [{ status }];
  await expect(carry(relay.url)).rejects.toMatchObject({ status, code: "told_to" });
  expect(asked()).toHaveLength(1);
});

test("Retry-After is honoured, in seconds and as a date", async () => {
  relay.faults = [
    { status: 503, retryAfter: "0.05" },
    { status: 503, retryAfter: new Date(Date.now() - 5000).toUTCString() },
  ];
  const { events } = await carry(relay.url);
  const retries = events.filter((e) => e.type === "retry");
  expect(retries.map((e) => [e.tries, e.ms, e.error.status])).toEqual([
    [1, 50, 503],
    [2, 0, 503],
  ]);
});

test("tries start over when something new was heard", async () => {
  const cut = (n: number) => Array.from({ length: n }, () => ({ kill: true, cut: 20 }));
  const deaths = Array.from({ length: 5 }, () => ({ kill: true, hang: 250 })); // each attempt says something
  relay.faults = [...cut(3), ...deaths, ...cut(3)];
  const { snapshot } = await carry(relay.url, { maxTries: 4, silence: 500 });
  expect(snapshot.status).toBe("COMPLETED");
  relay.faults = cut(5);
  await expect(carry(relay.url, { maxTries: 4 })).rejects.toBeInstanceOf(RelayError);
});

test("pulse takes one step, and tells each part once", async () => {
  const run = await start({ baseUrl: relay.url, prompt: "hi" });
  relay.faults = [{ twice: true }];
  const told: string[] = [];
  const one = pulse(run, { step: 0 });
  let next = await one.next();
  for (; !next.done; next = await one.next())
    told.push(next.value.type === "part" ? next.value.at.join(".") : next.value.type);
  expect(told).toEqual(["0.1.0", "0.1.1", "0.1.2", "0.c.0", "0.c.1", "0.c.2", "envelope"]);
  expect(next.value).toMatchObject({ step: 0, status: "CONTINUE" });
});

test("a run whose creation was lost is made once", async () => {
  relay.faulty = (request) => request === "POST /runs";
  relay.faults = [{ cut: 10 }, { refuse: true }, { status: 503 }];
  const before = relay.runs.size;
  await carry(relay.url);
  expect(relay.runs.size).toBe(before + 1);
});

test("a reload goes on where the page was left, without a doubled word", async () => {
  const run = await start({ baseUrl: relay.url, prompt: "hi" });
  const leaving = new AbortController();
  await follow(run, { signal: leaving.signal }, (_, e) => e.type === "part" && e.at[0] === 1 && leaving.abort());
  const { snapshot } = await follow({ baseUrl: relay.url, sessionId: run.sessionId });
  expect([0, 1, 2].map((i) => text(snapshot, i))).toEqual(relay.texts(run.sessionId));
  expect(snapshot.usage.requests).toBe(3);
});

test("a token that is too old gives way to the browser's cookie", async () => {
  const run = await start({ baseUrl: relay.url, prompt: "hi" });
  relay.faults = [{ status: 401 }];
  const { snapshot } = await follow(run);
  expect(snapshot.status).toBe("COMPLETED");
  expect(run.token).toBeUndefined();
  relay.faults = [{ status: 401 }];
  await expect(follow({ ...run }, {})).rejects.toMatchObject({ status: 401 });
});

test("steps that were taken before are told again", async () => {
  const run = await start({ baseUrl: relay.url, prompt: "hi" });
  await follow(run);
  const { snapshot } = await follow(run); // still believes that nothing was taken
  expect([0, 1, 2].map((i) => text(snapshot, i))).toEqual(WHOLE);
  expect(snapshot.usage.requests).toBe(3);
});

test("steps that another driver took are caught up with", async () => {
  const run = await start({ baseUrl: relay.url, prompt: "hi" });
  relay.advance(run.sessionId);
  relay.advance(run.sessionId);
  const { snapshot } = await follow(run);
  expect([0, 1, 2].map((i) => text(snapshot, i))).toEqual(WHOLE);
  expect(snapshot.usage.requests).toBe(3);
  expect(asked()).toHaveLength(2);
});

test("a run that another kind of driver carries is followed, not driven", async () => {
  const run = await start({ baseUrl: relay.url, prompt: "hi", carrier: "background" });
  const reading = follow(run);
  await until(() => relay.log.includes(`GET /runs/${run.sessionId}`));
  relay.advance(run.sessionId);
  await until(() => relay.log.includes(`GET /runs/${run.sessionId}/parts`));
  relay.advance(run.sessionId);
  relay.advance(run.sessionId);
  const { snapshot } = await reading;
  expect(snapshot.status).toBe("COMPLETED");
  expect([0, 1, 2].map((i) => text(snapshot, i))).toEqual(WHOLE);
  expect(asked()).toEqual([]);
});

test("a question ends the drive, its answer lets it go on", async () => {
  relay.script = { steps: STEPS, asks: 1 };
  const { run, snapshot } = await carry(relay.url);
  expect(snapshot.status).toBe("AWAITING_INPUT");
  expect(snapshot.envelope!.interrupts[0]!.prompt).toBe("Which?");
  const view = await respond(run, [{ interruptId: "i1", payload: "this" }]);
  const after = await follow({ ...run, view }, { from: 2 });
  expect(after.snapshot.status).toBe("COMPLETED");
  expect(asked()).toHaveLength(3);
});

test("a timer is waited for", async () => {
  relay.script = { steps: STEPS, waits: { step: 0, ms: 60 } };
  const { snapshot } = await carry(relay.url);
  expect(snapshot.status).toBe("COMPLETED");
});

test("the client has a brake of its own", async () => {
  relay.script = { steps: Array.from({ length: 9 }, () => ["x"]) };
  await expect(carry(relay.url, { maxSteps: 4 })).rejects.toMatchObject({ code: "client_brake" });
  expect(asked()).toHaveLength(4);
});

const fault: fc.Arbitrary<Fault> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ cut: fc.nat(1400), kill: fc.boolean(), dribble: fc.constantFrom(7, 50, 2000) }),
  },
  fc.record({ twice: fc.constant(true), dribble: fc.constantFrom(5, 2000) }),
  fc.record({ status: fc.constantFrom(429, 500, 503) }),
  fc.constant({ refuse: true }),
);

test("wherever it is cut, killed or doubled: one coherent text", async () => {
  const prefixes = STEPS.map((words) =>
    [1, 2, 3, 4, 5, 6, 7].flatMap((n) => {
      const said = words.map((w) => (n > 1 ? `${w}'${n}` : w));
      return [0, ...said.keys()].map((i) => said.slice(0, i + 1).join("")).concat("");
    }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(fault, { maxLength: 6 }), async (faults) => {
      relay.faults = [...faults];
      const run = await start({ baseUrl: relay.url, prompt: "hi" });
      const { snapshot } = await follow(run, {}, (s) => {
        for (const step of s.steps) expect(prefixes[step.index]).toContain(text(s, step.index));
      });
      relay.faults = [];
      expect(STEPS.map((_, i) => text(snapshot, i))).toEqual(relay.texts(run.sessionId));
      expect(snapshot.steps.every((step) => step.attempt === "c")).toBe(true);
    }),
    { numRuns: 150, interruptAfterTimeLimit: 10_000 },
  );
}, 60_000);
