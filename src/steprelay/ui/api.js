// The HTTP side: every request of the page, and the only place that knows the names on the wire.

import { events } from "./sse.js";

/** The server answered, but not with what was asked for. `retryable`: the same request may succeed later. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body?.detail || body?.title || body?.error?.message || `The server answered ${status}.`);
    this.status = status;
    this.body = body;
    this.retryAfter = retryAfter; // seconds or null
    this.retryable = status === 408 || status === 425 || status === 429 || status >= 500;
  }
}

/** No answer, or half of one: whether the server acted is unknown until the same request is repeated. */
export class Unreachable extends Error {
  retryable = true;
}

const seconds = (t) => (t == null ? null : typeof t === "number" ? t : Date.parse(t) / 1000);

export class Api {
  /** `base`: where the API lives, with a trailing slash; `fetch` is for tests. */
  constructor(base, fetch = (...a) => globalThis.fetch(...a)) {
    this.base = base;
    this.fetch = fetch;
    this.skew = 0; // server clock minus ours, in seconds
  }

  /** Seconds since the epoch by the server's clock: leases are judged by it, never by ours. */
  now() {
    return Date.now() / 1000 + this.skew;
  }

  async send(method, path, { body, headers = {}, ...rest } = {}) {
    const json = body === undefined ? {} : { "content-type": "application/json" };
    const init = { method, headers: { accept: "application/json", ...json, ...this.rights(path), ...headers }, ...rest };
    if (body !== undefined) init.body = JSON.stringify(body);
    let response;
    try {
      response = await this.fetch(this.base + path, init);
    } catch (e) {
      if (rest.signal?.aborted) throw e;
      throw new Unreachable("No connection to the server.");
    }
    this.clock(response.headers.get("date"));
    if (response.ok || response.status === 304) return response;
    const wait = parseFloat(response.headers.get("retry-after"));
    throw new Problem(response.status, await response.json().catch(() => null), Number.isNaN(wait) ? null : wait);
  }

  async json(method, path, options) {
    const response = await this.send(method, path, options);
    try {
      return await response.json();
    } catch (e) {
      if (options?.signal?.aborted) throw e;
      throw new Unreachable("The answer broke off.");
    }
  }

  /** The Date header has whole seconds: it moves our idea of the server's clock only when that is further off. */
  clock(date) {
    const off = date ? Date.parse(date) / 1000 + 0.5 - this.now() : 0;
    if (Math.abs(off) > 1) this.skew += off;
  }

  /** The run token the server gave for a run goes with every request for it; else the key typed in, if any. */
  rights(path) {
    const id = /^runs\/([^/?]+)/.exec(path)?.[1];
    const token = (id && read(`token:${decodeURIComponent(id)}`, localStorage)) ?? read("key");
    return token ? { authorization: `Bearer ${token}` } : {};
  }

  // ---------------------------------------------------------------- runs

  /** A new run. `repeat`: the same one, however often it is asked for. */
  async start(task, repeat) {
    const made = await this.json("POST", "runs", { body: task, headers: { "idempotency-key": repeat } });
    return this.mine(made);
  }

  /** A run just made, and the right to it kept for this browser's other tabs. */
  mine(made) {
    if (made.token) write(`token:${made.sessionId}`, made.token, localStorage);
    return runFrom(made);
  }

  async list() {
    return (await this.json("GET", "runs?limit=30")).runs.map(runFrom);
  }

  async run(id, { wait = 0, etag = null, signal } = {}) {
    const headers = etag ? { "if-none-match": etag } : {};
    const response = await this.send("GET", `${at(id)}${wait ? `?wait=${wait}` : ""}`, { headers, signal });
    if (response.status === 304) return null;
    const row = await response.json().catch(() => {
      throw new Unreachable("The answer broke off.");
    });
    return { ...runFrom(row), etag: response.headers.get("etag") };
  }

  async steps(id, after = -1, signal) {
    const rows = [];
    for (;;) {
      const page = await this.json("GET", `${at(id)}/steps?after=${after}&limit=200`, { signal });
      rows.push(...page.steps.map(stepFrom));
      if (page.after === null) return rows;
      after = page.after;
    }
  }

  /** The whole of a result that was cut. */
  async blob(id, name) {
    return this.json("GET", `${at(id)}/blobs/${name.split("/").map(encodeURIComponent).join("/")}`);
  }

