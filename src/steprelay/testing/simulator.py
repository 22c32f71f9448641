"""The seeded simulator: the real engine over the memory store, with everything around it going wrong.

    python -m steprelay.testing.simulator --histories 2000 --seed 0 [--mutant fence|cas|ledger|attempts|replay]

One seed is one history: drivers of three kinds take the steps of two runs on hosts that are killed at any await, freeze
beyond their lease, are cut off and shut down, over a network that loses requests and answers; people cancel, answer,
prompt, resume and hand over. Then it calms down, and what the store holds is judged. The same seed is the same history,
to the letter. A mutant breaks one guard on purpose; the simulator has to notice.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from ..agents.function import FunctionContext
from ..core import codec
from ..core.errors import AgentError, StoreUnavailable, ToolError, Transient
from ..core.model import Effect, Interrupt, Limits, New, Reply, Request, RunKey, Signal, Turn, Usage
from .fakes import run_virtual
from .sim_checks import judge
from .sim_mutants import MUTANTS
from .sim_world import GRANTED, LEASE, Gone, Host, Violation, Wire, World, again_after

LIMITS = Limits(steps=8, attempts=5, releases=200, expires=60.0)
STORM = 45.0
"""Virtual seconds of trouble, before the calm."""
PATIENCE = 2_500.0
"""Virtual seconds after which a run that has not come to its end never will."""


@dataclass(frozen=True)
class History:
    """What came of one seed."""

    digest: str
    counted: Counter[str]


# ---------------------------------------------------------------- the agent


async def agent(host: Host, turn: Turn, ctx: FunctionContext) -> Reply:
    """Decides by chance, but the same at every attempt of a step; what goes wrong is drawn anew for each attempt."""
    world = host.world
    await host.live()
    _allowed(world, turn)
    decide = random.Random(f"{world.seed}/{turn.key.id}/{turn.step}")
    await _think(host, world.chance.expovariate(0.7))
    poison = decide.random() < 0.03
    if not poison:  # a 429 would let it begin to count anew
        _stumble(host, decide.random() < 0.04)
    for n in range(decide.choice((0, 1, 1, 2))):
        effect: Effect = decide.choice(("once", "once", "read", "idempotent", "needs_approval"))
        try:
            await ctx.call(f"t{n}", partial(_tool, host, turn, f"{turn.base}/t{n}", effect, poison), effect=effect)
        except ToolError:
            world.counted["told unknown or denied"] += 1
    usage = Usage(requests=1, input_tokens=10, output_tokens=5)
    kind = decide.choices(("continue", "keep", "wait", "event", "ask", "finish", "fail"), (50, 12, 10, 3, 8, 15, 2))[0]
    match kind:
        case "keep":
            return Reply(keep_ledger=True, usage=usage)
        case "wait":
            return Reply(then="wait", after=decide.random() * 20, usage=usage)
        case "event":
            return Reply(then="wait", after=30.0, needs=(f"ev{turn.step}",), reason="event", usage=usage)
        case "ask":
            return Reply(then="ask", interrupts=(Interrupt(id=f"q{turn.step}", kind="question"),), usage=usage)
        case "finish":
            return Reply(then="finish", output=turn.step, usage=usage)
        case "fail":
            return Reply(then="fail", error="no way", usage=usage)
        case _:
            return Reply(usage=usage)


def _allowed(world: World, turn: Turn) -> None:
    """Nothing runs after a cancel that was heard before the claim, unless something later reopened the run."""
    world.counted["agent steps"] += 1
    stopped = False
    for heard in world.heard.get(turn.key, []):
        if heard.seq < GRANTED.get():
            stopped = heard.kind == "cancel" or (stopped and not heard.reopens)
    if stopped:
        raise Violation(f"{turn.key} took step {turn.step} after it was cancelled")


def _stumble(host: Host, flaky: bool) -> None:
    chance = host.world.chance.random()
    if chance < 0.04 or (flaky and chance < 0.5):
        raise Transient("429", after=chance * 20)
    if chance < 0.07:
        raise AgentError("a bad day", final=chance < 0.045)


async def _think(host: Host, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await host.live()


async def _tool(host: Host, turn: Turn, name: str, effect: str, poison: bool) -> str:
    """Has its effect on the world somewhere in the middle."""
    world = host.world
    await _think(host, world.chance.random())
    if poison:
        world.deaths[turn.key, turn.step] += 1
        host.kill()
    await host.live()
    if effect in ("once", "needs_approval"):
        world.ran[turn.key, name] += 1
    world.note("effect", turn.key, name)
    await _think(host, world.chance.random() * 3)
    return name


# ---------------------------------------------------------------- who drives


async def client(world: World, key: RunKey, *, expects: bool) -> None:
    """A tab: asks for one step after another, and repeats a request until it is answered."""
    expect, number = 0, 0
    while not world.end.done():
        number += 1
        request = Request(id=f"{key.id}.{number}", hash="h")
        answer = None
        fit = world.chance.random() < 0.2
        while answer is None:
            host = world.host()
            answer = await host.ask(
                host.loop.pulse(key, carrier="client", expect=expect if expects else None, request=request, fit=fit)
            )
            await asyncio.sleep(world.chance.random())
        world.told(key, answer, request)
        if answer.run is not None:
            expect = (answer.step.index + 1) if answer.replayed and answer.step else answer.run.step
        if world.chance.random() < 0.1:  # the answer got lost between here and the tab
            host = world.host()
            repeated = await host.ask(host.loop.pulse(key, carrier="client", request=request))
            if repeated is not None:
                world.told(key, repeated, request)
                expect = repeated.run.step if repeated.run else expect
        await asyncio.sleep(again_after(answer))


class Relay:
    """Wakes the successor of a background function, or does not."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        if self._world.chance.random() < 0.8:
            self._world.spawn(carry(self._world, key, carrier, after))


