// AG-UI's own agent, on our runs, against the real server.

import type { BaseEvent, Message } from "@ag-ui/client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RelayAgent, type RelayAgentConfig } from "../src/ag-ui.js";
import { random } from "../src/http.js";
import { until } from "./support/follow.js";
import { Site } from "./support/site.js";

let site: Site;
beforeAll(async () => void (site = await Site.open()), 60_000);
afterAll(() => site.close());

const agent = (o: RelayAgentConfig = {}) =>
  new RelayAgent({ baseUrl: site.url, maxDelay: 50, threadId: random(), ...o });

function say(to: RelayAgent, content: string) {
  to.addMessage({ id: random(), role: "user", content });
  return to;
}

const shown = (messages: Message[]) =>
  messages.map((m) => {
    if (m.role === "assistant" && m.toolCalls) return `${m.toolCalls[0]!.function.name}()`;
    return `${m.role}: ${String(m.content).trim()}`;
  });

test("a run over many requests is one AG-UI run; the next prompt is the next", async () => {
  const one = say(agent(), "2 steps");
  const heard: BaseEvent[] = [];
  one.subscribe({ onEvent: ({ event }) => void heard.push(event) });
  const { result } = await one.runAgent();
  expect(result).toBe("I have looked at everything for “2 steps”.");
  expect(heard.filter(({ type }) => type.startsWith("RUN_")).map(({ type }) => type)).toEqual([
    "RUN_STARTED",
    "RUN_FINISHED",
  ]);
  expect(heard.filter(({ type }) => type === "STEP_STARTED")).toHaveLength(2);
  await say(one, "1 step").runAgent();
  expect(shown(one.messages)).toEqual([
    "user: 2 steps",
    "reasoning: Looking at part 0.",
    "look()",
    'tool: ["part 0: nothing unusual"]',
    "reasoning: Looking at part 1.",
    "look()",
    'tool: ["part 1: nothing unusual"]',
    "assistant: I have looked at everything for “2 steps”.",
    "user: 1 step",
    "reasoning: Looking at part 2.",
    "look()",
    'tool: ["part 2: nothing unusual"]',
    "assistant: I have looked at everything for “1 step”.",
  ]);
});

test("an approval interrupts, and is answered by resume", async () => {
  const one = say(agent(), "approval");
  await one.runAgent();
  const [asked] = one.pendingInterrupts;
  expect(asked).toMatchObject({ reason: "confirmation", message: "May delete run?" });
  expect(
    one.messages.some((m) => m.role === "assistant" && m.toolCalls?.some(({ id }) => id === asked!.toolCallId)),
  ).toBe(true);
  await one.runAgent({ resume: [{ interruptId: asked!.id, status: "resolved", payload: { approved: true } }] });
  expect(shown(one.messages)).toEqual([
    "user: approval",
    "delete()",
    "tool: 14 branches deleted",
    "assistant: 14 branches deleted",
  ]);
  expect(one.pendingInterrupts).toEqual([]);
});

test("what a broken attempt said and thought is taken back", async () => {
  const one = say(agent(), "2 steps, stumbles");
  await one.runAgent();
  expect(shown(one.messages)).toEqual([
    "user: 2 steps, stumbles",
    "reasoning: Looking at part 0.",
    "look()",
    'tool: ["part 0: nothing unusual"]',
    "reasoning: Looking at part 1.",
    "look()",
    'tool: ["part 1: nothing unusual"]',
    "assistant: I have looked at everything for “2 steps, stumbles”.",
  ]);
});

test("a failure is told as one", async () => {
  const one = say(agent(), "3 steps, fails");
  let failure: string | undefined;
  one.subscribe({ onRunErrorEvent: ({ event }) => void (failure = event.message) });
  await one.runAgent();
  expect(failure).toBe("the source is gone");
});

test("abortRun stops the run on the server", async () => {
  const one = say(agent(), "9 steps, hold 1 never");
  const running = one.runAgent();
  await until(() => shown(one.messages).includes("reasoning: Looking at part 1."));
  one.abortRun();
  await running;
  const path = `/runs/${one.threadId}?wait=5`;
  for (let run = await site.get(path); run.status !== "CANCELLED";) run = await site.get(path);
});

test("a thread is opened again in the middle, and followed to its end", async () => {
  const one = say(agent({ stopsRun: false }), "3 steps, hold 1 opened");
  const running = one.runAgent();
  await until(() => shown(one.messages).includes("reasoning: Looking at part 1."));
  one.abortRun();
  await running;
  const again = agent({ threadId: one.threadId });
  const connected = again.connectAgent();
  await until(() => again.messages.length > 3);
  site.release("opened");
  await connected;
  expect(shown(again.messages).slice(0, 2)).toEqual(["user: 3 steps, hold 1 opened", "reasoning: Looking at part 0."]);
  expect(shown(again.messages).at(-1)).toContain("I have looked at everything");
  expect(new Set(again.messages.map(({ id }) => id)).size).toBe(again.messages.length);
});