  /** Ask for one step. `heard(part)` gets what the agent says while it works. Answers the envelope. */
  async step(id, { expectedStep, signal, heard = () => {} }) {
    const headers = { accept: "text/event-stream" };
    let response;
    try {
      response = await this.send("POST", `${at(id)}/step`, { body: { expectedStep }, headers, signal });
    } catch (e) {
      if (e.status === 409 && e.body?.sessionId) return envelopeFrom({ ...e.body, status: e.body.runStatus }, 409); // where the run really is
      throw e;
    }
    const replayed = response.headers.get("idempotent-replayed") === "true";
    const retryAfter = parseFloat(response.headers.get("retry-after"));
    const body = await this.envelope(response, signal, heard);
    return { ...envelopeFrom(body, response.status), replayed, retryAfter: retryAfter || null };
  }

  async envelope(response, signal, heard) {
    try {
      if (!response.headers.get("content-type")?.startsWith("text/event-stream")) return await response.json();
      for await (const e of events(response.body)) {
        const value = JSON.parse(e.data);
        if (value.sessionId !== undefined && value.isTerminal !== undefined) return value;
        if (e.event === "error" || value.status >= 400) throw new Problem(value.status ?? 500, value, null);
        heard(value.part ?? value, e.id);
      }
    } catch (e) {
      if (signal?.aborted || e instanceof Problem) throw e;
    }
    throw new Unreachable("The answer broke off.");
  }

  /** `given`: {answers: [{interruptId, status, payload}]}, or {userPrompt} for the next round. */
  async input(id, given) {
    return this.json("POST", `${at(id)}/input`, { body: given });
  }

  async cancel(id) {
    return this.json("POST", `${at(id)}/cancel`, { body: {} });
  }

  async resume(id, limits) {
    return this.json("POST", `${at(id)}/resume`, { body: limits ? { limits } : {} });
  }

  /** A new run with the history up to and including `step`. */
  async fork(id, step, edit) {
    return this.mine(await this.json("POST", `${at(id)}/fork`, { body: { step, edit } }));
  }

  /** `leaving`: the page is about to go, so the request must outlive it. */
  async handOver(id, carrier, takeoverAfter, leaving = false) {
    return this.json("POST", `${at(id)}/hand-over`, { body: { carrier, takeoverAfter }, keepalive: leaving });
  }

  async explain(id) {
    return this.json("GET", `${at(id)}/explain`);
  }

  // ---------------------------------------------------------------- demo server only

  async demo() {
    return this.json("GET", "demo").then((d) => ({ kill: d.pid !== undefined }), () => ({ kill: false }));
  }

  async kill() {
    return this.json("POST", "demo/kill", { body: {} }).catch((e) => {
      if (!(e instanceof Unreachable)) throw e; // a killed server does not say goodbye
    });
  }
}

const at = (id) => `runs/${encodeURIComponent(id)}`;

// ---------------------------------------------------------------- from the wire

/** A run as the page knows it. Times in seconds since the epoch; `step`: number of committed steps. */
export function runFrom(w) {
  return {
    ...w,
    id: w.sessionId,
    step: w.step + 1,
    holder: w.lease?.held ? w.lease.holder : null,
    leaseUntil: w.lease?.held ? seconds(w.lease.until) : null,
    dueAt: seconds(w.dueAt),
    createdAt: seconds(w.createdAt),
    updatedAt: seconds(w.updatedAt),
  };
}

/** A step row as the page knows it. */
export function stepFrom(w) {
  return {
    ...w,
    claimedAt: seconds(w.claimedAt),
    committedAt: seconds(w.committedAt),
  };
}

/** What one request for a step came to. */
export function envelopeFrom(w, http) {
  return { ...w, http, next: w.next ?? { action: "none", afterMs: 0 } };
}

// ---------------------------------------------------------------- small things kept in this browser

export function read(key, where = sessionStorage) {
  try {
    return JSON.parse(where.getItem(`steprelay:${key}`));
  } catch {
    return null;
  }
}

export function write(key, value, where = sessionStorage) {
  try {
    where.setItem(`steprelay:${key}`, JSON.stringify(value));
  } catch {
    // storage may be off or full: then a reload forgets, nothing else does
  }
}

/** 128 random bits; crypto.randomUUID is missing on plain-http hosts. */
export function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}