async def carry(world: World, key: RunKey, carrier: str, after: float = 0.0) -> None:
    """A background function, for as long as its host lets it."""
    await asyncio.sleep(after)
    host = world.host()
    wall = 20 + world.chance.random() * 60
    answer = await host.ask(host.loop.carry(key, carrier=carrier, wall=wall, waker=Relay(world)), patience=wall)
    if answer is not None:
        world.told(key, answer)


async def sweeper(world: World) -> None:
    """Cron: whatever is due and lies about gets a driver."""
    while not world.end.done():
        await asyncio.sleep(7.0)
        try:
            due = await Wire(world).due(["background"], 10)
        except StoreUnavailable:
            continue
        for hint in due:
            if hint.why == "step":
                world.spawn(carry(world, hint.key, "background"))


# ---------------------------------------------------------------- who interferes


async def chaos(world: World) -> None:
    """Hosts die, freeze, lose the network, are shut down; each gets a successor."""
    while world.faults:
        await asyncio.sleep(world.chance.expovariate(1 / 3))
        host, what = world.host(), world.chance.random()
        if what < 0.45:
            host.kill()
        elif what < 0.7:
            host.frozen_until = world.loop.time() + world.chance.random() * 40
        elif what < 0.85:
            host.cut_off = world.loop.time() + world.chance.random() * 20
        else:
            for task in list(host.tasks):
                task.cancel()


async def send(world: World, key: RunKey, signal: Signal) -> None:
    """A person insists."""
    while not world.end.done():
        try:
            await Wire(world).signal(key, signal)
            return
        except StoreUnavailable:
            await asyncio.sleep(0.5)


async def person(world: World, key: RunKey, *, restless: bool) -> None:
    """Answers questions sooner or later; a restless one also cancels, prompts, resumes and hands over."""
    number = 0
    while not world.end.done():
        await asyncio.sleep(2 + world.chance.expovariate(1 / 6))
        number += 1
        run = (await world.store.read(key, "run"))[0]
        wait = codec.wait(run.wait)
        for need in wait.needs if wait and not run.ended else ():
            body = {"id": need, "status": "resolved", "payload": world.chance.random() < 0.8}
            kind: Any = "event" if need.startswith("ev") else "answer"
            await send(world, key, Signal(kind=kind, body=codec.dumps(body), request_id=f"answer:{need}"))
        if restless and world.faults:
            await send(world, key, _whim(world, f"{key.id}:{number}"))


def _whim(world: World, name: str) -> Signal:
    match world.chance.choices(("cancel", "prompt", "resume", "background", "client"), (10, 30, 20, 20, 20))[0]:
        case "cancel":
            return Signal(kind="cancel", request_id=name)
        case "prompt":
            return Signal(kind="prompt", body='"more"', request_id=name, reopens=True)
        case "resume":
            return Signal(kind="resume", body='{"limits":{"steps":9}}', request_id=name, reopens=True)
        case carrier:
            return Signal(kind="carry", carrier=carrier, takeover_after=LEASE, request_id=name)


