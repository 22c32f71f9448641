import { useEffect, useMemo, useState, useSyncExternalStore } from "react";
import { closed, Session, type SessionOptions, type SessionSnapshot } from "./session.js";
import type { Status } from "./types.js";
import { view, type View } from "./view.js";

/** A run and what can be done about it. */
export interface AgentRun extends View, Pick<Session, "start" | "respond" | "stop" | "resume" | "handOver" | "reset"> {
  status: "IDLE" | Status;
  sessionId: string | null;
  /** Who carries the run: `client`, `background`, …; null before there is one. */
  carrier: string | null;
  /** This tab asks for the steps. */
  driving: boolean;
  /** Stop was asked for and has not landed yet. */
  stopping: boolean;
  steps: SessionSnapshot["steps"];
  /** The connection is down: what happened, and when it is tried again. */
  retry: SessionSnapshot["retry"];
  run: SessionSnapshot["run"];
}

/**
 * One agent run in a component: started, driven, followed over tabs, reloads and lost connections.
 *
 * With `sessionId` it opens that run, with `remember` the newest of this browser. All functions are stable.
 */
export function useAgentRun(options: SessionOptions = {}): AgentRun {
  const [session] = useState(() => new Session(options));
  const snapshot = useSyncExternalStore(session.subscribe, session.getSnapshot, () => closed);
  useEffect(() => {
    session.options = options;
  });
  useEffect(() => {
    session.open();
    return session.close;
  }, [session, options.sessionId]);
  const shown = useMemo(() => view(snapshot), [snapshot]);
  const { status, sessionId, stopping, steps, retry, run, lost } = snapshot;
  const { start, respond, stop, resume, handOver, reset } = session;
  return {
    ...{ ...shown, error: lost ?? shown.error },
    ...{ status, sessionId, stopping, steps, retry, run },
    carrier: run?.carrier ?? null,
    driving: snapshot.driving && status !== "IDLE",
    ...{ start, respond, stop, resume, handOver, reset },
  };
}

export type { SessionOptions, SessionSnapshot };
export type { Tool, View, Words } from "./view.js";
