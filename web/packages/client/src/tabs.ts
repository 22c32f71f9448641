import type { PartEvent, Run, RunEvent } from "./types.js";

/** What tabs tell each other: news, a question for the step under way, its answer, and that there is something to do. */
export type Message = { event: RunEvent } | { ask: true } | { log: PartEvent[] } | { poke: true };

export const name = (run: Run): string => `steprelay:${run.sessionId}`;

export const channel = (run: Run): BroadcastChannel | undefined =>
  globalThis.BroadcastChannel && new BroadcastChannel(name(run));

/** Tell the tabs, this one included, that the run has changed. */
export function poke(run: Run): void {
  const bc = channel(run);
  bc?.postMessage({ poke: true } satisfies Message);
  bc?.close();
}

/**
 * Run `lead` while no other tab does: at once if the wheel is free, else `behind` now and `lead` when it gets free.
 * Without locks (plain http) every tab leads, and the server's lease decides.
 */
export async function alone(
  run: Run,
  signal: AbortSignal,
  lead: () => Promise<void>,
  behind: () => void,
): Promise<void> {
  const locks = globalThis.navigator?.locks;
  if (!locks) return lead();
  let led = false;
  const first = locks.request(name(run), { ifAvailable: true }, (lock) => {
    led = !!lock;
    return lock && lead();
  });
  await first.catch((error) => {
    if (error.name !== "SecurityError") throw error;
    led = true; // locks are not allowed here
    return lead();
  });
  if (led) return;
  behind();
  await locks.request(name(run), { signal }, lead);
}
