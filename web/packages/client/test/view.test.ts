import { expect, test } from "vitest";
import { fold, idle, view, type Part, type RunEvent, type Snapshot } from "../src/index.js";

const said = (step: number, attempt: number | "c", ...parts: Part[]): RunEvent[] =>
  parts.map((part, i) => ({ type: "part", at: [step, attempt, i], part }));
const after = (...events: RunEvent[]): Snapshot => events.reduce(fold, idle);
const call = (id: string, args: unknown): Part => ({ type: "call", id, name: "search", args });
const result = (id: string, value: unknown): Part => ({ type: "result", id, name: "search", value });

test("a tool runs until its result comes, in the same step or a later one", () => {
  const asked = said(0, "c", call("a", 1), call("b", 2));
  const tools = (...more: RunEvent[]) => view(after(...asked, ...more)).tools.map((t) => [t.args, t.status, t.value]);
  expect(tools()).toEqual([
    [1, "running", undefined],
    [2, "running", undefined],
  ]);
  expect(tools(...said(1, "c", result("b", "B"), { ...result("a", "A"), status: "denied" } as Part))).toEqual([
    [1, "denied", "A"],
    [2, "ok", "B"],
  ]);
});

test("a call of the same id in a later step is another call", () => {
  const steps = [0, 1].flatMap((i) => said(i, "c", call("0", i), result("0", `found ${i}`)));
  expect(view(after(...steps)).tools.map((t) => [t.step, t.args, t.value])).toEqual([
    [0, 0, "found 0"],
    [1, 1, "found 1"],
  ]);
});

test("pieces of several texts are kept apart", () => {
  const piece = (type: "text" | "thought", id: string, text: string): Part => ({ type, id, text, delta: true });
  const pieces = [
    piece("thought", "1", "Let "),
    piece("text", "2", "It "),
    piece("thought", "1", "me."),
    piece("text", "2", "is."),
  ];
  const { words, partial, thoughts } = view(after(...said(0, 1, ...pieces)));
  expect(words.map((w) => [w.type, w.text, w.partial])).toEqual([
    ["thought", "Let me.", true],
    ["text", "It is.", true],
  ]);
  expect({ partial, thoughts }).toEqual({ partial: "It is.", thoughts: ["Let me."] });
});

test("what a step said live and did not keep is gone when it is committed", () => {
  const live = said(0, 1, { type: "text", text: "Hm", id: "t", delta: true });
  const envelope = { step: 0, status: "CONTINUE", usage: {} } as never;
  expect(view(after(...live, { type: "envelope", envelope, taken: true, replayed: false })).words).toEqual([]);
});

test("a replayed step is counted once", () => {
  const envelope = { step: 0, status: "CONTINUE", usage: { requests: 1, inputTokens: 5 } } as never;
  const told: RunEvent = { type: "envelope", envelope, taken: true, replayed: false };
  expect(after(told, { ...told, replayed: true }).usage).toMatchObject({ requests: 1, inputTokens: 5 });
});

test("another attempt's words never follow on those of the one before", () => {
  const piece = (attempt: number, index: number, text: string): RunEvent => ({
    type: "part",
    at: [0, attempt, index],
    part: { type: "text", id: "t", text, delta: true },
  });
  expect(view(after(piece(1, 0, "One "), piece(1, 1, "tea"), piece(2, 0, "Two "))).partial).toBe("Two ");
  expect(view(after(piece(1, 0, "One "), piece(2, 1, "cups"))).partial).toBe("cups");
});

test("of a run that is carried elsewhere the row's tail is what is being said", () => {
  const run = { status: "RUNNING", step: 0, tail: "It is", usage: {} } as never;
  expect(view(after({ type: "run", run })).partial).toBe("It is");
  const live = said(1, 1, { type: "text", text: "It is nice", id: "t", delta: true });
  expect(view(after({ type: "run", run }, ...live)).partial).toBe("It is nice");
});
