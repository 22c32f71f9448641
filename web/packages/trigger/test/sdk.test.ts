import { resourceCatalog } from "@trigger.dev/core/v3";
import { StandardResourceCatalog } from "@trigger.dev/core/v3/workers";
import { expect, test } from "vitest";
import { relay } from "../src/index.js";

test("the real SDK registers the task with its retries and its hook", () => {
  resourceCatalog.setGlobalResourceCatalog(new StandardResourceCatalog());
  resourceCatalog.setCurrentFileContext("trigger/steprelay.ts", "steprelay");
  expect(relay({ url: "http://localhost", key: "key" }).id).toBe("trigger");
  expect(resourceCatalog.getTask("trigger")).toMatchObject({ id: "trigger", retry: { maxAttempts: 10 } });
});
