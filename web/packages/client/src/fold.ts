import type { Envelope, Part, RetryEvent, RunEvent, RunView, Status, Usage } from "./types.js";

/** One step as it is known. `attempt`: who says it, `"c"` once it is committed. */
export interface StepSnapshot {
  index: number;
  attempt: number | "c";
  parts: readonly Part[];
}

/** All that is known of a run; made of its events by `fold`. Never changed in place. */
export interface Snapshot {
  status: "IDLE" | Status;
  /** This tab asks for the steps, or would. */
  driving: boolean;
  steps: readonly StepSnapshot[];
  /** The row, as it was last read. */
  run: RunView | null;
  /** The newest answer to a request for a step, unless the row was read since. */
  envelope: Envelope | null;
  /** What the last request failed with, while it is repeated. */
  retry: RetryEvent | null;
  /** Of the whole run. */
  usage: Usage;
  /** Index of the newest step whose usage is in `usage`. */
  counted: number;
}

const NOTHING: Usage = { requests: 0, inputTokens: 0, outputTokens: 0, cachedTokens: 0, toolCalls: 0 };

export const idle: Snapshot = {
  status: "IDLE",
  driving: false,
  steps: [],
  run: null,
  envelope: null,
  retry: null,
  usage: NOTHING,
  counted: -1,
};

const WIRE: Partial<Record<string, Status>> = { CONTINUE: "RUNNING", ERROR: "FAILED" };

/** The status of a row that an envelope speaks of. */
export const statusOf = (envelope: Envelope): Status => WIRE[envelope.status] ?? (envelope.status as Status);

/** The snapshot after an event. Pure. */
export function fold(s: Snapshot, e: RunEvent): Snapshot {
  switch (e.type) {
    case "part":
      return { ...s, retry: null, steps: heard(s.steps, e.at, e.part) };
    case "envelope": {
      const { envelope } = e;
      const counts = envelope.step > s.counted ? { usage: sum(s.usage, envelope.usage), counted: envelope.step } : {};
      const steps = committed(s.steps, envelope.step);
      return { ...s, ...counts, retry: null, envelope, steps, status: statusOf(envelope) };
    }
    case "run": {
      const { usage, step, status } = e.run;
      const steps = committed(s.steps, step);
      return { ...s, retry: null, envelope: null, run: e.run, steps, status, usage, counted: step };
    }
    case "retry":
      return { ...s, retry: e };
    case "driver":
      return { ...s, driving: e.driving };
  }
}

/** A part with index 0 begins its step anew. */
function heard(
  steps: readonly StepSnapshot[],
  [index, attempt, at]: readonly [number, number | "c", number],
  part: Part,
) {
  const old = steps.find((step) => step.index === index);
  const parts = at && old?.attempt === attempt ? old.parts.slice(0, at) : [];
  const step = { index, attempt, parts: [...parts, part] };
  return old ? steps.map((other) => (other === old ? step : other)) : [...steps, step];
}

/** What was said live and came to nothing is no part of a committed step. */
function committed(steps: readonly StepSnapshot[], newest: number) {
  const stale = (step: StepSnapshot) => step.index <= newest && step.attempt !== "c" && step.parts.length > 0;
  return steps.some(stale) ? steps.map((s): StepSnapshot => (stale(s) ? { ...s, attempt: "c", parts: [] } : s)) : steps;
}

function sum(a: Usage, b: Usage): Usage {
  const total = { ...a } as Record<string, number>;
  for (const [name, n] of Object.entries(b)) total[name] = (total[name] ?? 0) + n;
  return total as unknown as Usage;
}
