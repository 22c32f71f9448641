"""One process of a storm: it takes steps, repeats itself, freezes, dies, and tells an outside file what it saw and did.

The file is opened with O_APPEND and every event is one short write, so it is whole and in order whoever is killed. It is the
only witness the judge believes beside the store's rows.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from .. import registry
from ..agents.function import FunctionAgent, FunctionContext
from ..core import codec
from ..core.errors import OutcomeUnknown, StoreUnavailable
from ..core.model import Claim, Claimed, Done, Reply, Request, RunKey, Signal, Turn
from ..core.noun import replace
from ..engine import Advanced, Engine

TENANT = "storm"
POISON = "poison"


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What a storm is made of; the same for all its processes."""

    store: str
    url: str
    outside: str
    runs: int
    steps: int
    poisons: int  # runs whose first step kills every host
    seed: int
    lease: float
    mutant: str | None
    death: float  # chance of kill -9 at each of three places of a step
    freeze: float  # chance, at each of two places, that a step's host stands still beyond its lease

    def every_run(self) -> list[RunKey]:
        names = [f"r{i}" for i in range(self.runs)] + [f"{POISON}{i}" for i in range(self.poisons)]
        return [RunKey(TENANT, name) for name in names]

    def open(self) -> Any:
        return registry.load("stores", "postgres" if self.store == "pgbouncer" else self.store)(self.url)


class Outside:
    """The append-only file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, *event: Any) -> None:
        os.write(self._file, (json.dumps(event) + "\n").encode())


class Witnessed:
    """A store whose granted claims are noted; with a mutant's name, one of its guards is gone."""

    def __init__(self, store: Any, outside: Outside, mutant: str | None) -> None:
        self._store, self._outside, self._mutant = store, outside, mutant

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def claim(self, key: RunKey, **options: Any) -> Any:
        if self._mutant == "replay":
            options["request"] = None
        answer = await self._store.claim(key, **options)
        if isinstance(answer, Claimed):
            self._outside.note("claim", key.id, answer.claim.index, answer.claim.fence, answer.claim.claim_id)
            if self._mutant == "attempts":
                return replace(answer, run=replace(answer.run, attempts=1))
        return answer

    async def commit(self, claim: Claim, commit: Any, **options: Any) -> Any:
        if self._mutant in ("fence", "cas"):
            claim, commit = await self._unguarded(claim, commit)
        return await self._store.commit(claim, commit, **options)

    async def progress(self, claim: Claim, **options: Any) -> Any:
        if self._mutant == "ledger":
            entries = options.get("ledger") or {}
            options["ledger"] = {k: v for k, v in entries.items() if "started" not in codec.loads(v)}
        return await self._store.progress(claim, **options)

    async def _unguarded(self, claim: Claim, commit: Any) -> tuple[Claim, Any]:
        """The claim as it has to look to pass: whoever holds the run (fence), at whatever step it is (cas)."""
        (run,) = await self._store.read(claim.key, "run")
        if run.claim_id is None or (self._mutant == "fence" and run.step != claim.index):
            return claim, commit
        step = commit.step and replace(commit.step, index=run.step)
        return replace(claim, index=run.step, fence=run.fence, claim_id=run.claim_id), replace(commit, step=step)


