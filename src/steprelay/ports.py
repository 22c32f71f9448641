"""The seams: what a store, an agent and a waker owe. Everything else in steprelay is one thing, not a choice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

from .core.model import (
    Alive, Claim, Claimed, Commit, Committed, Due, Effect, Fenced, Filter, Interrupt, Json, New, Part,
    Refused, Reply, Request, RunKey, Signal, Signalled, Turn, Value,
)  # fmt: skip

Unknown = Literal["tell_model", "ask_person"] | Callable[[], Awaitable[Value]]


class Store(Protocol):
    """Eight verbs, each atomic and one round trip where the store can. The store's own clock decides; only tests pass
    `now`. Payloads are opaque strings. Every verb raises StoreUnavailable when its answer is not known."""

    async def claim(
        self, key: RunKey, *, claim_id: str, holder: str, lease: float, carrier: str | None,
        expect: int | None = None, request: Request | None = None, new: New | None = None, now: float | None = None,
    ) -> Claimed | Refused:  # fmt: skip
        """Take the run for one step.

        In this order: create it if absent and `new` is given; `lease=0` ends here (`created` / `exists`); a claim repeated
        with the id that holds the run is granted again, unchanged; a known `request` is `replay`, or `conflict` when its
        hash differs; another index than `expect` is `index`; then `ended`, `busy` (held), `waiting` (not due before a
        signal), `later`, and `busy` again for a carrier that may not have it yet. A granted claim adds one to fence and
        attempts. `carrier=None` passes the carriage guard and leaves the carrier as it is.
        """

    async def commit(
        self, claim: Claim, commit: Commit, *, renew: float | None = None, now: float | None = None
    ) -> Committed | Fenced:  # fmt: skip
        """Make a step true, or release the claim, if index, fence and claim id still are the run's; see machine.apply.
        `renew` keeps the claim for the next index for that many seconds, unless the run has ended."""

    async def progress(
        self, claim: Claim, *, lease: float, tail: Json | None = None, ledger: Mapping[str, Json] | None = None,
        now: float | None = None,
    ) -> Alive | Fenced:  # fmt: skip
        """A sign of life: extends the lease, overwrites the tail (None = keep), adds or replaces ledger entries."""

    async def signal(self, key: RunKey, signal: Signal, *, now: float | None = None) -> Signalled | None:
        """Append to the inbox; None if there is no such run. A known request id appends nothing. Carriage takes effect at
        once; the run is due now unless held or ended; `reopens` clears `ended` and makes it due."""

    async def due(self, carriers: Sequence[str] | None, limit: int, *, now: float | None = None) -> list[Due]:
        """Runs that one of these carriers (None = any) could claim now, longest due first, and undelivered outboxes."""

    async def ack(
        self, key: RunKey, delivered: Sequence[int], retry_after: float | None = None, *, now: float | None = None
    ) -> None:  # fmt: skip
        """Mark outbox rows as delivered, or, with `retry_after`, count a try and make them due again that much later."""

    async def read(self, where: Any, view: Any, **options: Any) -> list[Any]:
        """For people and pages; nothing is decided from it. A missing run or blob is the empty list.

        view    where   options            answers
        run     RunKey                     the Run
        runs    Filter  limit=100          Runs, newest first
        steps   RunKey  after=-1, limit    Steps in order
        inbox   RunKey  after=0, limit     Signals in order
        outbox  RunKey  after=0, limit     Outgoings in order, what is undelivered
        blob    RunKey  name               its text
        """

    async def prune(self, before: float, filter: Filter, *, now: float | None = None) -> int:
        """Empty runs that ended and were not touched since `before`: their rows go but the run's own, marked `pruned`.
        Of all others go the steps below the floor that were committed before it (never the newest) and the delivered outbox
        rows. A run with undelivered ones is no candidate. Answers how many runs were emptied."""

    async def get(self, name: str, *, now: float | None = None) -> str | None:
        """A small value with a time to live: counters, webhook ids, slots; everything that is not a run."""

    async def put_if(self, name: str, value: str, *, ttl: float, expect: str | None, now: float | None = None) -> bool:
        """Set it if it is `expect` (None = absent or expired)."""

    async def incr(self, name: str, by: float, *, ttl: float, now: float | None = None) -> float:
        """Add to a number; the time to live counts from its first use."""

    async def scan(self, prefix: str, *, now: float | None = None) -> dict[str, str]:
        """All live values under a prefix."""

    async def migrate(self) -> list[str]:
        """Bring the schema up to date; safe twice and at once. Answers the names of what was applied."""

    async def check(self) -> str:
        """One line about the store (kind, version, schema). Raises StoreUnavailable or ConfigError with the remedy."""

    async def close(self) -> None: ...


class Context(Protocol):
    """What an agent may do while its step runs."""

    def emit(self, part: Part) -> None:
        """Show something live. Nothing emitted is kept by that alone: what shall stay goes into the reply."""

    async def call(
        self, key: str, fn: Callable[[], Any], *, effect: Effect = "once", timeout: float | None = None,
        unknown: Unknown = "tell_model", ask: Value = None, keep: bool = False,
    ) -> Value:  # fmt: skip
        """Run `fn` (sync or async) through the ledger and answer its JSON value; a recorded one is answered at once.

        `read` and `idempotent` run again when an attempt died in them, `once` and `needs_approval` do not: they raise
        OutcomeUnknown, or do as `unknown` says. `ask` is shown to the person who approves. A value longer than the limit
        `result_bytes` is cut; `keep` keeps the whole as a blob. Raises Denied when a person refused, ToolError on timeout,
        Paused when a person has to be asked first (the questions are in `interrupts`).
        """

    def blob(self, key: str) -> str | None:
        """The blob that keeps the whole result of the call `key` of this step; None when nothing was cut, or kept."""

    @property
    def interrupts(self) -> Sequence[Interrupt]:
        """What calls of this step have to ask a person."""

    def idempotency_key(self, key: str) -> str:
        """A key for the outside world, the same at every attempt of this call."""

    def remaining(self) -> float:
        """Seconds until the host's wall, less a margin to commit in."""

    @property
    def cancelled(self) -> bool: ...


class Agent(Protocol):
    """A user's agent behind one adapter. It may have a `warm()`, called once in a thread before the first claim of a process:
    the place for imports that a step needs."""

    granularity: str
    """What one step is: `op` (a model request, or the tools of one response), `superstep`, `turn`, `step`."""

    async def step(self, turn: Turn, ctx: Context) -> Reply:
        """Take exactly one step. Raise Transient for what may work later, AgentError(final=True) for what never will."""

    @staticmethod
    def view(message: Value) -> Iterable[Part]:
        """One stored message as parts; pure, and without importing the framework."""

    @staticmethod
    def seed(messages: Sequence[Value]) -> list[Value]:
        """Messages a caller brings (`{role, content}`), as this adapter stores them. Raises BadInput."""


class Waker(Protocol):
    """A way to have a run carried by another process."""

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        """Ask for the run to be carried on. A hint: losing it costs time, never the run. Raises StoreUnavailable's kin only
        when nothing was sent."""
