"""Tool effects: the journal inside one step, and the guard that runs a `once` tool at most once.

An entry is `{"started": attempt}` before and `{"value" | "error" | "denied": …}` after. Entries outlive a dead attempt; a
step's commit clears them (unless its reply keeps them). The marker of a `once` tool must be in the store before the tool
runs; every other entry travels with the next sign of life or the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from .core import codec
from .core.errors import Denied, OutcomeUnknown, Paused, ToolError, Transient
from .core.model import Effect, Interrupt, Part, Turn, Value
from .lease import Lease, Wall
from .outcomes import outcome
from .ports import Unknown
from .questions import Questions
from .watch import Listen, Live


class StepContext:
    """ports.Context over a lease: what the agent of one attempt may do."""

    def __init__(self, turn: Turn, lease: Lease, wall: Wall, listen: Listen | None) -> None:
        self._turn, self._lease, self._wall, self._listen = turn, lease, wall, listen
        self._entries: dict[str, Value] = dict(turn.ledger)
        self._people = Questions(turn.inbox)
        self._emitted = 0
        self.blobs: dict[str, str] = {}

    def emit(self, part: Part) -> None:
        self._lease.say(part)
        if self._listen is not None:
            self._listen(Live(step=self._turn.step, attempt=self._turn.attempt, index=self._emitted, part=part))
        self._emitted += 1

    @property
    def interrupts(self) -> Sequence[Interrupt]:
        return self._people.asked

    @property
    def cancelled(self) -> bool:
        return self._lease.stop.done()

    def remaining(self) -> float:
        return self._wall.left

    def idempotency_key(self, key: str) -> str:
        run = self._turn.key
        return sha256("\0".join((run.tenant, run.id, self._full(key))).encode()).hexdigest()

    async def call(
        self, key: str, fn: Callable[[], Value], *, effect: Effect = "once", timeout: float | None = None,
        unknown: Unknown = "tell_model", ask: Value = None, keep: bool = False,
    ) -> Value:  # fmt: skip
        full = self._full(key)
        entry = self._entries.get(full, {})
        if not entry and effect == "needs_approval" and (denial := self._people.denial(full, key, ask)) is not None:
            entry = self._record(full, {"denied": denial})
        if "value" in entry or "error" in entry or "denied" in entry:
            return self._told(full, entry)
        if effect in ("once", "needs_approval"):
            if "started" in entry:
                return await self._unknown(full, key, unknown)
            await self._announce(full, key)
        try:
            entry = await outcome(key, fn, timeout, self._turn.limits.result_bytes, full if keep else None)
        except Transient:
            self._record(full, {})  # it did not happen: the next attempt may run it
            raise
        return self._told(full, self._record(full, entry))

    def blob(self, key: str) -> str | None:
        return name if (name := self._full(key)) in self.blobs else None

    def _full(self, key: str) -> str:
        return f"{self._turn.base}/{key}"

    async def _announce(self, full: str, key: str) -> None:
        """Put the marker into the store before the tool runs. In memory it stands first: the same key twice at once runs once."""
        self._entries[full] = mark = {"started": self._turn.attempt}
        try:
            ours = await self._lease.flush(full, codec.dumps(mark))
        except BaseException:
            self._record(full, {})  # nothing has begun
            raise
        if not ours:
            raise Paused(f"{key}: this step is over")  # cancelled or taken by somebody else: the engine knows which

    def _record(self, full: str, entry: Value) -> Value:
        self._entries[full] = entry
        self._lease.note(full, codec.dumps(entry))
        return entry

    async def _unknown(self, full: str, key: str, policy: Unknown) -> Value:
        if policy == "tell_model":
            what = f"{key} was started by an attempt that died; whether it took effect is unknown"
            raise OutcomeUnknown(f"{what}. It was not run again: check before you go on.")
        if callable(policy):
            value = await policy()
        else:
            prompt = f"{key} was started and cut off. What came of it? Your answer is taken as its result."
            value = self._people.answer(f"{full}?", "question", prompt).get("payload")
        return self._told(full, self._record(full, {"value": value}))

    def _told(self, full: str, entry: Value) -> Value:
        if "error" in entry:
            raise ToolError(entry["error"])
        if "denied" in entry:
            raise Denied(entry["denied"])
        if "whole" in entry:
            self.blobs[full] = entry["whole"]
        return entry["value"]
