// What an Async Workload is to its handler, in memory: an act that was done is remembered and the handler called anew; the
// function that did it is frozen there. What fails is tried again, as often as the workload allows.

import { type AsyncWorkloadEvent, ErrorDoNotRetry } from "@netlify/async-workloads";
import type { RelayEvent } from "../src/index.js";

type Handler = (event: AsyncWorkloadEvent<RelayEvent>) => Promise<void>;

export class Workload {
  /** Results of acts by their ids, as JSON: what Netlify keeps. */
  kept: Map<string, string>[] = [];
  slept: number[] = [];
  failures: unknown[] = [];
  invocations = 0;
  /** Something to do while the workload sleeps. */
  during: (ms: number) => Promise<unknown> = async () => undefined;
  /** Whether the result of this act gets lost on its way to where it is kept. */
  loses: (id: string) => boolean = () => false;

  constructor(
    private handler: Handler,
    private retries = 4,
  ) {}

  /** Send an event, and see to it and to those that it sends until none is left. */
  async send(run: string): Promise<void> {
    const events = [{ eventId: "event-0", eventData: { run } }];
    for (const event of events)
      await this.process(event, (data) => events.push({ eventId: `event-${events.length}`, eventData: data }));
  }

  private async process(event: { eventId: string; eventData: { run: string } }, next: (data: { run: string }) => void) {
    const kept = new Map<string, string>();
    this.kept.push(kept);
    for (let attempt = 0; attempt <= this.retries;) {
      this.invocations++;
      try {
        const done = await this.invoke(event, kept, attempt, next);
        if (done) return;
      } catch (error) {
        this.failures.push(error);
        if (error instanceof ErrorDoNotRetry) return;
        attempt++;
      }
    }
  }

  /** One invocation: whether the handler returned; else it did one act and is frozen. */
  private invoke(
    event: { eventId: string; eventData: { run: string } },
    kept: Map<string, string>,
    attempt: number,
    next: (data: { run: string }) => void,
  ): Promise<boolean> {
    return new Promise((returns, fails) => {
      const frozen = new Promise<never>(() => {});
      const step: AsyncWorkloadEvent["step"] = {
        run: async (id, act) => {
          if (kept.has(id)) return JSON.parse(kept.get(id)!);
          const result = await act();
          if (this.loses(id)) throw new Error("the function timed out");
          kept.set(id, JSON.stringify(result) ?? "null");
          returns(false);
          return frozen;
        },
        sleep: async (id, ms) => {
          if (kept.has(`sleep:${id}`)) return;
          kept.set(`sleep:${id}`, "null");
          this.slept.push(Number(ms));
          await this.during(Number(ms));
          returns(false);
          return frozen;
        },
      };
      const sendEvent: AsyncWorkloadEvent["sendEvent"] = async (_, options) => {
        next(options?.data as { run: string });
        return { sendStatus: "succeeded", eventId: "next" };
      };
      const request = new Request("http://localhost/.netlify/functions/steprelay");
      this.handler({ eventName: "steprelay", request, attempt, step, sendEvent, ...event }).then(
        () => returns(true),
        fails,
      );
    });
  }
}
