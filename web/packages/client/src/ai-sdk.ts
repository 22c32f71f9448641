import {
  isToolUIPart,
  readUIMessageStream,
  type ChatTransport,
  type DynamicToolUIPart,
  type ToolUIPart,
  type UIMessage,
  type UIMessageChunk,
} from "ai";
import { Chunks } from "./ai-sdk-chunks.js";
import { drive } from "./drive.js";
import { ask, path, patiently, RelayError } from "./http.js";
import type { components } from "./openapi.js";
import type { Answer, DriveOptions, Part, Run, RunView, StartOptions } from "./types.js";
import { cancel, respond, resume, start } from "./verbs.js";

type Steps = components["schemas"]["StepList"];
type Tool = ToolUIPart | DynamicToolUIPart;

/** How a chat reaches the server, and what its runs are like. */
export interface RelayTransportOptions
  extends Omit<DriveOptions, "signal" | "stay" | "from">, Omit<StartOptions, "prompt" | "sessionId" | "signal"> {
  /** Which run a chat is. By default the run is called like the chat: give `useChat` an `id` that survives a reload. */
  sessionId?: ((chatId: string) => string) | undefined;
  /** Whether `stop()` stops the run on the server as well. Default true; unmounting `useChat` calls it, too. */
  stopsRun?: boolean | undefined;
}

/** A run as it is talked to, and the token that came with it. */
interface Chat {
  run: Run;
  /** Counts streams: the newest one is the chat's. */
  streams: number;
  /** Interrupts that were answered from here. */
  sent: Set<string>;
}

/**
 * The transport that gives plain `useChat` runs of steprelay: a chat is a run, a round one assistant message.
 *
 * It drives the run from this tab, follows it when another tab does, and takes lost connections on itself. A message is the
 * next round's prompt, or the answer to a question; answered approvals go on in their message. `regenerate()` goes on after
 * a failure, a brake or a stop.
 */
export class RelayTransport<M extends UIMessage = UIMessage> implements ChatTransport<M> {
  /** A stream that is resumed tells its message from the beginning. */
  readonly resumeStreamIsReplay = true;
  private chats = new Map<string, Chat>();

  constructor(private options: RelayTransportOptions = {}) {}

  sendMessages: ChatTransport<M>["sendMessages"] = async ({ chatId, messages, trigger, abortSignal: signal }) => {
    const chat = this.chat(chatId);
    const last = messages.at(-1);
    const answers = last?.role === "assistant" && trigger === "submit-message" ? this.answers(chat, last) : [];
    const prompt = words(messages.findLast((message) => message.role === "user"));
    const row = await this.look(chat, signal);
    if (!row) {
      const { sessionId } = chat.run;
      chat.run = await start({ ...this.options, prompt, sessionId, signal });
      return this.stream(chat, new Chunks(sessionId), chat.run.view!, 0, 0, signal);
    }
    const from = row.step + 1;
    if (answers.length) {
      const now = await respond(chat.run, answers, { ...this.options, signal });
      for (const { interruptId } of answers) chat.sent.add(interruptId);
      return this.stream(
        chat,
        new Chunks(row.sessionId, shownCalls(row.sessionId, last!)),
        now,
        row.round,
        from,
        signal,
      );
    }
    if (last?.role === "assistant") return new ReadableStream({ start: (c) => c.close() }); // there is nothing to say
    const again = trigger === "regenerate-message" && row.isTerminal && row.stopReason !== "finished";
    const o = { ...this.options, signal };
    const now = again ? await resume(chat.run, undefined, o) : await respond(chat.run, prompt, o);
    // What is said after the user has spoken is another message, though it may belong to the same round.
    const round = row.isTerminal && !again ? row.round + 1 : last?.role === "user" ? `${row.round}.${from}` : row.round;
    return this.stream(chat, new Chunks(row.sessionId), now, round, from, signal);
  };

