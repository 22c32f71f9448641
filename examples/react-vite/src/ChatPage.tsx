import { useChat } from "@ai-sdk/react";
import { RelayTransport } from "@steprelay/client/ai-sdk";
import { isToolUIPart, type UIMessage } from "ai";
import { useEffect, useRef, useState } from "react";
import { line, pretty, shown } from "./words";

const transport = new RelayTransport();

/** The chat of this browser: its id is kept, so that a reload finds the run again. */
function chatId(): string {
  const kept = localStorage.getItem("chat");
  if (kept) return kept;
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
  localStorage.setItem("chat", id);
  return id;
}

/** A plain `useChat` of the AI SDK: what makes it durable is its transport. */
export function ChatPage() {
  const [id, setId] = useState(chatId);
  const [messages, setMessages] = useState<UIMessage[] | null>(null);
  const [lost, setLost] = useState<string | null>(null);
  useEffect(() => {
    const life = new AbortController();
    setMessages(null);
    transport
      .history(id, life.signal)
      .then(setMessages, (error: Error) => life.signal.aborted || setLost(error.message));
    return () => life.abort();
  }, [id]);
  const renew = () => {
    localStorage.removeItem("chat");
    setId(chatId());
  };
  if (lost)
    return (
      <p role="alert" className="notice bad">
        {lost}
      </p>
    );
  return messages && <Chat key={id} id={id} messages={messages} renew={renew} />;
}

function Chat({ id, messages: known, renew }: { id: string; messages: UIMessage[]; renew: () => void }) {
  const chat = useChat({ id, transport, messages: known, resume: true, sendAutomaticallyWhen: transport.answered });
  const { messages, status, error } = chat;
  const [text, setText] = useState("");
  const working = status === "submitted" || status === "streaming";
  const { stop } = chat;
  const section = useRef<HTMLElement>(null);
  useEffect(() => {
    if (!working) return;
    const key = (e: KeyboardEvent) => void (e.key === "Escape" && shown(section.current) && stop());
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, [working, stop]);

  return (
    <section className="runner" aria-label="Chat" ref={section}>
      <h1 className={messages.length ? "unseen" : ""}>Ask the agent</h1>
      <div className="chat" role="log" aria-label="Messages" aria-busy={working}>
        {messages.map((message) => (
          <Message key={message.id} message={message} chat={chat} />
        ))}
      </div>
      <p role="status" className={`state ${working ? "go" : "idle"}`}>
        {working ? "Thinking…" : ""}
      </p>
      {error && (
        <p role="alert" className="notice bad">
          {error.message} <button onClick={() => chat.regenerate()}>Go on</button>
        </p>
      )}
      <form
        className="composer"
        onSubmit={(e) => {
          e.preventDefault();
          if (!text.trim() || working) return;
          setText("");
          void chat.sendMessage({ text: text.trim() });
        }}
      >
        <label>
          <span>Message</span>
          <input value={text} autoFocus onChange={(e) => setText(e.target.value)} />
        </label>
        {working ? (
          <button type="button" className="stop" onClick={() => stop()} aria-keyshortcuts="Escape">
            Stop <kbd>Esc</kbd>
          </button>
        ) : (
          <>
            {messages.length > 0 && (
              <button type="button" onClick={renew}>
                New chat
              </button>
            )}
            <button className="primary">Send</button>
          </>
        )}
      </form>
    </section>
  );
}

type Chats = ReturnType<typeof useChat>;

function Message({ message, chat }: { message: UIMessage; chat: Chats }) {
  return (
    <article className={`message ${message.role}`} aria-label={message.role === "user" ? "You" : "Agent"}>
      {message.parts.map((part, i) => {
        if (part.type === "text")
          return (
            <p key={i} className="text">
              {part.text}
            </p>
          );
        if (part.type === "reasoning")
          return (
            <p key={i} className="thought">
              {part.text}
            </p>
          );
        if (isToolUIPart(part)) return <Tool key={i} part={part} chat={chat} />;
        return null;
      })}
    </article>
  );
}

type ToolPart = Extract<UIMessage["parts"][number], { toolCallId: string }>;

const STATES: Record<string, string> = {
  "input-streaming": "running", "input-available": "running", "approval-requested": "waits for you", "approval-responded": "answered",
  "output-available": "done", "output-denied": "rejected", "output-error": "failed",
}; // prettier-ignore

function Tool({ part, chat }: { part: ToolPart; chat: Chats }) {
  const name = part.type === "dynamic-tool" ? part.toolName : part.type.replace(/^tool-/, "");
  const input = part.input as { prompt?: string; schema?: { enum?: unknown[] } } | undefined;
  if (part.state === "approval-requested") {
    const { id } = part.approval;
    return (
      <form className="question" aria-label={`May ${name} run?`} onSubmit={(e) => e.preventDefault()}>
        <h2>May {name} run?</h2>
        <pre>{pretty(input)}</pre>
        <div className="row">
          <button className="primary" onClick={() => chat.addToolApprovalResponse({ id, approved: true })}>
            Approve
          </button>
          <button onClick={() => chat.addToolApprovalResponse({ id, approved: false })}>Reject</button>
        </div>
      </form>
    );
  }
  if (name === "question" && part.state === "input-available")
    return (
      <form className="question" aria-label={input?.prompt ?? "Question"} onSubmit={(e) => e.preventDefault()}>
        <h2>{input?.prompt}</h2>
        <div className="row">
          {(input?.schema?.enum ?? []).map((choice) => (
            <button
              key={String(choice)}
              onClick={() => chat.addToolOutput({ tool: name, toolCallId: part.toolCallId, output: choice })}
            >
              {String(choice)}
            </button>
          ))}
          {!input?.schema?.enum && <p className="soft">Answer with your next message.</p>}
        </div>
      </form>
    );
  return (
    <details className={`tool ${part.state === "output-error" || part.state === "output-denied" ? "bad" : ""}`}>
      <summary>
        <b>{name}</b> <span>{line(input)}</span> <i>{STATES[part.state]}</i>
      </summary>
      <pre aria-label="Arguments">{pretty(input)}</pre>
      {part.state === "output-available" && <pre aria-label="Result">{pretty(part.output)}</pre>}
      {part.state === "output-error" && <pre aria-label="Result">{part.errorText}</pre>}
    </details>
  );
}
