// A little server with the step protocol of one process and a memory: it takes steps, replays them, says busy, and does
// to its answers whatever a test asks for. Attempts of a step say different words, so that mixing them shows.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Envelope, Part, RunView } from "../../src/index.js";

/** What happens to one request. `cut`: the connection dies after so many bytes of the answer. */
export interface Fault {
  /** The process dies there, too: what is not committed is lost, and another attempt begins. */
  kill?: boolean;
  cut?: number;
  /** No answer at all, before anything is done. */
  refuse?: boolean;
  /** This status instead, before anything is done. */
  status?: number;
  retryAfter?: string;
  /** Every event twice. */
  twice?: boolean;
  /** Bytes to a packet. */
  dribble?: number;
  /** Nothing is said after so many bytes, and the connection stays open. */
  hang?: number;
  /** The Content-Type of a proxy that buffers: the envelope as JSON. */
  plain?: boolean;
}

export interface Script {
  /** Words of each step; the last one ends the run. */
  steps: string[][];
  /** Index of a step that asks a person before the next one. */
  asks?: number;
  /** Index of a step after which the run waits, and how long. */
  waits?: { step: number; ms: number };
}

interface Row {
  id: string;
  script: Script;
  committed: { attempt: number; parts: Part[]; envelope: Envelope }[];
  attempts: number;
  held: number;
  carrier: string;
  status: RunView["status"];
  due: number;
  version: number;
  prompt: string;
}

export class Relay {
  readonly runs = new Map<string, Row>();
  /** Faults of the next requests, in order; by default those for steps only. */
  faults: Fault[] = [];
  faulty = (request: string): boolean => request.endsWith("/step");
  /** Requests as they came: `POST /runs/x/step 3`. */
  readonly log: string[] = [];
  /** Waits until a test lets a step go on: its run and index. */
  gate: ((id: string, step: number, words: number) => Promise<void> | undefined) | undefined;
  script: Script = { steps: [["Hello ", "there"]] };
  private constructor(private server: Server) {}

  static async open(): Promise<Relay> {
    const server = createServer((request, response) => void relay.answer(request, response));
    const relay = new Relay(server);
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    return relay;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }

  /** What the run's steps came to, as its store has them. */
  texts(id: string): string[] {
    return this.runs
      .get(id)!
      .committed.map(({ parts }) => parts.map((p) => (p.type === "text" && p.role !== "user" ? p.text : "")).join(""));
  }

  /** Another driver takes a step, whose request nobody here can repeat. */
  advance(id: string): void {
    const run = this.runs.get(id)!;
    commit(run, FOREIGN, run.script.steps[run.committed.length]!.join(""));
    run.version++;
  }

  // ---------------------------------------------------------------- HTTP

  private async answer(request: IncomingMessage, response: ServerResponse) {
    response.on("error", () => {});
    const { pathname, searchParams } = new URL(request.url!, this.url);
    const path = pathname.replace(/^\/api/, "");
    let raw = "";
    for await (const chunk of request) raw += chunk;
    const body = raw ? JSON.parse(raw) : {};
    const line = `${request.method} ${path}${body.expectedStep === undefined ? "" : ` ${body.expectedStep}`}`;
    this.log.push(line);
    const fault = this.faulty(`${request.method} ${path}`) ? (this.faults.shift() ?? {}) : {};
    if (fault.refuse) return void response.destroy();
    if (fault.status)
      return problem(response, fault.status, "told_to", fault.retryAfter ? { "retry-after": fault.retryAfter } : {});
    const out = new Pipe(response, fault);
    if (path === "/runs") return this.create(body, out);
    const [, , id, verb = ""] = path.split("/") as [string, string, string, string?];
    const run = this.runs.get(id);
    if (!run) return problem(response, 404, "not_found");
    switch (verb) {
      case "":
        return this.look(run, request, out, Number(searchParams.get("wait") ?? 0));
      case "parts":
        return out.json(200, parts(run, Number(searchParams.get("after") ?? -1)));
      case "step":
        return this.step(run, body.expectedStep, out, fault);
      case "cancel":
        if (!run.held) end(run, "CANCELLED");
        run.status = "CANCELLED";
        break;
      case "input":
        if (run.status !== "AWAITING_INPUT") return problem(response, 409, "run_busy");
        run.status = "RUNNING";
        break;
      case "resume":
        run.status = "RUNNING";
        break;
      case "hand-over":
        run.carrier = body.carrier;
        break;
    }
    run.version++;
    out.json(200, view(run));
  }

