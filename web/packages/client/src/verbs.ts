import { ask, path, patiently, random, RelayError, send } from "./http.js";
import { poke } from "./tabs.js";
import type { Answer, Limits, Patience, Run, RunView, StartOptions } from "./types.js";

/** Create a run. Nothing is taken yet: `drive` it. Throws RelayError. */
export async function start(o: StartOptions): Promise<Run> {
  const { prompt, agent, limits, labels, carrier, sessionId, baseUrl, headers, fetch } = o;
  const way = { baseUrl, headers, fetch };
  let id = sessionId ?? random();
  let repeated = false;
  return patiently(async () => {
    const json = { sessionId: id, userPrompt: prompt, agent, limits, labels, carrier };
    try {
      const [made] = await ask<RunView & { token: string }>({ ...way, token: o.token }, "/runs", { json }, o);
      const { token, ...view } = made!;
      return { ...way, sessionId: id, token, view };
    } catch (error) {
      // The first answer was lost, and with it the cookie that makes the run ours: have another.
      if (!repeated || sessionId || (error as RelayError).status !== 404) throw error;
      id = random();
      throw new RelayError((error as RelayError).message);
    } finally {
      repeated = true;
    }
  }, o);
}

/** Answer what the run asked, or give it a prompt: to its only question, or for the next round. */
export const respond = (run: Run, given: Answer[] | string, o?: Patience): Promise<RunView> =>
  verb(run, "/input", typeof given === "string" ? { userPrompt: given } : { answers: given }, o);

/** Stop it for good, however long that takes to reach the server; a page that goes while it asks is no hindrance. */
export const cancel = (run: Run, o?: Patience): Promise<RunView> =>
  verb(run, "/cancel", {}, { maxTries: Infinity, ...o }, true);

/** Go on after a failure, a brake or a stop, with other limits if given. */
export const resume = (run: Run, limits?: Limits, o?: Patience): Promise<RunView> =>
  verb(run, "/resume", limits ? { limits } : {}, o);

/** Give it to another driver; after `takeoverAfter` seconds of its silence anyone may. */
export const handOver = (run: Run, carrier = "background", takeoverAfter?: number, o?: Patience): Promise<RunView> =>
  verb(run, "/hand-over", { carrier, takeoverAfter }, o);

async function verb(run: Run, name: string, json: object, o: Patience = {}, keepalive = false): Promise<RunView> {
  const request = { json, headers: { "idempotency-key": random() }, keepalive };
  const [view] = await patiently(() => ask<RunView>(run, path(run, name), request, o), o);
  poke(run);
  return view!;
}

/** Hand over from a page that goes, with a request that outlives it. A hint: nothing is lost if it is. */
export function beacon(run: Run): void {
  const json = { carrier: "background" };
  if (run.token || run.headers) void send(run, path(run, "/hand-over"), { json, keepalive: true }).catch(() => {});
  else navigator.sendBeacon(`${run.baseUrl ?? ""}/api${path(run, "/hand-over")}`, JSON.stringify(json));
}
