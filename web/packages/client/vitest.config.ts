import { defineConfig } from "vitest/config";

const hook = ["test/hook.test.tsx"];
const LIBRARY = "@testing-library/react/dist/@testing-library/react.esm.js";
const base = { testTimeout: 60_000 };
const at = (path: string) => new URL(path, import.meta.url).pathname;

export default defineConfig({
  test: {
    projects: [
      { test: { ...base, name: "core", include: ["test/**/*.test.{ts,tsx}"], exclude: hook } },
      { test: { ...base, name: "react 19", include: hook, setupFiles: "test/support/dom.ts" } },
      {
        resolve: {
          alias: [
            { find: /^(react(-dom)?)(?=\/|$)/, replacement: at("../react-18/node_modules/$1") },
            // As a module, whose imports are aliased, too.
            { find: "@testing-library/react", replacement: at(`../../node_modules/${LIBRARY}`) },
          ],
        },
        test: {
          ...base,
          name: "react 18",
          include: hook,
          setupFiles: "test/support/dom.ts",
          server: { deps: { inline: [/@testing-library/] } },
        },
      },
    ],
  },
});
