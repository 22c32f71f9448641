import type { Patience, RelayErrorLike, RetryEvent, Run } from "./types.js";

/** What a request came to when not to an answer. Status 0: no answer, or half of one; whether the server acted is unknown
 * until the same request is repeated. */
export class RelayError extends Error implements RelayErrorLike {
  constructor(
    message: string,
    readonly status = 0,
    /** The problem document of the server. */
    readonly body?: Record<string, any>,
    /** Milliseconds after which the server wants to be asked again. */
    readonly after?: number,
  ) {
    super(message);
    this.name = "RelayError";
  }

  get code(): string | undefined {
    return this.body?.code;
  }

  /** The same request may succeed later. */
  get retryable(): boolean {
    return [0, 408, 425, 429].includes(this.status) || this.status >= 500;
  }
}

export const path = (run: Run, rest = ""): string => `/runs/${encodeURIComponent(run.sessionId)}${rest}`;

export type Way = Omit<Run, "sessionId" | "view">;

export interface Request extends RequestInit {
  json?: unknown;
}

/** One request. Throws RelayError unless the answer is good or 304. */
export async function send(run: Way, path: string, { json, ...init }: Request = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (run.token) headers.set("authorization", `Bearer ${run.token}`);
  if (json !== undefined) {
    init = { method: "POST", body: JSON.stringify(json), ...init };
    headers.set("content-type", "application/json");
  }
  new Headers(await run.headers?.()).forEach((value, name) => headers.set(name, value));
  let response: Response;
  try {
    response = await (run.fetch ?? fetch)(`${run.baseUrl ?? ""}/api${path}`, { ...init, headers });
  } catch (error) {
    throw broken(error, init.signal);
  }
  if (response.ok || response.status === 304) return response;
  if (response.status === 401 && run.token) {
    run.token = undefined; // tokens get old; the cookie of the browser that started the run does not
    return send(run, path, { json, ...init });
  }
  const body = await response.json().catch(() => undefined);
  const wait = response.headers.get("retry-after");
  const after = wait ? Math.max(0, +wait * 1000 || Date.parse(wait) - Date.now() || 0) : undefined;
  throw new RelayError(body?.detail ?? `HTTP ${response.status}`, response.status, body, after);
}

/** What a broken connection is thrown as: an abort of ours as itself. */
export function broken(error: unknown, signal?: AbortSignal | null): unknown {
  if (signal?.aborted || error instanceof RelayError) return error;
  return new RelayError(String(error));
}

/** Resolves after `ms`; sooner when the connection comes back or `bell` rings. Rejects when aborted. */
export function pause(ms: number, signal?: AbortSignal, bell?: EventTarget): Promise<void> {
  return new Promise((resolve, reject) => {
    const over = new AbortController();
    const end = () => {
      clearTimeout(timer);
      over.abort();
      signal?.aborted ? reject(signal.reason) : resolve();
    };
    const timer = setTimeout(end, Math.min(ms, 2 ** 31 - 1));
    for (const [target, name] of [
      [signal, "abort"],
      [globalThis, "online"],
      [bell, "ring"],
    ] as const)
      target?.addEventListener?.(name, end, { signal: over.signal });
    if (signal?.aborted) end();
  });
}

/**
 * What to do about a failure: when to try again, with full jitter. Rethrows what is final. Without any network only
 * `online` ends the pause, and it is no try.
 */
export function retrying(error: unknown, tries: number, o: Patience): RetryEvent {
  if (!(error instanceof RelayError) || !error.retryable || tries >= (o.maxTries ?? 20)) throw error;
  const { message, status, code, after } = error;
  const cut = !status && globalThis.navigator?.onLine === false;
  const ms = cut ? Infinity : (after ?? Math.random() * Math.min(o.maxDelay ?? 15_000, 500 * 2 ** tries));
  return { type: "retry", error: { message, status, code }, tries: cut ? tries : tries + 1, ms };
}

/** Ask until there is an answer; `told` hears of every failure that does not end it. */
export async function patiently<T>(
  ask: () => Promise<T>,
  o: Patience = {},
  told?: (e: RetryEvent) => void,
): Promise<T> {
  for (let tries = 0; ;) {
    try {
      return await ask();
    } catch (error) {
      const retry = retrying(error, tries, o);
      tries = retry.tries;
      told?.(retry);
      await pause(retry.ms, o.signal);
    }
  }
}

/** A request whose whole answer is wanted: its JSON, and null for 304. */
export async function ask<T>(run: Way, path: string, request: Request, o: Patience): Promise<[T | null, Response]> {
  const dog = watchdog(o);
  try {
    const response = await send(run, path, { ...request, signal: dog.signal });
    return [response.status === 304 ? null : ((await response.json()) as T), response];
  } catch (error) {
    throw broken(error, o.signal);
  } finally {
    dog.done();
  }
}

/** A signal that aborts with the given one, or when nobody called `fed` for so long. */
export function watchdog({ signal, silence = 35_000 }: Patience) {
  const dog = new AbortController();
  let timer: ReturnType<typeof setTimeout>;
  const fed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => dog.abort(new RelayError("The server fell silent.")), silence);
  };
  const done = () => {
    clearTimeout(timer);
    dog.abort();
  };
  fed();
  return { signal: signal ? AbortSignal.any([signal, dog.signal]) : dog.signal, fed, done };
}

/** 128 random bits; crypto.randomUUID is missing on plain http. */
export const random = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
