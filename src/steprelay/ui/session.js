// One open run: keeps its row and its steps fresh, drives it while it belongs to this browser, and tells the view.
// No DOM in here.

import { Facts } from "./facts.js";
import { alone, backoff, pause, relay } from "./relay.js";
import { ended } from "./words.js";

const LEASE = 15; // what the gauge of a lease is full at, until a longer one is seen
const FOLLOW = 15; // seconds the server may hold a follower's question

export class Session {
  /** `changed()` is called after anything that shows; `watching`: another program drives, we only look. */
  constructor(api, id, changed, watching = false) {
    Object.assign(this, { api, id, changed, facts: new Facts(id), run: null, steps: [], error: null });
    this.link = { state: "ok" }; // ok, lost {until, tries}, busy {until, who}, waiting {until}
    this.live = fresh(null);
    this.lease = LEASE;
    this.driving = this.closed = this.stopping = this.losing = false;
    this.watching = watching;
    this.life = new AbortController();
    this.bell = new EventTarget(); // ends a wait early: what was waited for has happened
    this.wheel = null; // aborts driving only
  }

  /** Load the run, then keep up with it until `close`. */
  async open() {
    await this.refresh(true);
    if (this.error) return;
    this.steer();
    this.follow();
  }

  close() {
    this.life.abort();
    this.wheel?.abort();
  }

  // ------------------------------------------------------------ reading

  /** Read the row and the new steps; calls that overlap share one more round. */
  refresh(whole = false) {
    this.wanted = { whole: whole || (this.wanted?.whole ?? false) };
    this.reading ??= this.#read().finally(() => (this.reading = null));
    return this.reading;
  }

