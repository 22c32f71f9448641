// One run on the screen: head, track, gauges, column, pane. Reads a Session, draws it, and passes on what people do.

import { runPane, stepPane } from "./details.js";
import { h, say, sync } from "./dom.js";
import { askForm } from "./form.js";
import { about, answerOf, callsOf, column, counted, countedWords, sayings } from "./history.js";
import { titleOf } from "./home.js";
import { Session } from "./session.js";
import { prose, shown } from "./text.js";
import { described, draw, lanesOf, layout, told } from "./track.js";
import { ago, amount, ended, lane, left, money, processOf, short, span, standing, tokens } from "./words.js";

const ICONS = { death: "✕", baton: "⇄", replay: "↺", wait: "◷", round: "↻", stop: "■" };

export class RunView {
  constructor(api, id, root, watching) {
    Object.assign(this, { api, id, root, picked: null, explained: null, demo: {} });
    this.session = new Session(api, id, () => this.soon(), watching);
  }

  async open() {
    this.build();
    this.onkey = (e) => this.key(e);
    this.onsize = () => this.soon();
    addEventListener("keydown", this.onkey);
    addEventListener("resize", this.onsize);
    this.clock = setInterval(() => this.session.run && !ended(this.session.run) && this.soon(), 500);
    this.api.demo().then((demo) => {
      this.demo = demo;
      this.soon();
    });
    await this.session.open();
    this.soon();
  }

  close() {
    this.session.close();
    clearInterval(this.clock);
    clearTimeout(this.explaining);
    removeEventListener("keydown", this.onkey);
    removeEventListener("resize", this.onsize);
  }

