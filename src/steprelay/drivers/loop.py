"""The loop: steps one after another, for as long as this host lives.

A pulse is a loop of one step. A background function is a loop that, before the wall, hands the run to its successor
through a waker and ends. What fits is judged by the steps it has seen, never by a flag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..core.model import Again, Busy, New, Request, RunKey
from ..engine import FOREVER, Advanced, Engine
from ..watch import Listen
from ..ports import Waker

HEADROOM = 1.5
"""A step is expected to take this many times the longest one seen."""
SMALLEST = 0.25
"""Seconds without which no step is begun."""
PATIENCE = 30.0
"""Seconds a loop with time on its hands waits for a run that is due later, instead of handing it on."""


class Pace:
    """How much time is left here, and how much a step needs."""

    def __init__(self, wall: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._end = self._clock() + wall
        self._longest = 0.0

    @property
    def left(self) -> float:
        return max(0.0, self._end - self._clock())

    @property
    def need(self) -> float:
        return max(SMALLEST, self._longest * HEADROOM)

    def fits(self, spent: float = 0.0) -> bool:
        """Whether one more step fits, after one that took `spent` seconds."""
        self._longest = max(self._longest, spent)
        return self.left > self.need


class Loop:
    """Takes steps of runs in this process. `wall`: seconds a request may live here; `holder`: how this process is named."""

    def __init__(self, engine: Engine, *, wall: float = FOREVER, holder: str = "") -> None:
        self.engine, self.wall, self.holder = engine, wall, holder

    async def pulse(
        self, key: RunKey, *, carrier: str, wall: float | None = None, expect: int | None = None,
        request: Request | None = None, new: New | None = None, listen: Listen | None = None, fit: bool = False,
    ) -> Advanced:  # fmt: skip
        """One step; with `fit` as many as fit into the wall. See Engine.advance."""
        pace = Pace(self.wall if wall is None else wall)
        more: Callable[[float], bool] | None = pace.fits if fit else None
        return await self.engine.advance(
            key, carrier=carrier, holder=self.holder, wall=pace.left, expect=expect, request=request, new=new,
            listen=listen, more=more,
        )  # fmt: skip

    async def carry(
        self, key: RunKey, *, carrier: str, wall: float | None = None, waker: Waker | None = None, **options: Any
    ) -> Advanced:
        """Carry a run until it ends, waits for a signal, belongs to somebody else, or the wall comes near: then the waker
        dispatches the successor. Options go to Engine.advance."""
        pace = Pace(self.wall if wall is None else wall)
        while True:
            advanced = await self.engine.advance(
                key, carrier=carrier, holder=self.holder, wall=pace.left, more=pace.fits, **options
            )
            after = _again_after(advanced, carrier)
            if after is None:
                return advanced
            if after <= min(PATIENCE, pace.left - pace.need):
                await asyncio.sleep(after)
                continue
            if waker is not None:
                await waker.wake(key, carrier, after)
            return advanced


def _again_after(advanced: Advanced, carrier: str) -> float | None:
    """Seconds until this carrier should try again; None: not by itself."""
    match advanced.outcome:
        case Again(after=after):
            return after
        case Busy(until=until, carrier=other) if until is not None and other in (carrier, "any"):
            return max(0.05, until - advanced.now)
        case _:
            return None