class Worker:
    """Takes steps of random runs until all have ended."""

    def __init__(self, weather: Weather, number: int) -> None:
        self.weather = weather
        self.chance = random.Random(f"{weather.seed}/{number}")
        self.outside = Outside(weather.outside)
        store = Witnessed(weather.open(), self.outside, weather.mutant)
        agents = {"storm": FunctionAgent(self.agent)}
        self.engine = Engine(store, agents, lambda _: FunctionAgent.view, lease=weather.lease)
        self.steps: dict[RunKey, int] = {}
        self.told: list[tuple[RunKey, str, int, str]] = []  # answered requests

    # ------------------------------------------------------------ the agent

    async def agent(self, turn: Turn, ctx: FunctionContext) -> Reply:
        run, n = turn.key.id, turn.step
        if run.startswith(POISON):
            self.outside.note("poison", run, n)
            os.kill(os.getpid(), signal.SIGKILL)
        self._may_die()
        self._may_freeze(run, n)

        def pay() -> int:
            self._may_die()
            self.outside.note("tool", run, n)
            self._may_die()
            return n

        try:
            paid = await ctx.call("pay", pay, effect="once")
        except OutcomeUnknown:
            self.outside.note("unknown", run, n)
            paid = None
        await ctx.call("look", lambda: f"{run}/{n}", effect="read")
        said = {"role": "assistant", "content": f"step {n}", "n": n, "paid": paid, "before": chained(turn.messages)}
        self._may_freeze(run, n)
        last = n + 1 >= self.weather.steps
        return Reply(then="finish" if last else "continue", messages=(said,), output=n if last else None)

    def _may_die(self) -> None:
        if self.chance.random() < self.weather.death:
            os.kill(os.getpid(), signal.SIGKILL)

    def _may_freeze(self, run: str, n: int) -> None:
        """A process that stands still: no sign of life is sent, and it goes on as if nothing had happened."""
        if self.chance.random() < self.weather.freeze:
            self.outside.note("freeze", run, n)
            time.sleep(self.weather.lease * 1.5)

    # ------------------------------------------------------------ the driver

    async def work(self) -> None:
        alive = self.weather.every_run()
        while alive:
            key = self.chance.choice(alive)
            try:
                if await self._act(key):
                    alive.remove(key)
            except StoreUnavailable:
                await asyncio.sleep(0.05)
            except Exception as e:
                self.outside.note("error", key.id, f"{type(e).__name__}: {e}"[:500])
        await self.engine.store.close()

    async def _act(self, key: RunKey) -> bool:
        """Do one thing to a run; answers whether it has ended."""
        dice = self.chance.random()
        if dice < 0.06 and self.told:
            await self._repeat()
            return False
        if dice < 0.10:
            await self._signal(key)
            return False
        index = self.steps.get(key, 0)
        if dice < 0.25:  # as many steps as fit, under one claim and with a request id of their own
            pack = Request(id=f"pack-{self.chance.getrandbits(64):x}", hash="h")
            advanced = await self._advance(key, pack, None, more=lambda _: self.chance.random() < 0.7)
        elif dice < 0.35:  # the same request twice at once
            twins = [self._advance(key, Request(id=str(index), hash="h"), index) for _ in range(2)]
            advanced = (await asyncio.gather(*twins))[0]
        else:
            advanced = await self._advance(key, Request(id=str(index), hash="h"), index)
        if not advanced.taken:
            await asyncio.sleep(0.005)  # somebody else has it
        return isinstance(advanced.outcome, Done)

    async def _advance(
        self, key: RunKey, request: Request, expect: int | None, more: Callable[[float], bool] | None = None
    ) -> Advanced:  # fmt: skip
        advanced = await self.engine.advance(key, carrier="storm", expect=expect, request=request, more=more)
        if advanced.run is not None:
            self.steps[key] = advanced.run.step
        for step in advanced.taken:
            name = step.request.id if step.request else None
            self.outside.note("answer", key.id, step.index, step.claim_id, name)
            if name:
                self.told.append((key, name, step.index, step.claim_id))
        if advanced.refused == "replay" and advanced.step:
            self.outside.note("replay", key.id, advanced.step.index, advanced.step.claim_id, request.id)
        return advanced

    async def _repeat(self) -> None:
        """A request that was answered comes again: with another body it is refused, else it gets the same answer."""
        key, name, index, claim_id = self.chance.choice(self.told)
        other = self.chance.random() < 0.2
        advanced = await self.engine.advance(key, carrier="storm", request=Request(id=name, hash="other" if other else "h"))
        step = advanced.step
        same = step is not None and (step.index, step.claim_id) == (index, claim_id)
        right = advanced.refused == ("conflict" if other else "replay") and same
        self.outside.note("repeat" if right else "wrong", key.id, index, name, advanced.refused, step and step.index)

    async def _signal(self, key: RunKey) -> None:
        name = f"s{self.chance.getrandbits(64):x}"
        signal = Signal(kind="event", body=codec.dumps({"id": name}), request_id=name)
        if await self.engine.store.signal(key, signal) is not None:
            self.outside.note("signal", key.id, name)


def chained(messages: tuple[Any, ...]) -> str:
    """A hash over all that was said before: a step that saw another history cannot have it."""
    return sha256("\n".join(codec.dumps(m) for m in messages).encode()).hexdigest()[:16]


def main(weather: Weather, number: int) -> None:
    asyncio.run(Worker(weather, number).work())
