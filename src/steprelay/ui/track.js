// The relay track: who carried which step, and when. `layout` is pure (rows in, geometry out), `draw` makes it SVG.
//
// Time runs to the right, squeezed: a step of a minute is wider than one of a second, but not sixty times. What matters
// (every step, every death, every hand-over) always has room.

import { s } from "./dom.js";
import { idleBefore } from "./history.js";
import { lane, left, processOf, span } from "./words.js";

const LANE = 44, BLOCK = 22, TOP = 16, DEAD = 38, BATON = 40, FOOT = 30;
const HUES = { client: 1, background: 2 };

const WORKED = (seconds) => Math.min(104, 17 * Math.log2(1 + Math.max(0, seconds))); // beyond the room for its number
const RESTED = (seconds) => (seconds < 0.5 ? 0 : Math.min(100, 20 * Math.log2(1 + seconds)));

/** The lanes of a run in the order in which they were first needed: [{carrier, name, hue}]. */
export function lanesOf(run, steps) {
  const carriers = [...new Set([...steps.map((st) => st.carrier), ...(run.carrier === "any" && steps.length ? [] : [run.carrier])])];
  const free = [3, 4, 5, 6];
  return carriers.map((carrier) => ({ carrier, name: lane(carrier), hue: HUES[carrier] ?? free.shift() ?? 6 }));
}

/**
 * Geometry of a run. `live`: null, or the step under way {carrier, since, silent, leaseLeft, lease}: `silent` when whoever
 * holds it no longer answers. `room`: pixels it should fit into, if it can; `holder(step)`: its process, where known.
 * Shapes: {kind, x, w, y, …}, in drawing order; kinds: step, dead, lease, wait, baton, hop, open.
 */
export function layout(run, steps, live, now, { room = Infinity, holder = () => null } = {}) {
  const plan = place(run, steps, live, now, holder, 1);
  if (plan.width <= room) return plan;
  return place(run, steps, live, now, holder, Math.max(0.25, 1 - (plan.width - room) / plan.give)); // squeeze, then scroll
}

