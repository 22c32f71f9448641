// The server of this repository, as a visitor runs it.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = new URL("../../../../../", import.meta.url).pathname;

export interface Dev {
  url: string;
  close: () => Promise<void>;
}

/** `steprelay dev` with the tests' agent, on a free port and in a store of its own. */
export async function dev(...options: string[]): Promise<Dev> {
  const program = process.env.STEPRELAY ?? `${ROOT}.venv/bin/steprelay`;
  if (!existsSync(program)) throw new Error(`There is no ${program}: run \`make setup\`, or set STEPRELAY.`);
  const home = mkdtempSync(join(tmpdir(), "steprelay-client-"));
  const agent = new URL("./agent.py", import.meta.url).pathname;
  const env = { ...process.env, STEPRELAY_STORE: `sqlite:${home}/runs.db`, STEPRELAY_LEASE: "0.5" };
  const child = spawn(program, ["dev", agent, "--port", "0", ...options], { env, cwd: home });
  const gone = new Promise<void>((done) => child.once("exit", () => done()));
  let said = "";
  const url = await new Promise<string>((found, failed) => {
    const hear = (chunk: Buffer) => {
      said += chunk;
      const at = /(http:\/\/127\.0\.0\.1:\d+)/.exec(said);
      if (at) found(at[1]!);
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    void gone.then(() => failed(new Error(`It ended:\n${said}`)));
  });
  const close = async () => {
    child.kill("SIGINT");
    await gone;
    rmSync(home, { recursive: true, force: true });
  };
  return { url, close };
}
