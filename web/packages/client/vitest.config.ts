import { defineConfig } from "vitest/config";

const hook = ["test/hook.test.tsx"];
const test = { testTimeout: 20_000 };

export default defineConfig({
  test: {
    projects: [
      { test: { ...test, name: "core", include: ["test/**/*.test.ts"] } },
      { test: { ...test, name: "react 19", include: hook, setupFiles: "test/support/dom.ts" } },
    ],
  },
});
