"""The nouns: every value that crosses a seam, frozen.

Three families: *rows* (`Run`, `Step`, `Signal`, …: what a store keeps; every `Json` field is canonical JSON text that no
store ever looks into), *payloads* (`Limits`, `Usage`, `Tally`, `Wait`: what some of those texts decode to, see codec.py)
and *talk* (`Turn`, `Reply`, `Part`, `Outcome`: what agents, drivers and readers see, already decoded).

Times are seconds since the epoch by the store's clock; spans are seconds.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

from .noun import Noun

Json = str
"""Canonical JSON text (codec.dumps): ASCII, no NaN, sorted keys."""
Value = Any
"""A decoded JSON value."""

Status = Literal["RUNNING", "WAITING", "AWAITING_INPUT", "COMPLETED", "FAILED", "CANCELLED"]
StopReason = Literal[
    "timer", "retry", "rate_limited", "provider", "child", "event",
    "question", "approval",
    "finished", "max_steps", "max_tool_calls", "max_tokens", "max_cost", "repetition",
    "deadline", "step_exceeds_deadline", "attempts_exhausted", "agent_error", "state_invalid",
    "cancelled", "expired",
]  # fmt: skip
Effect = Literal["read", "idempotent", "once", "needs_approval"]
SCHEMA = 1
"""Version of the payload encodings in this release."""


# ---------------------------------------------------------------- payloads


class Limits(Noun):
    """The brakes of one round; None = no such brake. Soft ones end with a landing, hard ones (marked) at once."""

    steps: int | None = 20
    tool_calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    repeats: int | None = 5  # the same calls with the same results, this many steps in a row
    tool_errors: int | None = 8  # failed tool calls in a row
    seconds: float | None = None  # hard: the round's age
    attempts: int = 3  # hard: deaths and errors of one step
    releases: int = 50  # hard: retries without a step in between (429s, provider polls)
    expires: float | None = None  # hard: how long a person or an event is waited for
    result_bytes: int = 65_536  # a longer tool result is cut, with a marker
    extra: dict[str, Value] = {}


class Usage(Noun):
    """What was spent; `usd` is None while no price is known. Also a `Part`."""

    type: ClassVar[str] = "usage"
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    tool_calls: int = 0
    usd: float | None = None

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        both: dict[str, Any] = {n: (getattr(self, n) or 0) + (getattr(other, n) or 0) for n in Usage.fields}
        return Usage(**{**both, "usd": None if self.usd is None and other.usd is None else both["usd"]})


class ErrorInfo(Noun):
    """What went wrong, fit to be shown: never a traceback, never a secret."""

    code: str
    message: str
    retryable: bool = False


class Tally(Noun):
    """The run's running account, rewritten by every commit and constant in size."""

    total: Usage = Usage()  # since the run began
    round: Usage = Usage()  # since the round began (or was resumed)
    steps: int = 0  # counted steps of the round: ends and landings are not
    began_at: float | None = None  # when the round's first claim was made
    fresh: bool = True  # the round's prompt has not been given to the agent yet
    base: int = 0  # the step since which the ledger is kept: the stable prefix of its keys
    repeats: int = 0
    calls: str | None = None  # hash of the newest tool calls
    pattern: str | None = None  # hash of the newest calls with their results
    tool_errors: int = 0
    releases: int = 0
    failures: int = 0  # attempts of this step that ended in an error, not in a death
    charged: int = 0  # dead attempts of this step already paid for
    last_error: ErrorInfo | None = None
    last_request: Usage = Usage()  # the newest model request: what a dead attempt is charged
    thought: str | None = None  # the newest words of the agent, at most 2,000 characters
    queued: tuple[Value, ...] = ()  # prompts that came while a round was under way
    heard: dict[str, Value] = {}  # events and ended children that no wait has asked for yet
    children: dict[str, Value] = {}  # runs started by this one that have not ended, and what of the brakes is lent to each
    extra: dict[str, Value] = {}


class Wait(Noun):
    """Why a run is not due, and what it needs: ids of interrupts, events or children."""

    reason: str
    until: float | None = None
    needs: tuple[str, ...] = ()
    got: dict[str, Value] = {}  # answers so far, by id
    extra: dict[str, Value] = {}


# ---------------------------------------------------------------- parts


class Words(Noun):
    """What texts and thoughts share. `delta`: a piece of the text `id`, live only."""

    text: str
    id: str | None = None
    delta: bool = False


class Text(Words):
    """Words for the reader."""

    type: ClassVar[str] = "text"
    role: Literal["user", "assistant"] = "assistant"


class Thought(Words):
    """Reasoning, shown as such."""

    type: ClassVar[str] = "thought"


class Call(Noun):
    """A tool is called."""

    type: ClassVar[str] = "call"
    id: str
    name: str
    args: Value = None