  reconnectToStream: ChatTransport<M>["reconnectToStream"] = async ({ chatId, abortSignal: signal }) => {
    const chat = this.chat(chatId);
    const row = await this.look(chat, signal);
    if (!row || row.isTerminal) return null;
    const steps = await this.steps(chat, signal);
    const from = steps.find((step) => step.round === row.round)?.index ?? row.step + 1;
    return this.stream(chat, new Chunks(row.sessionId), undefined, row.round, from, signal, true);
  };

  /** For `sendAutomaticallyWhen`: whatever the run asks in its last message is answered, and was not sent yet. */
  answered = ({ messages }: { messages: M[] }): boolean => {
    const last = messages.at(-1);
    if (last?.role !== "assistant") return false;
    const pending = last.parts.some(
      (part) => isToolUIPart(part) && (part.state === "approval-requested" || isOpenQuestion(part)),
    );
    return !pending && [...this.chats.values()].some((chat) => this.answers(chat, last).length > 0);
  };

  /** What was said in a chat so far, for its `messages`; empty when there is no such run. */
  history = async (chatId: string, signal?: AbortSignal): Promise<M[]> => {
    const chat = this.chat(chatId);
    const row = await this.look(chat, signal);
    if (!row) return [];
    const id = row.sessionId;
    const steps = await this.steps(chat, signal);
    const found: UIMessage[] = [];
    for (let round = 0; round <= row.round; round++) {
      const mine = steps.filter((step) => step.round === round);
      const parts = mine.map((step) => step.parts as unknown as Part[]);
      const asked = parts.flat().flatMap((part) => (part.type === "text" && part.role === "user" ? [part.text] : []));
      const prompt = asked.length ? asked : round === row.round && typeof row.prompt === "string" ? [row.prompt] : [];
      for (const [n, text] of prompt.entries())
        found.push({ id: `${id}:${round}:user${n}`, role: "user", parts: [{ type: "text", text }] });
      const teller = new Chunks(id);
      const chunks: UIMessageChunk[] = [{ type: "start", messageId: `${id}:${round}` }];
      mine.forEach(({ index }, n) =>
        parts[n]!.forEach((part, i) => chunks.push(...teller.part({ type: "part", at: [index, "c", i], part }))),
      );
      const newest = round === row.round && row.isTerminal ? row : { ...row, status: "RUNNING" as const };
      const asks = round === row.round && row.status === "AWAITING_INPUT" ? row : newest;
      chunks.push(...teller.end(asks).filter((chunk) => chunk.type !== "error"));
      if (mine.length) found.push(await built(chunks));
    }
    return found as M[];
  };

  // ---------------------------------------------------------------- inside

  private chat(chatId: string): Chat {
    const known = this.chats.get(chatId);
    if (known) return known;
    const { baseUrl, headers, fetch, token, sessionId } = this.options;
    const run = { baseUrl, headers, fetch, token, sessionId: sessionId?.(chatId) ?? chatId };
    const chat = { run, streams: 0, sent: new Set<string>() };
    this.chats.set(chatId, chat);
    return chat;
  }

  private async look({ run }: Chat, signal?: AbortSignal): Promise<RunView | null> {
    try {
      const o = { ...this.options, signal };
      const [row] = await patiently(() => ask<RunView>(run, path(run), {}, o), o);
      return row;
    } catch (error) {
      // Nobody knows this browser before its first run: then there is none.
      if (error instanceof RelayError && [401, 404].includes(error.status)) return null;
      throw error;
    }
  }

  private async steps({ run }: Chat, signal?: AbortSignal): Promise<Steps["steps"]> {
    const o = { ...this.options, signal };
    const found: Steps["steps"] = [];
    for (let after: number | null = -1; after !== null;) {
      const question = path(run, `/steps?limit=500&after=${after}`);
      const [page]: [Steps | null, Response] = await patiently(() => ask<Steps>(run, question, {}, o), o);
      found.push(...page!.steps);
      after = page!.after;
    }
    return found;
  }

