import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

test("the types are those of the server's OpenAPI document", () => {
  const script = new URL("../scripts/types.mjs", import.meta.url).pathname;
  const told = spawnSync(process.execPath, [script, "--check"], { encoding: "utf8" });
  expect(told.stderr).toBe("");
  expect(told.status).toBe(0);
}, 60_000);