  key(e) {
    if (e.key !== "Escape" || e.defaultPrevented || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return;
    if (this.session.run && !ended(this.session.run)) this.session.stop();
  }

  /** At most one drawing per frame. */
  soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.show();
    });
  }

  // ------------------------------------------------------------ the skeleton

  build() {
    const act = (text, what, cls = "") => h("button", { class: cls, onclick: () => this.try(what) }, text);
    const { session } = this;
    this.status = h("span", { class: "state", role: "status" }, "Loading");
    this.title = h("h1", null, "\u00a0");
    this.meta = h("p", { class: "meta" });
    this.handButton = act("Hand over", () => this.handOver());
    this.stopButton = h("button", { class: "stop", onclick: () => session.stop(), "aria-keyshortcuts": "Escape" }, "Stop ", h("kbd", { "aria-hidden": "true" }, "Esc"));
    this.alert = h("p", { class: "line", role: "alert", hidden: true });
    this.names = h("div", { class: "names", "aria-hidden": "true" });
    this.reel = h("div", { class: "reel", tabindex: "0", role: "group", "aria-label": "Relay track" });
    this.count = h("p", { class: "count" });
    this.breakers = h("div", { class: "breakers", role: "group", "aria-label": "Break it", hidden: true },
      h("span", { class: "soft" }, "Break it:"), (this.killButton = act("Kill the server", () => session.kill())),
      (this.closeButton = act("Close this tab", () => session.closeTab())), (this.loseButton = act("Lose a response", () => session.loseNext())));
    this.gauges = h("div", { class: "gauges", role: "group", "aria-label": "Brakes" });
    this.ask = h("div");
    this.answer = h("section", { class: "answer", "aria-label": "Answer", hidden: true });
    this.log = h("div", { class: "log", role: "log", "aria-label": "Steps" });
    this.now = h("div", { class: "step now", hidden: true });
    this.more = h("div");
    this.aside = h("aside", { "aria-label": "Details" });
    this.page = h("article", { class: "run" },
      h("header", { class: "head" }, h("div", null, this.status, this.title, this.meta, this.alert), h("div", { class: "acts" }, this.handButton, this.stopButton)),
      h("section", { class: "track", "aria-label": "Who carried which step" }, h("div", { class: "field-of-play" }, this.names, this.reel),
        h("div", { class: "under" }, this.count, this.breakers)),
      this.gauges,
      h("div", { class: "two" }, h("section", { "aria-label": "What happened" }, this.ask, this.now, this.answer, this.log, this.more), this.aside));
    this.root.append(this.page);
  }

  /** Do what a button says; what goes wrong is said, never swallowed. */
  async try(what) {
    try {
      this.failed = null;
      await what();
    } catch (e) {
      this.failed = e.message;
    }
    this.soon();
  }

  handOver() {
    const { run } = this.session;
    return this.here(run) ? this.session.handOver("background", this.session.lease) : this.session.handOver("client");
  }

  /** Whether this browser carries the run, or would. */
  here(run) {
    return run.carrier === "client" && !this.session.watching;
  }

  // ------------------------------------------------------------ drawing

  show() {
    const { session } = this;
    if (session.closed) return this.showClosed();
    this.showAlert();
    const { run, steps } = session;
    if (!run) return;
    this.showHead(run);
    this.showTrack(run, steps);
    this.showGauges(run);
    this.showAsk(run);
    this.showAnswer(run, steps);
    this.showColumn(run, steps);
    this.showNow(run);
    this.showMore(run);
    this.showPane(run, steps);
  }

  showHead(run) {
    const stand = standing(run);
    const { tone } = stand;
    this.status.className = `state ${tone}`;
    say(this.status, statusText(this.session, stand.text));
    say(this.title, titleOf(run));
    document.title = `${stand.text} · ${short(titleOf(run), 60)}`;
    const now = this.api.now();
    const facts = [`agent ${run.agent}`, `begun ${ago(run.createdAt, now)}`, this.session.driving ? "driven by this tab" : ended(run) ? "" : `carried by ${lane(run.carrier)}`];
    say(this.meta, facts.filter(Boolean).join(" · "));
    const over = ended(run);
    this.stopButton.hidden = over;
    this.stopButton.disabled = this.session.stopping;
    this.handButton.hidden = over;
    say(this.handButton, this.here(run) ? "Hand to background" : "Carry on here");
  }

  showAlert() {
    const { link, error, run, losing } = this.session;
    const now = this.api.now();
    let text = "", tone = "bad";
    if (this.failed) text = this.failed;
    else if (error) text = error.status === 404 ? "There is no such run, or it is not yours." : error.message;
    else if (link.state === "lost") {
      const then = this.session.stopping ? "It is stopped as soon as the server is back."
        : this.session.driving ? `The same step is asked for again in ${left(link.until - now)}.` : "Trying again.";
      text = `Connection lost, the run is safe. ${then}`;
    } else if (losing) [text, tone] = ["The next answer will be thrown away on its way to you.", "hand"];
    else if (link.state === "busy" && run.holder && link.until > now) {
      const dead = this.session.facts.killed.includes(run.holder);
      text = dead ? `Process ${processOf(run.holder)} is dead. Its lease ends in ${left(run.leaseUntil - now)}; then this step is taken again.`
        : `${lane(run.carrier)} (process ${processOf(run.holder)}) has this step until its lease ends or it is done.`;
      tone = "hand";
    }
    this.alert.hidden = !text;
    this.meta.hidden = Boolean(text); // it takes that line: nothing below may jump
    this.alert.className = `line ${tone}`;
    say(this.alert, text);
  }

  showTrack(run, steps) {
    const live = this.session.underway();
    const now = this.api.now();
    const { facts } = this.session;
    const room = (this.reel.clientWidth || Infinity) - 8;
    const plan = layout(run, steps, live, now, { room, holder: (step) => facts.holder(step) });
    const atEnd = this.reel.scrollLeft + this.reel.clientWidth >= this.reel.scrollWidth - 40;
    const title = (index) => {
      const step = steps.find((s) => s.index === index);
      return told(step, facts.holder(step));
    };
    const picture = draw(plan, { width: this.reel.clientWidth, picked: this.picked, pick: (i) => this.pick(i), label: described(run, steps), title });
    this.reel.replaceChildren(picture);
    if (atEnd) this.reel.scrollLeft = this.reel.scrollWidth;
    const here = live ? live.carrier : null;
    sync(this.names, lanesOf(run, steps).map((l) => ({ ...l, key: l.carrier, rev: `${l.hue}${l.carrier === here}${live?.silent}` })), (l) =>
      h("span", { class: `name hue${l.hue}${l.carrier === here ? (live.silent ? " silent" : " here") : ""}` }, l.name));
    const words = countedWords(counted(run, steps, this.session.facts));
    this.count.replaceChildren(words.what, " — ", h("b", { class: words.clean ? "good" : "bad" }, words.so));
    this.breakers.hidden = !this.demo.kill || ended(run);
    const running = run.status === "RUNNING";
    this.killButton.disabled = this.closeButton.disabled = !running;
    this.loseButton.disabled = !running || !this.session.driving || this.session.losing;
  }

  showGauges(run) {
    const used = run.roundUsage ?? run.usage;
    const { limits } = run;
    const items = [
      ["steps", run.roundSteps ?? run.step, limits.steps, String], ["tool calls", used.toolCalls ?? 0, limits.toolCalls, String],
      ["tokens", tokens(used), limits.tokens, amount], ["", used.usd, limits.usd, money],
    ].filter(([, value, limit]) => limit != null || value != null);
    sync(this.gauges, items.map((g, i) => ({ g, key: String(i), rev: g.slice(1, 3).join("/") })), ({ g: [name, value, limit, f] }) => {
      const part = limit ? Math.min(1, (value ?? 0) / limit) : 0;
      return h("div", { class: `gauge${part >= 0.8 ? " near" : ""}` },
        h("span", null, h("b", null, f(value ?? 0)), ` ${limit != null ? `of ${f(limit)} ` : ""}${name || "spent"}`),
        limit != null ? h("i", { class: "bar", "--part": part }) : null);
    });
  }

  showAsk(run) {
    const key = run.next.action === "input" ? run.interrupts.map((i) => i.id).join() : "";
    if (this.ask.dataset.key === key) return;
    this.ask.dataset.key = key;
    this.ask.replaceChildren(...(key ? [askForm(run.interrupts, (answers) => this.session.answer({ answers }))] : []));
  }

  showAnswer(run, steps) {
    const answer = run.status === "COMPLETED" ? answerOf(steps) ?? run.output : null;
    const rev = answer == null ? "" : `${run.step}`;
    this.answer.hidden = !rev;
    if (this.answer.dataset.rev === rev) return;
    this.answer.dataset.rev = rev;
    this.answer.replaceChildren(...(rev ? [h("h2", null, "Answer"), h("div", { class: "prose" }, shown(answer))] : []));
  }

  showColumn(run, steps) {
    const calls = callsOf(steps);
    const hues = Object.fromEntries(lanesOf(run, steps).map((l) => [l.carrier, l.hue]));
    this.log.setAttribute("aria-busy", String(run.status === "RUNNING"));
    const items = column(run, steps, this.session.facts).map((item) =>
      item.kind === "step" ? { ...item, rev: `${item.rev}${this.picked === item.step.index}` } : item);
    sync(this.log, items, (item) => (item.kind === "step" ? this.stepNode(item.step, hues, calls) : eventNode(item)));
  }

  stepNode(step, hues, calls) {
    const said = sayings(step);
    const words = said.thought || said.text || said.end?.error?.message || (said.calls.length + said.results.length ? "" : "Went on.");
    const chips = [...said.calls.map((c) => chip(c, calls(step, c.id).result)), ...said.results.map((r) => chip(calls(step, r.id), r, true))];
    const picked = this.picked === step.index;
    return h("div", { class: `step hue${hues[step.carrier] ?? 6}${picked ? " picked" : ""}` },
      h("button", { class: "no", "aria-pressed": String(picked), "aria-label": `Step ${step.index}, details`, onclick: () => this.pick(step.index) }, String(step.index)),
      h("div", { class: "said" }, words && h("div", { class: "prose" }, prose(short(words, 1200))), chips.length ? h("div", { class: "chips" }, chips) : null),
      h("div", { class: "cost" }, h("span", null, span(step.committedAt - step.claimedAt)), tokens(step.usage) ? h("span", null, `${amount(tokens(step.usage))} tok`) : null,
        step.attempt > 1 ? h("span", { class: "bad" }, `attempt ${step.attempt}`) : null));
  }

  showNow(run) {
    const live = this.session.underway();
    this.now.hidden = !live;
    if (!live) return;
    const now = this.api.now();
    const { texts, calls } = this.session.live;
    const heard = [...texts.values()].at(-1)?.text ?? run.tail ?? "";
    const what = live.silent ? "No sign of life" : [...calls.values()].some((c) => !c.result) ? "Working" : heard ? "Writing" : "Thinking";
    const chips = [...calls.values()].map(({ call, result }) => chip(call ?? result, result));
    this.now.className = `step now${live.silent ? " silent" : ""}`;
    this.now.replaceChildren(h("span", { class: "no" }, String(run.step)),
      h("div", { class: "said" }, h("p", { class: live.silent ? "" : "dots" }, what), heard && h("div", { class: "prose soft" }, prose(heard.slice(-600))), chips.length ? h("div", { class: "chips" }, chips) : null),
      h("div", { class: "cost" }, h("span", null, span(Math.max(0, now - live.since))), live.leaseLeft > 0 ? h("span", null, `lease ${left(live.leaseLeft)}`) : null));
  }

  /** After the end: another question, or going on where it stopped. */
  showMore(run) {
    const key = !ended(run) ? "" : `${run.status}${run.stopReason}${run.round}`;
    if (this.more.dataset.key === key) return;
    this.more.dataset.key = key;
    this.more.replaceChildren(...(key ? [this.moreForm(run)] : []));
  }

  moreForm(run) {
    const text = h("textarea", { rows: 2, "aria-label": "Ask for more", placeholder: "Ask for more…", required: true });
    const send = (e) => {
      e.preventDefault();
      this.try(() => this.session.answer({ userPrompt: text.value.trim() }));
    };
    const braked = run.stopReason?.startsWith("max_") || run.status !== "COMPLETED";
    const goOn = () => this.session.goOn(run.stopReason === "max_steps" ? { steps: (run.limits.steps ?? 20) * 2 } : undefined);
    return h("form", { class: "composer small", onsubmit: send }, text, h("div", { class: "row" },
      braked ? h("button", { type: "button", onclick: () => this.try(goOn) }, "Go on from here") : null, h("span", { class: "fill" }), h("button", { class: "primary" }, "Ask")));
  }

  // ------------------------------------------------------------ the pane

  pick(index) {
    this.picked = this.picked === index ? null : index;
    this.show();
    if (this.picked === null) return;
    if (matchMedia("(max-width: 900px)").matches) this.aside.scrollIntoView();
    else this.log.querySelector(".picked .no")?.focus();
  }

  showPane(run, steps) {
    const step = steps.find((s) => s.index === this.picked);
    const key = step ? `step ${step.index}` : `run ${run.status}${run.stopReason}${run.step}/${steps.length}${run.carrier}${run.holder}${run.leaseUntil}${run.attempts}`;
    if (this.aside.dataset.key === key) return;
    this.aside.dataset.key = key;
    if (this.explainedFor !== run.status) [this.explained, this.explainedFor] = [null, run.status]; // old words would be wrong
    const tools = { copy: copyButton, fork: (s) => this.forkForm(s), back: () => this.pick(null), whole: (name, put) => this.try(async () => put(await this.api.blob(this.id, name))) };
    this.aside.replaceChildren(step ? stepPane(run, steps, step, this.session.facts.holder(step), tools) : runPane(run, steps, this.explained, tools));
    if (!step) this.explainSoon();
  }

  /** The server's own words on why the run is where it is; asked again when that changed, but not more than it changes. */
  explainSoon() {
    this.explaining ??= setTimeout(async () => {
      this.explaining = null;
      const said = await this.api.explain(this.id).catch(() => null);
      if (!said || said.words === this.explained) return;
      this.explained = said.words;
      const node = this.aside.querySelector(".explain");
      if (node) say(node, said.words);
      else if (this.picked === null) this.aside.querySelector("h2")?.after(h("p", { class: "explain" }, said.words));
    }, this.explained ? 1500 : 100);
  }

  forkForm(step) {
    const text = h("textarea", { rows: 2, "aria-label": "What is different", placeholder: "Another task from here (may stay empty)" });
    const go = async (e) => {
      e.preventDefault();
      const edit = text.value.trim() ? { userPrompt: text.value.trim() } : undefined;
      const run = await this.api.fork(this.id, step.index, edit);
      location.hash = `#/runs/${encodeURIComponent(run.id)}`;
    };
    return h("details", { class: "fork" }, h("summary", null, "Fork from here"),
      h("form", { onsubmit: (e) => this.try(() => go(e)) }, text, h("button", { class: "primary" }, "Fork")));
  }

  // ------------------------------------------------------------ a closed tab

  showClosed() {
    if (this.gone) return;
    this.gone = true;
    clearInterval(this.clock);
    clearTimeout(this.explaining);
    document.title = "Closed · steprelay";
    this.page.replaceChildren(h("section", { class: "gone" }, h("h1", null, "This tab is closed."),
      h("p", null, "It asks for nothing any more. The background carries the run on from the step you left."),
      h("p", null, h("button", { class: "primary", onclick: () => location.reload() }, "Come back"), " ",
        h("a", { href: location.href, target: "_blank", rel: "noopener" }, "or open the run in another tab"))));
    this.page.querySelector("button").focus();
  }
}

function statusText(session, text) {
  if (session.stopping) return ended(session.run) ? text : "Stopping";
  return session.link.state === "lost" && !ended(session.run) ? "Connection lost" : text;
}

function eventNode(item) {
  return h("p", { class: `event ${item.tone}` }, h("span", { class: "icon", "aria-hidden": "true" }, ICONS[item.what]), h("span", null, item.text));
}

function chip(call, result, answering = false) {
  const { asked, got } = about(call, result);
  const bad = result?.status && result.status !== "ok";
  return h("span", { class: `chip${bad ? " bad" : ""}` }, h("b", null, answering ? `→ ${call.name}` : call.name),
    asked && !answering ? h("span", null, short(asked, 60)) : null, got ? h("span", { class: "got" }, short(got, 60)) : null);
}

function copyButton(text, value) {
  const button = h("button", { class: "quiet", onclick: () => copied() }, text);
  const copied = async () => {
    try {
      await navigator.clipboard.writeText(value());
      button.textContent = "Copied";
    } catch {
      prompt("Copy this:", value()); // no clipboard on plain-http hosts
      return;
    }
    setTimeout(() => (button.textContent = text), 1500);
  };
  return button;
}
