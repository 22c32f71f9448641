import { act, cleanup, render, renderHook, screen, waitFor } from "@testing-library/react";
import { StrictMode, version } from "react";
import { renderToString } from "react-dom/server";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { useAgentRun, type SessionOptions } from "../src/react.js";
import { Locks } from "./support/locks.js";
import { Relay } from "./support/server.js";

const STEPS = [["One ", "tea."], ["Two."], ["Three."]];

const step = (request: string) => request.endsWith("/step");
let relay: Relay;
beforeAll(async () => void (relay = await Relay.open()));
afterAll(() => relay.close());
beforeEach(() => {
  Object.assign(relay, { faults: [], script: { steps: STEPS }, gate: undefined, faulty: step });
  relay.log.length = 0;
  localStorage.clear();
  vi.stubGlobal("navigator", { locks: new Locks(), onLine: true });
});
afterEach(cleanup);

const asked = () => relay.log.filter((line) => line.includes("/step"));
const use = (o: SessionOptions = {}) => {
  const options = { baseUrl: relay.url, maxDelay: 2, ...o };
  return renderHook(() => useAgentRun(options), { wrapper: StrictMode });
};
const opened = { timeout: 10_000 };

/** Holds the run before a step until it is let go. */
function hold(step: number) {
  let go = () => {};
  const held = new Promise<void>((done) => (go = done));
  relay.gate = (_, index) => (index === step ? held : undefined);
  return go;
}

test("a run from its prompt to its answer", async () => {
  const { result } = use();
  expect(result.current).toMatchObject({ status: "IDLE", sessionId: null, steps: [], answer: null, driving: false });
  await act(() => result.current.start("hi"));
  await waitFor(() => expect(result.current.status).toBe("COMPLETED"), opened);
  const { answer, words, usage, carrier, partial, error, interrupts } = result.current;
  expect({ answer, carrier, partial, error, interrupts }).toEqual({
    ...{ answer: "Three.", carrier: "client", partial: "", error: null, interrupts: [] },
  });
  expect(words.map((w) => `${w.role}: ${w.text}`)).toEqual([
    ...["user: hi", "assistant: One tea.", "assistant: Two.", "assistant: Three."],
  ]);
  expect(usage.requests).toBe(3);
  expect(asked()).toHaveLength(3); // StrictMode mounts twice; the steps are taken once
});

test("what is being said shows as it comes", async () => {
  let go = () => {};
  const held = new Promise<void>((done) => (go = done));
  relay.gate = (_, step, word) => (step === 0 && word === 1 ? held : undefined);
  const { result } = use();
  await act(() => result.current.start("hi"));
  await waitFor(() => expect(result.current.partial).toBe("One "), opened);
  expect(result.current).toMatchObject({ status: "RUNNING", driving: true, answer: null });
  go();
  await waitFor(() => expect(result.current.answer).toBe("Three."), opened);
});

test("a question is answered, by this component or by another tab's", async () => {
  relay.script = { steps: STEPS, asks: 0 };
  const { result } = use();
  await act(() => result.current.start("hi"));
  await waitFor(() => expect(result.current.status).toBe("AWAITING_INPUT"), opened);
  expect(result.current.interrupts).toMatchObject([{ id: "i1", kind: "question", prompt: "Which?" }]);
  const other = use({ sessionId: result.current.sessionId! });
  await waitFor(() => expect(other.result.current.interrupts).toHaveLength(1), opened);
  await act(() => other.result.current.respond([{ interruptId: "i1", payload: "this" }]));
  await waitFor(() => expect(result.current.status).toBe("COMPLETED"), opened);
  await waitFor(() => expect(other.result.current.answer).toBe("Three."), opened);
  expect(asked()).toHaveLength(3);
});

