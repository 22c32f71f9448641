import type { Snapshot, StepSnapshot } from "./fold.js";
import type { Failure, Interrupt, RelayErrorLike, Usage } from "./types.js";

/** A tool call and what came of it. */
export interface Tool {
  id: string;
  step: number;
  name: string;
  args: unknown;
  status: "running" | "ok" | "error" | "unknown" | "denied";
  value: unknown;
}

/** Words, whole or as far as they came. */
export interface Words {
  step: number;
  type: "text" | "thought";
  role: "user" | "assistant";
  text: string;
  /** It is being said. */
  partial: boolean;
}

/** A run as a page shows it; made of a snapshot by `view`. */
export interface View {
  /** Everything said, in order, prompts included. */
  words: readonly Words[];
  thoughts: readonly string[];
  tools: readonly Tool[];
  /** The answer that is being said, as far as it came; of a run that is carried elsewhere its end, once a second. */
  partial: string;
  /** What the round came to; null until it did. */
  answer: unknown;
  interrupts: readonly Interrupt[];
  usage: Usage;
  /** Why the run failed, or why it cannot be had. */
  error: Failure | RelayErrorLike | null;
}

/** What to show of a snapshot. Pure. */
export function view(s: Snapshot): View {
  const words = s.steps.flatMap(wordsOf);
  const said = words.filter((w) => w.type === "text" && w.role === "assistant");
  const live = said
    .filter((w) => w.partial)
    .map((w) => w.text)
    .join("\n\n");
  const now = s.envelope ?? s.run;
  const done = s.status === "COMPLETED";
  return {
    words,
    thoughts: words.filter((w) => w.type === "thought").map((w) => w.text),
    tools: toolsOf(s.steps),
    partial: live || (s.status === "RUNNING" && !s.envelope && s.run?.tail) || "",
    answer: done ? (now?.output ?? said.at(-1)?.text ?? null) : null,
    interrupts: (s.status === "AWAITING_INPUT" && now?.interrupts) || [],
    usage: s.usage,
    error: s.status === "FAILED" ? (now?.error ?? null) : null,
  };
}

function wordsOf({ index: step, attempt, parts }: StepSnapshot): Words[] {
  const found: Words[] = [];
  const open = new Map<string, Words>();
  for (const part of parts) {
    if (part.type !== "text" && part.type !== "thought") continue;
    const key = `${part.type}:${part.id ?? ""}`;
    const begun = part.delta ? open.get(key) : undefined;
    if (begun) begun.text += part.text;
    else {
      const role = (part.type === "text" && part.role) || "assistant";
      const fresh: Words = { step, type: part.type, role, text: part.text, partial: attempt !== "c" };
      open.set(key, fresh);
      found.push(fresh);
    }
  }
  return found.filter((w) => w.text);
}

/** Ids repeat, a function agent's from step to step: a result belongs to the call of its id that still runs. */
function toolsOf(steps: readonly StepSnapshot[]): Tool[] {
  const tools: Tool[] = [];
  const running = new Map<string, Tool>();
  for (const { index: step, parts } of steps)
    for (const part of parts) {
      if (part.type !== "call" && part.type !== "result") continue;
      const { id, name } = part;
      const known = running.get(id);
      const tool: Tool = known ?? { id, step, name, args: undefined, status: "running", value: undefined };
      if (!known) tools.push(tool);
      if (part.type === "call") {
        tool.args = part.args;
        running.set(id, tool);
      } else {
        tool.value = part.value;
        tool.status = part.status ?? "ok";
        running.delete(id);
      }
    }
  return tools;
}
