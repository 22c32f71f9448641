import type { Envelope, Part, RetryEvent, RunEvent, RunView, Status } from "./types.js";

/** One step as it is known. `attempt`: who says it, `"c"` once it is committed. */
export interface StepSnapshot {
  index: number;
  attempt: number | "c";
  parts: readonly Part[];
}

/** All that is known of a run; made of its events by `fold`. Never changed in place. */
export interface Snapshot {
  status: "IDLE" | Status;
  /** This tab asks for the steps. */
  driving: boolean;
  steps: readonly StepSnapshot[];
  /** The row, as it was last read. */
  run: RunView | null;
  /** The newest answer to a request for a step. */
  envelope: Envelope | null;
  /** What the last request failed with, while it is repeated. */
  retry: RetryEvent | null;
}

export const idle: Snapshot = { status: "IDLE", driving: false, steps: [], run: null, envelope: null, retry: null };

const WIRE: Partial<Record<string, Status>> = { CONTINUE: "RUNNING", ERROR: "FAILED" };

/** The status of a row that an envelope speaks of. */
export const statusOf = (envelope: Envelope): Status => WIRE[envelope.status] ?? (envelope.status as Status);

/** The snapshot after an event. Pure. */
export function fold(s: Snapshot, e: RunEvent): Snapshot {
  switch (e.type) {
    case "part": {
      const [index, attempt, at] = e.at;
      const old = s.steps.find((step) => step.index === index);
      const parts = at && old?.attempt === attempt ? old.parts.slice(0, at) : [];
      const step = { index, attempt, parts: [...parts, e.part] };
      return { ...s, retry: null, steps: old ? s.steps.map((o) => (o === old ? step : o)) : [...s.steps, step] };
    }
    case "envelope":
      return { ...s, retry: null, envelope: e.envelope, status: statusOf(e.envelope) };
    case "run":
      return { ...s, retry: null, run: e.run, status: e.run.status };
    case "retry":
      return { ...s, retry: e };
    case "driver":
      return { ...s, driving: e.driving };
  }
}
