import { createParser, type EventSourceMessage } from "eventsource-parser";
import { broken, path, pause, RelayError, retrying, send, watchdog } from "./http.js";
import type { Cursor, Envelope, PulseEvent, PulseOptions, Run } from "./types.js";

/**
 * Take one step: tells its parts as they come, then its envelope, which it also answers.
 *
 * A request that is lost is repeated until there is an envelope; the step is taken once, whatever became of the first.
 * Every answer tells the step anew: a part with index 0 replaces what was heard of that step. Throws RelayError for what
 * no repetition helps, and after `maxTries` failures in a row without anything new.
 */
export async function* pulse(run: Run, o: PulseOptions): AsyncGenerator<PulseEvent, Envelope> {
  let tries = 0;
  let far = -1;
  for (;;) {
    try {
      for await (const event of request(run, o)) {
        if (event.type === "part") {
          const [, attempt, index] = event.at;
          const reached = (attempt === "c" ? 1e6 : attempt) * 1e6 + index;
          if (reached > far) [far, tries] = [reached, 0];
        }
        yield event;
        if (event.type === "envelope") return event.envelope;
      }
    } catch (error) {
      const retry = retrying(error, tries, o);
      tries = retry.tries;
      yield retry;
      await pause(retry.ms, o.signal);
    }
  }
}

/** One request for a step. Throws a retryable RelayError when the answer ends early. */
async function* request(run: Run, o: PulseOptions): AsyncGenerator<PulseEvent> {
  const dog = watchdog(o);
  let last: Cursor | undefined;
  const told = (envelope: Envelope, replayed = false): PulseEvent => ({
    type: "envelope",
    envelope,
    taken: last?.[1] === "c",
    replayed,
  });
  try {
    const headers = { accept: "text/event-stream" };
    const response = await send(run, path(run, "/step"), {
      json: { expectedStep: o.step },
      headers,
      signal: dog.signal,
    });
    const replayed = response.headers.get("idempotent-replayed") === "true";
    if (!response.headers.get("content-type")?.startsWith("text/event-stream"))
      return yield told((await response.json()) as Envelope, replayed);
    for await (const { event, id, data } of messages(response.body!, dog.fed)) {
      const value = JSON.parse(data);
      if (event === "envelope") return yield told(value, replayed);
      if (event === "error") throw new RelayError(value.detail, value.status, value);
      if (event !== "part") continue;
      const at = cursor(id!);
      if (last && last[1] === at[1] && last[2] >= at[2]) continue; // told twice
      last = at;
      yield { type: "part", at, part: value.part };
    }
    throw new RelayError("The answer ended early.");
  } catch (error) {
    if (error instanceof RelayError && error.code === "step_mismatch")
      return yield told({ ...error.body, status: error.body!.runStatus } as Envelope);
    throw broken(error, o.signal);
  } finally {
    dog.done();
  }
}

export function cursor(id: string): Cursor {
  const [step, attempt, index] = id.split(".") as [string, string, string];
  return [+step, attempt === "c" ? attempt : +attempt, +index];
}

/** The messages of an event stream. */
async function* messages(body: ReadableStream<Uint8Array>, fed: () => void): AsyncGenerator<EventSourceMessage> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let heard: EventSourceMessage[] = [];
  const parser = createParser({ onEvent: (message) => heard.push(message) });
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    fed();
    parser.feed(value);
    yield* heard;
    heard = [];
  }
}
