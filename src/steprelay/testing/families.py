"""Families under fire: runs that start runs, sweepers that are killed while they carry them, and a judge afterwards.

    python -m steprelay.testing.families --parents 200 --sweepers 4 --deaths 60 [--store sqlite|postgres] [--mutant twice]

Every parent starts three children, waits, starts two more, waits, and ends with the sum of what they answered. Sweeper
processes are killed with `kill -9` at random all the while, and lose receipts of what they have delivered. Exit code 0: every result was applied once, and what each parent
says was spent is what its children say they spent; 1: not so. The mutant takes out what makes a repeated message harmless:
the judge has to notice.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..app import App, open_store
from ..core import codec, machine
from ..core.errors import StoreUnavailable
from ..core.model import Filter, Limits, Outgoing, Reply, Run, RunKey, Usage
from ..core.noun import replace
from ..drivers.outbox import Outbox
from ..drivers.sweep import Sweep
from ..ports import Store, Waker
from .servers import PostgresServer

FORK = multiprocessing.get_context("fork")
WAVES = (3, 2)
"""How many children a parent starts before each of its waits."""
LIMITS = Limits(steps=100, tokens=100_000, repeats=None, attempts=100_000, releases=100_000)
LENT = {"steps": 4, "tokens": 5_000}
LEASE = 1.0
LOST = 0.3
"""Share of the receipts of delivered messages that are lost."""
PATIENCE = 60.0
"""Seconds without a single step of a parent after which it is given up as stuck."""


async def parent(turn: Any, ctx: Any) -> Any:
    """The sum of all its children's answers. Each wave is read from the inbox once: lost or doubled ones show in the sum."""
    state = turn.state or {"wave": 0, "sum": 0, "needs": []}
    got = {m.id: m.body["output"] for m in turn.inbox if m.kind == "child"}
    total = state["sum"] + sum(got[id] for id in state["needs"])
    wave = state["wave"]
    if wave == len(WAVES):
        return Reply(then="finish", output=total)
    needs = tuple(ctx.spawn(f"{wave}.{n}", turn.prompt + n, agent="child", limits=LENT) for n in range(WAVES[wave]))
    return Reply(then="wait", needs=needs, reason="child", state={"wave": wave + 1, "sum": total, "needs": list(needs)})


async def child(turn: Any, ctx: Any) -> Any:
    usage = Usage(requests=1, input_tokens=10 + turn.prompt % 7)
    return Reply(usage=usage) if turn.fresh else Reply(then="finish", output=turn.prompt, usage=usage)


class Nobody(Waker):
    """Wakes nobody: the sweepers find everything."""

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None: ...


def an_app(url: str) -> App:
    agents = {"parent": parent, "child": child}
    return App(agents, store=url, auth=False, observer=None, lease=LEASE, limits=LIMITS, waker=Nobody())


def sweeper(url: str, mutant: str | None) -> None:
    """A process that sweeps until it is killed."""
    if mutant == "twice":
        _doubled()

    async def main() -> None:
        app = an_app(url)
        app.store.ack = _forgetful(app.store)  # type: ignore[method-assign]
        await Sweep(app.engine, app.carry, app.outbox.deliver, at_once=6).every(0.1)

    asyncio.run(main())


def _forgetful(store: Store) -> Any:
    """`ack`, but some receipts are lost: the message goes out again."""
    ack = store.ack

    async def forgetful(*args: Any, **options: Any) -> None:
        if random.random() < LOST:
            raise StoreUnavailable("the receipt was lost")
        await ack(*args, **options)

    return forgetful


def _doubled() -> None:
    """A message has no id, and whoever reports is settled, known or not."""
    signalled, settled = Outbox._signal, machine._settled

    async def nameless(self: Outbox, target: RunKey, out: Outgoing, body: Any) -> None:
        await signalled(self, target, replace(out, request_id=uuid4().hex), body)

    def again(tally: Any, body: Any) -> Any:
        return settled(replace(tally, children={**tally.children, body["id"]: {}}), body)

    Outbox._signal, machine._settled = nameless, again  # type: ignore[method-assign]


# ---------------------------------------------------------------- the fire


async def play(url: str, options: argparse.Namespace) -> tuple[list[str], int]:
    """Start everything, kill until every parent has ended; answers what was wrong, and how many were killed."""
    store = open_store(url)
    await store.migrate()
    app = an_app(url)
    for n in range(options.parents):
        await app.start(n * 10, id=f"parent{n}", agent="parent", carrier="background")
    crew: list[Any] = []
    try:
        deaths = await _rage(store, url, options, crew)
        wrong = await judge(store, options.parents)
    finally:
        for process in crew:
            process.kill()
        await store.close()
        await app.store.close()
    return wrong, deaths


