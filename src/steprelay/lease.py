"""Keeping one claim alive while its step runs, and knowing when to stop: lease, wall clock, cancel.

A `Lease` is the only writer of `progress`. It sends a sign of life every interval, what has been said at most once a
second, and ledger entries at once (`flush`) or soon (`note`). It ends the step through `stop`: a future that is done when a
person has cancelled the run or somebody else has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from .core import codec
from .core.errors import StoreUnavailable
from .core.machine import INTERVAL
from .core.model import Alive, Claim, Json, Part, Words
from .ports import Store

T = TypeVar("T")
TAIL_BYTES = 8_000
SOON = 0.1
"""Seconds a noted ledger entry may wait for company."""
TAIL_EVERY = 1.0
GRACE = 2.0
"""Seconds, twice, that an agent which is told to stop gets to hand over what it has."""


class Wall:
    """How long this host still lives, by its own monotonic clock, started before the claim is sent."""

    def __init__(self, seconds: float, margin: float = 1.0) -> None:
        """`margin`: seconds kept back to commit in; at most a fifth of the whole."""
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds
        self._margin = min(margin, seconds / 5)

    @property
    def left(self) -> float:
        """Seconds that a step may still use."""
        return max(0.0, self._end - self._margin - self._loop.time())

    @property
    def grace(self) -> float:
        """Seconds, twice, for an agent that is told to stop: half of what is left stays for the commit."""
        return min(GRACE, max(0.0, self._end - self._loop.time()) / 4)


class Lease:
    """One claim, kept. Use as `async with`."""

    def __init__(self, store: Store, claim: Claim, span: float, wall: Wall) -> None:
        self._store, self._claim, self._span, self._wall = store, claim, span, wall
        self._interval = min(INTERVAL, span / 3)
        self._said: dict[str | None, list[str]] = {}
        self.unsent: dict[str, Json] = {}  # not in the store yet
        self.recorded: dict[str, Json] = {}  # all of this attempt
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        self.stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Lease:
        self._beat = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._beat.cancel()
        await asyncio.wait({self._beat})

    @property
    def said(self) -> str:
        """The words of this attempt so far."""
        return "\n".join("".join(pieces) for pieces in self._said.values())

    def say(self, part: Part) -> None:
        """Remember words for other readers."""
        if isinstance(part, Words):
            self._said.setdefault(part.id, []).append(part.text)
            self._wake.set()

    def note(self, key: str, entry: Json) -> None:
        """Record a ledger entry with the next sign of life, at the latest in a moment."""
        self.unsent[key] = self.recorded[key] = entry
        self._wake.set()

    async def flush(self, key: str, entry: Json) -> bool:
        """Record a ledger entry now; False when the step is over: the run is cancelled or no longer ours.

        Repeated while the store is away, for most of a lease; then raises StoreUnavailable."""
        self.unsent[key] = self.recorded[key] = entry
        return await insist(self._send, self._span)

    async def _keep(self) -> None:
        """Beat until the step is over. A store that is away for a while costs nothing but the reserve in the lease."""
        loop = asyncio.get_running_loop()
        last_tail = loop.time() - TAIL_EVERY
        while not self.stop.done():
            with suppress(TimeoutError):  # `wait_for` of Python 3.11 may swallow a cancellation; this does not
                async with asyncio.timeout(self._interval):
                    await self._wake.wait()
            if self._wake.is_set():
                rest = TAIL_EVERY - (loop.time() - last_tail) if not self.unsent else 0.0
                await asyncio.sleep(max(SOON, min(rest, self._interval)))
                last_tail = loop.time()
            self._wake.clear()
            try:
                await self._send()
            except StoreUnavailable:
                await asyncio.sleep(SOON)
                self._wake.set()

    async def _send(self) -> bool:
        if self.stop.done() or self._beat.done():
            return False
        async with self._sending:
            entries = dict(self.unsent)
            tail = codec.dumps({"text": self.said[-TAIL_BYTES:], "left": round(self._wall.left, 3)})
            answer = await self._store.progress(self._claim, lease=self._span, tail=tail, ledger=entries)
            for key, entry in entries.items():
                if self.unsent.get(key) == entry:
                    del self.unsent[key]
        ours = isinstance(answer, Alive) and not answer.cancel
        if not (ours or self.stop.done()):
            self.stop.set_result(None)
        return ours


async def insist(verb: Callable[[], Awaitable[T]], lease: float) -> T:
    """Repeat a verb while the store is away, for most of a lease. Every verb is safe to repeat."""
    loop = asyncio.get_running_loop()
    until, delay = loop.time() + lease * 0.8, 0.05
    while True:
        try:
            return await verb()
        except StoreUnavailable:
            if loop.time() + delay > until:
                raise
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)
