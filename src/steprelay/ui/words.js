// Plain words and numbers for people.

const CARRIERS = { client: "Browser", background: "Background", any: "Anyone", temporal: "Temporal", restate: "Restate", inngest: "Inngest" };
/** The lane's name of a carrier. */
export const lane = (carrier) => CARRIERS[carrier] ?? carrier.charAt(0).toUpperCase() + carrier.slice(1).replaceAll("-", " ");

/** "4121" of "host:4121": what tells one process from another. */
export const processOf = (holder) => holder?.split(":").at(-1) || null;

export function span(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "";
  if (seconds < 0.005) return "0 s";
  if (seconds < 0.995) return `${Math.max(0, seconds).toFixed(seconds < 0.0995 ? 2 : 1)} s`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  const minutes = Math.round(whole / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  return plural(Math.round(minutes / 1440), "day");
}

/** What is left, in whole seconds: "8 s". */
export const left = (seconds) => span(Math.max(0, Math.ceil(seconds))).replace(".0 s", " s");
export const ago = (at, now) => (now - at < 5 ? "just now" : `${span(now - at).replace(/(min|h) \d+ (s|min)$/, "$1")} ago`);
export const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

export function amount(n) {
  if (n < 1000) return String(n);
  return n < 1e6 ? `${(n / 1000).toFixed(n < 9950 ? 1 : 0)} k` : `${(n / 1e6).toFixed(1)} M`;
}

export const size = (bytes) => (bytes < 1000 ? `${bytes} bytes` : bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
export const money = (usd) => `$${usd < 0.1 ? usd.toFixed(usd < 0.001 ? 5 : usd < 0.01 ? 4 : 3) : usd.toFixed(2)}`;
export const tokens = (usage) => (usage?.inputTokens ?? 0) + (usage?.outputTokens ?? 0);
export const oneLine = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "").replace(/\s+/g, " ").trim();
export const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text);

const BRAKES = {
  max_steps: "at the step limit", max_tool_calls: "at the tool call limit", max_tokens: "at the token limit",
  max_cost: "at the money limit", repetition: "it went in circles",
};
const FAILS = {
  deadline: "out of time", step_exceeds_deadline: "one step takes longer than this host allows",
  attempts_exhausted: "the same step died too often", agent_error: "the agent made an error", state_invalid: "its state cannot be read",
};
const WAITS = {
  timer: "Waiting for its timer", retry: "Waiting to try again", rate_limited: "Waiting, the model asked for a pause",
  provider: "Waiting for the model", child: "Waiting for another run", event: "Waiting for an event",
};

/** How a run stands: {tone, text}. Tones: go, wait, ask, good, bad, off. */
export function standing(run) {
  const reason = run.stopReason;
  switch (run.status) {
    case "COMPLETED":
      return { tone: "good", text: BRAKES[reason] ? `Done, stopped ${BRAKES[reason]}`.replace("stopped it", "it") : "Done" };
    case "FAILED":
      return { tone: "bad", text: FAILS[reason] ? `Failed: ${FAILS[reason]}` : "Failed" };
    case "CANCELLED":
      return { tone: "off", text: reason === "expired" ? "Stopped, nobody answered" : "Stopped by you" };
    case "AWAITING_INPUT":
      return { tone: "ask", text: "Waiting for you" };
    case "WAITING":
      return { tone: "wait", text: WAITS[reason] ?? "Waiting" };
    default:
      return { tone: "go", text: `Running · step ${run.step}` };
  }
}

export const ended = (run) => run.status === "COMPLETED" || run.status === "FAILED" || run.status === "CANCELLED";