function place(run, steps, live, now, holder, squeeze) {
  let give = 0; // how much of the width says how long things took
  const elastic = (w) => ((give += w), w * squeeze);
  const worked = (seconds) => 28 + elastic(WORKED(seconds));
  const rested = (seconds) => 4 + elastic(RESTED(seconds));
  const lanes = lanesOf(run, live && live.carrier ? [...steps, { carrier: live.carrier }] : steps);
  const rowOf = (carrier) => TOP + BLOCK / 2 + LANE * Math.max(0, lanes.findIndex((l) => l.carrier === carrier));
  const hueOf = (carrier) => lanes.find((l) => l.carrier === carrier)?.hue ?? 6;
  const shapes = [], ticks = [];
  let x = 4, last = null, hop = null;

  const tick = (at, text, strong) => ticks.push({ x: at, text, strong });
  const begin = run.createdAt ?? steps[0]?.claimedAt ?? now;
  const sinceStart = (t) => (t - begin < 0.5 ? "0 s" : span(t - begin));

  const deaths = (count, carrier, idle, index) => {
    const y = rowOf(carrier);
    if (last) x += 4;
    const from = x + DEAD / 2;
    for (let i = 0; i < count; i++) {
      shapes.push({ kind: "dead", x, w: DEAD, y, index, attempt: i + 1 });
      x += DEAD + 4;
      const w = Math.max(46, rested(idle / count));
      shapes.push({ kind: "lease", x, w, y, part: null, text: i === count - 1 ? span(idle) : "" });
      x += w + 4;
    }
    last = { x: x - 4, carrier };
    hop = { from, to: x, y, carrier };
  };
  const rest = (before, idle, carrier) => {
    if (idle < 0.5) return void (x += 4);
    const w = rested(idle);
    const asked = before && before.status !== "RUNNING";
    if (asked && idle >= 2) shapes.push({ kind: "wait", x: x + 4, w: w - 4, y: rowOf(before.carrier), text: w > 40 ? span(idle) : "" });
    x += w + 4;
    last = last && asked && before.carrier === carrier ? { x: x - 4, carrier } : last;
  };
  const pass = (carrier, at) => {
    if (!last || last.carrier === carrier) return;
    x = Math.max(x, last.x + BATON);
    shapes.push({ kind: "baton", x: last.x, w: x - last.x, y: rowOf(last.carrier), to: rowOf(carrier) });
    tick(x, `${sinceStart(at)} · ${lane(carrier)}`, true);
  };

  /** The next process of the same lane picks up what the dead one dropped. */
  const land = (carrier) => {
    if (hop?.carrier === carrier) shapes.push({ kind: "hop", x: hop.from, w: x - hop.from, y: hop.y });
    hop = null;
  };

  steps.forEach((step, i) => {
    const before = steps[i - 1];
    const idle = idleBefore(steps, i, run.createdAt ?? step.claimedAt);
    if (step.attempt > 1) deaths(step.attempt - 1, before?.carrier ?? step.carrier, idle, step.index);
    else if (before) rest(before, idle, step.carrier);
    pass(step.carrier, step.claimedAt);
    const by = step.attempt > 1 && holder(step) ? ` · process ${processOf(holder(step))}` : "";
    tick(x, sinceStart(step.claimedAt) + by, !last || step.attempt > 1 || idle > 8);
    land(step.carrier);
    const w = worked(step.committedAt - step.claimedAt);
    shapes.push({ kind: "step", x, w, y: rowOf(step.carrier), hue: hueOf(step.carrier), index: step.index, end: step.end ?? null });
    x += w;
    last = { x, carrier: step.carrier };
  });

  if (live) {
    if (steps.length) x += 4;
    if (live.deaths) deaths(live.deaths, last?.carrier ?? live.carrier, Math.max(0, live.since - (steps.at(-1)?.committedAt ?? begin)), run.step);
    pass(live.carrier, live.since);
    if (!live.silent) land(live.carrier);
    const y = rowOf(live.carrier);
    if (live.silent) {
      shapes.push({ kind: "dead", x, w: DEAD, y, index: run.step, attempt: run.attempts });
      x += DEAD + 4;
      const part = Math.max(0, Math.min(1, live.leaseLeft / live.lease));
      shapes.push({ kind: "lease", x, w: 92, y, part, text: live.leaseLeft > 0 ? `lease ${left(live.leaseLeft)}` : "free to take" });
      x += 92;
    } else {
      const w = worked(now - live.since);
      shapes.push({ kind: "open", x, w, y, hue: hueOf(live.carrier), index: run.step });
      x += w;
    }
  }
  return { lanes, shapes, ticks: thin(ticks), give: give || 1, width: x + 12, height: TOP + lanes.length * LANE - (LANE - BLOCK) + FOOT };
}

/** Times under the track, without collisions: those that mark an event win over those that only tell the time. */
function thin(ticks) {
  const room = (text) => text.length * 7 + 14;
  const kept = [];
  for (const t of [...ticks.filter((k) => k.strong), ...ticks.filter((k) => !k.strong)]) {
    if (kept.every((k) => (t.x < k.x ? t.x + room(t.text) <= k.x : k.x + room(k.text) <= t.x))) kept.push(t);
  }
  return kept.sort((a, b) => a.x - b.x);
}

/** In words, for who cannot see it. */
export function described(run, steps) {
  const legs = [];
  for (const step of steps) {
    const leg = legs.at(-1);
    if (leg?.carrier === step.carrier) leg.to = step.index;
    else legs.push({ carrier: step.carrier, from: step.index, to: step.index });
  }
  const deaths = steps.reduce((n, st) => n + Math.max(0, st.attempt - 1), 0);
  const said = legs.map((l) => `${l.from === l.to ? `step ${l.from}` : `steps ${l.from} to ${l.to}`} by ${lane(l.carrier)}`);
  if (!said.length) return "Relay track: no step yet.";
  return `Relay track: ${said.join(", ")}${deaths ? `; ${deaths} ${deaths === 1 ? "attempt" : "attempts"} died` : ""}.`;
}

