// What a page loads, bundled, minified and gzipped, without React; fails above a budget.
//
//   node scripts/size.mjs [--json]

import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const CORE = 'export { start, drive, cancel } from "./src/index.ts"';
const ENTRIES = [
  { name: "core: start, drive, cancel", contents: CORE, without: ["eventsource-parser"], budget: 4096 },
  { name: "core with eventsource-parser", contents: CORE, budget: 5248 },
  { name: "everything of @steprelay/client", contents: 'export * from "./src/index.ts"', budget: 7168 },
  { name: "useAgentRun, with all it needs", contents: 'export { useAgentRun } from "./src/react.ts"', budget: 7424 },
];

const sizes = [];
for (const { name, contents, budget, without = [] } of ENTRIES) {
  const bundled = await build({
    stdin: { contents, resolveDir: new URL("..", import.meta.url).pathname },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    external: ["react", ...without],
  });
  sizes.push({ name, bytes: gzipSync(bundled.outputFiles[0].contents, { level: 9 }).length, budget });
}
if (process.argv.includes("--json")) console.log(JSON.stringify(sizes));
else for (const { name, bytes, budget } of sizes) console.log(`${name}: ${bytes} bytes gz, of ${budget}`);
for (const { name } of sizes.filter(({ bytes, budget }) => bytes > budget)) {
  console.error(`Too big: ${name}`);
  process.exitCode = 1;
}
