import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { start, type Run } from "../src/index.js";
import { follow, text, until, type Followed } from "./support/follow.js";
import { Locks } from "./support/locks.js";
import { Relay } from "./support/server.js";

const STEPS = [["a ", "b ", "c"], ["d ", "e"], ["f"]];
const WHOLE = STEPS.map((words) => words.join(""));

const step = (request: string) => request.endsWith("/step");
let relay: Relay;
beforeAll(async () => void (relay = await Relay.open()));
afterAll(() => relay.close());
beforeEach(() => {
  vi.stubGlobal("navigator", { locks: new Locks(), onLine: true });
  Object.assign(relay, { faults: [], script: { steps: STEPS }, gate: undefined, faulty: step });
  relay.log.length = 0;
});
afterEach(() => vi.unstubAllGlobals());

/** A tab: what it shows, and how to close it. */
function open(run: Run) {
  const leaving = new AbortController();
  const tab = {
    texts: [] as string[],
    shown: new Set<string>(),
    drives: false,
    close: () => leaving.abort(),
    done: undefined as unknown as Promise<Followed>,
  };
  tab.done = follow(run, { signal: leaving.signal }, (s) => {
    tab.texts = s.steps.map((step) => text(s, step.index));
    tab.texts.forEach((words) => tab.shown.add(words));
    tab.drives = s.driving;
  });
  return tab;
}

/** Lets the words of a run out one at a time. */
function gated() {
  let free = 0;
  let wake: () => void = () => {};
  relay.gate = async () => {
    while (!free) await new Promise<void>((done) => (wake = done));
    free--;
  };
  return (words: number) => ((free += words), wake());
}

const asked = () => relay.log.filter((line) => line.includes("/step"));
const made = async () => {
  const { sessionId, baseUrl, token } = await start({ baseUrl: relay.url, prompt: "hi" });
  return { sessionId, baseUrl, token };
};

test("one tab drives, the others show the same as it comes", async () => {
  const out = gated();
  const run = await made();
  const first = open(run);
  out(1);
  await until(() => first.texts[0] === "a ");
  const second = open(run);
  await until(() => second.texts[0] === "a "); // from the first tab: the server has not committed it
  out(1);
  await until(() => second.texts[0] === "a b ");
  expect([first.drives, second.drives]).toEqual([true, false]);
  out(4);
  await Promise.all([first.done, second.done]);
  expect(first.texts).toEqual(WHOLE);
  expect(second.texts).toEqual(WHOLE);
  expect(asked()).toHaveLength(3);
});

test("a tab that comes late fills what it missed from the server", async () => {
  const out = gated();
  const run = await made();
  const first = open(run);
  out(3 + 1);
  await until(() => first.texts[1] === "d ");
  const second = open(run);
  await until(() => second.texts[0] === WHOLE[0] && second.texts[1] === "d ");
  out(2);
  await second.done;
  expect(second.texts).toEqual(WHOLE);
  await first.done;
});

test("a tab that comes into the middle of a sentence shows it from its start", async () => {
  const out = gated();
  const run = await made();
  const first = open(run);
  out(1);
  await until(() => first.texts[0] === "a ");
  relay.faulty = (request) => request === `GET /runs/${run.sessionId}`;
  relay.faults = [{ status: 503, retryAfter: "0.05" }]; // what the first tab tells comes before the second has a row
  const second = open(run);
  await until(() => relay.faults.length === 0);
  out(1);
  await until(() => second.texts[0] === "a b ");
  out(4);
  await Promise.all([first.done, second.done]);
  expect([...second.shown].filter((words) => !WHOLE.some((whole) => whole.startsWith(words)))).toEqual([]);
});

test("when the driving tab is closed, another drives", async () => {
  const out = gated();
  const run = await made();
  const first = open(run);
  await until(() => first.drives);
  const second = open(run);
  const third = open(run);
  out(3 + 1);
  await until(() => second.texts[1] === "d " && third.texts[1] === "d ");
  first.close();
  await until(() => second.drives);
  expect(third.drives).toBe(false);
  second.close();
  await until(() => third.drives);
  out(2);
  await third.done;
  expect(third.texts).toEqual(WHOLE);
});

test("without navigator.locks every tab asks, and the server lets one", async () => {
  vi.stubGlobal("navigator", { onLine: true });
  const run = await made();
  const tabs = [open(run), open(run), open(run)];
  await Promise.all(tabs.map((tab) => tab.done));
  expect(tabs.map((tab) => tab.texts)).toEqual([WHOLE, WHOLE, WHOLE]);
  expect(relay.texts(run.sessionId)).toEqual(WHOLE);
});

test("where locks are forbidden a tab drives all the same", async () => {
  const forbidden = () => Promise.reject(new DOMException("Not here.", "SecurityError"));
  vi.stubGlobal("navigator", { onLine: true, locks: { request: forbidden } });
  const tab = open(await made());
  await tab.done;
  expect(tab.texts).toEqual(WHOLE);
});

test("an error of the driving tab is thrown where it happened", async () => {
  relay.faults = [{ status: 403 }];
  const run = await made();
  await expect(open(run).done).rejects.toMatchObject({ status: 403 });
});

test("a page that goes hands over when it was told to, with its token", async () => {
  const page = new EventTarget();
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
  vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
  const out = gated();
  for (const handOver of [false, true]) {
    const run = await made();
    const leaving = new AbortController();
    const tab = follow(run, { signal: leaving.signal, handOver }, () => {});
    await until(() => asked().some((line) => line.includes(run.sessionId)));
    page.dispatchEvent(new Event("pagehide"));
    leaving.abort();
    await tab;
    if (handOver) await until(() => relay.runs.get(run.sessionId)!.carrier === "background");
    else expect(relay.runs.get(run.sessionId)!.carrier).toBe("client");
  }
  out(9);
});

test("without a network nothing is tried until it is back", async () => {
  const page = new EventTarget();
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
  vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
  const run = await made();
  const navigator = { onLine: false };
  vi.stubGlobal("navigator", navigator);
  relay.faults = [{ refuse: true }];
  relay.faulty = () => true;
  let waits = 0;
  const tab = follow(run, {}, (_, e) => {
    if (e.type === "retry") waits = e.ms;
  });
  await until(() => waits === Infinity);
  const before = relay.log.length;
  navigator.onLine = true;
  page.dispatchEvent(new Event("online"));
  const { snapshot } = await tab;
  expect(before).toBe(2);
  expect(snapshot.status).toBe("COMPLETED");
});
