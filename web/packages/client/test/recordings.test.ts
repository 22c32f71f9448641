// Streams that the real server has spoken, read by the protocols' own clients and, from their plain parts, by ours.

import { AbstractAgent, type BaseEvent } from "@ag-ui/client";
import { readUIMessageStream, type UIMessage, type UIMessageChunk } from "ai";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { from, type Observable } from "rxjs";
import { expect, test } from "vitest";
import { Chunks } from "../src/ai-sdk-chunks.js";
import { Events } from "../src/ag-ui-events.js";
import type { Envelope, Part } from "../src/index.js";
import { cursor } from "../src/pulse.js";
import { RECORDINGS } from "./support/site.js";

interface Recorded {
  event?: string;
  id?: string;
  data: any;
}

const names = [...new Set(readdirSync(RECORDINGS).map((name) => name.split(".")[0]!))];
const recorded = (name: string, protocol: string): Recorded[] =>
  readFileSync(join(RECORDINGS, `${name}.${protocol}.jsonl`), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

// ---------------------------------------------------------------- AI SDK

/** The messages of a chat, as `useChat` builds them; what a round says goes into one. */
async function messages(chunks: UIMessageChunk[]): Promise<UIMessage[]> {
  const found: UIMessage[] = [];
  const stops = chunks.flatMap((chunk, i) => (chunk.type === "start" ? [i] : []));
  for (const [n, begin] of stops.entries()) {
    const stream = new ReadableStream<UIMessageChunk>({
      start: (c) => {
        chunks.slice(begin, stops[n + 1]).forEach((chunk) => c.enqueue(chunk));
        c.close();
      },
    });
    const id = (chunks[begin] as { messageId: string }).messageId;
    const known = found.find((one) => one.id === id);
    let message = known && structuredClone(known);
    for await (const state of readUIMessageStream({ stream, terminateOnError: true, ...(message && { message }) }))
      message = state;
    if (known) found[found.indexOf(known)] = message!;
    else found.push(message!);
  }
  return found;
}

/** What a page shows of them: everything but ids. */
const shape = (all: UIMessage[]) =>
  all.map(({ id, parts }) => ({
    id,
    parts: parts.flatMap((part): unknown[] => {
      switch (part.type) {
        case "text":
        case "reasoning":
          return [[part.type, part.text.trim().replace(": ", ":"), part.state]];
        case "dynamic-tool":
          return [[part.toolName, part.state, part.input, part.output, part.approval?.id]];
        case "step-start":
          return [];
        default:
          return [part.type];
      }
    }),
  }));

const spoken = (name: string): UIMessageChunk[] =>
  recorded(name, "aisdk").flatMap(({ data }) => (data === "[DONE]" ? [] : [data]));

test.each(names.filter((name) => name !== "error"))("the AI SDK reads %s", async (name) => {
  const told = await messages(spoken(name));
  for (const { parts } of told)
    for (const part of parts)
      if (part.type === "text" || part.type === "reasoning") {
        expect(part.state).toBe("done");
        expect(part.text).not.toBe("");
      }
  const texts = told.flatMap(({ parts }) => parts.flatMap((p) => (p.type === "text" ? [p.text.trim()] : [])));
  expect(new Set(texts).size).toBe(texts.length);
});

test("the AI SDK reads an error", async () => {
  await expect(messages(spoken("error"))).rejects.toThrow("the source is gone");
});

/** The same from plain parts, as `drive` tells them. */
function chunked(name: string): UIMessageChunk[] {
  const chunks: UIMessageChunk[] = [];
  let round = 0;
  let teller = new Chunks("r");
  const begin = () => chunks.push({ type: "start", messageId: `r:${round}` });
  let begun = false;
  for (const { event, id, data } of recorded(name, "plain")) {
    if (!begun) begin();
    begun = true;
    if (event === "part") chunks.push(...teller.part({ type: "part", at: cursor(id!), part: data.part as Part }));
    else if (event === "envelope" && ["input", "none"].includes(data.next.action)) {
      chunks.push(...teller.end(data as Envelope));
      begun = false;
      if (data.isTerminal) {
        round++;
        teller = new Chunks("r");
      }
    }
  }
  return chunks;
}

test.each(names.filter((name) => !["error", "page_opened", "reopened"].includes(name)))(
  "our chunks of %s make the messages of the server's",
  async (name) => {
    expect(shape(await messages(chunked(name)))).toEqual(shape(await messages(spoken(name))));
  },
);

// ---------------------------------------------------------------- AG-UI

/** Plays AG-UI runs: every `runAgent` the next one. */
class Player extends AbstractAgent {
  constructor(private runs: BaseEvent[][]) {
    super({ threadId: "r", initialMessages: [{ id: "mine", role: "user", content: "go" }] });
  }
  run(): Observable<BaseEvent> {
    return from(this.runs.shift()!);
  }
}

/** The AG-UI runs of a recording, one stream each. A reader closes what a cut left open. */
function runs(name: string): BaseEvent[][] {
  const found: BaseEvent[][] = [];
  let open: BaseEvent[] = [];
  for (const { id, data } of recorded(name, "agui")) {
    if (id?.endsWith(".0.0")) {
      found.at(-1)?.push(...open.reverse());
      open = [];
    }
    if (data.type === "RUN_STARTED") found.push([]);
    found.at(-1)!.push(data);
    const closes = CLOSES[data.type];
    if (closes) open.push({ ...data, type: closes });
    else open = open.filter((e) => !(e.type === data.type && same(e, data)));
  }
  return found;
}

const CLOSES: Record<string, any> = {
  STEP_STARTED: "STEP_FINISHED",
  TEXT_MESSAGE_START: "TEXT_MESSAGE_END",
  REASONING_START: "REASONING_END",
  REASONING_MESSAGE_START: "REASONING_MESSAGE_END",
};
const same = (a: any, b: any) => a.messageId === b.messageId && a.stepName === b.stepName;

async function played(runs: BaseEvent[][], answers: string[] = []): Promise<AbstractAgent> {
  const agent = new Player(runs);
  while (runs.length) {
    const resume = agent.pendingInterrupts.map(({ id }) => ({ interruptId: id, status: "resolved" as const }));
    await agent.runAgent(resume.length ? { resume } : {});
    answers.push(
      ...agent.messages.flatMap((m) => (m.role === "assistant" && typeof m.content === "string" ? [m.content] : [])),
    );
  }
  return agent;
}

test.each(names)("AG-UI's client reads %s", async (name) => {
  const agent = await played(runs(name));
  const texts = agent.messages.flatMap((m) => (m.role === "assistant" && m.content ? [m.content.trim()] : []));
  expect(new Set(texts).size).toBe(texts.length);
  expect(agent.messages[0]!.role).toBe("user");
  expect(agent.messages.filter((m) => m.role === "user").length).toBe(name === "second_round" ? 2 : 1);
});

/** The same from plain parts. */
function evented(name: string): BaseEvent[][] {
  const found: BaseEvent[][] = [];
  let known: any[] = [{ id: "mine", role: "user", content: "go" }];
  let teller: Events | undefined;
  for (const { event, id, data } of recorded(name, "plain")) {
    if (!teller) {
      teller = new Events("r", `run${found.length}`, known);
      found.push(teller.started());
    }
    if (event === "part")
      found.at(-1)!.push(...teller.part({ type: "part", at: cursor(id!), part: data.part as Part }));
    else if (event === "envelope" && ["input", "none"].includes(data.next.action)) {
      found.at(-1)!.push(...teller.end(data as Envelope));
      known = teller.messages;
      teller = undefined;
    }
  }
  return found;
}

const said = (agent: AbstractAgent) =>
  agent.messages
    .filter((m) => m.role !== "user")
    .map((m) => [
      m.role,
      typeof m.content === "string" ? m.content.trim().replace(": ", ":") : null,
      m.role === "assistant" ? (m.toolCalls ?? []).map((call) => [call.function.name, call.function.arguments]) : [],
    ]);

test.each(names.filter((name) => !["page_opened", "reopened", "second_round"].includes(name)))(
  "our events of %s make the messages of the server's",
  async (name) => {
    expect(said(await played(evented(name)))).toEqual(said(await played(runs(name))));
  },
);