  private create(body: { sessionId: string; userPrompt: string; carrier?: string }, out: Pipe) {
    const { sessionId: id, userPrompt: prompt, carrier = "client" } = body;
    const made: Row = {
      id,
      script: this.script,
      committed: [],
      attempts: 0,
      held: 0,
      carrier,
      status: "RUNNING",
      due: 0,
      version: 0,
      prompt,
    };
    const run = this.runs.get(id) ?? made;
    this.runs.set(id, run);
    out.json(201, { ...view(run), token: `token-of-${id}` });
  }

  private async look(run: Row, request: IncomingMessage, out: Pipe, wait: number) {
    const until = Date.now() + wait * 1000;
    const etag = () => `"${run.version}.${run.held ? 1 : 0}"`;
    while (request.headers["if-none-match"] === etag()) {
      if (Date.now() >= until || request.socket.destroyed) return out.end(304, { etag: etag() });
      await new Promise((done) => setTimeout(done, 5));
    }
    out.json(200, view(run), { etag: etag() });
  }

  private async step(run: Row, expected: number, out: Pipe, fault: Fault) {
    const index = run.committed.length;
    const old = run.committed[expected];
    if (old && old.attempt !== FOREIGN) {
      out.stream(200, { "idempotent-replayed": "true" });
      old.parts.forEach((part, i) => out.part(expected, "c", i, part));
      return out.envelope(old.envelope);
    }
    if (old || expected > index || ended(run))
      return problem(out.response, 409, "step_mismatch", {}, { ...snapshot(run), runStatus: "CONTINUE" });
    if (run.held || run.due > Date.now() || run.status === "AWAITING_INPUT" || run.carrier === "background")
      return out.json(202, snapshot(run));
    const attempt = ++run.attempts;
    run.held = attempt;
    if (!fault.plain) out.stream(200);
    const words = run.script.steps[index]!.map((word) => `${word}${attempt > 1 ? `'${attempt}` : ""}`);
    for (const [i, text] of words.entries()) {
      await this.gate?.(run.id, index, i);
      if (fault.kill && out.gone) break;
      out.part(index, attempt, i, { type: "text", text, id: "t", delta: true });
    }
    await out.flushed();
    run.held = 0;
    run.version++;
    if (fault.kill && out.gone) return; // the process died: nothing is committed
    const done = commit(run, attempt, words.join(""));
    if (fault.plain) return out.json(200, done.envelope);
    done.parts.forEach((part, i) => out.part(index, "c", i, part));
    out.envelope(done.envelope);
  }
}

// ---------------------------------------------------------------- rows

const FOREIGN = 0;

const ended = (run: Row) => run.status === "COMPLETED" || run.status === "CANCELLED";

function commit(run: Row, attempt: number, text: string) {
  const index = run.committed.length;
  const last = index === run.script.steps.length - 1;
  if (run.status === "RUNNING")
    run.status = last ? "COMPLETED" : run.script.asks === index ? "AWAITING_INPUT" : "RUNNING";
  if (run.script.waits?.step === index) run.due = Date.now() + run.script.waits.ms;
  const said: Part = { type: "text", text };
  const parts: Part[] = index ? [said] : [{ type: "text", text: run.prompt, role: "user" }, said];
  parts.push({ type: "usage", requests: 1, inputTokens: 10, outputTokens: 1 });
  const done = { attempt, parts, envelope: undefined as unknown as Envelope };
  run.committed.push(done);
  run.attempts = 0;
  done.envelope = snapshot(run);
  return done;
}

function end(run: Row, status: RunView["status"]) {
  run.status = status;
  const parts: Part[] = [{ type: "end", status }];
  run.committed.push({ attempt: 1, parts, envelope: undefined as unknown as Envelope });
  run.committed.at(-1)!.envelope = snapshot(run);
}

function parts(run: Row, after: number) {
  const page = run.committed.slice(after + 1, after + 3); // two steps a page
  const found = page.flatMap((step, i) =>
    step.parts.map((part, n) => ({
      id: `${after + 1 + i}.c.${n}`,
      step: after + 1 + i,
      index: n,
      attempt: step.attempt,
      committed: true,
      part,
    })),
  );
  return { parts: found, after: after + 2 < run.committed.length - 1 ? after + 2 : null };
}

function next(run: Row): Envelope["next"] {
  if (ended(run)) return { action: "none", afterMs: 0 };
  if (run.held) return { action: "wait", afterMs: 20 };
  if (run.status === "AWAITING_INPUT") return { action: "input", afterMs: 0 };
  const ms = run.due - Date.now();
  return ms > 0 ? { action: "wait", afterMs: ms } : { action: "pulse", afterMs: 0 };
}

const USAGE = { requests: 1, inputTokens: 10, outputTokens: 1, cachedTokens: 0, toolCalls: 0 };

function snapshot(run: Row): Envelope {
  const text = (run.committed.at(-1)?.parts ?? [])
    .map((p) => (p.type === "text" && p.role !== "user" ? p.text : ""))
    .join("");
  const asks = run.status === "AWAITING_INPUT";
  return {
    sessionId: run.id,
    status: run.status === "RUNNING" ? "CONTINUE" : (run.status as Envelope["status"]),
    isTerminal: ended(run),
    stopReason: null,
    step: run.committed.length - 1,
    reasoning: text,
    output: run.status === "COMPLETED" ? text : null,
    logs: [],
    data: { currentThought: text, toolUsed: null, finalAnswer: null },
    next: next(run),
    interrupts: asks ? [{ id: "i1", kind: "question", prompt: "Which?", payload: null, schema: null }] : [],
    usage: USAGE,
    error: null,
  };
}

function view(run: Row): RunView {
  const { output, interrupts } = snapshot(run);
  const n = run.committed.length;
  return {
    ...({} as RunView),
    sessionId: run.id,
    agent: "agent",
    prompt: run.prompt,
    status: run.status,
    isTerminal: ended(run),
    step: n - 1,
    attempts: run.attempts,
    carrier: run.carrier,
    next: next(run),
    output,
    interrupts,
    error: null,
    usage: { requests: n, inputTokens: 10 * n, outputTokens: n, cachedTokens: 0, toolCalls: 0 },
  };
}

// ---------------------------------------------------------------- the wire

/** An answer on its way, which a fault may damage. */
class Pipe {
  private sent = 0;
  private last: Promise<unknown> = Promise.resolve();
  gone = false;

