"""One run of one agent over the memory store, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from steprelay.agents.pydantic_ai import PydanticAIAgent
from steprelay.core import codec
from steprelay.core.machine import interrupts_of
from steprelay.core.model import Interrupt, New, Part, Run, RunKey, Signal, Step
from steprelay.engine import Advanced, Engine
from steprelay.stores.memory import MemoryStore
from steprelay.watch import Live

KEY = RunKey("t", "r")


class Bench:
    """`agent` may be replaced between steps, as a deployment does."""

    def __init__(self, agent: Any, prompt: Any = "go", **limits: Any) -> None:
        self.store, self.live = MemoryStore(), list[Live]()
        self.agent = agent if isinstance(agent, PydanticAIAgent) else PydanticAIAgent(agent)
        self.new = New(agent="a", adapter="pydantic_ai", prompt=codec.dumps(prompt), limits=codec.dumps(limits))

    @property
    def engine(self) -> Engine:
        return Engine(self.store, {"a": self.agent}, lambda _: PydanticAIAgent.view)

    async def step(self, **options: Any) -> Advanced:
        return await self.engine.advance(KEY, carrier="client", new=self.new, listen=self.live.append, **options)

    async def finish(self) -> Run:
        """Steps until the round is over, or something else has to happen first."""
        for _ in range(60):
            done = await self.step()
            assert done.run is not None
            if done.run.ended or done.run.status != "RUNNING" or done.refused:
                return done.run
        raise AssertionError("no end in 60 steps")

    async def steps(self) -> list[Step]:
        return await self.store.read(KEY, "steps", after=-1, limit=1000)

    async def parts(self, *kinds: type[Any]) -> list[Any]:
        found: Iterable[Part] = (p for s in await self.steps() for p in self.engine.parts("pydantic_ai", s))
        return [p for p in found if not kinds or isinstance(p, kinds)]

    async def output(self) -> Any:
        return (await self.parts())[-1].output

    async def questions(self) -> tuple[Interrupt, ...]:
        return interrupts_of(await self.steps())

    async def answer(self, id: str, payload: Any, status: str = "resolved") -> None:
        body = codec.dumps({"id": id, "status": status, "payload": payload})
        await self.store.signal(KEY, Signal(kind="answer", body=body, request_id=f"answer:{id}"))

    async def prompt(self, text: Any) -> None:
        await self.store.signal(KEY, Signal(kind="prompt", body=codec.dumps(text), reopens=True))