  async #read() {
    while (this.wanted && !this.life.signal.aborted) {
      const { whole } = this.wanted;
      this.wanted = null;
      try {
        const run = await this.api.run(this.id, { signal: this.life.signal });
        await this.#take(run, whole);
        this.error = null;
      } catch (e) {
        if (this.life.signal.aborted) return;
        if (!e.retryable) this.error = e;
        else if (!this.run) {
          this.#lost(1, 1);
          await pause(1, this.life.signal);
          this.wanted = { whole: true };
        }
      }
      this.changed();
    }
  }

  /** One at a time: what is read must not be overtaken by something older. */
  #take(run, whole) {
    const next = (this.taking ?? Promise.resolve()).then(() => this.#takeNow(run, whole));
    this.taking = next.catch(() => {});
    return next;
  }

  async #takeNow(run, whole) {
    if (this.run && (run.step < this.run.step || run.updatedAt < this.run.updatedAt)) return;
    const done = ended(run) && !(this.run && ended(this.run));
    const newest = this.steps.at(-1)?.index ?? -1;
    if (whole || done) this.steps = await this.api.steps(this.id, -1, this.life.signal); // recount from the beginning
    else if (run.step - 1 > newest) {
      this.steps = [...this.steps, ...(await this.api.steps(this.id, newest, this.life.signal))];
    }
    this.steps.forEach((step) => this.facts.seen(step));
    if (run.step !== this.live.index) this.live = fresh(run.step);
    if (this.run?.step !== run.step || this.run?.attempts !== run.attempts) this.since = this.api.now();
    const freed = this.run && (run.step !== this.run.step || (this.run.holder && !run.holder));
    this.run = run;
    this.#note(run);
    if (freed) this.bell.dispatchEvent(new Event("ring"));
  }

  #note(run) {
    if (run.holder && run.leaseUntil) this.facts.held(run.step, run.attempts, run.holder);
    const left = (run.leaseUntil ?? 0) - this.api.now();
    if (left > this.lease) this.lease = left;
    if (this.wheel && !this.mine()) this.wheel.abort(); // somebody else was asked to carry it
    if (this.link.state === "lost" && !this.driving) this.link = { state: "ok" };
  }

  /** Ask for news: with held-open questions while others drive, now and then for the lease while we do. */
  async follow() {
    const { signal } = this.life;
    let tries = 0;
    while (!signal.aborted) {
      const working = this.driving && this.link.state !== "busy";
      if (working || ended(this.run)) {
        await pause(working ? 2.5 : 30, signal);
        if (working && this.api.now() - this.since > 2) await this.refresh();
        continue;
      }
      const asked = Date.now();
      try {
        const run = await this.api.run(this.id, { wait: FOLLOW, etag: this.run.etag, signal });
        tries = 0;
        if (run) {
          await this.#take(run, false);
          this.steer();
        }
        if (this.link.state === "lost") this.link = { state: "ok" };
        this.changed();
      } catch (e) {
        if (signal.aborted) return;
        if (!e.retryable) return void this.fail(e);
        const seconds = e.retryAfter ?? backoff(tries++);
        if (!this.driving) this.#lost(seconds, tries);
        await pause(seconds, signal);
      }
      await pause(0.8 - (Date.now() - asked) / 1000, signal); // a server that does not hold the question is not hammered
    }
  }

  fail(error) {
    this.error = error;
    this.changed();
  }

  #lost(seconds, tries) {
    this.link = { state: "lost", until: this.api.now() + seconds, tries };
    this.changed();
  }

  // ------------------------------------------------------------ driving

  /** Whether this browser may carry the run on. */
  mine() {
    const { carrier, next } = this.run;
    return !this.closed && !this.stopping && !this.watching && (carrier === "client" || carrier === "any")
      && (next.action === "pulse" || next.action === "wait");
  }

  /** Take the wheel when the run is ours; one tab of a browser at a time. */
  async steer() {
    if (this.wheel || !this.run || !this.mine()) return;
    const wheel = (this.wheel = new AbortController());
    let why = "stopped";
    try {
      why = await alone(this.id, wheel.signal, () => this.#drive(wheel.signal));
    } catch (e) {
      if (!wheel.signal.aborted) this.fail(e);
    }
    this.wheel = null;
    this.driving = false;
    if (this.link.state !== "lost") this.link = { state: "ok" };
    if (this.life.signal.aborted || this.closed) return;
    await this.refresh();
    if (why === "done" || why === "input" || !this.error) this.steer();
  }

  async #drive(signal) {
    await this.refresh();
    if (!this.mine() || signal.aborted) return "stopped";
    this.driving = true;
    this.changed();
    const drop = () => this.losing && ((this.losing = false), true);
    const wait = (seconds) => pause(seconds, signal, this.bell);
    return relay({ api: this.api, id: this.id, next: this.run.step, signal, drop, wait, tell: (e) => this.#hear(e) });
  }

  #hear(e) {
    const now = this.api.now();
    if (e.type === "asked") this.#asked(e, now);
    else if (e.type === "part") hearPart(this.live, e);
    else if (e.type === "lost") {
      this.live = fresh(e.step ?? this.live.index);
      this.#lost(e.seconds, e.tries);
    } else if (e.type === "busy") {
      this.link = { state: "busy", until: now + e.seconds };
      this.refresh();
    } else if (e.type === "waiting") {
      this.link = { state: "waiting", until: now + e.seconds };
      this.refresh();
    } else if (e.type === "found") this.link = { state: "ok" };
    else if (e.type === "answered" || e.type === "replayed") {
      if (e.repeat) this.facts.repeated(e.envelope);
      this.link = { state: "ok" };
      this.refresh();
    }
    this.changed();
  }

  #asked(e, now) {
    if (this.live.index !== e.step) this.live = fresh(e.step);
    if (!e.tries && this.link.state === "ok") this.since = now;
    else setTimeout(() => this.refresh(), 300); // after a death: who has it now?
    if (this.link.state === "waiting") this.link = { state: "ok" };
  }

  // ------------------------------------------------------------ what people do

  /** Stop: here at once, and durably in the store, however long that takes to reach. */
  async stop() {
    if (this.stopping || ended(this.run)) return;
    this.stopping = true;
    this.wheel?.abort();
    this.changed();
    for (let tries = 0; !this.life.signal.aborted; tries++) {
      try {
        await this.api.cancel(this.id);
        break;
      } catch (e) {
        if (!e.retryable) {
          this.stopping = false;
          return this.fail(e);
        }
        this.#lost(backoff(tries), tries + 1);
        await pause(e.retryAfter ?? backoff(tries), this.life.signal);
      }
    }
    await this.refresh();
    this.changed();
  }

  async handOver(carrier, takeoverAfter = null) {
    this.watching = false;
    await this.api.handOver(this.id, carrier, takeoverAfter);
    await this.refresh();
    this.steer();
  }

  /** As if the tab were closed: hand over with a request that outlives the page, and do nothing more. */
  async closeTab() {
    this.closed = true;
    const sent = this.api.handOver(this.id, "background", this.lease, true);
    this.close();
    this.changed();
    await sent;
  }

  async answer(answers) {
    await this.api.input(this.id, answers);
    await this.refresh();
    this.stopping = false;
    this.steer();
  }

  async goOn(limits) {
    await this.api.resume(this.id, limits);
    this.stopping = false;
    await this.refresh();
    this.steer();
  }

  async kill() {
    await this.refresh();
    this.facts.kill(this.run.holder);
    await this.api.kill();
    this.changed();
  }

  loseNext() {
    this.losing = true;
    this.changed();
  }

  /** The step under way as the track draws it, or null. */
  underway() {
    const { run } = this;
    const now = this.api.now();
    if (!run || run.status !== "RUNNING") return null;
    const left = (run.leaseUntil ?? 0) - now;
    const silent = left > 0 && (this.link.state === "lost" || this.facts.killed.includes(run.holder));
    if (left <= 0 && !this.driving) return null;
    const carrier = run.carrier === "any" ? this.steps.at(-1)?.carrier ?? "client" : run.carrier;
    return { carrier, since: this.since ?? now, silent, leaseLeft: left, lease: this.lease, deaths: Math.max(0, (left > 0 ? run.attempts : 1) - 1) };
  }
}

const fresh = (index) => ({ index, attempt: null, texts: new Map(), calls: new Map() });

/** Add what is said right now. Committed parts are left to the step row, and a new attempt starts over. */
function hearPart(live, { part, id }) {
  const [, attempt] = (id ?? "").split(".");
  if (attempt === "c") return;
  if (attempt !== undefined && live.attempt !== null && attempt !== live.attempt) Object.assign(live, fresh(live.index));
  live.attempt = attempt ?? null;
  if (part.type === "text" || part.type === "thought") {
    const key = `${part.type}:${part.id ?? ""}`;
    const before = part.delta ? live.texts.get(key)?.text ?? "" : "";
    live.texts.set(key, { thought: part.type === "thought", text: before + part.text });
  } else if (part.type === "call") live.calls.set(part.id, { call: part });
  else if (part.type === "result") live.calls.set(part.id, { ...live.calls.get(part.id), result: part });
}
