import { readFileSync } from "node:fs";
import ts from "typescript";
import { expect, test } from "vitest";

const here = (path: string) => new URL(path, import.meta.url).pathname;
const PAGES = ["../../../../docs/browser.md", "../../../../docs/protocols.md", "../README.md"].map(here);
const BLOCK = /```(tsx?)\n(.*?)```/gs;

const blocks = new Map(
  PAGES.flatMap((page) =>
    [...readFileSync(page, "utf8").matchAll(BLOCK)].map(([, kind, code], i): [string, string] => [
      here(`./${page.split("/").at(-1)}.${i}.${kind}`),
      `${code}\nexport {};\n`,
    ]),
  ),
);

test("the code on the pages is right for the types", () => {
  const { config } = ts.readConfigFile(here("../tsconfig.json"), ts.sys.readFile);
  const parsed = ts.parseJsonConfigFileContent(
    { extends: config.extends, compilerOptions: config.compilerOptions, files: [] },
    ts.sys,
    here(".."),
  );
  const options: ts.CompilerOptions = {
    ...parsed.options,
    paths: { "@steprelay/client": [here("../src/index.ts")], "@steprelay/client/*": [here("../src/*.ts")] },
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, getSourceFile, readFile } = host;
  host.fileExists = (name) => blocks.has(name) || fileExists(name);
  host.readFile = (name) => blocks.get(name) ?? readFile(name);
  host.getSourceFile = (name, language, ...rest) => {
    const code = blocks.get(name);
    return code === undefined ? getSourceFile(name, language, ...rest) : ts.createSourceFile(name, code, language);
  };
  const program = ts.createProgram([...blocks.keys()], options, host);
  const wrong = ts.getPreEmitDiagnostics(program).map((d) => ts.flattenDiagnosticMessageText(d.messageText, "\n"));
  expect(blocks.size).toBeGreaterThan(3);
  expect(wrong).toEqual([]);
}, 120_000);
