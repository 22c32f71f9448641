import type { AgentRun } from "@steprelay/client/react";

export type Tone = "idle" | "go" | "wait" | "ask" | "good" | "bad" | "off";

const WAITS: Record<string, string> = {
  retry: "Waiting to try again",
  rate_limited: "The model asked for a pause",
  child: "Waiting for another run",
  event: "Waiting for an event",
};
const CARRIERS: Record<string, string> = { background: "the server, in the background", any: "whoever asks first" };

/** How a run stands, in words. */
export function standing(run: AgentRun): { tone: Tone; text: string } {
  if (run.stopping) return { tone: "wait", text: "Stopping…" };
  const reason = (run.run?.status === run.status && run.run.stopReason) || null;
  switch (run.status) {
    case "IDLE":
      return { tone: "idle", text: "Ready" };
    case "RUNNING":
      return { tone: "go", text: "Thinking…" };
    case "WAITING":
      return { tone: "wait", text: WAITS[reason ?? ""] ?? "Waiting" };
    case "AWAITING_INPUT":
      return { tone: "ask", text: "Waiting for you" };
    case "COMPLETED":
      return { tone: "good", text: reason && reason !== "finished" ? "Done, as far as its limits allow" : "Done" };
    case "FAILED":
      return { tone: "bad", text: "Failed" };
    case "CANCELLED":
      return { tone: "off", text: "Stopped by you" };
  }
}

/** Who asks for the next step. */
export function carried(run: AgentRun): string | null {
  if (!run.sessionId || ended(run)) return null;
  if (run.carrier && run.carrier !== "client") return `Carried by ${CARRIERS[run.carrier] ?? run.carrier}`;
  return run.driving ? "Carried by this tab" : "Carried by another tab";
}

export const ended = ({ status }: AgentRun): boolean => ["COMPLETED", "FAILED", "CANCELLED"].includes(status);
export const busy = ({ status }: AgentRun): boolean => status === "RUNNING" || status === "WAITING";

/** A value as one line. */
export const line = (value: unknown): string =>
  (typeof value === "string" ? value : (JSON.stringify(value) ?? "")).replace(/\s+/g, " ").trim();

export const pretty = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

export const plural = (n: number, one: string): string => `${n.toLocaleString()} ${one}${n === 1 ? "" : "s"}`;

/** Whether somebody can see it: keys are for what is seen. */
export const shown = (element: HTMLElement | null): boolean => element !== null && element.offsetParent !== null;