class Result(Noun):
    """A tool has answered. `status`: ok, error, unknown (started by a dead attempt, not run again), denied."""

    type: ClassVar[str] = "result"
    id: str
    name: str
    value: Value = None
    status: Literal["ok", "error", "unknown", "denied"] = "ok"
    ms: float | None = None
    blob: str | None = None  # where the whole value is, when it was cut


class State(Noun):
    """A snapshot of what the agent wants its page to show."""

    type: ClassVar[str] = "state"
    value: Value


class Interrupt(Noun):
    """Something only a person or the outside can give. `payload`: the call to approve, the choices, …"""

    type: ClassVar[str] = "interrupt"
    id: str
    kind: Literal["question", "approval", "external"]
    prompt: str = ""
    payload: Value = None
    schema: Value = None


class End(Noun):
    """How a step left the run when not simply RUNNING: a wait, a question, an end."""

    type: ClassVar[str] = "end"
    status: Status
    stop_reason: StopReason | None = None
    output: Value = None
    error: ErrorInfo | None = None
    until: float | None = None


Part = Text | Thought | Call | Result | State | Interrupt | Usage | End
"""One element of what happened: a closed union; every protocol is a pure encoder of it."""


# ---------------------------------------------------------------- rows


class RunKey(NamedTuple):
    """Names a run. A name, never a right."""

    tenant: str
    id: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.id}"


class Request(Noun):
    """What makes a repeated request recognisable: its id within the run, and the hash of its body."""

    id: str
    hash: str = ""


class Step(Noun):
    """One committed leg. `messages` and `parts` are its history; everything shown is a function of this row."""

    index: int
    round: int
    attempt: int
    carrier: str
    claim_id: str
    status: Status
    stop_reason: StopReason | None = None
    request: Request | None = None
    messages: tuple[Json, ...] = ()  # the framework's own message JSON
    parts: tuple[Json, ...] = ()  # only what the messages do not say
    usage: Json | None = None
    state: Json | None = None  # only when this step set it
    floor: int | None = None  # only when this step moved it
    claimed_at: float = 0.0
    committed_at: float = 0.0  # set by the store


class Origin(Noun):
    """What a run is made of and keeps: the part that a new run and a run's row share."""

    agent: str
    adapter: str
    prompt: Json | None  # of the current round
    status: Status = "RUNNING"
    stop_reason: StopReason | None = None
    round: int = 0
    floor: int = 0
    carrier: str = "client"
    takeover_after: float | None = None
    owner: str | None = None
    state: Json | None = None
    scratchpad: Json | None = None
    limits: Json = "{}"
    tally: Json = "{}"
    create_hash: str | None = None
    parent: Json | None = None
    labels: Json = "{}"
    notify_url: str | None = None


class New(Origin):
    """Given to `claim`, which creates the run in the same act if it is absent."""

    steps: tuple[Step, ...] = ()  # a history to begin with: fork, import, seeded messages
    due: bool = True  # False: created ended, waiting for a prompt (imports)


class Run(Origin):
    """A run's row. `step` = number of committed steps = index of the next one."""

    key: RunKey
    due_at: float | None = None  # None = nobody may claim: ended, or waits for a signal
    ended: bool = False
    step: int = 0
    fence: int = 0
    claim_id: str | None = None  # None = unheld
    holder: str | None = None
    lease_until: float = 0.0
    attempts: int = 0  # claims of the current index
    wait: Json | None = None
    tail: Json | None = None  # what the attempt under way has said so far
    inbox_read: int = 0  # seq of the newest signal that a commit has taken in
    schema: int = SCHEMA
    created_at: float = 0.0
    updated_at: float = 0.0
    pruned: bool = False


class Signal(Noun):
    """Something that reaches a run from outside. The carriage fields take effect at once."""

    kind: Literal["prompt", "answer", "cancel", "resume", "child", "event", "carry"]
    body: Json = "null"
    request_id: str | None = None
    reopens: bool = False
    carrier: str | None = None
    takeover_after: float | None = None  # taken only together with `carrier`
    seq: int = 0  # set by the store
    at: float = 0.0  # set by the store


class Outgoing(Noun):
    """A message to another run or to the world, in the commit; delivered at least once, deduplicated by `request_id`."""

    kind: Literal["signal", "webhook", "wake", "start"]
    target: str
    body: Json = "null"
    request_id: str = ""
    seq: int = 0  # set by the store
    due_at: float | None = None  # set by the store; None = delivered
    tries: int = 0


class Claim(Noun):
    """The right to commit the step `index`: what every writing verb is checked against."""

    key: RunKey
    index: int
    fence: int
    claim_id: str
    carrier: str  # who takes the step


class Answer(Noun):
    """What a verb came to, `now` by the store's clock."""

    now: float


