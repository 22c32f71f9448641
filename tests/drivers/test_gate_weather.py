"""The gate in bad weather: hosts die, requests and answers are lost, and the limit holds all the same."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pytest

from steprelay.core.errors import StoreUnavailable
from steprelay.core.model import Filter, New, Reply, RunKey
from steprelay.drivers.gate import Gate, rules
from steprelay.drivers.loop import Loop
from steprelay.drivers.sweep import Sweep
from steprelay.engine import Engine
from steprelay.ports import Store
from steprelay.stores.memory import MemoryStore
from steprelay.testing.fakes import ScriptedAgent, run_virtual

LIMIT, RUNS, STEPS, LEASE = 3, 18, 4, 6.0


class Wire:
    """The way of one host to the store: what is sent takes time and may be lost, on the way there or back."""

    def __init__(self, inner: MemoryStore, chance: random.Random, loss: float) -> None:
        self._inner, self._chance, self._loss, self.dead = inner, chance, loss, False

    def __getattr__(self, verb: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            await self._travel()
            if verb != "read":
                options["now"] = asyncio.get_running_loop().time()
            answer = await getattr(self._inner, verb)(*args, **options)
            await self._travel()
            return answer

        return call

    async def _travel(self) -> None:
        await asyncio.sleep(self._chance.random() * 0.02)
        if self.dead or self._chance.random() < self._loss:
            raise StoreUnavailable("lost")


class World:
    """One store, hosts that come and go, and somebody outside who counts."""

    def __init__(self, seed: int, loss: float) -> None:
        self.chance, self.loss, self.store = random.Random(seed), loss, MemoryStore()
        self.at_work, self.most, self.deaths = 0, 0, 0

    async def step(self, turn: Any, ctx: Any) -> Reply:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            await asyncio.sleep(self.chance.choice((0.01, 0.5, 2.0, 9.0)))
        finally:
            self.at_work -= 1
        return Reply(then="finish") if turn.step + 1 >= STEPS else Reply()

    async def host(self) -> None:
        """Sweeps and carries until it dies: from then on nothing of it reaches the store."""
        wire = Wire(self.store, self.chance, self.loss)
        agents = {"a": ScriptedAgent([self.step])}
        gate = Gate(cast(Store, wire), rules({"key": "agent", "limit": LIMIT}), agents, lambda event: None)
        engine = Engine(cast(Store, gate), agents, lambda _: ScriptedAgent.view, lease=LEASE)
        loop = Loop(engine, takes_turns=gate.takes_turns)
        life = asyncio.create_task(
            Sweep(engine, lambda key, carrier: loop.carry(key, carrier=carrier), none, at_once=4).every(1.0)
        )
        await asyncio.wait({life}, timeout=self.chance.uniform(5.0, 60.0))
        wire.dead = True
        life.cancel()
        await asyncio.wait({life})
        self.deaths += 1

    async def live(self) -> list[Any]:
        for n in range(RUNS):
            new = New(
                agent="a", adapter="function", prompt='"go"', carrier="background", takeover_after=1.0, limits='{"attempts":50}'
            )
            now = asyncio.get_running_loop().time()
            key = RunKey("t", f"r{n}")
            await self.store.claim(key, claim_id="n", holder="", lease=0, carrier=None, new=new, now=now)
        hosts = {asyncio.create_task(self.host()) for _ in range(4)}
        rows: list[Any] = []
        while not rows or not all(r.ended for r in rows):
            done, hosts = await asyncio.wait(hosts, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
            hosts |= {asyncio.create_task(self.host()) for _ in done}
            rows = await self.store.read(Filter(tenant="t"), "runs")
        for host in hosts:
            host.cancel()
        return rows


async def none(key: RunKey) -> int:
    return 0


@pytest.mark.parametrize("seed", range(6))
def test_no_more_than_the_limit_whatever_dies_and_is_lost_and_all_come_to_an_end(seed: int) -> None:
    world = World(seed, loss=0.03 if seed % 2 else 0.0)
    rows = run_virtual(world.live(), seed)
    assert world.most == LIMIT
    assert world.deaths >= 2
    assert {(r.status, r.step) for r in rows} == {("COMPLETED", STEPS)}