  /** What a person has answered in this message and the server has not heard. */
  private answers(chat: Chat, message: UIMessage): Answer[] {
    return message.parts.flatMap((part): Answer[] => {
      if (!isToolUIPart(part)) return [];
      const answer = answerOf(part);
      return answer && !chat.sent.has(answer.interruptId) ? [answer] : [];
    });
  }

  private stream(
    chat: Chat,
    teller: Chunks,
    view: RunView | undefined,
    round: number | string,
    from: number,
    signal?: AbortSignal,
    again = false,
  ): ReadableStream<UIMessageChunk> {
    const mine = ++chat.streams;
    const { run } = chat;
    const life = new AbortController();
    const stop = () => {
      life.abort();
      if (this.options.stopsRun === false) return;
      const end = () => chat.streams === mine && void cancel(run, this.options).catch(() => {});
      // A resumed stream is also aborted when it is resumed once more.
      if (again) setTimeout(end, 500);
      else end();
    };
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
    const told = this.tell({ ...run, view }, teller, { ...this.options, from, signal: life.signal });
    const first: UIMessageChunk = { type: "start", messageId: `${run.sessionId}:${round}` };
    return new ReadableStream<UIMessageChunk>({
      start: (controller) => controller.enqueue(first),
      async pull(controller) {
        try {
          const { done, value } = await told.next();
          if (!done) return value.forEach((chunk) => controller.enqueue(chunk));
        } catch (error) {
          return controller.error(error);
        }
        signal?.removeEventListener("abort", stop);
        controller.close();
      },
      cancel: () => life.abort(),
    });
  }

  /** Batches of chunks, none of them empty. */
  private async *tell(run: Run, teller: Chunks, o: DriveOptions): AsyncGenerator<UIMessageChunk[]> {
    for await (const event of drive(run, o)) {
      if (event.type === "part") {
        const chunks = teller.part(event);
        if (chunks.length) yield chunks;
      } else if (event.type === "envelope" || event.type === "run") {
        const now = event.type === "run" ? event.run : event.envelope;
        if (["input", "none"].includes(now.next.action)) yield teller.end(now);
      }
    }
  }
}

const words = (message?: UIMessage): string =>
  (message?.parts ?? []).map((part) => (part.type === "text" ? part.text : "")).join("");

const interruptOf = (part: Tool): string | undefined =>
  (part.toolMetadata as { steprelay?: { interruptId?: string } } | undefined)?.steprelay?.interruptId;

const isOpenQuestion = (part: Tool): boolean => part.state === "input-available" && interruptOf(part) !== undefined;

function answerOf(part: Tool): Answer | undefined {
  const question = interruptOf(part);
  if (part.state === "approval-responded") {
    const { id, approved, reason } = part.approval;
    return { interruptId: id, status: "resolved", payload: reason ? { approved, reason } : { approved } };
  }
  if (question && part.state === "output-available")
    return { interruptId: question, status: "resolved", payload: part.output };
  if (question && part.state === "output-error")
    return { interruptId: question, status: "cancelled", payload: { reason: part.errorText } };
  return undefined;
}

/** The calls a message shows without a result: the agent's id -> the name in the message. */
function shownCalls(run: string, { parts }: UIMessage): [string, string][] {
  return parts.flatMap((part): [string, string][] => {
    if (!isToolUIPart(part) || !["input-available", "approval-responded"].includes(part.state)) return [];
    const name = part.toolCallId;
    if (!name.startsWith(`${run}:`)) return [];
    const [, id] = /^\d+\.\w+:(.*)$/s.exec(name.slice(run.length + 1)) ?? [];
    return id === undefined ? [] : [[id, name]];
  });
}

async function built(chunks: UIMessageChunk[]): Promise<UIMessage> {
  let message: UIMessage | undefined;
  const stream = new ReadableStream<UIMessageChunk>({
    start: (c) => {
      chunks.forEach((chunk) => c.enqueue(chunk));
      c.close();
    },
  });
  for await (const state of readUIMessageStream({ stream })) message = state;
  return message!;
}
