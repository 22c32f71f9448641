export { drive } from "./drive.js";
export { fold, idle, statusOf, type Snapshot, type StepSnapshot } from "./fold.js";
export { RelayError } from "./http.js";
export { closed, Session, type SessionOptions, type SessionSnapshot } from "./session.js";
export { pulse } from "./pulse.js";
export { view, type Tool, type View, type Words } from "./view.js";
export { beacon, cancel, handOver, respond, resume, start } from "./verbs.js";
export type {
  Answer,
  Cursor,
  DriveOptions,
  Envelope,
  EnvelopeEvent,
  Failure,
  Interrupt,
  Limits,
  Part,
  PartEvent,
  Patience,
  PulseEvent,
  PulseOptions,
  RelayErrorLike,
  RetryEvent,
  Run,
  RunEvent,
  RunView,
  StartOptions,
  Status,
  Usage,
} from "./types.js";
