// What durable engines of the JavaScript world have in common: they call one step at a time over HTTP, under their own retries
// and timers, and keep nothing of the run but its id and what is due.

/** The server that has the runs. */
export interface Server {
  /** Its address, without `/api`; by default STEPRELAY_URL. */
  url?: string;
  /** Its server key; by default STEPRELAY_KEY. */
  key?: string;
  fetch?: typeof fetch;
}

/** How a run stands for whoever carries it: small and without words, since engines keep it. */
export interface At {
  action: "pulse" | "wait" | "input" | "end";
  /** Milliseconds until the next look. */
  ms: number;
  /** The step that is due next; -1: not known yet. */
  step: number;
  /** Failures in a row. */
  tries: number;
  /** The run's status, as the server says it. */
  status: string;
  /** Who carries it. */
  carrier: string;
}

/** How carrying a run ended: it is done, or `carrier` is somebody else by now. */
export interface End {
  run: string;
  status: string;
  carrier: string;
}

/** What an engine gives: acts that it remembers by their ids, or simply does, and sleep that costs nothing. */
export interface Host {
  step(id: string, act: () => Promise<At>): Promise<At>;
  sleep(id: string, ms: number): Promise<void>;
}

/** Whatever is tried again will be refused again. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
    this.name = "Refused";
  }
}

/** No answer, or one that may be another next time. */
class Later extends Error {
  constructor(
    message: string,
    readonly ms?: number,
  ) {
    super(message);
    this.name = "Later";
  }
}

/** Failures in a row after which it is the engine's turn to try again. */
export const PATIENCE = 10;
const LONGEST_BACKOFF = 60_000;
const CANCEL_TRIES = 5;
/** How often somebody looks whether a person has answered: at first, and at last. */
const QUESTION = { first: 5_000, last: 300_000 };

/**
 * Carry a run until it is done, is somebody else's, or `legs` requests are made: then there is no answer, and a successor goes
 * on. `by`: what the engine calls this act of carrying, the same at every try. Throws `Refused`; what else it throws may be
 * tried again.
 */
export async function carry(leg: Leg, run: string, by: string, host: Host, legs = Infinity): Promise<End | undefined> {
  let at = await host.step("look", () => leg.look(run));
  for (let n = 0; at.action !== "end"; n++) {
    if (n === legs) return undefined;
    const before = at;
    if (at.ms > 0) await host.sleep(`pause-${n}`, at.ms);
    at = await host.step(`step-${n}`, () => leg.take(run, by, before));
  }
  return { run, status: at.status, carrier: at.carrier };
}

/** Takes steps of runs for one kind of carrier. */
export class Leg {
  private readonly base: string;
  private readonly key: string;
  private readonly fetch: typeof fetch;

  constructor(
    readonly carrier: string,
    { url = process.env.STEPRELAY_URL, key = process.env.STEPRELAY_KEY, fetch: how = fetch }: Server = {},
  ) {
    if (!url) throw new Refused("Set STEPRELAY_URL to the address of the steprelay server, or give `url`.", 0);
    if (!key) throw new Refused("Set STEPRELAY_KEY to its server key, or give `key`.", 0);
    [this.base, this.key, this.fetch] = [`${url.replace(/\/+$/, "")}/api`, key, how];
  }

  /** How the run stands. */
  look(run: string): Promise<At> {
    return this.take(run, "", { action: "pulse", ms: 0, step: -1, tries: 0, status: "", carrier: this.carrier });
  }

  /**
   * The step that is due: taken, waited for, or found taken by somebody else, who then carries on. Its key is the same at every
   * try, so a step whose answer was lost is answered again.
   */
  take(run: string, by: string, at: At): Promise<At> {
    return this.patiently(at, async () => {
      if (at.step < 0) return this.view(run);
      const answer = await this.send(
        `/runs/${encodeURIComponent(run)}/step`,
        { carrier: this.carrier, expectedStep: at.step },
        { "idempotency-key": `${by}/${at.step}` },
      );
      if (answer.status === 200) return this.read(await answer.json(), at);
      const seen = await this.view(run);
      if (seen.action === "end") return seen;
      if (answer.status === 409) return { ...seen, action: "end", ms: 0 }; // another act of carrying took it, and goes on
      return { ...seen, step: at.step, ms: Math.max(seen.ms, seen.action === "pulse" ? 0 : (after(answer) ?? 0)) };
    });
  }

  /** The engine was told to cancel: the run is cancelled for good, unless it is somebody else's. Tried for some seconds, since
   * the engine asks once. */
  async cancel(run: string): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        if ((await this.view(run)).action !== "end") await this.send(`/runs/${encodeURIComponent(run)}/cancel`, {});
        return;
      } catch (error) {
        if (!(error instanceof Later) || tries === CANCEL_TRIES) throw error;
        await new Promise((done) => setTimeout(done, 250 * 2 ** tries));
      }
    }
  }

  private async view(run: string): Promise<At> {
    const answer = await this.send(`/runs/${encodeURIComponent(run)}`);
    return this.read(await answer.json());
  }

  private read(told: Record<string, any>, before?: At): At {
    const { step, status, isTerminal, next, carrier = this.carrier } = told;
    const ours = carrier === this.carrier || carrier === "any";
    const action: At["action"] = isTerminal || !ours ? "end" : next.action;
    const asked = before?.action === "input" ? Math.min(before.ms * 1.5, QUESTION.last) : QUESTION.first;
    const ms = action === "input" ? asked : action === "wait" ? next.afterMs : 0;
    return { action, ms, step: step + 1, tries: 0, status, carrier };
  }

  /** An act, or when to try it again. Throws when it failed too often. */
  private async patiently(at: At, act: () => Promise<At>): Promise<At> {
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof Later) || at.tries >= PATIENCE) throw error;
      const ms = error.ms ?? Math.min(1_000 * 2 ** at.tries, LONGEST_BACKOFF);
      return { ...at, action: "wait", ms, tries: at.tries + 1 };
    }
  }

  /** A request. Throws Later or Refused unless there is something to read: an answer, or that the step is not the next one. */
  private async send(path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
    const init: RequestInit = { headers: { authorization: `Bearer ${this.key}`, ...headers } };
    if (body !== undefined) {
      init.method = "POST";
      init.body = JSON.stringify(body);
      init.headers = { ...init.headers, "content-type": "application/json" };
    }
    let answer: Response;
    try {
      answer = await this.fetch(this.base + path, init);
    } catch (error) {
      throw new Later(`no answer from ${this.base}: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (answer.ok || (answer.status === 409 && path.endsWith("/step"))) return answer;
    const detail = (await answer.json().catch(() => undefined))?.detail ?? "";
    const message = `${path} was answered with ${answer.status}. ${detail}`.trim();
    if ([408, 425, 429].includes(answer.status) || answer.status >= 500) throw new Later(message, after(answer));
    throw new Refused(message, answer.status);
  }
}

/** Milliseconds that an answer wants to pass: seconds, or a date. */
function after(answer: Response): number | undefined {
  const value = answer.headers.get("retry-after");
  if (value === null) return undefined;
  const ms = Number.isNaN(Number(value)) ? Date.parse(value) - Date.now() : Number(value) * 1_000;
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}