/** The SVG of a layout. `pick(index)` is called for a clicked step, `picked` is shown. */
export function draw(plan, { width, picked = null, pick = () => {}, label = "", title = () => "" }) {
  const w = Math.max(plan.width, width);
  const lines = plan.lanes.map((_, i) => s("line", { class: "rail", x1: 0, x2: w, y1: rail(i), y2: rail(i) }));
  const box = { width: w, height: plan.height, viewBox: `0 0 ${w} ${plan.height}`, role: "img", "aria-label": label };
  return s(
    "svg", box, s("g", null, lines), plan.shapes.map((shape) => SHAPES[shape.kind](shape, { picked, pick, title })),
    plan.ticks.map((t) => s("text", { class: "tick", x: t.x, y: plan.height - 6 }, t.text)),
  );
}

const rail = (i) => TOP + BLOCK / 2 + LANE * i + 0.5;
const bar = (sh, cls, extra) => s("rect", { class: cls, x: sh.x, y: sh.y - BLOCK / 2, width: sh.w, height: BLOCK, rx: 5, ...extra });
const number = (sh, cls) => s("text", { class: cls, x: sh.x + 8, y: sh.y + 4.5 }, String(sh.index));

const SHAPES = {
  step(sh, { picked, pick, title }) {
    const props = { class: `leg hue${sh.hue}${picked === sh.index ? " picked" : ""}`, "data-step": sh.index, onclick: () => pick(sh.index) };
    return s("g", props, s("title", null, title(sh.index)), bar(sh, "block"), number(sh, "no"));
  },
  open: (sh) => s("g", { class: `leg hue${sh.hue}` }, bar(sh, "open"), number(sh, "no on-paper")),
  dead(sh) {
    const cx = sh.x + sh.w - 12;
    return s("g", { class: "died" }, s("title", null, `Attempt ${sh.attempt} of step ${sh.index} died`), bar(sh, "dead"), number(sh, "no"),
      s("path", { d: `M${cx - 3.5} ${sh.y - 3.5}l7 7m0-7l-7 7` }));
  },
  lease(sh) {
    return s("g", { class: "lease" }, s("rect", { class: "under", x: sh.x, y: sh.y - 3, width: sh.w, height: 6, rx: 3 }),
      sh.part !== null && s("rect", { class: "left", x: sh.x, y: sh.y - 3, width: sh.w * sh.part, height: 6, rx: 3 }),
      sh.text && s("text", { class: "tick", x: sh.x + 1, y: sh.y + 18 }, sh.text));
  },
  wait: (sh) => s("g", { class: "rest" }, s("line", { x1: sh.x, x2: sh.x + sh.w, y1: sh.y, y2: sh.y }),
    sh.text && s("text", { class: "tick", x: sh.x + 1, y: sh.y + 18 }, sh.text)),
  hop(sh) {
    const top = sh.y - BLOCK / 2;
    const d = `M${sh.x} ${top}C${sh.x + 12} ${top - 14} ${sh.x + sh.w - 10} ${top - 14} ${sh.x + sh.w + 2} ${top + 1}`;
    return s("g", { class: "baton" }, s("path", { d }), s("circle", { cx: sh.x + sh.w + 2, cy: top + 1, r: 3.5 }));
  },
  baton(sh) {
    const half = sh.w / 2;
    const d = `M${sh.x} ${sh.y}C${sh.x + half} ${sh.y} ${sh.x + half} ${sh.to} ${sh.x + sh.w} ${sh.to}`;
    return s("g", { class: "baton" }, s("path", { d }), s("circle", { cx: sh.x + sh.w - 1, cy: sh.to, r: 3.5 }));
  },
};

/** A step's line for the tooltip. */
export const told = (step, holder) =>
  `Step ${step.index} · ${lane(step.carrier)}${holder ? ` · process ${processOf(holder)}` : ""} · ${span(step.committedAt - step.claimedAt)}`;
