// A plain chat of the AI SDK on our transport, against the real server.

import { Chat } from "@ai-sdk/react";
import { lastAssistantMessageIsCompleteWithApprovalResponses, type UIMessage } from "ai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RelayTransport, type RelayTransportOptions } from "../src/ai-sdk.js";
import { random } from "../src/http.js";
import { until } from "./support/follow.js";
import { Site } from "./support/site.js";

let site: Site;
beforeAll(async () => void (site = await Site.open()), 60_000);
afterAll(() => site.close());

function chat(o: RelayTransportOptions = {}, id = random(), messages: UIMessage[] = []) {
  const transport = new RelayTransport({ baseUrl: site.url, maxDelay: 50, ...o });
  return { id, transport, chat: new Chat({ id, transport, messages, sendAutomaticallyWhen: transport.answered }) };
}

const shown = ({ messages }: { messages: UIMessage[] }) =>
  messages.map(({ role, parts }) => [
    role,
    ...parts.flatMap((part) => {
      if (part.type === "text") return [part.text.trim()];
      if (part.type === "dynamic-tool") return [`${part.toolName} ${part.state}`];
      return part.type === "reasoning" ? [`(${part.text.trim()})`] : [];
    }),
  ]);

test("several rounds, each one message", async () => {
  const { chat: one, id } = chat();
  await one.sendMessage({ text: "2 steps" });
  await one.sendMessage({ text: "1 step" });
  expect(shown(one)).toEqual([
    ["user", "2 steps"],
    ["assistant", "(Looking at part 0.)", "look output-available", "(Looking at part 1.)", "look output-available",
      "I have looked at everything for “2 steps”."],
    ["user", "1 step"],
    ["assistant", "(Looking at part 2.)", "look output-available", "I have looked at everything for “1 step”."],
  ]); // prettier-ignore
  expect(one.messages.map((m) => m.id).filter((name) => name.startsWith(id))).toEqual([`${id}:0`, `${id}:1`]);
  expect(one.status).toBe("ready");
});

test.each([
  [true, "delete output-available", "14 branches deleted"],
  [false, "delete output-denied", "Nothing was deleted: not today."],
])("an approval that is %s", async (approved, tool, answer) => {
  const { chat: one } = chat();
  await one.sendMessage({ text: "approval" });
  const part = one.messages.at(-1)!.parts.find((p) => p.type === "dynamic-tool")!;
  expect(part).toMatchObject({ state: "approval-requested", input: { branches: 14 } });
  await one.addToolApprovalResponse({ id: part.approval!.id, approved, reason: "not today" });
  await until(() => one.status === "ready" && shown(one)[1]!.length > 2);
  expect(shown(one)).toEqual([
    ["user", "approval"],
    ["assistant", tool, answer],
  ]);
});

test("the AI SDK's own rule for answered approvals does as well", async () => {
  const { transport, id } = chat();
  const rule = lastAssistantMessageIsCompleteWithApprovalResponses;
  const one = new Chat({ id, transport, sendAutomaticallyWhen: rule });
  await one.sendMessage({ text: "approval" });
  const part = one.messages.at(-1)!.parts.find((p) => p.type === "dynamic-tool")!;
  await one.addToolApprovalResponse({ id: part.approval!.id, approved: true });
  await until(() => one.status === "ready" && shown(one)[1]!.includes("14 branches deleted"));
});

test("a question is a tool that the page answers", async () => {
  const { chat: one } = chat();
  await one.sendMessage({ text: "a question" });
  const part = one.messages.at(-1)!.parts.find((p) => p.type === "dynamic-tool")!;
  expect(part).toMatchObject({ toolName: "question", state: "input-available", input: { prompt: "Which colour?" } });
  await one.addToolOutput({ tool: "question", toolCallId: part.toolCallId, output: "blue" });
  await until(() => one.status === "ready" && shown(one)[1]!.length > 2);
  expect(shown(one)[1]).toEqual(["assistant", "question output-available", "So blue."]);
});

test("a question is answered by the next message as well", async () => {
  const { chat: one } = chat();
  await one.sendMessage({ text: "a question" });
  await one.sendMessage({ text: "red" });
  expect(shown(one).at(-1)).toEqual(["assistant", "So red."]);
});

test("what a broken attempt said is taken back", async () => {
  const { chat: one } = chat();
  await one.sendMessage({ text: "2 steps, stumbles" });
  expect(shown(one)[1]).toEqual([
    "assistant", "(Looking at part 0.)", "look output-available", "(Looking at part 1.)", "look output-available",
    "I have looked at everything for “2 steps, stumbles”.",
  ]); // prettier-ignore
});

test("a failure is an error, and regenerate goes on after it", async () => {
  const { chat: one, id } = chat();
  await one.sendMessage({ text: "3 steps, fails" });
  expect(one.status).toBe("error");
  expect(one.error!.message).toBe("the source is gone");
  await one.regenerate();
  expect((await site.get(`/runs/${id}`)).step).toBeGreaterThan(1);
});

test("a page that is opened again takes up the message where it is, and finishes it", async () => {
  const { chat: one, id } = chat({ stopsRun: false });
  const sent = one.sendMessage({ text: "3 steps, hold 1 reopened" });
  await until(() => shown(one)[1]?.includes("(Looking at part 1.)"));
  await one.stop();
  await sent;
  const { transport } = chat({}, id);
  const again = new Chat({ id, transport, messages: await transport.history(id) });
  expect(shown(again)).toEqual([
    ["user", "3 steps, hold 1 reopened"],
    ["assistant", "(Looking at part 0.)", "look output-available"],
  ]);
  const resumed = again.resumeStream();
  site.release("reopened");
  await resumed;
  expect(shown(again)).toHaveLength(2);
  expect(shown(again)[1]).toHaveLength(8);
  expect(again.messages[1]!.id).toBe(`${id}:0`);
  expect(await transport.reconnectToStream({ chatId: id })).toBeNull();
  expect(shown({ messages: await transport.history(id) })).toEqual(shown(again));
});

test("an approval survives a reload", async () => {
  const { chat: one, id } = chat();
  await one.sendMessage({ text: "approval" });
  const { transport } = chat({}, id);
  const again = new Chat({
    id,
    transport,
    messages: await transport.history(id),
    sendAutomaticallyWhen: transport.answered,
  });
  await again.resumeStream();
  const part = again.messages.at(-1)!.parts.find((p) => p.type === "dynamic-tool")!;
  expect(part.state).toBe("approval-requested");
  await again.addToolApprovalResponse({ id: part.approval!.id, approved: true });
  await until(() => again.status === "ready" && shown(again)[1]!.length > 2);
  expect(shown(again)[1]).toEqual(["assistant", "delete output-available", "14 branches deleted"]);
});

test("stop stops the run on the server", async () => {
  const { chat: one, id } = chat();
  const sent = one.sendMessage({ text: "9 steps, hold 1 never" });
  await until(() => shown(one)[1]?.includes("(Looking at part 1.)"));
  await one.stop();
  await sent;
  for (let run = await site.get(`/runs/${id}`); run.status !== "CANCELLED";) run = await site.get(`/runs/${id}?wait=5`);
  expect(one.status).toBe("ready");
});

test("a chat that nobody began has no history and no stream", async () => {
  const { transport, id } = chat();
  expect(await transport.history(id)).toEqual([]);
  expect(await transport.reconnectToStream({ chatId: id })).toBeNull();
});
