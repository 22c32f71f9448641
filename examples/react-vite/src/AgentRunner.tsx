import { useAgentRun, type AgentRun, type SessionOptions } from "@steprelay/client/react";
import { useEffect, useRef, useState, type FormEvent } from "react";
import { Question } from "./Question";
import { StepLog } from "./StepLog";
import { busy, carried, ended, plural, pretty, shown, standing } from "./words";

/**
 * An agent at work: give it a task, watch its steps, answer what it asks, stop it.
 *
 * The run is the server's: a reload, a lost connection or a second tab changes nothing about it.
 */
export function AgentRunner(options: SessionOptions) {
  const run = useAgentRun(options);
  const { status, stop } = run;
  const now = standing(run);
  const working = busy(run);
  const section = useRef<HTMLElement>(null);
  const answer = status === "COMPLETED" ? pretty(run.answer ?? "") : undefined;

  useEffect(() => {
    if (!working && status !== "AWAITING_INPUT") return;
    const key = (e: KeyboardEvent) => void (e.key === "Escape" && shown(section.current) && stop());
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, [working, status, stop]);

  return (
    <section className="runner" aria-label="Agent" ref={section}>
      {status === "IDLE" ? <Opening run={run} /> : <Heading run={run} />}
      {status !== "IDLE" && (
        <div className="bar">
          <p role="status" className={`state ${now.tone}`}>
            {now.text}
          </p>
          <span className="soft">{carried(run)}</span>
          <span className="fill" />
          <Actions run={run} />
        </div>
      )}
      {run.retry && (
        <p role="alert" className="notice">
          Connection lost, the run is safe. {run.retry.ms === Infinity ? "Waiting for the network." : "Trying again…"}
        </p>
      )}
      {run.error && (
        <p role="alert" className="notice bad">
          {run.error.message}
        </p>
      )}
      <StepLog steps={run.steps} busy={working} answer={answer} />
      {run.interrupts.map((asked) => (
        <Question
          key={asked.id}
          asked={asked}
          answer={(payload) => run.respond([{ interruptId: asked.id, payload }])}
        />
      ))}
      {answer !== undefined && (
        <article className="answer" aria-label="Answer">
          <p className="prose">{answer}</p>
          <p className="soft small">{spent(run)}</p>
        </article>
      )}
      {ended(run) && <Again run={run} />}
    </section>
  );
}

function Opening({ run }: { run: AgentRun }) {
  return (
    <>
      <h1>What should the agent do?</h1>
      <Composer label="Task" button="Run" send={run.start} autoFocus />
    </>
  );
}

function Heading({ run }: { run: AgentRun }) {
  const first = run.words.find((words) => words.role === "user")?.text ?? run.run?.prompt;
  return <h1>{typeof first === "string" ? first : "Agent"}</h1>;
}

function Actions({ run }: { run: AgentRun }) {
  const mine = run.carrier === null || run.carrier === "client" || run.carrier === "any";
  if (busy(run) || run.status === "AWAITING_INPUT")
    return (
      <>
        {busy(run) && (
          <button onClick={() => run.handOver(mine ? "background" : "client")} disabled={run.stopping}>
            {mine ? "Let the server carry on" : "Carry on here"}
          </button>
        )}
        <button className="stop" onClick={run.stop} disabled={run.stopping} aria-keyshortcuts="Escape">
          Stop <kbd>Esc</kbd>
        </button>
      </>
    );
  return (
    <>
      {run.status !== "COMPLETED" && <button onClick={() => run.resume()}>Go on</button>}
      <button onClick={run.reset}>New task</button>
    </>
  );
}

function Again({ run }: { run: AgentRun }) {
  return <Composer label="Ask for more" button="Ask" send={run.respond} />;
}

interface ComposerProps {
  label: string;
  button: string;
  send: (text: string) => Promise<void>;
  autoFocus?: boolean;
}

/** Words for the agent. Enter sends, Shift+Enter begins a line. */
function Composer({ label, button, send, autoFocus = false }: ComposerProps) {
  const [text, setText] = useState("");
  const form = useRef<HTMLFormElement>(null);
  const submit = (e: FormEvent) => {
    e.preventDefault();
    if (!text.trim()) return;
    setText("");
    void send(text.trim());
  };
  return (
    <form ref={form} className="composer" onSubmit={submit}>
      <label>
        <span>{label}</span>
        <textarea
          rows={2}
          value={text}
          autoFocus={autoFocus}
          onChange={(e) => setText(e.target.value)}
          onKeyDown={(e) => {
            if (e.key !== "Enter" || e.shiftKey || e.nativeEvent.isComposing) return;
            e.preventDefault();
            form.current?.requestSubmit();
          }}
        />
      </label>
      <button className="primary">{button}</button>
    </form>
  );
}

function spent({ steps, usage }: AgentRun): string {
  const tokens = usage.inputTokens + usage.outputTokens;
  const money = usage.usd ? ` · $${usage.usd.toFixed(usage.usd < 0.1 ? 3 : 2)}` : "";
  const taken = (steps.at(-1)?.index ?? -1) + 1; // one that said nothing is not among them
  return `${plural(taken, "step")} · ${plural(tokens, "token")}${money}`;
}
