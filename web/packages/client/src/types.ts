import type { components } from "./openapi.js";

type Shapes = components["schemas"];

/** The answer to a request for a step. */
export type Envelope = Shapes["Envelope"];
/** A run as the server shows it. */
export type RunView = Shapes["RunView"];
/** What only a person or the outside can give. */
export type Interrupt = Shapes["Interrupt"];
/** The answer to one interrupt, in AG-UI's shape. */
export type Answer = Shapes["Answer"];
/** The brakes of a round. */
export type Limits = Shapes["Limits"];
/** What was spent. */
export type Usage = Shapes["Usage"];
/** Why a step or a run failed, fit to be shown. */
export type Failure = Shapes["Error"];
/** The status of a run's row. */
export type Status = RunView["status"];

/**
 * One element of what happened. Fields that hold their defaults are left out by the server.
 * `delta`: a piece of the text `id`, live only.
 */
export type Part = Shapes["PartView"]["part"];

/**
 * Where a part stands: the step, the attempt that said it or `"c"` when it is committed, its index there. The first
 * part of an attempt, and the first committed one (both have index 0), replace everything heard of that step before.
 */
export type Cursor = readonly [step: number, attempt: number | "c", index: number];

/** A part, live or committed. */
export interface PartEvent {
  type: "part";
  at: Cursor;
  part: Part;
}

/** The end of a request for a step. `taken`: that step is committed; otherwise it shows how the run stands. */
export interface EnvelopeEvent {
  type: "envelope";
  envelope: Envelope;
  taken: boolean;
  /** It is the answer of before, repeated. */
  replayed: boolean;
}

/** A request failed and is repeated after `ms`, sooner when the connection comes back. `tries`: so many in a row. */
export interface RetryEvent {
  type: "retry";
  error: RelayErrorLike;
  tries: number;
  ms: number;
}

/** What `pulse` tells. */
export type PulseEvent = PartEvent | EnvelopeEvent | RetryEvent;

/** What `drive` tells: also the run's row whenever it was read, and whether this tab is the one that drives. */
export type RunEvent = PulseEvent | RowEvent | { type: "driver"; driving: boolean };

/** The row of the run. */
export interface RowEvent {
  type: "run";
  run: RunView;
}

/** What can be told of an error to another tab. */
export interface RelayErrorLike {
  message: string;
  /** HTTP status; 0 = no answer, or half of one. */
  status: number;
  /** The server's stable code, such as `step_mismatch`. */
  code?: string | undefined;
}

/** A run and the way to it. `start` answers one; a `sessionId` alone is enough for the browser that started the run. */
export interface Run {
  sessionId: string;
  /** Where the server is, without `/api`; by default the page's own origin. */
  baseUrl?: string | undefined;
  /** The run token; sent as bearer unless `headers` give an authorization. */
  token?: string | undefined;
  headers?: (() => HeadersInit | Promise<HeadersInit>) | undefined;
  fetch?: typeof globalThis.fetch | undefined;
  /** As it was when it was made. */
  view?: RunView | undefined;
}

/** How patiently a request is repeated. */
export interface Patience {
  signal?: AbortSignal | undefined;
  /** Failures in a row after which to give up; those without any network do not count. Default 20. */
  maxTries?: number | undefined;
  /** The longest pause of the server's not asking for one, in milliseconds. Default 15 000. */
  maxDelay?: number | undefined;
  /** Silence after which a connection counts as dead, in milliseconds. The server speaks every 10 s. Default 35 000. */
  silence?: number | undefined;
}

export interface PulseOptions extends Patience {
  /** Index of the step to take. */
  step: number;
}

export interface StartOptions extends Patience, Omit<Run, "sessionId" | "view"> {
  prompt: string;
  agent?: string | undefined;
  /** By default 128 random bits. */
  sessionId?: string | undefined;
  limits?: Limits | undefined;
  labels?: Record<string, string> | undefined;
  /** Who drives: `client` (default) are open tabs, `background` is the server. */
  carrier?: string | undefined;
}

export interface DriveOptions extends Patience {
  /** Go on after an end or a question, until aborted: somebody may answer, or begin the next round. */
  stay?: boolean | undefined;
  /** Let the server carry on when this page goes. Default false: a page that is closed stops the spending. */
  handOver?: boolean | undefined;
  /** The client's own brake: steps that this tab takes between two inputs. Default 200. */
  maxSteps?: number | undefined;
  /** The other brake: answers in a row that bring the run no further. Default 10. */
  maxIdle?: number | undefined;
  /** Index of the first step to tell of. Default 0. */
  from?: number | undefined;
}