test("Stop is local at once, and lands on the server however long that takes", async () => {
  const go = hold(1);
  const { result } = use();
  await act(() => result.current.start("hi"));
  await waitFor(() => expect(asked()).toHaveLength(2), opened);
  relay.faulty = (request) => request.endsWith("/cancel");
  relay.faults = [{ refuse: true }, { status: 503 }];
  let stopped: Promise<void> = Promise.resolve();
  act(() => void (stopped = result.current.stop()));
  expect(result.current).toMatchObject({ stopping: true, driving: false });
  await act(() => stopped);
  go();
  await waitFor(() => expect(result.current.status).toBe("CANCELLED"), opened);
  expect(result.current.stopping).toBe(false);
  expect(relay.log.filter((line) => line.endsWith("/cancel"))).toHaveLength(3);
});

test("a reload goes on with the remembered run", async () => {
  const go = hold(1);
  const first = use({ remember: "run" });
  await act(() => first.result.current.start("hi"));
  await waitFor(() => expect(asked()).toHaveLength(2), opened);
  first.unmount();
  const second = use({ remember: "run" });
  await waitFor(() => expect(second.result.current.words).toHaveLength(2), opened);
  go();
  await waitFor(() => expect(second.result.current.answer).toBe("Three."), opened);
  expect(second.result.current.sessionId).toBe(first.result.current.sessionId);
  act(() => second.result.current.reset());
  expect(second.result.current).toMatchObject({ status: "IDLE", sessionId: null });
  expect(localStorage.getItem("run")).toBeNull();
});

test("a lost connection shows, and goes", async () => {
  relay.faulty = (request) => request.endsWith("/step");
  relay.faults = [{ status: 503, retryAfter: "0.3" }];
  const { result } = use();
  await act(() => result.current.start("hi"));
  await waitFor(() => expect(result.current.retry).toMatchObject({ ms: 300, error: { status: 503 } }), opened);
  await waitFor(() => expect(result.current).toMatchObject({ retry: null, answer: "Three." }), opened);
});

test("a run that cannot be started is an error, and none", async () => {
  relay.faulty = (request) => request === "POST /runs";
  relay.faults = [{ status: 403 }];
  const { result } = use();
  await act(() => result.current.start("hi"));
  expect(result.current).toMatchObject({ status: "IDLE", error: { status: 403 } });
});

test("Stop lands even when the component is gone", async () => {
  const go = hold(1);
  const { result, unmount } = use();
  await act(() => result.current.start("hi"));
  await waitFor(() => expect(asked()).toHaveLength(2), opened);
  const id = result.current.sessionId!;
  relay.faulty = (request) => request.endsWith("/cancel");
  relay.faults = [{ refuse: true }];
  act(() => void result.current.stop());
  unmount();
  await waitFor(() => expect(relay.runs.get(id)!.status).toBe("CANCELLED"), opened);
  go();
});

test("a run that cannot be had is an error", async () => {
  const { result } = use({ sessionId: "nobody" });
  await waitFor(() => expect(result.current.error).toMatchObject({ status: 404, code: "not_found" }), opened);
});

test("handed over, the run is followed while others carry it", async () => {
  const go = hold(1);
  const { result } = use();
  await act(() => result.current.start("hi"));
  await waitFor(() => expect(asked()).toHaveLength(2), opened);
  await act(() => result.current.handOver());
  go();
  await waitFor(() => expect(result.current.steps).toHaveLength(2), opened);
  expect(result.current.carrier).toBe("background");
  relay.advance(result.current.sessionId!);
  await waitFor(() => expect(result.current.answer).toBe("Three."), opened);
  expect(asked()).toHaveLength(2);
});

test("on the server it renders as idle, and hydrates", () => {
  function Page() {
    return <p>{useAgentRun({ sessionId: "s1", remember: "run" }).status}</p>;
  }
  expect(renderToString(<Page />)).toBe("<p>IDLE</p>");
  render(<p>there</p>);
  expect(screen.getByText("there")).toBeTruthy();
});

test("it is the React it says", ({ task }) => {
  expect(task.file.projectName).toBe(`react ${version.split(".")[0]}`);
});
