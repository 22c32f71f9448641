// The client against the real server in bad weather: processes are killed (-9), answers lost, requests doubled.

import { afterAll, beforeAll, expect, test } from "vitest";
import { handOver, start } from "../src/index.js";
import { carry, follow, text } from "./support/follow.js";
import { dev, type Dev } from "./support/dev.js";

const STEPS = [0, 1, 2, 3];
const whole = (step: number, attempt: number) =>
  Array.from({ length: 12 }, (_, i) => `${step}.${attempt}.${i} `).join("");

let weather: Dev;
let fair: Dev;
beforeAll(async () => {
  const bad = ["--kill", "0.2", "--lose-response", "0.15", "--duplicate", "0.15", "--latency", "10ms", "--seed", "4"];
  [weather, fair] = await Promise.all([dev("--deadline", "5s", ...bad), dev()]);
}, 60_000);
afterAll(() => Promise.all([weather.close(), fair.close()]));

test("in bad weather each step shows one attempt's text, whole in the end", async () => {
  let retries = 0;
  const runs = Array.from({ length: 2 }, () =>
    carry(weather.url, { maxTries: 100, maxDelay: 200 }, (s, e) => {
      if (e.type === "retry") retries++;
      for (const { index, attempt } of s.steps) {
        const words = text(s, index);
        const said = Number(words.split(".")[1] ?? 1);
        expect(whole(index, said).startsWith(words)).toBe(true);
        if (attempt === "c") expect([whole(index, said), words]).toContain(words);
      }
    }),
  );
  for (const { snapshot } of await Promise.all(runs)) {
    expect(snapshot.status).toBe("COMPLETED");
    for (const i of STEPS) {
      const attempt = Number(text(snapshot, i).split(".")[1]);
      expect(text(snapshot, i)).toBe(whole(i, attempt));
    }
  }
  expect(retries).toBeGreaterThan(0);
}, 60_000);

test("a run that is handed over is carried by the server and followed here", async () => {
  const run = await start({ baseUrl: fair.url, prompt: "hi" });
  const view = await handOver(run);
  const { snapshot, events } = await follow({ ...run, view });
  expect(snapshot.status).toBe("COMPLETED");
  expect(STEPS.map((i) => text(snapshot, i))).toEqual(STEPS.map((i) => whole(i, 1)));
  expect(events.filter((e) => e.type === "envelope")).toEqual([]);
  expect(snapshot.run!.carrier).toBe("background");
});

test("three pages without locks drive one run to one text", async () => {
  const run = await start({ baseUrl: fair.url, prompt: "hi" });
  const pages = await Promise.all([1, 2, 3].map(() => follow({ sessionId: run.sessionId, baseUrl: fair.url })));
  for (const { snapshot } of pages) {
    expect(STEPS.map((i) => text(snapshot, i))).toEqual(STEPS.map((i) => whole(i, 1)));
    expect(snapshot.status).toBe("COMPLETED");
  }
});
