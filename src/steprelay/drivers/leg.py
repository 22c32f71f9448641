"""What durable engines (Restate, Temporal, Inngest) have in common: each calls one step at a time, under its own retries and
timers, and keeps nothing of the run but its key.

The engine names each of its attempts at a step by one id, whatever number of times it tries. That id is our request id: a
try whose answer was lost is answered from what was committed, so the engine's retries are replays.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from ..core.model import Again, Busy, Request, RunKey, Signal, Waiting
from ..core.noun import Noun
from ..engine import Advanced
from ..ports import Waker
from .loop import Loop

ENGINES = ("temporal", "restate", "inngest")
"""Carriers that are durable engines: each is there when it is set up."""
SOONEST = 0.05
"""Seconds that a driver which found the run busy waits at least."""


class Next(Noun):
    """What an engine does after a step: `again` in `after` seconds; `waiting` for a wake (at most `after` seconds, None = for
    one alone); `busy`: somebody else takes a step now, look again; `done`: the round is over, or the run is another's, or it
    has gone on past the step that was expected. `step`: the one that is due then; with `done` there is none."""

    kind: Literal["done", "again", "waiting", "busy"]
    after: float | None = None
    step: int | None = None

    def plain(self) -> dict[str, Any]:
        """For an engine's journal."""
        return {"kind": self.kind, "after": self.after}


class Leg:
    """Takes steps for engines, in this process. `deliver(key)` sends a run's outbox."""

    def __init__(self, loop: Loop, deliver: Callable[[RunKey], Awaitable[object]], tenant: str = "default") -> None:
        self._loop, self._deliver, self.tenant = loop, deliver, tenant

    async def take(
        self, run: str, carrier: str, request: str, *, wall: float | None = None, span: float = 0.0, expect: int | None = None
    ) -> Next:
        """One step of a run; `request`: the engine's id for this step, the same at every try. `wall`: seconds it may last;
        `span`: seconds in which further steps may begin, should they be quick: then the id is that of the last. `expect`: the
        step it has to be, for an engine that may come to a run from two sides.

        Raises StoreUnavailable: the engine tries again.
        """
        key, id = RunKey(self.tenant, run), Request(id=request, hash=carrier)
        advanced = await self._loop.pulse(key, carrier=carrier, wall=wall, expect=expect, request=id, span=span)
        if advanced.outgoing:
            await self._deliver(key)
        return following(advanced, carrier)

    async def cancel(self, run: str, carrier: str, request: str) -> None:
        """The engine was told to cancel: durable here from now on, and heard by a step under way; the next one ends the run.
        A run that is another's by now is left alone. Raises StoreUnavailable."""
        key, store = RunKey(self.tenant, run), self._loop.engine.store
        if any(not r.ended and r.carrier in (carrier, "any") for r in await store.read(key, "run")):
            await store.signal(key, Signal(kind="cancel", request_id=request))


def following(advanced: Advanced, carrier: str) -> Next:
    """What comes next for a carrier. One that the run no longer belongs to is done with it."""
    run, outcome, now = advanced.run, advanced.outcome, advanced.now
    if run is None or run.ended or run.carrier not in (carrier, "any"):
        return Next(kind="done")
    if advanced.refused == "index":  # whoever has it now may be a try of our own that nobody waits for any more
        held = run.claim_id is not None and run.lease_until > now
        return Next(kind="busy", after=max(SOONEST, run.lease_until - now), step=run.step) if held else Next(kind="done")
    match outcome:
        case Again(after=after):
            return Next(kind="again", after=after, step=run.step)
        case Waiting(until=until):
            return Next(kind="waiting", after=None if until is None else max(SOONEST, until - now), step=run.step)
        case Busy(until=until):  # not known until when: the next look tells
            return Next(kind="busy", after=max(SOONEST, until - now if until else 0.0), step=run.step)
        case _:
            return Next(kind="done")


class Orchestrator(Waker):
    """A durable engine as a driver: woken like any other, and it calls back by itself. One file each.

    Two kinds: with an `endpoint`, an ASGI app that the engine calls and that is served at `/api/<name>` beside the rest of our
    HTTP; or with a worker, a process that asks the engine for work.
    """

    name: str
    """Its carrier; also the name in the registry and of its extra."""
    endpoint: Any = None
    """The ASGI app, without its mount path in `scope["path"]` (it is in `root_path`); None: it has a worker."""

    @abstractmethod
    def __init__(self, url: str, leg: Leg) -> None:
        """`url`: where the engine is. What else it needs (keys, namespaces) it reads from the variables its own SDK reads."""

    async def work(self, ready: Callable[[], object] = lambda: None) -> None:
        """Be a worker until cancelled; `ready()` is called once it takes work. Raises ConfigError with the remedy."""
        raise NotImplementedError

    async def register(self, url: str) -> None:
        """Tell the engine where our endpoint is (`url`: with the path). Raises ConfigError with the remedy."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of connections."""
