import { AbstractAgent, contentToText, type AgentConfig, type BaseEvent, type RunAgentInput } from "@ag-ui/client";
import { Observable } from "rxjs";
import { Events } from "./ag-ui-events.js";
import { drive } from "./drive.js";
import { ask, path, patiently, RelayError } from "./http.js";
import type { Answer, DriveOptions, Run, RunView, StartOptions } from "./types.js";
import { cancel, respond, resume, start } from "./verbs.js";

/** How an agent reaches the server, and what its runs are like. `threadId` names the run. */
export interface RelayAgentConfig
  extends
    AgentConfig,
    Omit<DriveOptions, "signal" | "stay" | "from">,
    Omit<StartOptions, "prompt" | "sessionId" | "signal"> {
  /** Whether `abortRun()` stops the run on the server as well. Default true. */
  stopsRun?: boolean | undefined;
}

/**
 * An AG-UI agent whose runs are steprelay's: works wherever an HttpAgent does. A thread is a run.
 *
 * Every `runAgent` is one AG-UI run over many short requests; this tab drives it, or follows the one that does. The newest
 * message of the user is the prompt; `resume` answers interrupts.
 */
export class RelayAgent extends AbstractAgent {
  private life: AbortController | undefined;
  private token: string | undefined;

  constructor(private config: RelayAgentConfig = {}) {
    super(config);
    this.token = config.token;
  }

  run(input: RunAgentInput): Observable<BaseEvent> {
    return this.observe(input, async (o) => {
      const { threadId, runId, messages } = input;
      const events = new Events(threadId, runId, messages);
      const prompt = contentToText(messages.findLast((message) => message.role === "user")?.content ?? "");
      const row = await this.look(threadId, o);
      if (!row) {
        const run = await start({ ...this.config, prompt, sessionId: threadId, ...o });
        this.token = run.token;
        return { events, view: run.view!, from: 0 };
      }
      const view = await this.say(row, prompt, input.resume as Answer[] | undefined, o);
      return { events, view, from: row.step + 1 };
    });
  }

  /** Open a thread that is there: everything said so far, then what is said from now on. */
  protected override connect(input: RunAgentInput): Observable<BaseEvent> {
    return this.observe(input, async (o) => {
      const { threadId, runId } = input;
      const row = await this.look(threadId, o);
      if (!row) throw new RelayError("There is no such thread.", 404);
      return { events: new Events(threadId, runId, []), view: undefined, from: 0, opened: true };
    });
  }

  override abortRun() {
    this.life?.abort();
    if (this.life && this.config.stopsRun !== false) void cancel(this.at(this.threadId), this.config).catch(() => {});
    this.life = undefined;
  }

  override clone(): RelayAgent {
    const twin = super.clone() as RelayAgent;
    return Object.assign(twin, { config: this.config, token: this.token });
  }

  // ---------------------------------------------------------------- inside

  private at(sessionId: string): Run {
    const { baseUrl, headers, fetch } = this.config;
    return { baseUrl, headers, fetch, token: this.token, sessionId };
  }

  private async look(threadId: string, o: { signal: AbortSignal }): Promise<RunView | null> {
    const run = this.at(threadId);
    try {
      const options = { ...this.config, ...o };
      const [row] = await patiently(() => ask<RunView>(run, path(run), {}, options), options);
      return row;
    } catch (error) {
      // Nobody knows this browser before its first run: then there is none.
      if (error instanceof RelayError && [401, 404].includes(error.status)) return null;
      throw error;
    }
  }

  private say(
    row: RunView,
    prompt: string,
    answers: Answer[] | undefined,
    o: { signal: AbortSignal },
  ): Promise<RunView> {
    const run = this.at(row.sessionId);
    const options = { ...this.config, ...o };
    if (answers?.length) return respond(run, answers, options);
    const same = JSON.stringify(row.prompt) === JSON.stringify(prompt);
    if (row.isTerminal && row.stopReason !== "finished" && same) return resume(run, undefined, options);
    if (!row.isTerminal && row.status !== "AWAITING_INPUT" && same) return Promise.resolve(row); // it is being carried
    return respond(run, prompt, options);
  }

  private observe(input: RunAgentInput, begin: (o: { signal: AbortSignal }) => Promise<Begun>): Observable<BaseEvent> {
    return new Observable<BaseEvent>((reader) => {
      const life = (this.life = new AbortController());
      const tell = async () => {
        const begun = await begin({ signal: life.signal });
        begun.events.started().forEach((event) => reader.next(event));
        const run = { ...this.at(input.threadId), view: begun.view };
        for await (const event of this.events(run, begun, life.signal)) reader.next(event);
        if (this.life === life) this.life = undefined;
      };
      tell().then(
        () => reader.complete(),
        (error) => (life.signal.aborted ? reader.complete() : reader.error(error)),
      );
      return () => life.abort();
    });
  }

  private async *events(run: Run, { events, from, opened }: Begun, signal: AbortSignal): AsyncGenerator<BaseEvent> {
    for await (const event of drive(run, { ...this.config, signal, from })) {
      if (event.type === "part") {
        const { at, part } = event;
        if (opened && at[1] === "c" && part.type === "text" && part.role === "user")
          yield* events.prompted(`${run.sessionId}:${at[0]}:user${at[2]}`, part.text);
        yield* events.part(event);
      } else if (event.type === "envelope" || event.type === "run") {
        const now = event.type === "run" ? event.run : event.envelope;
        if (["input", "none"].includes(now.next.action)) yield* events.end(now);
      }
    }
  }
}

interface Begun {
  events: Events;
  /** The row as it was just read. */
  view: RunView | undefined;
  from: number;
  /** The reader has none of it. */
  opened?: boolean;
}
