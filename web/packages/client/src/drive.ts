import { ask, path, patiently, pause, RelayError } from "./http.js";
import type { components } from "./openapi.js";
import { cursor, pulse } from "./pulse.js";
import { alone, channel, type Message } from "./tabs.js";
import type { DriveOptions, Envelope, EnvelopeEvent, PartEvent, RowEvent, Run, RunEvent, RunView } from "./types.js";
import { beacon } from "./verbs.js";

type Next = Envelope["next"];
type PartPage = components["schemas"]["PartList"];

/**
 * Carry a run on, or follow it while somebody else does; tells everything, from the first part on.
 *
 * Of a browser's tabs one talks to the server and tells the others; when it goes, another takes over. Ends when the run
 * has ended or waits for a person, unless `stay`. Leaving it (`break`, abort) stops this tab only.
 * Throws RelayError when the run cannot be had, and with the code `client_brake` when this tab's own brakes stop it.
 */
export async function* drive(run: Run, o: DriveOptions = {}): AsyncGenerator<RunEvent, void> {
  const life = new AbortController();
  const leave = () => life.abort();
  const queue: (RunEvent | { thrown: unknown })[] = [];
  let wake = () => {};
  const tell = (e: RunEvent | { thrown: unknown }) => {
    queue.push(e);
    wake();
  };
  o.signal?.addEventListener("abort", leave);
  life.signal.addEventListener("abort", () => wake());
  try {
    if (!o.signal?.aborted) void sit(run, { ...o, signal: life.signal }, tell).catch((thrown) => tell({ thrown }));
    while (!o.signal?.aborted) {
      const e = queue.shift();
      if (!e) await new Promise<void>((resolve) => (wake = resolve));
      else if ("thrown" in e) throw e.thrown;
      else {
        yield e;
        if (!o.stay && settled(e)) return;
      }
    }
  } finally {
    o.signal?.removeEventListener("abort", leave);
    leave();
  }
}

const nextOf = (e: EnvelopeEvent | RowEvent) => (e.type === "run" ? e.run : e.envelope).next;

/** Whether this is the last that a reader who does not stay is told. */
const settled = (e: RunEvent): boolean =>
  (e.type === "envelope" || e.type === "run") && ["input", "none"].includes(nextOf(e).action);

