// Where it begins: give a task, find your runs.

import { random, write } from "./api.js";
import { h, say, sync } from "./dom.js";
import { pause } from "./relay.js";
import { ago, amount, ended, money, plural, short, standing, tokens } from "./words.js";

export class Home {
  constructor(api, root, heard) {
    Object.assign(this, { api, root, heard, life: new AbortController() });
  }

  async open() {
    document.title = "steprelay";
    this.alert = h("p", { class: "notice bad", role: "alert", hidden: true });
    this.list = h("ul", { class: "runs" });
    this.empty = h("p", { class: "soft", hidden: true }, "No runs yet. The first one is a sentence away.");
    this.root.append(
      h("section", { class: "start" }, h("h1", null, "What shall the agent do?"), this.form(), this.alert, (this.key = this.keyField())),
      h("section", { class: "recent", "aria-labelledby": "recent" }, h("h2", { id: "recent" }, "Runs"), this.empty, this.list),
    );
    this.task.focus({ preventScroll: true });
    await this.keep();
  }

  close() {
    this.life.abort();
  }

  form() {
    this.task = h("textarea", {
      id: "task", rows: 3, required: true, "aria-label": "Task", onkeydown: (e) => this.typed(e), oninput: () => (this.repeat = null),
      placeholder: "Which modules of this repository have no tests, and what would break first?",
    });
    this.carrier = h("select", { id: "carrier" }, h("option", { value: "client" }, "this tab"), h("option", { value: "background" }, "the background"));
    this.steps = h("input", { id: "max-steps", type: "number", min: 1, max: 500, inputmode: "numeric", placeholder: "20" });
    this.usd = h("input", { id: "max-usd", type: "number", min: 0, step: "any", inputmode: "decimal", placeholder: "none" });
    this.button = h("button", { class: "primary", type: "submit" }, "Start");
    return h(
      "form", { class: "composer", onsubmit: (e) => this.start(e) }, this.task,
      h("div", { class: "row" },
        h("label", null, "Carried by ", this.carrier),
        h("details", { class: "brakes" }, h("summary", null, "Brakes"),
          h("div", { class: "row" }, h("label", null, "at most ", this.steps, " steps"), h("label", null, "and $ ", this.usd))),
        h("span", { class: "fill" }), this.button),
    );
  }

  typed(e) {
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) {
      e.preventDefault();
      e.target.form.requestSubmit();
    }
  }

  async start(e) {
    e.preventDefault();
    if (!this.task.value.trim() || this.button.disabled) return;
    this.button.disabled = true;
    this.alert.hidden = true;
    const limits = {};
    if (this.steps.value) limits.steps = Number(this.steps.value);
    if (this.usd.value) limits.usd = Number(this.usd.value);
    const body = { userPrompt: this.task.value.trim(), carrier: this.carrier.value };
    if (Object.keys(limits).length) body.limits = limits;
    try {
      const run = await this.api.start(body, (this.repeat ??= random()));
      location.hash = `#/runs/${encodeURIComponent(run.id)}`;
    } catch (error) {
      this.tell(error.retryable ? `${error.message} Your words are still here; try again.` : error.message);
      if (error.status === 401 || error.status === 403) this.key.hidden = false;
      if (!error.retryable) this.repeat = null; // while it is unknown what became of it, the same request starts the same run
      this.button.disabled = false;
    }
  }

  /** A server that anybody can reach asks for its key; it stays in this tab. */
  keyField() {
    const input = h("input", { type: "password", id: "key", autocomplete: "off" });
    const use = (e) => {
      e.preventDefault();
      write("key", input.value.trim() || null);
      this.key.hidden = this.alert.hidden = true;
      this.close();
      this.life = new AbortController();
      this.keep();
    };
    return h("form", { class: "row key", hidden: true, onsubmit: use }, h("label", { for: "key" }, "Server key"), input, h("button", null, "Use it"));
  }

  tell(text) {
    this.alert.hidden = false;
    say(this.alert, text);
  }

  /** The list, read again every few seconds while it is seen and something moves. */
  async keep() {
    const { signal } = this.life;
    while (!signal.aborted) {
      let moving = true;
      try {
        const runs = document.hidden && this.runs ? this.runs : await this.api.list();
        if (signal.aborted) return;
        moving = runs.some((r) => !ended(r));
        this.show((this.runs = runs));
      } catch (error) {
        if (error.status === 401 || error.status === 403) return void this.locked();
        if (!error.retryable) return void this.tell(error.message);
      }
      await pause(moving ? 3 : 10, signal);
    }
  }

  /** Nothing may be listed: a stranger has no runs yet, or a key is needed. */
  locked() {
    this.key.hidden = false;
    this.empty.hidden = false;
    say(this.empty, "Your runs appear here. With the server key you see all of them.");
  }

  show(runs) {
    this.heard(runs);
    this.empty.hidden = runs.length > 0;
    const now = this.api.now();
    sync(this.list, runs.map((run) => ({ run, key: run.id, rev: `${run.status}${run.step}${ago(run.updatedAt ?? run.createdAt, now)}` })),
      ({ run }) => row(run, now));
  }
}

function row(run, now) {
  const { tone, text } = standing(run);
  const facts = [plural(run.step, "step"), tokens(run.usage) ? `${amount(tokens(run.usage))} tokens` : "", run.usage.usd ? money(run.usage.usd) : ""];
  return h(
    "li", null,
    h("a", { class: "run-row", href: `#/runs/${encodeURIComponent(run.id)}` },
      h("span", { class: "what" }, short(titleOf(run), 140)),
      h("span", { class: "facts" }, h("span", { class: `state ${tone}` }, text), facts.filter(Boolean).join(" · ")),
      h("span", { class: "when" }, ago(run.updatedAt ?? run.createdAt, now))),
  );
}

/** What a run is about: its prompt's words, else its name. */
export function titleOf(run) {
  const p = run.userPrompt ?? run.prompt;
  const text = typeof p === "string" ? p : p?.text ?? p?.content ?? null;
  return (typeof text === "string" && text.trim()) || `Run ${short(run.id, 20)}`;
}
