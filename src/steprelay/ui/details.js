// The pane beside the column: the run as a whole, or one step of it.

import { callsOf, idleBefore, sayings } from "./history.js";
import { h } from "./dom.js";
import { amount, clock, ended, lane, money, processOf, size, span, standing, tokens } from "./words.js";

const row = (name, value) => (value === null || value === undefined || value === "" ? null : [h("dt", null, name), h("dd", null, value)]);
const json = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const mono = (text) => h("span", { class: "m" }, text);

/** The run: how it stands, who has it, why it is not finished. `explained`: words of the server, or null. */
export function runPane(run, steps, explained, { copy }) {
  const silent = run.takeoverAfter ? `anyone may after ${span(run.takeoverAfter)}` : "it waits";
  return h(
    "div", { class: "pane" }, h("h2", null, "The run"),
    explained && h("p", { class: "explain" }, explained),
    h("dl", null,
      row("State", standing(run).text), row(ended(run) ? "Last with" : "Carried by", lane(run.carrier)),
      row("Held by", ended(run) ? null : run.holder ? [`process `, mono(processOf(run.holder)), run.leaseUntil ? ` until ${clock(run.leaseUntil)}` : ""] : "nobody"),
      row("If silent", ended(run) ? null : silent), row("Agent", run.agent), row("Round", run.round > 1 ? run.round : null),
      row("History", size(steps.reduce((n, s) => n + (s.bytes ?? 0), 0))),
      row("Begun", run.createdAt && new Date(run.createdAt * 1000).toLocaleString()), row("Run", mono(run.id)),
    ),
    h("div", { class: "row" }, copy("Copy link", () => location.href), copy("Copy as curl", () => curl(`api/runs/${run.id}`))),
  );
}

/** One step: who, when, what it cost, what was called with what result. */
export function stepPane(run, steps, step, holder, { copy, fork, back, whole }) {
  const i = steps.indexOf(step);
  const said = sayings(step);
  const calls = callsOf(steps);
  const ids = [...said.calls.map((c) => c.id), ...said.results.map((r) => r.id)];
  const { usage } = step;
  const spent = [tokens(usage) && `${amount(usage.inputTokens)} in · ${amount(usage.outputTokens)} out`, usage.usd && money(usage.usd)];
  return h(
    "div", { class: "pane" },
    h("div", { class: "row" }, h("h2", null, `Step ${step.index}`), h("span", { class: "fill" }), h("button", { class: "quiet", onclick: back }, "The run")),
    h("dl", null,
      row("Carried by", [lane(step.carrier), holder ? [" · process ", mono(processOf(holder))] : null]),
      row("Attempt", step.attempt > 1 ? `${step.attempt} (${step.attempt === 2 ? "the first" : `${step.attempt - 1}`} died)` : "1"),
      row("Waited", span(idleBefore(steps, i, run.createdAt))), row("Worked", span(step.committedAt - step.claimedAt)),
      row("Done", clock(step.committedAt)), row("Tokens", spent.filter(Boolean).join(" · ") || null),
      row("Model calls", usage.requests || null),
    ),
    said.thought && h("details", null, h("summary", null, "Thought"), h("pre", { tabindex: "0", "aria-label": "Thought" }, said.thought)),
    ids.map((id) => callView(calls(step, id), whole)),
    h("div", { class: "row" }, fork(step), copy("Copy as curl", () => curlStep(run, step))),
  );
}

function callView({ name, args, result }, whole) {
  const kb = result && json(result.value ?? null).length;
  const answer = result && h("pre", { tabindex: "0", "aria-label": "Result" }, `→ ${kb > 4000 ? `${json(result.value).slice(0, 4000)}\n… ${amount(kb)} characters` : json(result.value)}`);
  const show = (e) => whole(result.blob, (value) => {
    answer.textContent = `→ ${json(value)}`;
    answer.focus();
    e.target.remove();
  });
  return h(
    "details", { class: "call-view", open: true },
    h("summary", null, mono(name), result?.ms != null ? h("span", { class: "soft" }, ` ${span(result.ms / 1000)}`) : null,
      result?.status && result.status !== "ok" ? h("span", { class: "state bad" }, result.status) : null),
    args == null ? null : h("pre", { tabindex: "0", "aria-label": "Arguments" }, json(args)),
    answer ?? h("p", { class: "soft" }, "Not answered yet."),
    result?.blob && h("button", { class: "quiet", onclick: show }, "Show the whole"),
  );
}

const curl = (path) => `curl -s '${new URL(path, document.baseURI).href}'`;
const curlStep = (run, step) =>
  `${curl(`api/runs/${run.id}/step`)} -H 'content-type: application/json' -d '{"expectedStep": ${step.index}}'`;
