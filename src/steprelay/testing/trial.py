"""Your own agent in bad weather, in this process and without waiting: what the pytest fixture `relay` runs.

Each request is taken by a host of its own over a memory store. Hosts are killed at any await and around every call of the
store, answers of the store are lost, requests come twice. When nobody is alive, time jumps to where something is due: a dead
host's lease, a backoff and an agent's timer cost nothing. Then the run is judged: see `Trial`.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, cast
from uuid import uuid4

from ..app import adapt
from ..core import codec
from ..core.errors import StoreUnavailable, Transient
from ..core.machine import TERMINAL, interrupts_of
from ..core.model import Again, Busy, Done, End, Interrupt, Limits, New, Request, Run, RunKey, Signal, Step, Turn, Value
from ..core.noun import replace
from ..engine import Advanced, Engine
from ..ports import Agent, Context, Store
from ..stores.memory import MemoryStore

KEY = RunKey("trial", "run")
KILL, LOSE, TWICE = 0.04, 0.04, 0.2
"""Chances: of a death at each side of a store's verb, of a lost message each way, of a second delivery of a request."""
ATTEMPTS = 50
"""What one step may be tried: deaths are the weather's, not the agent's."""
REQUESTS = 2_000
"""After so many a run that has not come to its end never will."""
Answer = Callable[[Interrupt], Value]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one seed. It was checked: the run has ended, its steps are there without a gap, no `once` tool ran twice,
    and no step wrote more than it was allowed to."""

    seed: int
    run: Run
    steps: tuple[Step, ...]
    output: Value
    deaths: int
    lost: int
    repeated: int
    effects: Counter[str]
    """Executions of `once` and `needs_approval` tools, by step and call."""


def approve(interrupt: Interrupt) -> Value:
    """A person who says yes."""
    return {"approved": True} if interrupt.kind == "approval" else "yes"


def relay(
    agent: Any, prompt: Value = "go", *, seeds: int = 5, first: int = 0, limits: Limits | None = None, answer: Answer = approve,
    step_bytes: int = 262_144,
) -> list[Trial]:  # fmt: skip
    """Run an agent (anything `App` takes) once for each seed from `first` on; answers what came of each.

    `answer(interrupt)` is the person; `step_bytes` what one step may write into the store. Raises AssertionError that names
    the seed when a promise was broken.
    """
    with ThreadPoolExecutor(1) as elsewhere:  # a test of its own event loop may call this as well
        return [
            elsewhere.submit(asyncio.run, _Weather(agent, prompt, seed, limits, answer).play(step_bytes)).result()
            for seed in range(first, first + seeds)
        ]


class _Weather:
    """One history."""

    def __init__(self, agent: Any, prompt: Value, seed: int, limits: Limits | None, answer: Answer) -> None:
        self.chance, self.seed, self.answer = random.Random(seed), seed, answer
        self.store, self.ahead = MemoryStore(), 0.0
        self.effects: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        self.usual = 0.01
        adapter, adapted = adapt("agent", agent)
        self.agent = _Counted(adapted, self.effects)
        rules = replace(limits or Limits(), attempts=ATTEMPTS, releases=REQUESTS)
        self.new = New(
            agent="agent", adapter=adapter, prompt=codec.dumps(prompt), limits=codec.pack(rules), carrier="any"
        )  # fmt: skip

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead

    async def play(self, step_bytes: int) -> Trial:
        numbers = count()
        for _ in range(REQUESTS):
            advanced = await self._answered(Request(id=str(next(numbers)), hash="h"))
            match advanced.outcome:
                case Done():
                    return await self._judge(step_bytes)
                case Again(after=after):
                    self.ahead += after
                case Busy(until=until):  # nobody is alive here: what holds the run is dead
                    self.ahead += max(0.0, (until or 0.0) - self.now()) + 0.001
                case _:
                    await self._person(advanced)
        raise AssertionError(f"seed {self.seed}: no end after {REQUESTS} requests: {await self.store.read(KEY, 'run')}")

    async def _answered(self, request: Request) -> Advanced:
        """One request, repeated until it is answered."""
        while True:
            twice = self.chance.random() < TWICE
            self.counted["repeated"] += twice
            answers = await asyncio.gather(*(self._ask(request) for _ in range(1 + twice)))
            best = max((a for a in answers if a), key=lambda a: len(a.taken) + a.replayed, default=None)
            if best is not None:
                return best
            run = next(iter(await self.store.read(KEY, "run")), None)
            self.ahead += max(0.0, run.lease_until - self.now()) + 0.001 if run else 0.0

    async def _ask(self, request: Request) -> Advanced | None:
        """A host from its birth to its death; None when it did not answer."""
        loop, host = asyncio.get_running_loop(), _Host(self)
        engine = Engine(cast(Store, host), {"agent": cast(Agent, self.agent)}, lambda _: self.agent.view, ids=lambda: uuid4().hex)
        began = loop.time()
        host.task = task = asyncio.create_task(engine.advance(KEY, carrier="any", request=request, new=self.new))
        end = loop.call_later(self.chance.random() * self.usual, host.kill) if self.chance.random() < 2 * KILL else None
        await asyncio.wait({task})
        if end is not None:
            end.cancel()
        self.usual += 0.2 * (loop.time() - began - self.usual)
        if task.cancelled() or host.dead or isinstance(task.exception(), StoreUnavailable):
            return None
        return task.result()

    async def _person(self, advanced: Advanced) -> None:
        """Give a waiting run what it needs; a run that needs something else than a person gets its time."""
        assert advanced.run is not None
        wait = codec.wait(advanced.run.wait)
        asked = {i.id: i for i in interrupts_of([advanced.step] if advanced.step else [])}
        missing = [n for n in (wait.needs if wait else asked) if wait is None or n not in wait.got]
        for need in missing:
            if need not in asked:
                raise AssertionError(f"seed {self.seed}: the run waits for {need!r}, which is no question to a person")
            body = codec.dumps({"id": need, "status": "resolved", "payload": self.answer(asked[need])})
            await self.store.signal(KEY, Signal(kind="answer", body=body, request_id=f"answer:{need}"), now=self.now())

    async def _judge(self, step_bytes: int) -> Trial:
        (run,), steps = await self.store.read(KEY, "run"), await self.store.read(KEY, "steps", limit=100_000)
        _must(run.ended and run.status in TERMINAL, self.seed, f"the run has not ended: {run.status}")
        _must([s.index for s in steps] == list(range(run.step)), self.seed, f"steps are missing: {[s.index for s in steps]}")
        doubled = [name for name, times in self.effects.items() if times > 1]
        _must(not doubled, self.seed, f"once-only calls ran more than once: {doubled}")
        for step in steps:
            size = sum(map(len, (*step.messages, *step.parts, step.state or "")))
            _must(size <= step_bytes, self.seed, f"step {step.index} wrote {size} bytes, {step_bytes} are allowed")
        end = next((p for p in codec.parts_from(steps[-1].parts) if isinstance(p, End)), None)
        c = self.counted
        return Trial(
            seed=self.seed, run=run, steps=tuple(steps), output=end.output if end else None, deaths=c["deaths"], lost=c["lost"],
            repeated=c["repeated"], effects=self.effects,
        )  # fmt: skip


def _must(holds: bool, seed: int, what: str) -> None:
    if not holds:
        raise AssertionError(f"seed {seed}: {what}")


class _Host:
    """The store as one host reaches it, until it is dead."""

    def __init__(self, weather: _Weather) -> None:
        self._weather, self.dead = weather, False
        self.task: asyncio.Task[Advanced] | None = None

    def kill(self) -> None:
        """What can be done in one process: everything under way is cancelled, and the store hears nothing more."""
        if not self.dead and self.task is not None and not self.task.done():
            self.dead = True
            self._weather.counted["deaths"] += 1
            self.task.cancel()

    def __getattr__(self, verb: str) -> Any:
        return partial(self._call, verb)

    async def _call(self, verb: str, *args: Any, **options: Any) -> Any:
        self._message(verb)
        if verb != "read":
            options["now"] = self._weather.now()
        answer = await getattr(self._weather.store, verb)(*args, **options)
        self._message(verb)
        return answer

    def _message(self, verb: str) -> None:
        chance = self._weather.chance.random()
        if chance < KILL:
            self.kill()
        if self.dead:
            raise asyncio.CancelledError
        if chance < KILL + LOSE:
            self._weather.counted["lost"] += 1
            raise StoreUnavailable(f"{verb}: lost on the way")


class _Counted:
    """An agent whose once-only tools are counted, outside of the ledger that guards them."""

    def __init__(self, agent: Agent, effects: Counter[str]) -> None:
        self._agent, self._effects = agent, effects
        self.granularity, self.view, self.seed = agent.granularity, agent.view, agent.seed

    async def step(self, turn: Turn, ctx: Context) -> Any:
        return await self._agent.step(turn, cast(Context, _CountedContext(ctx, turn, self._effects)))


class _CountedContext:
    def __init__(self, ctx: Context, turn: Turn, effects: Counter[str]) -> None:
        self._ctx, self._turn, self._effects = ctx, turn, effects

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    async def call(self, key: str, fn: Callable[[], Any], *, effect: Any = "once", **options: Any) -> Value:
        counted = self._counting(f"{self._turn.base}/{key}", fn) if effect in ("once", "needs_approval") else fn
        return await self._ctx.call(key, counted, effect=effect, **options)

    def _counting(self, name: str, fn: Callable[[], Any]) -> Callable[[], Any]:
        """The same function, in a thread or on the loop as it was; what says that it did not happen is not counted."""

        def plain() -> Any:
            self._effects[name] += 1
            try:
                return fn()
            except Transient:
                self._effects[name] -= 1
                raise

        async def awaited() -> Any:
            self._effects[name] += 1
            try:
                return await fn()
            except Transient:
                self._effects[name] -= 1
                raise

        inner: Any = fn
        while isinstance(inner, partial):
            inner = inner.func
        return awaited if inspect.iscoroutinefunction(inner) else plain
