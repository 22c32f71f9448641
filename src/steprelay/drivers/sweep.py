"""The sweeper: finds runs that are due and that nobody carries, and outboxes that were not delivered.

Any number may sweep anywhere at once: what it finds are hints, the claim decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ..core.errors import StepRelayError
from ..core.model import Due, RunKey
from ..engine import Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What one sweep found: due runs handed to a carrier, and messages delivered."""

    runs: int = 0
    delivered: int = 0
    failed: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(
            runs=self.runs + other.runs, delivered=self.delivered + other.delivered, failed=self.failed + other.failed
        )  # fmt: skip


class Sweep:
    """`carry(key, carrier)` drives or dispatches a run; `deliver(key)` sends its outbox."""

    carriers = ("background",)
    """Whose runs it picks up, beside those that anyone may take over by now."""

    def __init__(
        self, engine: Engine, carry: Callable[[RunKey, str], Awaitable[object]], deliver: Callable[[RunKey], Awaitable[int]], *,
        at_once: int = 8,
    ) -> None:  # fmt: skip
        self._engine, self._carry, self._deliver = engine, carry, deliver
        self._slots = asyncio.Semaphore(at_once)

    async def once(self, page: int = 100, most: int = 1000) -> Swept:
        """One look, over up to `most` runs; returns when everything found has been handed on. One run's failure does not stop
        the others, and those that stay due (nobody took them, or not yet) do not hide what is behind them."""
        seen, total = set[tuple[RunKey, str]](), Swept()
        while True:
            limit = min(len(seen) + page, most)
            found = await self._engine.store.due(self.carriers, limit)
            new = [d for d in found if (d.key, d.why) not in seen]
            seen.update((d.key, d.why) for d in new)
            total += await self._hand_on(new)
            if not new or len(found) < limit or len(seen) >= most:
                return total

    async def _hand_on(self, found: Sequence[Due]) -> Swept:
        results = await asyncio.gather(*(self._take(d) for d in found), return_exceptions=True)
        for due, result in zip(found, results, strict=True):
            if isinstance(result, Exception):
                self._engine.observe({"event": "sweep_failed", "run": due.key.id, "why": f"{type(result).__name__}: {result}"})
        return Swept(
            runs=sum(d.why == "step" for d in found),
            delivered=sum(r for r in results if isinstance(r, int)),
            failed=sum(isinstance(r, Exception) for r in results),
        )

    async def every(self, seconds: float) -> None:
        """Sweep for ever; a store that is away is asked again."""
        while True:
            try:
                await self.once()
            except StepRelayError as e:
                self._engine.observe({"event": "sweep_failed", "why": str(e)})
            await asyncio.sleep(seconds)

    async def _take(self, due: Due) -> int:
        async with self._slots:
            if due.why == "outbox":
                return await self._deliver(due.key)
            await self._carry(due.key, self.carriers[0])
            return 0
