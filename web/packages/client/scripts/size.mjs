// Sizes of what a page loads, bundled, minified and gzipped, all dependencies but React included; fails above the budget.

import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const ENTRIES = [
  ["core", 'export * from "./src/index.ts"', 4096],
  ["core and hook", 'export * from "./src/index.ts"; export * from "./src/react.ts"', 5120],
];

const sizes = [];
for (const [name, contents, budget] of ENTRIES) {
  const bundled = await build({
    stdin: { contents, resolveDir: new URL("..", import.meta.url).pathname },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    external: ["react", "react/*"],
  });
  sizes.push({ name, bytes: gzipSync(bundled.outputFiles[0].contents, { level: 9 }).length, budget });
}
if (process.argv.includes("--json")) console.log(JSON.stringify(sizes));
else for (const { name, bytes, budget } of sizes) console.log(`${name}: ${bytes} bytes gz of ${budget}`);
const over = sizes.filter((s) => s.bytes > s.budget);
if (over.length) {
  console.error(`Too big: ${over.map((s) => s.name).join(", ")}`);
  process.exitCode = 1;
}
