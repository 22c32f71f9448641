import type { Interrupt } from "@steprelay/client";
import { useId, useState } from "react";
import { pretty } from "./words";

interface QuestionProps {
  asked: Interrupt;
  answer: (payload: unknown) => void;
}

/** What only a person can give: a yes or no to what the agent is about to do, a choice, or words. */
export function Question({ asked, answer }: QuestionProps) {
  const { kind, prompt, payload, schema } = asked;
  const title = useId();
  const [text, setText] = useState("");
  const choices = (schema as { enum?: unknown[] } | null)?.enum;
  if (kind === "external") return null;
  return (
    <form
      className="question"
      aria-labelledby={title}
      onSubmit={(e) => {
        e.preventDefault();
        if (text.trim()) answer(text.trim());
      }}
    >
      <h2 id={title}>{prompt || "The agent waits for you."}</h2>
      {payload != null && <pre>{pretty(payload)}</pre>}
      {kind === "approval" ? (
        <div className="row">
          <button type="button" className="primary" onClick={() => answer({ approved: true })}>
            Approve
          </button>
          <button type="button" onClick={() => answer({ approved: false })}>
            Reject
          </button>
        </div>
      ) : choices ? (
        <div className="row">
          {choices.map((choice) => (
            <button key={String(choice)} type="button" onClick={() => answer(choice)}>
              {String(choice)}
            </button>
          ))}
        </div>
      ) : (
        <div className="row">
          <input aria-labelledby={title} value={text} onChange={(e) => setText(e.target.value)} />
          <button className="primary">Send</button>
        </div>
      )}
    </form>
  );
}
