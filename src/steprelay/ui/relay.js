// The relay client: asks for one step after the other until the run is done, waits for somebody, or is told to stop.
// No DOM in here. Nothing is lost when this dies: the run is in the store, and a repeated request is recognised there.

import { Problem } from "./api.js";

/** Resolves after `s` seconds; sooner when `signal` aborts, the connection comes back, or `bell` rings. */
export function pause(s, signal, bell) {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      bell?.removeEventListener("ring", end);
      signal?.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, Math.max(0, s) * 1000);
    addEventListener("online", end);
    bell?.addEventListener("ring", end);
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
  });
}

/** Full jitter: many tabs that lost the same server must not come back in step. */
export const backoff = (tries) => Math.random() * Math.min(8, 0.4 * 2 ** tries) + 0.1;

/**
 * Drive a run from step `next` on. `tell(event)` hears:
 *   asked {step, tries} · part {part, id} · answered {envelope} · replayed {envelope} · dropped {step}
 *   busy {envelope, seconds} · waiting {envelope, seconds} · lost {error, seconds, tries} · found
 * Answers why it ended: done, input, moved (the run belongs to another carrier), stopped. Throws what cannot be retried.
 *
 * `drop()` is asked once an answer is complete: true throws it away unread, as a broken network would.
 */
export async function relay({ api, id, next, signal, tell, drop = () => false, wait = pause }) {
  let tries = 0, repeat = false;
  while (!signal.aborted) {
    let envelope;
    tell({ type: "asked", step: next, tries });
    try {
      envelope = await api.step(id, { expectedStep: next, signal, heard: (part, at) => tell({ type: "part", part, id: at }) });
    } catch (error) {
      if (signal.aborted) break;
      if (!error.retryable) throw error;
      const seconds = error.retryAfter ?? backoff(tries);
      tell({ type: "lost", error, seconds, tries: ++tries });
      await wait(seconds, signal);
      repeat = true; // the same step again: it is stored once, whatever became of the first request
      continue;
    }
    if (signal.aborted) break;
    if (tries) tell({ type: "found" });
    tries = 0;
    if (drop(envelope)) {
      tell({ type: "dropped", step: next });
      repeat = true;
      continue;
    }
    const taken = envelope.step >= next; // else it is busy or waits, and the request is still open
    tell({ type: envelope.replayed ? "replayed" : "answered", envelope, repeat: repeat && taken });
    if (taken) repeat = false;
    const seconds = envelope.retryAfter ?? (envelope.next.afterMs ?? 0) / 1000;
    if (envelope.isTerminal) return "done";
    if (envelope.next.action === "input") return "input";
    if (envelope.next.action === "none") return "moved";
    if (envelope.http === 202 && envelope.status === "CONTINUE") {
      tell({ type: "busy", envelope, seconds: seconds || 1 });
      await wait(seconds || 1, signal);
    } else if (envelope.next.action === "wait") {
      tell({ type: "waiting", envelope, seconds });
      await wait(seconds || 0.5, signal);
    }
    next = envelope.step + 1; // on CONTINUE at once: no timer, or a hidden tab would be slowed to a step a minute
  }
  return "stopped";
}

/**
 * Run `job(signal)` in one tab at a time: the others wait until that tab is gone. Without navigator.locks (plain http)
 * every tab may try; the lease in the store then decides, and the others are told "busy".
 */
export async function alone(name, signal, job) {
  if (!navigator.locks) return job(signal);
  try {
    return await navigator.locks.request(`steprelay:${name}`, { signal }, () => job(signal));
  } catch (e) {
    if (signal.aborted && !(e instanceof Problem)) return "stopped";
    throw e;
  }
}
