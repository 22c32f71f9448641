"""Fakes that behave: an event loop whose time is a number, and an agent that does what a list says."""

from __future__ import annotations

import asyncio
import heapq
import random
import selectors
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import wraps
from typing import Any, TypeVar

from ..core import codec
from ..core.model import Part, Reply, Text, Turn, Value
from ..ports import Agent, Context

T = TypeVar("T")
EPOCH = 1_000_000.0
"""What virtual clocks show at first."""


class _NoSelector(selectors.SelectSelector):
    """Nothing outside is waited for."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio with a virtual clock: when nothing is ready, time jumps to the next timer. With a seed, what is ready runs in
    an order drawn from it, the same for the same seed. Threads and sockets have no place here."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(_NoSelector())
        self._now = EPOCH
        self._clock_resolution = 1e-9
        self._chance = None if seed is None else random.Random(seed)

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        """One turn of BaseEventLoop, without a selector to ask and with a clock to move."""
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready:
            while scheduled and scheduled[0]._cancelled:
                heapq.heappop(scheduled)._scheduled = False
            if not scheduled:
                raise RuntimeError("the virtual loop stands still: everything waits and no timer is set")
            self._now = max(self._now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        if len(ready) > 1 and self._chance is not None:
            order = list(ready)
            self._chance.shuffle(order)
            ready.clear()
            ready.extend(order)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()


def run_virtual(main: Coroutine[Any, Any, T], seed: int | None = None) -> T:
    """`asyncio.run` on a VirtualLoop."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed)) as runner:
        return runner.run(main)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes an async test a plain one that runs on a VirtualLoop."""

    @wraps(test)
    def run(*args: Any, **options: Any) -> None:
        run_virtual(test(*args, **options))

    return run


Line = Reply | BaseException | Callable[[Turn, Context], Any]


class ScriptedAgent(Agent):
    """Takes its steps from a list, the last one for ever: a Reply is given, an exception raised, a callable called."""

    granularity = "step"

    def __init__(self, script: Sequence[Line]) -> None:
        self.script, self.turns = list(script), list[Turn]()

    async def step(self, turn: Turn, ctx: Context) -> Reply:
        self.turns.append(turn)
        line = self.script[min(len(self.turns), len(self.script)) - 1]
        if isinstance(line, BaseException):
            raise line
        answer = line(turn, ctx) if callable(line) else line
        given: Reply = await answer if asyncio.iscoroutine(answer) else answer
        return given

    @staticmethod
    def view(message: Value) -> Iterable[Part]:
        """A part's own JSON, or any other value as words."""
        if isinstance(message, dict) and message.get("type") in codec.PARTS:
            return (codec.part_from(message),)
        return (Text(text=str(message)),)

    @staticmethod
    def seed(messages: Sequence[Value]) -> list[Value]:
        return list(messages)