/** One tab's seat at a run: at the wheel, or behind whoever is. Until aborted, or there is nothing more to do. */
async function sit(run: Run, o: DriveOptions & { signal: AbortSignal }, tell: (e: RunEvent) => void): Promise<void> {
  const { signal } = o;
  const tabs = channel(run);
  const bell = new EventTarget();
  let next: Next = run.view?.next ?? { action: "pulse", afterMs: 0 };
  let carrier = run.view?.carrier ?? "client";
  let at = o.from ?? 0; // the first step that is not known whole
  let log: PartEvent[] = []; // what was told of it since it began anew
  const fresh = run.view && run.view.step === at - 1; // there is nothing to read
  let steps = 0; // since the last input
  let leading = false;
  let etag: string | null = null; // of the row as it was last read
  let asked = false;
  let inbox: Promise<unknown> = Promise.resolve();

  const post = (message: Message) => tabs?.postMessage(message);
  const emit = (e: RunEvent) => {
    tell(e);
    if (leading) post({ event: e });
  };
  const mine = () => carrier === "client" || carrier === "any";

  /** A part, if it is the next one or begins its step anew. False: something before it is missing. */
  const hear = (e: PartEvent): boolean => {
    const [step, attempt, index] = e.at;
    const [, before, i] = log.at(-1)?.at ?? [0, attempt, -1];
    if (step < at || (index && attempt === before && index <= i)) return true;
    if (step > at || (index && (attempt !== before || index > i + 1))) return false;
    if (!index) log = [];
    log.push(e);
    emit(e);
    return true;
  };

  /** How the run stands. What was missed of the steps before comes first; if it was more than one, with the row. */
  const see = async (e: EnvelopeEvent | RowEvent): Promise<void> => {
    const count = (e.type === "run" ? e.run : e.envelope).step + 1;
    if (count > at) {
      const whole = e.type === "envelope" && e.taken && count === at + 1 && log.at(-1)?.at[1] === "c";
      if (!whole && e.type === "envelope") return look((etag = null));
      if (!whole) await fill();
      at = count;
      log = [];
    }
    if (e.type === "run") carrier = e.run.carrier;
    else if (e.taken) steps++;
    if (settled(e)) steps = 0;
    asked = false;
    next = nextOf(e);
    emit(e);
  };

  /** The committed parts from `at` on. Only for this tab: the others fetch what they miss. */
  const fill = async () => {
    for (let after: number | null = at - 1; after !== null;) {
      const question = path(run, `/parts?after=${after}`);
      const [page] = await patiently(() => ask<PartPage>(run, question, {}, o), o, emit);
      for (const { id, part } of page!.parts) tell({ type: "part", at: cursor(id), part });
      after = page!.after;
    }
  };

  /** Read the row. One that is known is asked for when it changes, at the latest after `ms`. */
  const look = async (ms?: number | null) => {
    const began = Date.now();
    const hold = etag && ms ? Math.ceil(Math.min(ms, 20_000) / 1000) : 0;
    const headers: HeadersInit = etag ? { "if-none-match": etag } : {};
    const question = path(run, hold ? `?wait=${hold}` : "");
    const [row, response] = await patiently(() => ask<RunView>(run, question, { headers }, o), o, emit);
    if (row) {
      etag = response.headers.get("etag");
      if (!etag) await pause(Math.min(ms ?? 0, 1000), signal);
      return see({ type: "run", run: row });
    }
    await pause(Math.min(ms ?? 0, 1000) - (Date.now() - began), signal); // a server that does not hold it is not hammered
    if (next.action === "wait") wait(next.afterMs - (Date.now() - began));
  };
  const wait = (ms: number) => {
    next = ms > 0 || !mine() ? { action: "wait", afterMs: Math.max(ms, 1000) } : { action: "pulse", afterMs: 0 };
  };

  /** Ask for steps, or for news where others take them. Never a timer between two steps: hidden tabs have slow ones. */
  const lead = async () => {
    await inbox;
    leading = true;
    emit({ type: "driver", driving: true });
    await (fresh ? see({ type: "run", run: run.view! }) : look((etag = null)));
    for (let idle = 0; ;) {
      const { action, afterMs } = next;
      if (action === "pulse" && mine()) {
        const before = at;
        etag = null; // of the row as it was
        for await (const e of pulse(run, { ...o, step: at })) {
          if (e.type === "part") hear(e);
          else if (e.type === "envelope") await see(e);
          else emit(e);
        }
        idle = at > before || next.action !== "pulse" ? 0 : idle + 1;
        if (idle > (o.maxIdle ?? 10)) throw brake("The run does not get any further.");
        if (steps >= (o.maxSteps ?? 200)) throw brake("This tab may take no more steps on its own.");
      } else if (action === "wait" && mine() && afterMs < 1000) {
        await pause(Math.max(afterMs, 50), signal);
        wait(0);
      } else if (action === "wait") await look(afterMs);
      else if (action !== "pulse" && !o.stay) return;
      else if (action !== "none") await look(20_000);
      else {
        await pause(Infinity, signal, bell);
        await look((etag = null));
      }
    }
  };

  const receive = async (m: Message) => {
    if ("poke" in m) bell.dispatchEvent(new Event("ring"));
    else if (leading) "ask" in m && post({ log });
    else if ("log" in m) {
      asked = false;
      if (m.log.at(-1)?.at.join() !== log.at(-1)?.at.join()) m.log.forEach(hear);
    } else if ("event" in m) {
      const e = m.event;
      if (e.type === "envelope" || e.type === "run") await see(e);
      else if (e.type === "retry") tell(e);
      else if (e.type === "part" && !hear(e) && !asked) post({ ask: (asked = true) });
    }
  };

  const leaving = () => {
    if (o.handOver && leading && mine() && (next.action === "pulse" || next.action === "wait")) beacon(run);
  };
  let fail: (error: unknown) => void;
  const failed = new Promise<never>((_, reject) => (fail = reject));
  const enqueue = (job: () => Promise<unknown>) => (inbox = inbox.then(job)).catch(fail);
  if (tabs) tabs.onmessage = ({ data }) => enqueue(() => receive(data));
  globalThis.addEventListener?.("pagehide", leaving);
  try {
    const behind = () => enqueue(() => look().then(() => post({ ask: (asked = true) })));
    await Promise.race([failed, alone(run, signal, lead, behind)]);
  } finally {
    globalThis.removeEventListener?.("pagehide", leaving);
    tabs?.close();
  }
}

const brake = (detail: string) => new RelayError(detail, 400, { code: "client_brake" });
