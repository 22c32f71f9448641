import type { UIMessageChunk } from "ai";
import { askedAbout, shown, Teller, type Kind, type Result, type Standing } from "./teller.js";
import type { Interrupt } from "./types.js";

/** Parts of a run as UI message chunks of the AI SDK 7. A step there is a model turn: results belong to their calls. */
export class Chunks extends Teller<UIMessageChunk> {
  private begun = false; // a `start-step` was told since this step of ours began

  /** `open`: calls that the message shows already and that have no result yet. */
  constructor(run: string, open: Iterable<[string, string]> = []) {
    super(run);
    this.open = new Map(open);
  }

  protected override needsStep(): UIMessageChunk[] {
    if (this.begun) return [];
    this.begun = true;
    return [{ type: "start-step" }];
  }

  protected entered(): UIMessageChunk[] {
    this.begun = false;
    return this.open.size ? [] : this.needsStep();
  }

  protected left(): UIMessageChunk[] {
    return this.begun ? [{ type: "finish-step" }] : [];
  }

  protected retracted(): UIMessageChunk[] {
    return this.begun ? [{ type: "reset-step" }] : [];
  }

  protected starts(kind: Kind, id: string): UIMessageChunk[] {
    return [{ type: kind === "text" ? "text-start" : "reasoning-start", id }];
  }

  protected grows(kind: Kind, id: string, delta: string): UIMessageChunk {
    return { type: kind === "text" ? "text-delta" : "reasoning-delta", id, delta };
  }

  protected ends(kind: Kind, id: string): UIMessageChunk[] {
    return [{ type: kind === "text" ? "text-end" : "reasoning-end", id }];
  }

  protected calls(toolCallId: string, toolName: string, input: unknown): UIMessageChunk[] {
    return [{ type: "tool-input-available", toolCallId, toolName, input: input ?? {}, ...OURS }];
  }

  protected answers(toolCallId: string, { status, value }: Result): UIMessageChunk[] {
    if (status === "denied") return [{ type: "tool-output-denied", toolCallId }];
    if (status && status !== "ok") return [{ type: "tool-output-error", toolCallId, errorText: shown(value), ...OURS }];
    return [{ type: "tool-output-available", toolCallId, output: value ?? null, ...OURS }];
  }

  protected state(data: unknown): UIMessageChunk[] {
    return [{ type: "data-state", id: "state", data }];
  }

  /** A request for an approval of a call, which is shown first if it was not yet; or a question, which is a call. */
  protected override asks(interrupt: Interrupt): UIMessageChunk[] {
    const { id, kind, prompt, payload, schema } = interrupt;
    const about = askedAbout(interrupt);
    const call = this.open.get(about);
    const toolCallId = call ?? (kind === "approval" ? this.name(about) : `${this.run}:${id}`);
    if (kind === "approval") {
      const asked: UIMessageChunk = { type: "tool-approval-request", approvalId: id, toolCallId };
      if (prompt) asked.reason = prompt;
      return [...(call ? [] : this.calls(toolCallId, about, payload)), asked];
    }
    if (kind === "external") return [];
    const input = { prompt, payload, schema };
    const toolMetadata = { steprelay: { interruptId: id } };
    const question = { toolCallId, toolName: "question", input, toolMetadata, dynamic: true, providerExecuted: false };
    return [{ type: "tool-input-available", ...question }];
  }

  protected ending({ status, stopReason, step, error }: Standing): UIMessageChunk[] {
    const messageMetadata = { steprelay: { stopReason, step } };
    switch (status) {
      case "COMPLETED":
        return [{ type: "finish", finishReason: stopReason === "finished" ? "stop" : "length", messageMetadata }];
      case "AWAITING_INPUT":
        return [{ type: "finish", finishReason: "tool-calls", messageMetadata }];
      case "CANCELLED":
        return [
          { type: "abort", reason: stopReason ?? "cancelled" },
          { type: "finish", finishReason: "interrupted", messageMetadata },
        ];
      case "FAILED":
      case "ERROR":
        return [{ type: "error", errorText: error?.message ?? "The run failed." }];
      default:
        return [];
    }
  }
}

/** Tools run on the server. */
const OURS = { providerExecuted: true, dynamic: true } as const;
