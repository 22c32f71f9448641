// Generated from the server's OpenAPI document by `npm run types`. Do not edit.

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
  schemas: {
    /**
     * Accepted
     * @description It is being carried.
     */
    Accepted: {
      sessionId: string;
      carrier: string;
    };
    /**
     * AgentStep
     * @description The founding request: one step of a session, which is created by its first request with a prompt.
     */
    AgentStep: {
      /**
       * @description 1 to 200 letters, digits or ._~:@=+- ; a name, never a right
       * @example session_42
       */
      sessionId: string;
      userPrompt?: string | null;
      agent?: string | null;
      expectedStep?: number | null;
    };
    /** ApprovalList */
    ApprovalList: {
      approvals: components["schemas"]["Approval"][];
      cursor: string | null;
    };
    /**
     * Approval
     * @description A run that waits for a person, and what it asks.
     */
    Approval: {
      sessionId: string;
      agent: string;
      since: string;
      expiresAt: string | null;
      interrupts: components["schemas"]["Interrupt"][];
      labels: {
        [key: string]: string;
      };
    };
    /**
     * Interrupt
     * @description What only a person or the outside can give.
     */
    Interrupt: {
      id: string;
      /** @enum {unknown} */
      kind: "approval" | "external" | "question";
      prompt: string;
      payload: unknown;
      schema: unknown;
    };
    /**
     * Carry
     * @description A self-call: carry this run on in the background.
     */
    Carry: {
      tenant: string;
      /**
       * @description 1 to 200 letters, digits or ._~:@=+- ; a name, never a right
       * @example session_42
       */
      id: string;
      /** @description the kind of driver a run belongs to */
      carrier: string;
    };
    /**
     * CreateRun
     * @description A run. Give `userPrompt`, `messages`, or both: then the messages are what was said before.
     */
    CreateRun: {
      agent?: string | null;
      userPrompt?: string | null;
      messages?: unknown[] | null;
      sessionId?: string | null;
      limits?: components["schemas"]["Limits"] | null;
      labels?: {
        [key: string]: string;
      };
      /** @description the kind of driver a run belongs to */
      carrier?: string;
      takeoverAfter?: number | null;
      notifyUrl?: string | null;
    };
    /**
     * Limits
     * @description The brakes of one round. Left out = the server's default; null = no such brake.
     */
    Limits: {
      steps?: number | null;
      toolCalls?: number | null;
      tokens?: number | null;
      usd?: number | null;
      repeats?: number | null;
      toolErrors?: number | null;
      seconds?: number | null;
      attempts?: number;
      releases?: number;
      expires?: number | null;
      resultBytes?: number;
    };
    /**
     * Created
     * @description A run, with the token a browser may hold for it.
     */
    Created: {
      sessionId: string;
      agent: string;
      adapter: string;
      prompt: unknown;
      /** @enum {unknown} */
      status: "AWAITING_INPUT" | "CANCELLED" | "COMPLETED" | "FAILED" | "RUNNING" | "WAITING";
      stopReason: string | null;
      isTerminal: boolean;
      step: number;
      round: number;
      attempts: number;
      carrier: string;
      takeoverAfter: number | null;
      lease: components["schemas"]["Lease"];
      dueAt: string | null;
      next: components["schemas"]["Next"];
      output: unknown;
      error: components["schemas"]["Error"] | null;
      thought: string | null;
      tail: string | null;
      interrupts: components["schemas"]["Interrupt"][];
      limits: Record<string, unknown>;
      usage: components["schemas"]["Usage"];
      roundUsage: components["schemas"]["Usage"];
      roundSteps: number;
      labels: {
        [key: string]: string;
      };
      parent: unknown;
      createdAt: string;
      updatedAt: string;
      token: string;
    };
    /**
     * Lease
     * @description Who holds the run now, and until when.
     */
    Lease: {
      held: boolean;
      holder: string | null;
      until: string | null;
    };
    /**
     * Next
     * @description What whoever drives should do: ask for a step, wait so many milliseconds first, give input, or nothing.
     */
    Next: {
      /** @enum {unknown} */
      action: "input" | "none" | "pulse" | "wait";
      afterMs: number;
    };
    /**
     * Error
     * @description Why a step or run failed, fit to be shown.
     */
    Error: {
      code: string;
      message: string;
      /** @default false */
      retryable: boolean;
    };
    /**
     * Usage
     * @description What was spent; `usd` is left out while no price is known.
     */
    Usage: {
      /** @default 0 */
      requests: number;
      /** @default 0 */
      inputTokens: number;
      /** @default 0 */
      outputTokens: number;
      /** @default 0 */
      cachedTokens: number;
      /** @default 0 */
      toolCalls: number;
      usd?: number;
    };
    /**
     * Delivered
     * @description The event is in the run's inbox; `first` is false when this message was there already.
     */
    Delivered: {
      sessionId: string;
      first: boolean;
    };
    /**
     * Document
     * @description An OpenAPI 3.1 document.
     */
    Document: {
      openapi: string;
    };
    /**
     * Envelope
     * @description The answer to a request for a step. `step`: index of the newest committed step, -1 before the first.
     */
    Envelope: {
      sessionId: string;
      /** @enum {unknown} */
      status: "AWAITING_INPUT" | "CANCELLED" | "COMPLETED" | "CONTINUE" | "ERROR" | "WAITING";
      isTerminal: boolean;
      stopReason: string | null;
      step: number;
      reasoning: string | null;
      output: unknown;
      logs: string[];
      data: components["schemas"]["Data"];
      next: components["schemas"]["Next"];
      interrupts: components["schemas"]["Interrupt"][];
      usage: components["schemas"]["Usage"];
      error: components["schemas"]["Error"] | null;
    };
    /**
     * Data
     * @description What the founding page shows.
     */
    Data: {
      currentThought: string | null;
      toolUsed: string | null;
      finalAnswer: string | null;
    };
    /**
     * Explanation
     * @description Why a run stands still, who holds it, what happens next: words for people, fields for programs.
     */
    Explanation: {
      sessionId: string;
      words: string;
      /** @enum {unknown} */
      why:
        | "backoff"
        | "carrier"
        | "concurrency"
        | "due"
        | "ended"
        | "external"
        | "held"
        | "input"
        | "provider_pause"
        | "timer";
      /** @enum {unknown} */
      status: "AWAITING_INPUT" | "CANCELLED" | "COMPLETED" | "FAILED" | "RUNNING" | "WAITING";
      stopReason: string | null;
      holder: string | null;
      carrier: string;
      until: string | null;
      takeoverAt: string | null;
      needs: string[];
      attempts: number;
      next: components["schemas"]["Next"];
      error: components["schemas"]["Error"] | null;
    };
    /**
     * Fork
     * @description A new run with the history up to and including `step`; -1 = from the beginning.
     */
    Fork: {
      step: number;
      edit?: components["schemas"]["Edit"] | null;
      /** @description the kind of driver a run belongs to */
      carrier?: string;
    };
    /**
     * Edit
     * @description What is different in a fork.
     */
    Edit: {
      userPrompt?: string | null;
      state?: unknown;
      limits?: components["schemas"]["Limits"] | null;
    };
    /**
     * GiveToken
     * @description A right to one run, to hand on. Left out = every action; the server's default time.
     */
    GiveToken: {
      actions?: ("cancel" | "fork" | "hand-over" | "input" | "read" | "resume" | "step")[] | null;
      seconds?: number | null;
    };
    /**
     * HandOver
     * @description Who drives from now on, and after how many seconds of silence anyone may; null = never.
     */
    HandOver: {
      /** @description the kind of driver a run belongs to */
      carrier: string;
      takeoverAfter?: number | null;
    };
    /** Health */
    Health: {
      /** @enum {unknown} */
      status: "ok";
      store: string;
      schema: number;
      version: string;
    };
    /**
     * Input
     * @description Answers to what the run asked, or a prompt: the answer to its only question, or the next round.
     */
    Input: {
      answers?: components["schemas"]["Answer"][] | null;
      userPrompt?: string | null;
      /** @enum {unknown} */
      whenBusy?: "queue" | "refuse";
    };
    /**
     * Answer
     * @description The answer to one interrupt.
     */
    Answer: {
      interruptId: string;
      /** @enum {unknown} */
      status?: "cancelled" | "resolved";
      payload?: unknown;
    };
    /**
     * MessageList
     * @description The framework's own messages, as they are kept.
     */
    MessageList: {
      adapter: string;
      messages: unknown[];
      after: number | null;
    };
    /**
     * Nothing
     * @description An empty object, or no body at all.
     */
    Nothing: Record<string, unknown>;
    /**
     * PartList
     * @description In order. `after`: give it back for the next page; null = that was all.
     */
    PartList: {
      parts: components["schemas"]["PartView"][];
      after: number | null;
    };
    /**
     * PartView
     * @description One part; `id` is its SSE id: step, `c` for committed (else the attempt), index.
     */
    PartView: {
      id: string;
      step: number;
      index: number;
      attempt: number;
      committed: boolean;
      part:
        | components["schemas"]["TextPart"]
        | components["schemas"]["ThoughtPart"]
        | components["schemas"]["CallPart"]
        | components["schemas"]["ResultPart"]
        | components["schemas"]["StatePart"]
        | components["schemas"]["InterruptPart"]
        | components["schemas"]["UsagePart"]
        | components["schemas"]["EndPart"];
    };
    /**
     * TextPart
     * @description Words. `delta`: a piece of the text `id`, live only.
     */
    TextPart: {
      /** @enum {unknown} */
      type: "text";
      text: string;
      /** @enum {unknown} */
      role?: "assistant" | "user";
      id?: string | null;
      delta?: boolean;
    };
    /**
     * ThoughtPart
     * @description Reasoning, shown as such.
     */
    ThoughtPart: {
      /** @enum {unknown} */
      type: "thought";
      text: string;
      id?: string | null;
      delta?: boolean;
    };
    /**
     * CallPart
     * @description A tool is called.
     */
    CallPart: {
      /** @enum {unknown} */
      type: "call";
      id: string;
      name: string;
      args?: unknown;
    };
    /**
     * ResultPart
     * @description A tool has answered. `blob`: where the whole value is, when it was cut.
     */
    ResultPart: {
      /** @enum {unknown} */
      type: "result";
      id: string;
      name: string;
      value?: unknown;
      /** @enum {unknown} */
      status?: "denied" | "error" | "ok" | "unknown";
      ms?: number | null;
      blob?: string | null;
    };
    /**
     * StatePart
     * @description What the agent wants its page to show.
     */
    StatePart: {
      /** @enum {unknown} */
      type: "state";
      value: unknown;
    };
    /**
     * InterruptPart
     * @description What only a person or the outside can give.
     */
    InterruptPart: {
      /** @enum {unknown} */
      type: "interrupt";
      id: string;
      /** @enum {unknown} */
      kind: "approval" | "external" | "question";
      prompt?: string;
      payload?: unknown;
      schema?: unknown;
    };
    /**
     * UsagePart
     * @description What was spent.
     */
    UsagePart: {
      /** @enum {unknown} */
      type: "usage";
      requests?: number;
      inputTokens?: number;
      outputTokens?: number;
      cachedTokens?: number;
      toolCalls?: number;
      usd?: number | null;
    };
    /**
     * EndPart
     * @description How a step left the run when it does not simply go on. `until`: seconds since the epoch.
     */
    EndPart: {
      /** @enum {unknown} */
      type: "end";
      /** @enum {unknown} */
      status: "AWAITING_INPUT" | "CANCELLED" | "COMPLETED" | "FAILED" | "RUNNING" | "WAITING";
      stopReason?: string | null;
      output?: unknown;
      error?: components["schemas"]["Error"] | null;
      until?: number | null;
    };
    /**
     * Problem
     * @description RFC 9457, with a stable `code`; `detail` says what to do.
     */
    Problem: {
      type: string;
      title: string;
      status: number;
      detail: string;
      code: string;
    };
    /**
     * Resume
     * @description Go on after a failure or a brake, with other limits if given.
     */
    Resume: {
      limits?: components["schemas"]["Limits"] | null;
    };
    /**
     * RunList
     * @description Newest first. `cursor`: give it back for the next page; null = that was all.
     */
    RunList: {
      runs: components["schemas"]["RunView"][];
      cursor: string | null;
    };
    /**
     * RunView
     * @description A run. `prompt`: of its newest round; `status` is the row's; times are RFC 3339.
     */
    RunView: {
      sessionId: string;
      agent: string;
      adapter: string;
      prompt: unknown;
      /** @enum {unknown} */
      status: "AWAITING_INPUT" | "CANCELLED" | "COMPLETED" | "FAILED" | "RUNNING" | "WAITING";
      stopReason: string | null;
      isTerminal: boolean;
      step: number;
      round: number;
      attempts: number;
      carrier: string;
      takeoverAfter: number | null;
      lease: components["schemas"]["Lease"];
      dueAt: string | null;
      next: components["schemas"]["Next"];
      output: unknown;
      error: components["schemas"]["Error"] | null;
      thought: string | null;
      tail: string | null;
      interrupts: components["schemas"]["Interrupt"][];
      limits: Record<string, unknown>;
      usage: components["schemas"]["Usage"];
      roundUsage: components["schemas"]["Usage"];
      roundSteps: number;
      labels: {
        [key: string]: string;
      };
      parent: unknown;
      createdAt: string;
      updatedAt: string;
    };
    /**
     * StartJob
     * @description A run that a background driver carries, or the durable engine that `carrier` names.
     */
    StartJob: {
      userPrompt: string;
      sessionId?: string | null;
      agent?: string | null;
      limits?: components["schemas"]["Limits"] | null;
      /** @description the kind of driver a run belongs to */
      carrier?: string;
      notifyUrl?: string | null;
    };
    /**
     * StepList
     * @description In order. `after`: give it back for the next page; null = that was all.
     */
    StepList: {
      steps: components["schemas"]["StepView"][];
      after: number | null;
    };
    /**
     * StepView
     * @description One committed step. `requestId`: what a repeated request is recognised by; `bytes`: the size of its history.
     */
    StepView: {
      index: number;
      round: number;
      attempt: number;
      carrier: string;
      claimId: string;
      requestId: string | null;
      /** @enum {unknown} */
      status: "AWAITING_INPUT" | "CANCELLED" | "COMPLETED" | "FAILED" | "RUNNING" | "WAITING";
      stopReason: string | null;
      usage: components["schemas"]["Usage"];
      bytes: number;
      parts: (
        | components["schemas"]["TextPart"]
        | components["schemas"]["ThoughtPart"]
        | components["schemas"]["CallPart"]
        | components["schemas"]["ResultPart"]
        | components["schemas"]["StatePart"]
        | components["schemas"]["InterruptPart"]
        | components["schemas"]["UsagePart"]
        | components["schemas"]["EndPart"]
      )[];
      claimedAt: string;
      committedAt: string;
      state?: unknown;
    };
    /**
     * Swept
     * @description What one sweep found.
     */
    Swept: {
      runs: number;
      delivered: number;
      failed: number;
    };
    /**
     * TakeStep
     * @description One step of a known run. `expectedStep` makes a repeated request recognisable. `carrier`: who takes it, for a server that
     *         drives runs as an engine of its own; it has to have the run.
     */
    TakeStep: {
      expectedStep?: number | null;
      carrier?: string | null;
    };
    /**
     * Token
     * @description A run token: what it is for, and for how many seconds.
     */
    Token: {
      sessionId: string;
      token: string;
      actions: string[];
      seconds: number;
    };
  };
  responses: never;
  parameters: never;
  requestBodies: never;
  headers: never;
  pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
