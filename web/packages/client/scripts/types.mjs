// Writes src/openapi.ts: the shapes on the wire, from the OpenAPI document of the server in this repository.
//
//   node scripts/types.mjs            write it
//   node scripts/types.mjs --check    fail if it is not what the server says now
//   PYTHON=…                          the Python that has steprelay; by default .venv at the root

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";
import { format } from "prettier";

const FILE = new URL("../src/openapi.ts", import.meta.url);
const ROOT = new URL("../../../../", import.meta.url).pathname;
const DOCUMENT = `
import json
from steprelay.http.app import ENDPOINTS
from steprelay.http.openapi import document
print(json.dumps(document(ENDPOINTS)))
`;
/** Shapes with defaults that are sent all the same. Of the others, parts and requests, what is default may be left out. */
const WHOLE = ["Error", "Usage"];
const HEAD = "// Generated from the server's OpenAPI document by `npm run types`. Do not edit.\n\n";

/** What the file should hold now. */
export async function generated() {
  const python = process.env.PYTHON ?? `${ROOT}.venv/bin/python`;
  const document = JSON.parse(execFileSync(python, ["-c", DOCUMENT], { cwd: ROOT, maxBuffer: 1 << 24 }));
  const shapes = { ...document, info: { title: "steprelay", version: "0" }, paths: {} };
  for (const [name, shape] of Object.entries(shapes.components.schemas))
    if (!WHOLE.includes(name)) for (const field of Object.values(shape.properties ?? {})) delete field.default;
  const ast = await openapiTS(shapes, { emptyObjectsUnknown: true });
  return format(HEAD + astToString(ast), { parser: "typescript", printWidth: 120 });
}

const wanted = await generated();
if (!process.argv.includes("--check")) writeFileSync(FILE, wanted);
else if (readFileSync(FILE, "utf8") !== wanted) {
  console.error("src/openapi.ts is not what the server says; run: npm run types -w @steprelay/client");
  process.exitCode = 1;
}
