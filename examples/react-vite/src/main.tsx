import { lazy, StrictMode, Suspense, useEffect, useState, useSyncExternalStore } from "react";
import { createRoot } from "react-dom/client";
import { AgentRunner } from "./AgentRunner";
import "./style.css";

// A page of its own: who never opens it does not load the AI SDK.
const ChatPage = lazy(async () => ({ default: (await import("./ChatPage")).ChatPage }));

function subscribe(changed: () => void): () => void {
  addEventListener("hashchange", changed);
  return () => removeEventListener("hashchange", changed);
}

function App() {
  const chat = useSyncExternalStore(subscribe, () => location.hash) === "#/chat";
  const [visited, setVisited] = useState(chat);
  useEffect(() => {
    if (chat) setVisited(true);
  }, [chat]);
  const here = (mine: boolean) => (mine ? { "aria-current": "page" as const } : {});
  return (
    <>
      <header>
        <nav aria-label="Pages">
          <a href="#/" {...here(!chat)}>
            Agent
          </a>
          <a href="#/chat" {...here(chat)}>
            Chat
          </a>
        </nav>
      </header>
      <main>
        <div hidden={chat}>
          <AgentRunner remember="agent-run" />
        </div>
        {/* Unmounting a useChat stops it: once opened, it stays. */}
        <div hidden={!chat}>
          <Suspense>{(chat || visited) && <ChatPage />}</Suspense>
        </div>
      </main>
    </>
  );
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
