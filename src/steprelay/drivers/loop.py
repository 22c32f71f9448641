"""The loop: steps one after another, for as long as this host lives.

A pulse is a loop of one step. A background function is a loop that, before the wall, hands the run to its successor
through a waker and ends. What fits is judged by the steps it has seen, never by a flag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..core.errors import StepRelayError
from ..core.model import Again, Busy, New, Request, RunKey
from ..core.noun import replace
from ..engine import FOREVER, Advanced, Engine
from ..watch import Listen
from ..ports import Waker

HEADROOM = 1.5
"""A step is expected to take this many times the longest one seen."""
UNKNOWN = 0.5
"""As long as none was seen, a step is expected to need this share of a host's whole life."""
SMALLEST = 0.25
"""Seconds without which no step is begun."""
MARGIN = 1.0
"""Seconds kept back for the commit and the relay; of a short life, a fifth. As `lease.Wall` keeps them."""
PATIENCE = 30.0
"""Seconds a loop with time on its hands waits for a run that is due later, instead of handing it on."""


class Pace:
    """How much time is left here, and how much a step needs. The first step of a host is always begun: what it takes is not
    known, and no other host has more time for it."""

    def __init__(self, wall: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._end = self._clock() + wall
        self._margin = min(MARGIN, wall / 5)
        self._unknown = wall * UNKNOWN
        self._longest: float | None = None

    @property
    def left(self) -> float:
        """Seconds until the wall."""
        return max(0.0, self._end - self._clock())

    @property
    def need(self) -> float:
        """Seconds that the next step will want."""
        return self._unknown if self._longest is None else max(SMALLEST, self._longest * HEADROOM)

    def fits(self, spent: float = 0.0, *, after: float = 0.0) -> bool:
        """Whether one more step fits: after one that took `spent` seconds, begun `after` seconds from now."""
        if spent:
            self._longest = max(self._longest or 0.0, spent)
        return after + self.need < self.left - self._margin


class Loop:
    """Takes steps of runs in this process. `wall`: seconds a request may live here; `holder`: how this process is named;
    `takes_turns(key)`: whether a run has to let others go first after each step (see gate.Gate)."""

    def __init__(
        self, engine: Engine, *, wall: float = FOREVER, holder: str = "", takes_turns: Callable[[RunKey], bool] | None = None
    ) -> None:  # fmt: skip
        self.engine, self.wall, self.holder, self._takes_turns = engine, wall, holder, takes_turns

    async def pulse(
        self, key: RunKey, *, carrier: str, wall: float | None = None, expect: int | None = None,
        request: Request | None = None, new: New | None = None, listen: Listen | None = None, fit: bool = False,
        span: float = 0.0,
    ) -> Advanced:  # fmt: skip
        """One step; with `fit` as many as fit into the wall, with `span` as many as fit into so many seconds, which cut no
        step short. See Engine.advance."""
        pace = Pace(self.wall if wall is None else wall)
        more = self._more(pace if fit else Pace(span), key) if fit or span else None
        return await self.engine.advance(
            key, carrier=carrier, holder=self.holder, wall=pace.left, expect=expect, request=request, new=new,
            listen=listen, more=more,
        )  # fmt: skip

    async def carry(
        self, key: RunKey, *, carrier: str, wall: float | None = None, waker: Waker | None = None, patient: bool = True,
        **options: Any,
    ) -> Advanced:  # fmt: skip
        """Carry a run until it ends, waits for a signal, belongs to somebody else, or the wall comes near: then the waker
        dispatches the successor. Options go to Engine.advance.

        Who finds the run busy has no baton to hand on. Who does so at once looks once more when the lease is over; a holder
        that lives has renewed it by then. So of three deliveries of one dispatch two end, and none of them has successors.
        Who does so later, after a wait, has been overtaken. `patient` False: there is no second look.
        """
        pace, outgoing, looked = Pace(self.wall if wall is None else wall), False, not patient
        while True:
            advanced = await self.engine.advance(
                key, carrier=carrier, holder=self.holder, wall=pace.left, more=self._more(pace, key), **options
            )
            outgoing = outgoing or advanced.outgoing
            advanced = replace(advanced, outgoing=outgoing)
            after, busy = _again_after(advanced, carrier), isinstance(advanced.outcome, Busy)
            if after is None or (busy and looked):
                return advanced
            looked = True
            if after <= PATIENCE and pace.fits(after=after):
                await asyncio.sleep(after)
                continue
            if waker is not None and not busy:
                await self._relay(waker, key, carrier, after, pace)
            return advanced

    def _more(self, pace: Pace, key: RunKey) -> Callable[[float], bool]:
        """Whether to go on under the same claim after a step of so many seconds."""
        turns = self._takes_turns
        return lambda spent: pace.fits(spent) and not (turns is not None and turns(key))

    async def _relay(self, waker: Waker, key: RunKey, carrier: str, after: float, pace: Pace) -> None:
        """Dispatch the successor while there is time. A relay that fails is made good by the sweeper."""
        try:
            async with asyncio.timeout(min(PATIENCE, pace.left)):
                await waker.wake(key, carrier, after)
        except (StepRelayError, TimeoutError) as e:
            self.engine.observe(
                {"event": "relay_failed", "run": key.id, "carrier": carrier, "why": str(e) or "no answer in time"}
            )


def _again_after(advanced: Advanced, carrier: str) -> float | None:
    """Seconds until this carrier should try again; None: not by itself."""
    match advanced.outcome:
        case Again(after=after) if advanced.run is not None and advanced.run.carrier in (carrier, "any"):
            return after
        case Busy(until=until, carrier=other) if until is not None and other in (carrier, "any"):
            return max(0.05, until - advanced.now)
        case _:
            return None
