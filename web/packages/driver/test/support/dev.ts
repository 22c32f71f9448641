// The Python server of this repository with an agent that does as its prompt says, and our hands on it.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = new URL("../../../../../", import.meta.url).pathname;
const SECRET = "a secret that only these tests know";

export interface Plan {
  steps: number;
  waits?: Record<number, number>;
  asks?: number[];
  slow?: Record<number, number>;
}

export class Dev {
  readonly key = SECRET;
  private constructor(
    readonly url: string,
    private home: string,
    private child: ChildProcess,
    private gone: Promise<void>,
  ) {}

  /** uvicorn on a free port, as a server for others: with a secret, and a store of its own. */
  static async open(): Promise<Dev> {
    const program = process.env.UVICORN ?? `${ROOT}.venv/bin/uvicorn`;
    if (!existsSync(program)) throw new Error(`There is no ${program}: run \`make setup\`, or set UVICORN.`);
    const home = mkdtempSync(join(tmpdir(), "steprelay-driver-"));
    writeFileSync(join(home, "witness"), "");
    const env = {
      ...process.env,
      STEPRELAY_STORE: `sqlite:${home}/runs.db`,
      STEPRELAY_SECRET: SECRET,
      WITNESS: join(home, "witness"),
    };
    const folder = new URL(".", import.meta.url).pathname;
    const child = spawn(program, ["agent:app", "--app-dir", folder, "--port", "0"], { env, cwd: home });
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
    return new Dev(url, home, child, gone);
  }

  async close(): Promise<void> {
    this.child.kill("SIGINT");
    await this.gone;
    rmSync(this.home, { recursive: true, force: true });
  }

  async ask(path: string, json?: unknown): Promise<any> {
    const headers = { authorization: `Bearer ${SECRET}`, "content-type": "application/json" };
    const init = json === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(json) };
    const answer = await fetch(`${this.url}/api${path}`, init);
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  async start(run: string, carrier: string, plan: Plan): Promise<void> {
    await this.ask("/runs", { sessionId: run, userPrompt: JSON.stringify(plan), carrier });
  }

  /** Each step's carrier, in order. */
  async carriers(run: string): Promise<string[]> {
    const { steps } = await this.ask(`/runs/${run}/steps?limit=200`);
    return steps.map((s: { carrier: string }) => s.carrier);
  }

  /** The steps that the agent was called for, in order. */
  called(run: string): number[] {
    const lines = readFileSync(join(this.home, "witness"), "utf8").trim().split("\n");
    return lines.map((line) => line.split(" ")).flatMap(([id, step]) => (id === run ? [Number(step)] : []));
  }
}

/** So many steps from zero. */
export const upTo = (steps: number): number[] => Array.from({ length: steps }, (_, i) => i);
export const nap = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));