  constructor(
    readonly response: ServerResponse,
    private fault: Fault,
  ) {}

  json(status: number, value: unknown, headers: Record<string, string> = {}) {
    const type = status === 202 && !this.fault.plain ? "text/event-stream" : "application/json";
    this.response.writeHead(status, { "content-type": type, ...headers });
    this.write(type === "application/json" ? JSON.stringify(value) : message("envelope", null, value));
    this.finish();
  }

  end(status: number, headers: Record<string, string>) {
    this.response.writeHead(status, headers).end();
  }

  stream(status: number, headers: Record<string, string> = {}) {
    this.response.writeHead(status, { "content-type": "text/event-stream", ...headers });
    this.write(": heartbeat\r\n\r\n");
  }

  part(step: number, attempt: number | "c", index: number, part: Part) {
    const id = `${step}.${attempt}.${index}`;
    if (!this.fault.plain) this.write(message("part", id, { id, step, index, part }));
  }

  envelope(envelope: Envelope) {
    this.write(message("envelope", null, envelope));
    this.finish();
  }

  flushed = () => this.last;

  private write(text: string) {
    const bytes = Buffer.from(this.fault.twice && text.startsWith("event") ? text + text : text);
    const size = this.fault.dribble ?? bytes.length;
    for (let i = 0; i < bytes.length; i += size) this.packet(bytes.subarray(i, i + size));
  }

  private packet(bytes: Buffer) {
    const { cut = Infinity, hang = Infinity } = this.fault;
    if (this.gone) return;
    const room = Math.min(cut, hang) - this.sent;
    const now = bytes.subarray(0, Math.max(0, room));
    this.sent += now.length;
    this.gone = now.length < bytes.length;
    const dying = this.gone && cut <= hang;
    this.last = this.last.then(async () => {
      if (now.length) this.response.write(now);
      if (dying) await new Promise<void>((done) => this.response.write("", () => (this.response.destroy(), done())));
      else await new Promise(setImmediate);
    });
  }

  private finish() {
    if (!this.gone) void this.last.then(() => this.response.end());
  }
}

const message = (event: string, id: string | null, data: unknown) =>
  `${id === null ? "" : `id: ${id}\r\n`}event: ${event}\r\ndata: ${JSON.stringify(data)}\r\n\r\n`;

function problem(
  response: ServerResponse,
  status: number,
  code: string,
  headers: Record<string, string> = {},
  more: object = {},
) {
  response.writeHead(status, { "content-type": "application/problem+json", ...headers });
  response.end(JSON.stringify({ ...more, type: "about:blank", title: code, status, detail: `It is ${code}.`, code }));
}