class Claimed(Answer):
    """Everything one step needs. `run` is the row as it is after the claim."""

    claim: Claim
    run: Run
    steps: tuple[Step, ...]  # from the floor to the index, without a gap
    inbox: tuple[Signal, ...]  # newer than `run.inbox_read`
    ledger: dict[str, Json]


class Refused(Answer):
    """Why a claim was not granted. `step`: the replayed step for `replay`, else the newest one. `until`, `carrier`: busy."""

    reason: Literal["replay", "conflict", "busy", "later", "waiting", "ended", "index", "absent", "created", "exists"]
    run: Run | None
    step: Step | None
    until: float | None = None
    carrier: str | None = None


class Commit(Noun):
    """What a step makes true. Without `step` it is a release. Fields that are None leave the row as it was, but for
    `after`, `stop_reason` and `wait`, which are always written."""

    status: Status
    after: float | None  # seconds from the commit until the run is due; None = not before a signal
    stop_reason: StopReason | None = None
    step: Step | None = None
    ended: bool = False
    wait: Json | None = None
    scratchpad: Json | None = None
    tally: Json
    state: Json | None = None
    floor: int | None = None
    prompt: Json | None = None
    limits: Json | None = None
    round: int | None = None
    inbox_read: int
    outbox: tuple[Outgoing, ...] = ()
    blobs: dict[str, str] = {}
    ledger: dict[str, Json] = {}  # entries to add
    keep_ledger: bool = False  # a release always keeps it, a step clears it unless told
    attempts: int | None = None  # releases only, None = as they are; a step always resets them


class Committed(Answer):
    """The commit is true. After a renewal: what arrived meanwhile; the claim now holds the next index."""

    inbox: tuple[Signal, ...] = ()


class Fenced(Answer):
    """Somebody else holds the run, or the step is taken: nothing was changed."""


class Alive(Answer):
    """The claim still holds. `cancel`: a cancel waits in the inbox."""

    cancel: bool


class Signalled(Answer):
    """`first` False: a signal with this request id was there already, and `body` is that one's."""

    run: Run
    body: Json
    first: bool


class Due(Noun):
    """A hint that a run looks claimable (`step`) or has something undelivered (`outbox`)."""

    key: RunKey
    carrier: str
    why: Literal["step", "outbox"]


class Filter(Noun):
    """Which runs to list or prune; every given field must match. Newest first; `before` is the last row's
    `(created_at, id)`."""

    tenant: str
    status: tuple[Status, ...] = ()
    agent: str | None = None
    owner: str | None = None
    label: tuple[str, str] | None = None
    before: tuple[float, str] | None = None


# ---------------------------------------------------------------- talk


class Message(Noun):
    """A signal as an agent sees it: `id` is the interrupt, event or child it answers."""

    kind: str
    body: Value
    id: str | None = None


class Turn(Noun):
    """What an agent gets for one step."""

    key: RunKey
    agent: str
    round: int
    step: int
    attempt: int
    base: int  # prefix of ledger keys that outlive a step
    prompt: Value  # of this round
    fresh: bool  # the prompt is new: no earlier step of the round has seen it
    inbox: tuple[Message, ...]
    messages: tuple[Value, ...]  # from the floor, the framework's own JSON
    state: Value
    scratchpad: Value
    ledger: dict[str, Value]
    usage: Usage  # of the round so far
    limits: Limits
    landing: StopReason | None  # not None: sum up, no tools
    left: dict[str, float] = {}  # of `steps`, `tool_calls`, `tokens`, `usd`, where limited: not spent and not lent


class Reply(Noun):
    """What an agent gives back for one step. `then="wait"` needs `after` or `needs`; `ask` needs `interrupts`."""

    then: Literal["continue", "finish", "ask", "wait", "fail"] = "continue"
    messages: tuple[Value, ...] = ()
    parts: tuple[Part, ...] = ()
    output: Value = None
    error: str | None = None
    interrupts: tuple[Interrupt, ...] = ()
    after: float | None = None
    needs: tuple[str, ...] = ()
    reason: StopReason = "timer"  # of a wait
    release: bool = False  # a wait without a step row: the provider is still at work
    state: Value = None  # None = as it was
    scratchpad: Value = None
    floor: int | None = None
    usage: Usage = Usage()
    keep_ledger: bool = False
    outbox: tuple[Outgoing, ...] = ()
    children: dict[str, Value] = {}  # runs that `outbox` starts and that will report, and what is lent to each
    blobs: dict[str, str] = {}


class Done(Noun):
    """The round is over."""

    status: Status
    stop_reason: StopReason | None


class Again(Noun):
    """Ask again in `after` seconds."""

    after: float


class Waiting(Noun):
    """Only a signal (or, if given, the passing of `until`) makes the run due."""

    until: float | None


class Busy(Noun):
    """Another driver has the run, or its carrier is another; `until`: when it may be had, None = not by itself."""

    until: float | None
    carrier: str


Outcome = Done | Again | Waiting | Busy