async def _rage(store: Store, url: str, options: argparse.Namespace, crew: list[Any]) -> int:
    chance, deaths, steps, moved = random.Random(options.seed), 0, 0, time.monotonic()
    whole = options.parents * (len(WAVES) + 1)
    while True:
        while len(crew) < options.sweepers:
            crew.append(FORK.Process(target=sweeper, args=(url, options.mutant), daemon=True))
            crew[-1].start()
        await asyncio.sleep(0.05)
        parents = await _runs(store, "parent")
        before, steps = steps, sum(r.step for r in parents)
        moved = time.monotonic() if steps > before else moved
        done = all(r.ended for r in parents) and await _delivered(store)
        if done or time.monotonic() - moved > PATIENCE:
            return deaths
        if deaths < options.deaths * steps / whole:
            victim = crew.pop(chance.randrange(len(crew)))
            victim.kill()
            victim.join()
            deaths += victim.exitcode == -signal.SIGKILL


async def _runs(store: Store, agent: str) -> list[Run]:
    """All runs of an agent, a page at a time."""
    found: list[Run] = []
    where = Filter(tenant="default", agent=agent)
    while page := await store.read(where, "runs", limit=100):
        found += page
        where = replace(where, before=(page[-1].created_at, page[-1].key.id))
    return found


async def _delivered(store: Store) -> bool:
    return not any(d.why == "outbox" for d in await store.due(["background"], 10))


# ---------------------------------------------------------------- the judge


async def judge(store: Store, parents: int) -> list[str]:
    """Everything that is not as it should be."""
    wrong = []
    by_parent: dict[str, list[Run]] = {}
    for run in await _runs(store, "child"):
        by_parent.setdefault(codec.loads(run.parent)["run"], []).append(run)
    for n in range(parents):
        key = RunKey("default", f"parent{n}")
        (run,) = await store.read(key, "run")
        wrong += [f"{key.id}: {words}" for words in await _judged(store, run, n, by_parent.get(key.id, []))]
    return wrong


async def _judged(store: Store, run: Run, n: int, children: list[Run]) -> list[str]:
    steps = await store.read(run.key, "steps")
    inbox = await store.read(run.key, "inbox")
    tally, spent = codec.tally(run.tally), [codec.tally(c.tally) for c in children]
    end = codec.loads(steps[-1].parts[-1]) if steps else {}
    expected = sum(n * 10 + i for wave in WAVES for i in range(wave))
    count = sum(WAVES)
    checks = {
        f"it is {run.status} ({run.stop_reason})": run.status == "COMPLETED",
        f"it has {len(children)} children": len(children) == count,
        f"children are {sorted({c.status for c in children})}": all(c.status == "COMPLETED" for c in children),
        f"its output is {end.get('output')}, not {expected}": end.get("output") == expected,
        f"it took {len(steps)} steps": len(steps) == len(WAVES) + 1,
        f"it heard {len(inbox)} messages": len(inbox) == count,
        f"it says {tally.total.tokens} tokens, they {sum(t.total.tokens for t in spent)}":
            tally.total == sum((t.total for t in spent), Usage()),
        f"it counts {tally.steps} steps": tally.steps == len(WAVES) + sum(t.steps for t in spent),
        f"still under way: {list(tally.children)}, unasked: {list(tally.heard)}": not tally.children and not tally.heard,
    }  # fmt: skip
    return [words for words, right in checks.items() if not right]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m steprelay.testing.families", description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--store", choices=("sqlite", "postgres"), default="postgres")
    for name, default in (("parents", 20), ("sweepers", 4), ("deaths", 20), ("seed", 0)):
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--mutant", choices=("twice",))
    return p


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    folder, server = Path(tempfile.mkdtemp(prefix="steprelay-families-")), None
    began = time.monotonic()
    try:
        if options.store == "postgres":
            server = PostgresServer().start()
        url = server.url() if server else f"sqlite:///{folder}/families.db"
        wrong, deaths = asyncio.run(play(url, options))
    finally:
        if server:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{options.parents} parents, {options.parents * sum(WAVES)} children, {deaths} of the sweepers killed, "
        f"{len(wrong)} wrong, {time.monotonic() - began:.1f} s"
    )
    for words in wrong[:20]:
        print(words)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
