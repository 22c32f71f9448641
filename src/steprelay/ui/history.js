// What happened, from step rows alone. Pure.

import { lane, oneLine, plural, processOf, span } from "./words.js";

/**
 * Every tool call with its result, wherever that was committed. Ids are unique within a step only: a result belongs to the
 * call of its own step, else to the newest one that still waits. Answers `of(step, id)` -> {id, name, args, result}.
 */
export function callsOf(steps) {
  const found = new Map(), open = new Map();
  for (const step of steps) {
    for (const part of step.parts) {
      const key = `${step.index}:${part.id}`;
      if (part.type === "call") {
        const call = { id: part.id, name: part.name, args: part.args, result: null };
        found.set(key, call);
        open.set(part.id, call);
      } else if (part.type === "result") {
        const call = found.get(key) ?? open.get(part.id) ?? { id: part.id, name: part.name };
        call.result = part;
        found.set(key, call);
        open.delete(part.id);
      }
    }
  }
  return (step, id) => found.get(`${step.index}:${id}`);
}

/** What one step said: {words, thought, said, calls, results, end}. */
export function sayings(step) {
  const of = (type) => step.parts.filter((p) => p.type === type);
  const text = of("text").filter((p) => p.role !== "user").map((p) => p.text).join("\n\n").trim();
  const thought = of("thought").map((p) => p.text).join("\n\n").trim();
  const asked = new Set(of("call").map((p) => p.id));
  return {
    thought,
    text,
    user: of("text").filter((p) => p.role === "user").map((p) => p.text).join("\n\n"),
    calls: of("call"),
    results: of("result").filter((p) => !asked.has(p.id)),
    end: of("end").at(-1) ?? null,
  };
}

/** The newest answer: the output of the last end, else its words. */
export function answerOf(steps) {
  const last = steps.at(-1);
  const said = last && sayings(last);
  if (!said?.end || said.end.status !== "COMPLETED") return null;
  return said.end.output ?? (said.text || null);
}

export const interruptsOf = (steps) => steps.at(-1)?.parts.filter((p) => p.type === "interrupt") ?? [];

/** Seconds between a step and the one before it, in which nobody worked. */
export const idleBefore = (steps, i, createdAt) => Math.max(0, steps[i].claimedAt - (i ? steps[i - 1].committedAt : createdAt));

/**
 * The column: steps, and between them what happened to the run.
 * `facts`: what only this tab can know (see facts.js). Items: {key, kind: "step" | "event", …}.
 */
export function column(run, steps, facts) {
  const items = [];
  steps.forEach((step, i) => {
    const before = steps[i - 1];
    const idle = idleBefore(steps, i, run.createdAt);
    const event = (what, tone, text) => items.push({ key: `${step.index}:${what}`, rev: text, kind: "event", tone, what, text });
    if (before && step.round !== before.round) event("round", "go", "You asked for more. The same run goes on.");
    if (step.attempt > 1) event("death", "bad", deathWords(step, idle, facts.holder(step)));
    else if (before && idle >= 2 && before.status !== "RUNNING") event("wait", "wait", waitWords(before, idle));
    if (before && step.carrier !== before.carrier) {
      event("baton", "go", `${lane(before.carrier)} handed over. ${lane(step.carrier)} carries on from step ${step.index}.`);
    }
    items.push({ key: `${step.index}`, rev: `${step.claimId ?? ""}${step.committedAt}`, kind: "step", step, idle });
    const replays = facts.replays.filter((r) => r === step.index).length;
    if (replays) event("replay", "hand", replayWords(step.index, replays));
    if (step.stopReason === "cancelled") event("stop", "off", "Stopped. No later step will run; what was done is kept.");
  });
  return items;
}

function deathWords(step, idle, holder) {
  const died = step.attempt === 2 ? "The first attempt" : `${step.attempt - 1} attempts`;
  const by = holder ? ` by process ${processOf(holder)}` : "";
  return `${died} at step ${step.index} died. Nothing was lost: ${span(idle)} later the step was taken again${by}.`;
}

const replayWords = (index, n) =>
  `${n === 1 ? "An answer was" : `${n} answers were`} lost on the way. The same request got the stored step ${index}: no second model call.`;

function waitWords(before, idle) {
  if (before.status === "AWAITING_INPUT") return `Waited ${span(idle)} for you.`;
  if (before.stopReason === "rate_limited") return `The model asked for a pause of ${span(idle)}.`;
  return `Waited ${span(idle)}.`;
}

/**
 * The counted line, from the rows and from what this tab saw. Every number is an observation:
 *   lost     an index below the newest without a row
 *   doubled  a row that came twice, or that changed after it was committed
 *   again    model requests on the run's account that neither a row nor a dead attempt explains, or a repeated request
 *            that was answered by new work
 */
export function counted(run, steps, facts) {
  const seen = new Set(steps.map((s) => s.index));
  const newest = Math.max(-1, ...seen);
  const first = Math.min(...seen, newest);
  let lost = 0;
  for (let i = Math.max(0, first); i < newest; i++) if (!seen.has(i)) lost++;
  const underway = run.isTerminal ? 0 : Math.max(0, (run.attempts ?? 0) - 1); // of the step that is not committed yet
  const deaths = steps.reduce((n, s) => n + Math.max(0, s.attempt - 1), underway);
  const requests = steps.reduce((n, s) => n + (s.usage.requests ?? 0), 0);
  const total = run.usage.requests ?? requests;
  const unexplained = steps.length && seen.size === run.step ? Math.max(0, total - requests - deaths) : 0;
  return {
    steps: seen.size,
    deaths,
    answers: facts.replays.length, // each replay is the proof of one
    lost,
    doubled: steps.length - seen.size + facts.changed,
    again: Math.max(unexplained, facts.again),
  };
}

export function countedWords(c) {
  return {
    what: [plural(c.steps, "step"), plural(c.deaths, "death"), plural(c.answers, "lost answer")].join(" · "),
    so: `${c.lost} lost · ${c.doubled} doubled · ${plural(c.again, "second model call")}`,
    clean: c.lost + c.doubled + c.again === 0,
  };
}

/** A chip's second half: what the call was about, in one line. */
export function about(call, result) {
  const args = call?.args;
  const values = args && typeof args === "object" ? Object.values(args) : args == null ? [] : [args];
  const asked = values.map(oneLine).filter(Boolean).join(", ");
  if (!result) return { asked, got: "" };
  if (result.status && result.status !== "ok") return { asked, got: result.status };
  return { asked, got: sizeOf(result.value) };
}

function sizeOf(value) {
  if (value == null) return "ok";
  if (Array.isArray(value)) return plural(value.length, "item");
  if (typeof value !== "string") return oneLine(value);
  const lines = value.split("\n").length;
  return lines > 1 ? `${lines} lines` : oneLine(value);
}
