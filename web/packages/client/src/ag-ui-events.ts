import { EventType, type BaseEvent, type Interrupt as AgUiInterrupt, type Message } from "@ag-ui/core";
import { askedAbout, shown, Teller, type Kind, type Result, type Standing } from "./teller.js";
import type { Interrupt } from "./types.js";

/**
 * Parts of a run as AG-UI events: the run is the thread, everything up to a question or an end one AG-UI run.
 *
 * `messages`: the conversation as the reader has it, with what is told here; what is to go goes with a snapshot of it.
 */
export class Events extends Teller<BaseEvent> {
  private before: Message[];

  constructor(
    run: string,
    private runId: string,
    public messages: Message[],
  ) {
    super(run);
    this.before = messages;
    this.open = new Map(openCalls(run, messages));
  }

  started(): BaseEvent[] {
    return [event("RUN_STARTED", { threadId: this.run, runId: this.runId, protocolVersion: "1.0" })];
  }

  /** Somebody else's words, which the reader does not have yet. */
  prompted(id: string, content: string): BaseEvent[] {
    this.add({ id, role: "user", content });
    return this.snapshot();
  }

  snapshot(): BaseEvent[] {
    return [event("MESSAGES_SNAPSHOT", { messages: this.messages })];
  }

  protected entered(step: number): BaseEvent[] {
    this.before = this.messages;
    return [event("STEP_STARTED", { stepName: `step ${step}` })];
  }

  protected left(step: number): BaseEvent[] {
    return [event("STEP_FINISHED", { stepName: `step ${step}` })];
  }

  /** A snapshot without thoughts leaves those of the reader alone; one with a thought in the first message's place does not. */
  protected retracted(): BaseEvent[] {
    const gone = this.messages.slice(this.before.length);
    this.messages = this.before;
    const [first, ...others] = this.messages;
    const kept = this.messages.some((message) => message.role === "reasoning");
    if (!first || kept || !gone.some((message) => message.role === "reasoning")) return this.snapshot();
    const thought = { id: first.id, role: "reasoning", content: "" } as Message;
    return [event("MESSAGES_SNAPSHOT", { messages: [thought, ...others] }), ...this.snapshot()];
  }

  protected starts(kind: Kind, messageId: string): BaseEvent[] {
    this.add({ id: messageId, role: kind === "text" ? "assistant" : "reasoning", content: "" });
    if (kind === "text") return [event("TEXT_MESSAGE_START", { messageId, role: "assistant" })];
    return [
      event("REASONING_START", { messageId }),
      event("REASONING_MESSAGE_START", { messageId, role: "reasoning" }),
    ];
  }

  protected grows(kind: Kind, messageId: string, delta: string): BaseEvent {
    this.messages = this.messages.map((message) =>
      message.id === messageId ? ({ ...message, content: `${message.content}${delta}` } as Message) : message,
    );
    return event(kind === "text" ? "TEXT_MESSAGE_CONTENT" : "REASONING_MESSAGE_CONTENT", { messageId, delta });
  }

  protected ends(kind: Kind, messageId: string): BaseEvent[] {
    if (kind === "text") return [event("TEXT_MESSAGE_END", { messageId })];
    return [event("REASONING_MESSAGE_END", { messageId }), event("REASONING_END", { messageId })];
  }

  protected calls(toolCallId: string, name: string, args: unknown): BaseEvent[] {
    const delta = JSON.stringify(args ?? {});
    const call = { id: toolCallId, type: "function" as const, function: { name, arguments: delta } };
    this.add({ id: toolCallId, role: "assistant", toolCalls: [call] });
    return [
      event("TOOL_CALL_START", { toolCallId, toolCallName: name }),
      event("TOOL_CALL_ARGS", { toolCallId, delta }),
      event("TOOL_CALL_END", { toolCallId }),
    ];
  }

  protected answers(toolCallId: string, { status, value }: Result): BaseEvent[] {
    const content = status && status !== "ok" ? `${status}: ${shown(value)}` : shown(value ?? null);
    const messageId = `${toolCallId}:result`;
    const made = this.messages.findIndex(
      (m) => m.role === "assistant" && m.toolCalls?.some(({ id }) => id === toolCallId),
    );
    this.messages = this.messages.toSpliced(made + 1, 0, { id: messageId, role: "tool", toolCallId, content });
    return [event("TOOL_CALL_RESULT", { messageId, toolCallId, content, role: "tool" })];
  }

  protected state(snapshot: unknown): BaseEvent[] {
    return [event("STATE_SNAPSHOT", { snapshot })];
  }

  protected ending({ status, stopReason, output, error, interrupts }: Standing): BaseEvent[] {
    const ids = { threadId: this.run, runId: this.runId };
    switch (status) {
      case "COMPLETED":
        return [
          event("RUN_FINISHED", { ...ids, outcome: { type: "success" }, ...(output != null && { result: output }) }),
        ];
      case "AWAITING_INPUT": {
        const outcome = { type: "interrupt", interrupts: interrupts.map((one) => this.interrupt(one)) };
        return [event("RUN_FINISHED", { ...ids, outcome })];
      }
      case "CANCELLED":
        return [event("RUN_FINISHED", { ...ids, outcome: { type: "cancelled" } })];
      default: {
        const { message = "The run failed.", code = stopReason ?? "agent_error" } = error ?? {};
        return [event("RUN_ERROR", { message, code })];
      }
    }
  }

  private interrupt(asked: Interrupt): AgUiInterrupt {
    const { id, kind, prompt, payload, schema } = asked;
    const toolCallId = this.open.get(askedAbout(asked));
    return {
      id,
      reason: kind === "approval" ? "confirmation" : "input_required",
      message: prompt,
      metadata: { payload },
      ...(toolCallId && { toolCallId }),
      ...(schema && typeof schema === "object" ? { responseSchema: schema as Record<string, unknown> } : {}),
    };
  }

  private add(message: Message) {
    this.messages = [...this.messages, message];
  }
}

const event = (type: keyof typeof EventType, fields: object): BaseEvent => ({ type: EventType[type], ...fields });

/** The calls in a conversation that have no result: the agent's id -> the name there. */
function openCalls(run: string, messages: Message[]): [string, string][] {
  const answered = new Set(messages.map((message) => (message.role === "tool" ? message.toolCallId : "")));
  const calls = messages.flatMap((message) => (message.role === "assistant" ? (message.toolCalls ?? []) : []));
  return calls.flatMap(({ id: name }): [string, string][] => {
    const [, id] = (name.startsWith(`${run}:`) && /^\d+\.\w+:(.*)$/s.exec(name.slice(run.length + 1))) || [];
    return id === undefined || answered.has(name) ? [] : [[id, name]];
  });
}
