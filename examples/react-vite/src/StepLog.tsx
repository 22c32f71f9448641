import type { Part, StepSnapshot } from "@steprelay/client";
import { memo, useState } from "react";
import { line, plural, pretty } from "./words";

const SHOWN = 100;

interface StepLogProps {
  steps: readonly StepSnapshot[];
  busy: boolean;
  /** Said below the log, and not twice. */
  answer?: string | undefined;
}

/** The steps, newest last. Screen readers hear of whole steps, not of every word. */
export function StepLog({ steps, busy, answer }: StepLogProps) {
  const [all, setAll] = useState(false);
  if (!steps.length && !busy) return null;
  const hidden = all ? 0 : Math.max(0, steps.length - SHOWN);
  return (
    <>
      {hidden > 0 && (
        <button className="earlier" onClick={() => setAll(true)}>
          Show {plural(hidden, "earlier step")}
        </button>
      )}
      <div role="log" aria-label="Steps" aria-busy={busy}>
        <ol className="log" start={hidden}>
          {steps.slice(hidden).map((step) => (
            <Step key={step.index} step={step} answer={step === steps.at(-1) ? answer : undefined} />
          ))}
        </ol>
      </div>
    </>
  );
}

type Call = Extract<Part, { type: "call" }>;
type Result = Extract<Part, { type: "result" }>;
type Told =
  { kind: "text" | "thought" | "prompt"; text: string } | { kind: "tool"; call: Call | null; result: Result | null };

const Step = memo(function Step({ step, answer }: { step: StepSnapshot; answer: string | undefined }) {
  const open = step.attempt !== "c";
  const shown = told(step.parts).filter((one) => {
    if (one.kind === "prompt") return step.index > 0; // the first one is the heading
    return one.kind !== "text" || one.text.trim() !== answer?.trim();
  });
  if (!open && !shown.length) return null;
  return (
    <li className="step" value={step.index} aria-busy={open} aria-live={open ? "off" : undefined}>
      <span className="no" aria-hidden>
        {step.index}
      </span>
      <div>
        {shown.map((one, i) =>
          one.kind === "tool" ? (
            <Tool key={i} {...one} open={open} />
          ) : (
            <p key={i} className={one.kind}>
              {one.text}
            </p>
          ),
        )}
      </div>
    </li>
  );
});

function Tool({ call, result, open }: { call: Call | null; result: Result | null; open: boolean }) {
  const failed = result?.status && result.status !== "ok";
  const state = failed ? result.status : result ? "done" : open ? "running" : "called";
  return (
    <details className={`tool ${failed ? "bad" : ""}`}>
      <summary>
        <b>{(call ?? result)!.name}</b> <span>{line(call?.args ?? "")}</span> <i>{state}</i>
      </summary>
      {call?.args != null && <pre aria-label="Arguments">{pretty(call.args)}</pre>}
      {result && <pre aria-label="Result">{pretty(result.value ?? null)}</pre>}
    </details>
  );
}

/** What a step says, in order: pieces of words joined, results beside their calls. */
function told(parts: readonly Part[]): Told[] {
  const found: Told[] = [];
  const open = new Map<string, { text: string }>();
  for (const part of parts) {
    if (part.type === "text" || part.type === "thought") {
      const kind = part.type === "text" && part.role === "user" ? ("prompt" as const) : part.type;
      const key = `${kind}:${part.id ?? ""}`;
      const begun = part.delta ? open.get(key) : undefined;
      if (begun) begun.text += part.text;
      else if (part.delta || !found.some((one) => one.kind === kind && one.text.trim() === part.text.trim())) {
        const words = { kind, text: part.text } satisfies Told;
        open.set(key, words);
        found.push(words);
      }
    } else if (part.type === "call") found.push({ kind: "tool", call: part, result: null });
    else if (part.type === "result") {
      const mine = found.find((one) => one.kind === "tool" && one.call?.id === part.id);
      if (mine?.kind === "tool") mine.result = part;
      else found.push({ kind: "tool", call: null, result: part });
    }
  }
  return found;
}
