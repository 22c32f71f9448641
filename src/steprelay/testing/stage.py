"""An engine on a stage: one run over a memory store whose clock, faults and calls a test holds in its hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from ..core import codec
from ..core.errors import StoreUnavailable
from ..core.model import Again, End, Limits, New, Part, Run, RunKey, Signal, Step, Value, Waiting
from ..engine import Advanced, Engine
from ..ports import Agent, Store
from ..stores.memory import MemoryStore
from .fakes import Line, ScriptedAgent


class WatchedStore:
    """A memory store on the loop's clock that writes down its calls.

    `lost[verb]`: how many answers of that verb will be lost (the verb is done); `away[verb]`: requests. `before[verb]`: called
    once, right before the verb.
    """

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.calls: list[str] = []
        self.lost: dict[str, int] = {}
        self.away: dict[str, int] = {}
        self.before: dict[str, Callable[[], Any]] = {}

    def __getattr__(self, verb: str) -> Any:
        return partial(self._call, verb)

    async def _call(self, verb: str, *args: Any, **options: Any) -> Any:
        self.calls.append(verb)
        if hook := self.before.pop(verb, None):
            await hook()
        if self._spent(self.away, verb):
            raise StoreUnavailable("the request was lost")
        if verb != "read":
            options["now"] = asyncio.get_running_loop().time()
        answer = await getattr(self.inner, verb)(*args, **options)
        if self._spent(self.lost, verb):
            raise StoreUnavailable("the answer was lost")
        return answer

    @staticmethod
    def _spent(faults: dict[str, int], verb: str) -> bool:
        faults[verb] = faults.get(verb, 0) - 1
        return faults[verb] >= 0


class Stage:
    """One run `t/r` of one agent. `script`: see ScriptedAgent; or give any agent."""

    key = RunKey("t", "r")

    def __init__(
        self, *script: Line, agent: Agent | None = None, limits: Mapping[str, Value] | None = None, **options: Any
    ) -> None:
        self.store = WatchedStore()
        self.agent: Any = agent or ScriptedAgent(script)
        self.engine = Engine(cast(Store, self.store), {"a": self.agent}, lambda _: type(self.agent).view, **options)
        self.new = New(agent="a", adapter="function", prompt='"go"', limits=codec.pack(codec.build(Limits, dict(limits or {}))))

    async def advance(self, **options: Any) -> Advanced:
        return await self.engine.advance(self.key, **{"carrier": "client", "new": self.new, **options})

    async def until_quiet(self, most: int = 60) -> Advanced:
        """Advance, waiting as told, until the run ends or waits for a signal."""
        for _ in range(most):
            advanced = await self.advance()
            match advanced.outcome:
                case Again(after=after):
                    await asyncio.sleep(after)
                case Waiting(until=until) if until is not None:
                    await asyncio.sleep(max(0.0, until - advanced.now))
                case _:
                    return advanced
        raise AssertionError(f"the run did not come to rest in {most} turns: {await self.run()}")

    async def signal(self, kind: Any, body: Value = None, **options: Any) -> None:
        reopens = kind in ("prompt", "resume")
        await self.engine.store.signal(self.key, Signal(kind=kind, body=codec.dumps(body), reopens=reopens, **options))

    async def run(self) -> Run:
        rows: list[Run] = await self.store.inner.read(self.key, "run")
        return rows[0]

    async def steps(self) -> list[Step]:
        return await self.store.inner.read(self.key, "steps")

    async def end(self) -> End:
        """The End part of the newest step."""
        return next(p for p in reversed(await self.parts()) if isinstance(p, End))

    async def parts(self) -> list[Part]:
        return [p for s in await self.steps() for p in self.engine.parts("function", s)]