# ---------------------------------------------------------------- one history


async def history(seed: int, mutant: str | None) -> History:
    """Live one history and judge it. Raises Violation."""
    world = World(seed, MUTANTS[mutant]())
    world.loop.set_exception_handler(lambda loop, context: None)  # what dead hosts leave behind is heard by nobody
    for _ in range(3):
        world.start(agent)
    keys = [RunKey("sim", "r0"), RunKey("sim", "r1")]
    actors = [chaos(world), sweeper(world)]
    for i, key in enumerate(keys):
        carrier = "background" if i else "client"
        new = New(
            agent="a", adapter="function", prompt='"go"', carrier=carrier, limits=codec.pack(LIMITS),
            takeover_after=LEASE if i else None,
        )  # fmt: skip
        await world.store.claim(key, claim_id="", holder="", lease=0, carrier=None, new=new, now=world.loop.time())
        actors += [
            client(world, key, expects=world.chance.random() < 0.5),
            person(world, key, restless=world.chance.random() < 0.7),
        ]
    actors.append(carry(world, keys[1], "background"))
    tasks = [world.spawn(a) for a in actors]
    try:
        await _watch(world, tasks, world.loop.time() + STORM)
        world.faults = 0.0
        for host in world.hosts:
            host.frozen_until = host.cut_off = 0.0
        until = world.loop.time() + PATIENCE
        while not all([(await world.store.read(k, "run"))[0].ended for k in keys]):
            if world.loop.time() > until:
                raise Violation(f"no end in sight: {[(await world.store.read(k, 'run'))[0] for k in keys]}")
            await _watch(world, tasks, world.loop.time() + 10)
        shown = [await judge(world, key, LIMITS) for key in keys]
    finally:
        await _bury(world)
    return History(sha256("\n".join((*world.log, *shown)).encode()).hexdigest(), world.counted)


async def _watch(world: World, tasks: list[asyncio.Task[Any]], until: float) -> None:
    """Let time pass; whatever an actor noticed is raised here."""
    while (rest := until - world.loop.time()) > 0:
        await asyncio.wait(world.tasks, timeout=min(rest, 5.0), return_when=asyncio.FIRST_EXCEPTION)
        for task in [t for t in world.tasks if t.done()]:
            world.tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Violation):
                raise error
            if error is not None and not isinstance(error, Gone | StoreUnavailable):
                raise Violation(f"{type(error).__name__}: {error}") from error


async def _bury(world: World) -> None:
    """End everything that is left, without a trace."""
    world.close()
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
    world.faults = 0.0
    for _ in range(200):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            break
        await asyncio.wait(left, timeout=1.0)
        for task in left:
            if task.done() and not task.cancelled():
                task.exception()


def simulate(seed: int, mutant: str | None = None) -> History:
    """One history. Raises Violation, with what was broken."""
    return run_virtual(history(seed, mutant), seed)


# ---------------------------------------------------------------- many histories


def storm(histories: int, seed: int = 0, mutant: str | None = None, say: Any = None) -> tuple[int | None, Counter[str], str]:
    """Seeds from `seed` on, until one is broken: its number (None: all clean), what was counted, and the violation."""
    counted: Counter[str] = Counter()
    for n in range(histories):
        try:
            counted += simulate(seed + n, mutant).counted
        except Violation as e:
            return seed + n, counted, str(e)
        if say is not None and (n + 1) % 100 == 0:
            say(n + 1)
    return None, counted, ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m steprelay.testing.simulator", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutant", choices=[m for m in MUTANTS if m])
    args = parser.parse_args(argv)
    began = time.monotonic()

    def say(done: int) -> None:
        print(f"{done} histories, {done / (time.monotonic() - began):.0f}/s", file=sys.stderr, flush=True)

    broken, counted, why = storm(args.histories, args.seed, args.mutant, say)
    for name, value in sorted(counted.items()):
        print(f"{name:>24} {value}")
    if broken is None:
        print(f"{args.histories} histories, no violation, {args.histories / (time.monotonic() - began):.0f}/s")
        return 0
    print(f"VIOLATION at seed {broken}: {why}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
