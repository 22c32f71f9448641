// A Netlify Async Workload that carries a run: each request takes one durable step, and what lies between is a sleep of the
// workload, in which no function runs.
//
//     // netlify/functions/steprelay.ts
//     import { asyncWorkloadFn } from "@netlify/async-workloads";
//     import { relay } from "@steprelay/netlify-async";
//     export default asyncWorkloadFn(relay());
//     export const asyncWorkloadConfig = { events: ["steprelay"], maxRetries: 10 };
//
//     await new AsyncWorkloadsClient().send("steprelay", { data: { run: "invoices-7" } });   // its carrier is `netlify-async`

import { type AsyncWorkloadEvent, ErrorDoNotRetry } from "@netlify/async-workloads";
import { type At, Leg, Refused, type Server, carry } from "@steprelay/driver";

export type { Server } from "@steprelay/driver";

/** Which run; its prompt and words stay on the steprelay server. */
export interface Data {
  run: string;
}

export interface RelayEvent {
  eventName: string;
  eventData: Data;
}

export interface Options extends Server {
  /** The carrier that a run's steps are marked with. */
  carrier?: string;
}

/** Requests of one event; the next event goes on, so that what is kept of an event stays small. Netlify allows chains of 20. */
export const LEGS = 200;

/** The handler of the workload. It ends when the run is done or is given to another carrier. */
export function relay({ carrier = "netlify-async", ...server }: Options = {}) {
  return async ({ eventName, eventData, eventId, step, sendEvent }: AsyncWorkloadEvent<RelayEvent>): Promise<void> => {
    const { run } = eventData;
    const end = await carry(
      leg(carrier, server),
      run,
      eventId,
      {
        step: (id, act) => step.run<At>(id, () => act().catch(final)),
        sleep: (id, ms) => step.sleep(id, Math.ceil(ms)),
      },
      LEGS,
    );
    if (end) return;
    await step.run("relay", async () => {
      const { sendStatus } = await sendEvent(eventName, { data: { run } });
      if (sendStatus !== "succeeded") throw new Error(`The next event of run ${run} could not be sent.`);
    });
  };
}

function leg(carrier: string, server: Server): Leg {
  try {
    return new Leg(carrier, server);
  } catch (error) {
    return final(error);
  }
}

function final(error: unknown): never {
  throw error instanceof Refused ? new ErrorDoNotRetry(error.message) : error;
}
