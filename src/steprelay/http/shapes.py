"""The shapes on the wire: what is read is checked against them, and the OpenAPI document is made from them.

Loaded with the first request that has a body, not with the app.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Id = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._~:@=+-]{1,200}\Z",
        description="1 to 200 letters, digits or ._~:@=+- ; a name, never a right",
        examples=["session_42"],
    ),
]
Carrier = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,49}\Z", description="the kind of driver a run belongs to")]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Positive = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=315_360_000, description="seconds")]
Url = Annotated[str, Meta(pattern=r"^https?://", max_length=2000)]
Status = Literal["RUNNING", "WAITING", "AWAITING_INPUT", "COMPLETED", "FAILED", "CANCELLED"]
WireStatus = Literal["CONTINUE", "WAITING", "AWAITING_INPUT", "COMPLETED", "ERROR", "CANCELLED"]


class _In(Struct, rename="camel", forbid_unknown_fields=True):
    pass


class _Out(Struct, rename="camel", forbid_unknown_fields=True):
    pass


# ---------------------------------------------------------------- what comes in


class Limits(_In):
    """The brakes of one round. Left out = the server's default; null = no such brake."""

    steps: Positive | UnsetType | None = UNSET
    tool_calls: Count | UnsetType | None = UNSET
    tokens: Count | UnsetType | None = UNSET
    usd: Annotated[float, Meta(ge=0)] | UnsetType | None = UNSET
    repeats: Positive | UnsetType | None = UNSET
    tool_errors: Positive | UnsetType | None = UNSET
    seconds: Seconds | UnsetType | None = UNSET
    attempts: Positive | UnsetType = UNSET
    releases: Positive | UnsetType = UNSET
    expires: Seconds | UnsetType | None = UNSET
    result_bytes: Positive | UnsetType = UNSET


class AgentStep(_In):
    """The founding request: one step of a session, which is created by its first request with a prompt."""

    session_id: Id
    user_prompt: str | None = None
    agent: Name | None = None
    expected_step: Count | None = None


class TakeStep(_In):
    """One step of a known run. `expectedStep` makes a repeated request recognisable. `carrier`: who takes it, for a server that
    drives runs as an engine of its own; it has to have the run."""

    expected_step: Count | None = None
    carrier: Carrier | None = None


class StartJob(_In):
    """A run that a background driver carries, or the durable engine that `carrier` names."""

    user_prompt: str
    session_id: Id | None = None
    agent: Name | None = None
    limits: Limits | None = None
    carrier: Carrier = "background"
    notify_url: Url | None = None


class CreateRun(_In):
    """A run. Give `userPrompt`, `messages`, or both: then the messages are what was said before."""

    agent: Name | None = None
    user_prompt: str | None = None
    messages: list[Any] | None = None
    session_id: Id | None = None
    limits: Limits | None = None
    labels: dict[Name, Annotated[str, Meta(max_length=1000)]] = {}
    carrier: Carrier = "client"
    takeover_after: Seconds | None = None
    notify_url: Url | None = None


class Answer(_In):
    """The answer to one interrupt."""

    interrupt_id: Name
    status: Literal["resolved", "cancelled"] = "resolved"
    payload: Any = None


class Input(_In):
    """Answers to what the run asked, or a prompt: the answer to its only question, or the next round."""

    answers: list[Answer] | None = None
    user_prompt: str | None = None
    when_busy: Literal["queue", "refuse"] = "refuse"


InputBody = Input | list[Answer]
"""Bare answers are AG-UI's shape."""


class Resume(_In):
    """Go on after a failure or a brake, with other limits if given."""

    limits: Limits | None = None


class Edit(_In):
    """What is different in a fork."""

    user_prompt: str | None = None
    state: Any = UNSET
    limits: Limits | None = None


class GiveToken(_In):
    """A right to one run, to hand on. Left out = every action; the server's default time."""

    actions: list[Literal["read", "step", "input", "cancel", "resume", "fork", "hand-over"]] | None = None
    seconds: Annotated[float, Meta(gt=0, le=604_800, description="seconds, at most a week")] | None = None


class Fork(_In):
    """A new run with the history up to and including `step`; -1 = from the beginning."""

    step: Annotated[int, Meta(ge=-1)]
    edit: Edit | None = None
    carrier: Carrier = "client"


class HandOver(_In):
    """Who drives from now on, and after how many seconds of silence anyone may; null = never."""

    carrier: Carrier
    takeover_after: Seconds | None = None


class Carry(_In):
    """A self-call: carry this run on in the background."""

    tenant: Name
    id: Id
    carrier: Carrier


class Nothing(_In):
    """An empty object, or no body at all."""


# ---------------------------------------------------------------- what goes out


class Error(_Out):
    """Why a step or run failed, fit to be shown."""

    code: str
    message: str
    retryable: bool = False


