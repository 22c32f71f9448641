// A Trigger.dev task that carries a run: each request takes one durable step, and what lies between is Trigger.dev's wait.
//
//     import { relay } from "@steprelay/trigger";
//     export const steprelay = relay();                              // in your trigger folder
//
//     await steprelay.trigger({ run: "invoices-7" });                // a run whose carrier is `trigger`

import { type End, Leg, Refused, type Server, carry } from "@steprelay/driver";
import { AbortTaskRunError, type Task, task, wait } from "@trigger.dev/sdk";

export type { End, Server } from "@steprelay/driver";

/** Which run; its prompt and words stay on the steprelay server. */
export interface Payload {
  run: string;
}

export interface Options extends Server {
  /** The task's id, and the carrier that a run's steps are marked with. */
  id?: string;
}

/**
 * The task. It ends when the run is done or is given to another carrier. A task run that is cancelled cancels its run for good.
 * What fails is waited out; what goes on failing is a failed attempt, and the next one goes on where the run stands.
 */
export function relay({ id = "trigger", ...server }: Options = {}): Task<string, Payload, End> {
  return task({
    id,
    retry: { maxAttempts: 10, factor: 2, minTimeoutInMs: 1_000, maxTimeoutInMs: 60_000, randomize: true },
    run: async ({ run }: Payload, { ctx }): Promise<End> => {
      try {
        const end = await carry(new Leg(id, server), run, ctx.run.id, {
          step: (_, act) => act(),
          sleep: (_, ms) => wait.for({ seconds: ms / 1_000 }),
        });
        return end!; // without a limit it is carried to an end
      } catch (error) {
        throw error instanceof Refused ? new AbortTaskRunError(error.message) : error;
      }
    },
    onCancel: ({ payload }) => new Leg(id, server).cancel(payload.run),
  });
}
