import {
  drive,
  fold,
  idle,
  start,
  type DriveOptions,
  type Run,
  type RunEvent,
  type Snapshot,
} from "../../src/index.js";

/** The words of the agent in a step of a snapshot. */
export const text = (s: Snapshot, step: number): string =>
  (s.steps.find((one) => one.index === step)?.parts ?? [])
    .map((part) => (part.type === "text" && part.role !== "user" ? part.text : ""))
    .join("");

export type Seen = (s: Snapshot, e: RunEvent) => void;

export interface Followed {
  snapshot: Snapshot;
  events: RunEvent[];
}

/** Drive to the end; `seen` gets every snapshot on the way. */
export async function follow(run: Run, o: DriveOptions = {}, seen: Seen = () => {}): Promise<Followed> {
  let snapshot = idle;
  const events: RunEvent[] = [];
  for await (const event of drive(run, { maxDelay: 2, ...o })) {
    snapshot = fold(snapshot, event);
    events.push(event);
    seen(snapshot, event);
  }
  return { snapshot, events };
}

/** Start a run and drive it to the end. */
export async function carry(baseUrl: string, o: DriveOptions = {}, seen?: Seen): Promise<Followed & { run: Run }> {
  const run = await start({ baseUrl, prompt: "hi", maxDelay: 2 });
  return { run, ...(await follow(run, o, seen)) };
}

/** Resolves when something has come true; the test's own deadline ends a wait in vain. */
export async function until(come: () => unknown): Promise<void> {
  while (!come()) await new Promise((done) => setTimeout(done, 1));
}
