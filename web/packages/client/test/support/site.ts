// The real server, as a child: `steprelay dev` on a free port, with the agent of the browser tests.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../../../", import.meta.url));
export const RECORDINGS = join(ROOT, "tests/protocols/recordings");

export class Site {
  private constructor(
    readonly url: string,
    private child: ChildProcess,
    private home: string,
  ) {}

  static async open(): Promise<Site> {
    const home = mkdtempSync(join(tmpdir(), "stage-"));
    const env = {
      ...process.env,
      STAGE_GATES: home,
      STEPRELAY_STORE: `sqlite:///${home}/runs.db`,
      STEPRELAY_LEASE: "3",
    };
    const agent = join(ROOT, "tests/browser/stage_agent.py");
    const child = spawn(join(ROOT, ".venv/bin/steprelay"), ["dev", agent, "--port", "0"], { env, cwd: home });
    let said = "";
    const url = await new Promise<string>((found, failed) => {
      const hear = (bytes: Buffer) => {
        said += bytes;
        const [url] = /http:\/\/127\.0\.0\.1:\d+/.exec(said) ?? [];
        if (url) found(url);
      };
      child.stdout!.on("data", hear);
      child.stderr!.on("data", hear);
      child.on("exit", () => failed(new Error(`The server did not start: ${said}`)));
    });
    return new Site(url, child, home);
  }

  /** Let go of a step that is held. */
  release(gate: string) {
    writeFileSync(join(this.home, gate), "");
  }

  async get(path: string): Promise<any> {
    return (await fetch(`${this.url}/api${path}`)).json();
  }

  async close() {
    const gone = new Promise((done) => this.child.on("exit", done));
    this.child.kill("SIGTERM");
    await gone;
    rmSync(this.home, { recursive: true, force: true });
  }
}
