"""The simulated outside: hosts that die and freeze, a network that loses, tools that are counted, and what was seen.

A killed host runs no cleanup: every store call and every tool of it hangs for good, as after `kill -9`. What it had sent
already may still arrive.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, cast

from ..agents.function import FunctionAgent
from ..core.errors import StoreUnavailable
from ..core.model import Again, Claimed, Committed, Done, Request, RunKey, Signal, Step
from ..drivers.loop import Loop
from ..engine import Advanced, Engine
from ..ports import Store
from ..stores.memory import MemoryStore

LEASE = 15.0
GRANTED: ContextVar[int] = ContextVar("granted")
"""When, in the order of the store, the claim of the step under way was granted."""


class Violation(AssertionError):
    """A promise was broken."""


class Gone(Exception):
    """Raised in what a dead host left behind, when the history is over."""


@dataclass
class Heard:
    """A signal or cancel as the store took it."""

    seq: int
    kind: str
    reopens: bool


@dataclass
class World:
    """One history."""

    seed: int
    store: MemoryStore
    chance: random.Random = field(init=False)
    faults: float = 0.04  # share of messages lost, each way
    hosts: list[Host] = field(default_factory=list)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    order: count[int] = field(default_factory=count)
    heard: dict[RunKey, list[Heard]] = field(default_factory=dict)
    ran: Counter[tuple[RunKey, str]] = field(default_factory=Counter)  # executions of `once` tools, counted outside
    deaths: Counter[tuple[RunKey, int]] = field(default_factory=Counter)  # of hosts, by a poisonous step
    acks: dict[tuple[RunKey, int], Step] = field(default_factory=dict)
    answers: dict[tuple[RunKey, str], Step] = field(default_factory=dict)  # request id -> what it was told
    counted: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.loop = asyncio.get_running_loop()
        self.end: asyncio.Future[None] = self.loop.create_future()

    def note(self, *what: object) -> None:
        self.log.append(f"{self.loop.time():.4f} {' '.join(map(str, what))}")

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        return task

    async def hang(self) -> None:
        await asyncio.shield(self.end)
        raise Gone

    def host(self) -> Host:
        """One that takes requests."""
        return self.chance.choice(self.hosts)

    def start(self, agent: Any, in_place_of: Host | None = None) -> None:
        """A new process."""
        self.counted["hosts"] += 1
        if in_place_of is not None:
            self.hosts.remove(in_place_of)
        self.hosts.append(Host(self, f"h{self.counted['hosts']}", agent))

    def told(self, key: RunKey, advanced: Advanced, request: Request | None = None) -> None:
        """A driver got an answer: from now on what it says is a promise."""
        for step in advanced.taken:
            self.acks.setdefault((key, step.index), step)
        if advanced.replayed and request is not None and advanced.step is not None:
            self.counted["replays"] += 1
            before = self.answers.get((key, request.id))
            if before is not None and before != advanced.step:
                raise Violation(
                    f"request {request.id} was answered with step {before.index}, its replay with {advanced.step.index}"
                )
        if request is not None and advanced.step is not None and (advanced.replayed or advanced.taken):
            self.answers.setdefault((key, request.id), advanced.step)

    def close(self) -> None:
        if not self.end.done():
            self.end.set_result(None)


class Wire:
    """The store as one host reaches it. Every verb takes time; requests and answers get lost."""

    def __init__(self, world: World, host: Host | None = None) -> None:
        self._world, self._host = world, host

    def __getattr__(self, verb: str) -> Any:
        return partial(self._call, verb)

    async def _call(self, verb: str, *args: Any, **options: Any) -> Any:
        world, host = self._world, self._host
        await self._travel(sent=0.5)
        if world.chance.random() < world.faults or (host is not None and host.cut_off > world.loop.time()):
            raise StoreUnavailable(f"{verb}: the request was lost")
        answer = await self._apply(verb, args, options)
        await self._travel()
        if world.chance.random() < world.faults:
            world.counted["lost answers"] += 1
            raise StoreUnavailable(f"{verb}: the answer was lost")
        return answer

    async def _travel(self, sent: float = 0.0) -> None:
        """`sent`: how likely it is that a message of a host which dies meanwhile arrives all the same."""
        if self._host is not None:
            await self._host.live()
        await asyncio.sleep(self._world.chance.random() * 0.05)
        if self._host is not None and not (self._host.dead and self._world.chance.random() < sent):
            await self._host.live()

    async def _apply(self, verb: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The verb itself: nothing else runs meanwhile."""
        world = self._world
        if verb != "read":
            options["now"] = world.loop.time()
        holder = (await world.store.read(args[0].key, "run"))[0].claim_id if verb in ("commit", "progress") else None
        answer = await getattr(world.store, verb)(*args, **options)
        seq = next(world.order)
        if verb == "signal" and answer is not None and answer.first:
            signal: Signal = args[1]
            world.heard.setdefault(args[0], []).append(Heard(seq, signal.kind, signal.reopens))
        if type(answer).__name__ in ("Committed", "Alive") and holder != args[0].claim_id:
            raise Violation(f"a zombie's {verb} of {args[0].key} was taken")
        if isinstance(answer, Claimed) or (isinstance(answer, Committed) and options.get("renew")):
            GRANTED.set(seq)
        world.note(verb, args[0] if args else "", type(answer).__name__, getattr(answer, "reason", ""))
        return answer


class Host:
    """One process: an engine, a loop, and a life."""

    def __init__(self, world: World, name: str, agent: Any) -> None:
        self.world, self.name, self.agent = world, name, agent
        self.dead, self.frozen_until, self.cut_off = False, 0.0, 0.0
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in order: a set has none that could be repeated
        self.gone: asyncio.Future[Any] = world.loop.create_future()
        self.store = cast(Store, Wire(world, self))
        numbers = count()
        self.engine = Engine(
            self.store,
            {"a": FunctionAgent(partial(agent, self))},
            lambda _: FunctionAgent.view,
            lease=LEASE,
            ids=lambda: f"{name}.{next(numbers)}",
        )
        self.loop = Loop(self.engine, holder=name)

    async def live(self) -> None:
        """Go on, when this process is thawed; never, when it is dead."""
        while not self.dead:
            rest = self.frozen_until - self.world.loop.time()
            if rest <= 0:
                return
            await asyncio.sleep(rest)
        await self.world.hang()

    def kill(self) -> None:
        """kill -9. The platform starts another one."""
        if not self.dead:
            self.dead = True
            self.gone.set_result(None)
            self.world.counted["deaths"] += 1
            self.world.note("kill", self.name)
            self.world.start(self.agent, in_place_of=self)

    async def ask(self, work: Coroutine[Any, Any, Advanced], patience: float = 90.0) -> Advanced | None:
        """What this host answers to a request; None when no answer comes."""
        task: asyncio.Task[Advanced] = self.world.spawn(work)
        self.tasks[task] = None
        try:
            both: set[asyncio.Future[Any]] = {task, self.gone}
            await asyncio.wait(both, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if self.dead or not task.done() or task.cancelled():
                return None
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, StoreUnavailable | Gone):
                raise Violation(f"advance raised {type(error).__name__}: {error}") from error
            return None
        finally:
            self.tasks.pop(task, None)


def again_after(advanced: Advanced) -> float:
    """How long a client waits before it asks again."""
    match advanced.outcome:
        case Again(after=after):
            return min(5.0, after)
        case Done():
            return 15.0
        case _:
            return 4.0
