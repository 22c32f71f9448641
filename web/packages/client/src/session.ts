import { drive } from "./drive.js";
import { fold, idle, type Snapshot } from "./fold.js";
import type { Answer, DriveOptions, Limits, RelayErrorLike, Run, RunView, StartOptions } from "./types.js";
import { cancel, handOver, respond, resume, start } from "./verbs.js";

/** How a session reaches the server, what its runs are like, and how it drives. */
export interface SessionOptions
  extends Omit<DriveOptions, "signal" | "stay" | "from">, Omit<StartOptions, "prompt" | "sessionId" | "signal"> {
  /** The run to open; without one, the remembered one, or none until `start`. */
  sessionId?: string | undefined;
  /** Keep the newest run under this key of localStorage, so that a reload goes on with it. */
  remember?: string | undefined;
}

export interface SessionSnapshot extends Snapshot {
  sessionId: string | null;
  /** Between Stop and its having landed on the server. */
  stopping: boolean;
  /** Why the run cannot be had; null while it can, however badly. */
  lost: RelayErrorLike | null;
}

export const closed: SessionSnapshot = { ...idle, sessionId: null, stopping: false, lost: null };

/** A run that a page shows and acts on, one after the other. No framework: `subscribe` and `getSnapshot`. */
export class Session {
  private snapshot = closed;
  private readers = new Set<() => void>();
  private run: Run | null = null;
  private life: AbortController | null = null;

  constructor(public options: SessionOptions = {}) {}

  getSnapshot = (): SessionSnapshot => this.snapshot;

  subscribe = (reader: () => void): (() => void) => {
    this.readers.add(reader);
    return () => void this.readers.delete(reader);
  };

  /** Show and drive the run of the options, or the remembered one; where it was closed, it goes on. */
  open = (): void => {
    const id = this.options.sessionId;
    if (id ? this.run?.sessionId !== id : !this.run) {
      const kept = recall(this.options.remember);
      this.take(id ? { sessionId: id, token: kept?.sessionId === id ? kept.token : undefined } : kept);
    }
    this.go();
  };

  /** Stop looking and driving. The run stays as it is. */
  close = (): void => {
    this.life?.abort();
    this.life = null;
    if (this.snapshot.driving) this.set({ driving: false });
  };

  /** Begin a new run. */
  start = async (prompt: string, sessionId?: string): Promise<void> => {
    this.close();
    this.set({ ...closed, status: "RUNNING" });
    await this.attempt(async (signal) => {
      const run = await start({ ...this.options, prompt, sessionId, signal }).catch((error) => {
        if (!signal.aborted) this.set(closed);
        throw error;
      });
      if (signal.aborted) return;
      this.take(run);
      remember(this.options.remember, run);
      this.set({ status: "RUNNING" });
      this.go(run.view);
    });
  };

  /** Answer what the run asks, or give it a prompt: to its only question, or for the next round. */
  respond = (given: Answer[] | string): Promise<void> => this.act((run, o) => respond(run, given, o));

  /** Stop here at once, and for good on the server, however long that takes to reach. */
  stop = (): Promise<void> => {
    this.set({ stopping: true });
    const { maxDelay, silence } = this.options;
    return this.act((run) => cancel(run, { maxDelay, silence })); // not to be aborted
  };

  /** Go on after a failure, a brake or a stop. */
  resume = (limits?: Limits): Promise<void> => this.act((run, o) => resume(run, limits, o));

  /** Give the run to another driver; this tab goes on looking. */
  handOver = (carrier = "background", takeoverAfter?: number): Promise<void> =>
    this.act((run, o) => handOver(run, carrier, takeoverAfter, o));

  /** Show no run any more, and forget the remembered one. */
  reset = (): void => {
    this.close();
    this.run = null;
    remember(this.options.remember, null);
    this.set(closed);
  };

  // ---------------------------------------------------------------- inside

  private set(change: Partial<SessionSnapshot>) {
    this.snapshot = { ...this.snapshot, ...change };
    this.readers.forEach((reader) => reader());
  }

  private take(run: Run | null | undefined) {
    const { baseUrl, headers, fetch, token } = this.options;
    this.run = run ? { baseUrl, headers, fetch, sessionId: run.sessionId, token: run.token ?? token } : null;
    this.set({ ...closed, sessionId: run?.sessionId ?? null });
  }

  private async act(verb: (run: Run, o: { signal: AbortSignal }) => Promise<RunView>) {
    const { run } = this;
    if (!run) return;
    this.close();
    await this.attempt(async (signal) => {
      try {
        const row = await verb(run, { ...this.options, signal });
        if (!signal.aborted) this.go(row);
      } catch (error) {
        if (signal.aborted) return;
        this.go();
        throw error;
      } finally {
        if (this.run === run) this.set({ stopping: false });
      }
    });
  }

  private async attempt(job: (signal: AbortSignal) => Promise<void>) {
    const life = (this.life = new AbortController());
    try {
      await job(life.signal);
    } catch (error) {
      if (life.signal.aborted) return;
      const { message, status = 0, code } = error as RelayErrorLike;
      this.set({ lost: { message, status, code } });
    }
  }

  /** Tell everything from the first step on that is not known whole. `view`: the row, if it was just read. */
  private go(view?: RunView) {
    this.life?.abort();
    const { run } = this;
    if (!run) return;
    void this.attempt(async (signal) => {
      const { steps } = this.snapshot;
      const from = steps.findIndex((step) => step.attempt !== "c");
      const o = { maxTries: Infinity, ...this.options, signal, stay: true, from: from < 0 ? steps.length : from };
      this.set({ lost: null });
      for await (const event of drive({ ...run, view }, o)) if (!signal.aborted) this.set(fold(this.snapshot, event));
    });
  }
}

function recall(key?: string): Run | null {
  try {
    return key ? JSON.parse(localStorage.getItem(key)!) : null;
  } catch {
    return null;
  }
}

function remember(key: string | undefined, run: Run | null) {
  if (!key) return;
  try {
    if (run) localStorage.setItem(key, JSON.stringify({ sessionId: run.sessionId, token: run.token }));
    else localStorage.removeItem(key);
  } catch {
    // storage may be off or full: then a reload forgets, nothing else does
  }
}