class Usage(_Out):
    """What was spent; `usd` is left out while no price is known."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    tool_calls: int = 0
    usd: float | UnsetType = UNSET


class Interrupt(_Out):
    """What only a person or the outside can give."""

    id: str
    kind: Literal["question", "approval", "external"]
    prompt: str
    payload: Any
    schema: Any


class Data(_Out):
    """What the founding page shows."""

    current_thought: str | None
    tool_used: str | None
    final_answer: str | None


class Next(_Out):
    """What whoever drives should do: ask for a step, wait so many milliseconds first, give input, or nothing."""

    action: Literal["pulse", "wait", "input", "none"]
    after_ms: int


class Envelope(_Out):
    """The answer to a request for a step. `step`: index of the newest committed step, -1 before the first."""

    session_id: str
    status: WireStatus
    is_terminal: bool
    stop_reason: str | None
    step: int
    reasoning: str | None
    output: Any
    logs: list[str]
    data: Data
    next: Next
    interrupts: list[Interrupt]
    usage: Usage
    error: Error | None


class Lease(_Out):
    """Who holds the run now, and until when."""

    held: bool
    holder: str | None
    until: str | None


class RunView(_Out):
    """A run. `prompt`: of its newest round; `status` is the row's; times are RFC 3339."""

    session_id: str
    agent: str
    adapter: str
    prompt: Any
    status: Status
    stop_reason: str | None
    is_terminal: bool
    step: int
    round: int
    attempts: int
    carrier: str
    takeover_after: float | None
    lease: Lease
    due_at: str | None
    next: Next
    output: Any
    error: Error | None
    thought: str | None
    tail: str | None
    interrupts: list[Interrupt]
    limits: dict[str, Any]
    usage: Usage
    round_usage: Usage
    round_steps: int
    labels: dict[str, str]
    parent: Any
    created_at: str
    updated_at: str


class Created(RunView):
    """A run, with the token a browser may hold for it."""

    token: str


class Token(_Out):
    """A run token: what it is for, and for how many seconds."""

    session_id: str
    token: str
    actions: list[str]
    seconds: float


class RunList(_Out):
    """Newest first. `cursor`: give it back for the next page; null = that was all."""

    runs: list[RunView]
    cursor: str | None


class _Part(Struct, rename="camel", forbid_unknown_fields=True, tag_field="type"):
    """One element of what happened, of `core.model.Part`; a field that holds its default is left out."""


class TextPart(_Part, tag="text"):
    """Words. `delta`: a piece of the text `id`, live only."""

    text: str
    role: Literal["user", "assistant"] = "assistant"
    id: str | None = None
    delta: bool = False


class ThoughtPart(_Part, tag="thought"):
    """Reasoning, shown as such."""

    text: str
    id: str | None = None
    delta: bool = False


class CallPart(_Part, tag="call"):
    """A tool is called."""

    id: str
    name: str
    args: Any = None


class ResultPart(_Part, tag="result"):
    """A tool has answered. `blob`: where the whole value is, when it was cut."""

    id: str
    name: str
    value: Any = None
    status: Literal["ok", "error", "unknown", "denied"] = "ok"
    ms: float | None = None
    blob: str | None = None


class StatePart(_Part, tag="state"):
    """What the agent wants its page to show."""

    value: Any


class InterruptPart(_Part, tag="interrupt"):
    """What only a person or the outside can give."""

    id: str
    kind: Literal["question", "approval", "external"]
    prompt: str = ""
    payload: Any = None
    schema: Any = None


class UsagePart(_Part, tag="usage"):
    """What was spent."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    tool_calls: int = 0
    usd: float | None = None


class EndPart(_Part, tag="end"):
    """How a step left the run when it does not simply go on. `until`: seconds since the epoch."""

    status: Status
    stop_reason: str | None = None
    output: Any = None
    error: Error | None = None
    until: float | None = None


Part = TextPart | ThoughtPart | CallPart | ResultPart | StatePart | InterruptPart | UsagePart | EndPart


class StepView(_Out):
    """One committed step. `requestId`: what a repeated request is recognised by; `bytes`: the size of its history."""

    index: int
    round: int
    attempt: int
    carrier: str
    claim_id: str
    request_id: str | None
    status: Status
    stop_reason: str | None
    usage: Usage
    bytes: int
    parts: list[Part]
    claimed_at: str
    committed_at: str
    state: Any = UNSET


class StepList(_Out):
    """In order. `after`: give it back for the next page; null = that was all."""

    steps: list[StepView]
    after: int | None


class MessageList(_Out):
    """The framework's own messages, as they are kept."""

    adapter: str
    messages: list[Any]
    after: int | None


class PartView(_Out):
    """One part; `id` is its SSE id: step, `c` for committed (else the attempt), index."""

    id: str
    step: int
    index: int
    attempt: int
    committed: bool
    part: Part


class PartList(_Out):
    """In order. `after`: give it back for the next page; null = that was all."""

    parts: list[PartView]
    after: int | None


Whole = Any
"""Whatever JSON the tool answered."""


class Explanation(_Out):
    """Why a run stands still, who holds it, what happens next: words for people, fields for programs."""

    session_id: str
    words: str
    why: Literal["held", "due", "carrier", "concurrency", "provider_pause", "timer", "backoff", "external", "input", "ended"]
    status: Status
    stop_reason: str | None
    holder: str | None
    carrier: str
    until: str | None
    takeover_at: str | None
    needs: list[str]
    attempts: int
    next: Next
    error: Error | None


class Approval(_Out):
    """A run that waits for a person, and what it asks."""

    session_id: str
    agent: str
    since: str
    expires_at: str | None
    interrupts: list[Interrupt]
    labels: dict[str, str]


class ApprovalList(_Out):
    approvals: list[Approval]
    cursor: str | None


class Swept(_Out):
    """What one sweep found."""

    runs: int
    delivered: int
    failed: int


class Health(_Out):
    status: Literal["ok"]
    store: str
    schema: int
    version: str


Figures = str
"""The exposition format of Prometheus."""


class Delivered(_Out):
    """The event is in the run's inbox; `first` is false when this message was there already."""

    session_id: str
    first: bool


class Problem(Struct, rename="camel", kw_only=True):
    """RFC 9457, with a stable `code`; `detail` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class Accepted(_Out):
    """It is being carried."""

    session_id: str
    carrier: str


class Document(Struct):
    """An OpenAPI 3.1 document."""

    openapi: str
