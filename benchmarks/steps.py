"""What a step costs in a store: time, round trips, log bytes; and what history and other runs add to it."""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any
from uuid import uuid4

from steprelay.agents.function import FunctionAgent
from steprelay.core.model import Claimed, Commit, New, Reply, RunKey, Step, Turn
from steprelay.engine import Engine
from steprelay.testing.wire import Wire

from .places import MESSAGE, Postgres

NEW = New(agent="bench", adapter="function", prompt='"go"', limits='{"repeats":null,"steps":null}', carrier="any")


def key() -> RunKey:
    return RunKey("bench", uuid4().hex)


def commit_of(claimed: Claimed, *, after: float = 0.0, messages: tuple[str, ...] = (MESSAGE,), **fields: Any) -> Commit:
    step = Step(
        index=claimed.run.step, round=0, attempt=1, carrier="any", claim_id=claimed.claim.claim_id, status="RUNNING",
        messages=messages, claimed_at=claimed.now,
    )  # fmt: skip
    return Commit(status="RUNNING", after=after, step=step, tally='{"steps":1}', inbox_read=0, **fields)


async def claim(store: Any, run: RunKey, new: New | None = None) -> Claimed:
    claimed = await store.claim(run, claim_id=uuid4().hex, holder="bench", lease=60, carrier="any", new=new)
    assert isinstance(claimed, Claimed), claimed
    return claimed


async def run_of(store: Any, steps: int, *, keep: bool = False) -> float:
    """One run of `steps` steps by the verbs alone; seconds. `keep`: one claim, renewed by every commit."""
    run = key()
    await store.claim(run, claim_id="-", holder="", lease=0, carrier=None, new=NEW)
    began = time.perf_counter()
    claimed = await claim(store, run)
    for n in range(steps):
        last = n + 1 == steps
        await store.commit(claimed.claim, commit_of(claimed), renew=60 if keep and not last else None)
        if last:
            break
        if keep:
            claimed = Claimed(
                claim=type(claimed.claim)(**{**claimed.claim.__dict__, "index": n + 1}),
                run=type(claimed.run)(**{**claimed.run.__dict__, "step": n + 1}),
                steps=(), inbox=(), ledger={}, now=claimed.now,
            )  # fmt: skip
        else:
            claimed = await claim(store, run)
    return time.perf_counter() - began


async def per_step(store: Any, steps: int, *, keep: bool = False, repeat: int = 3) -> float:
    """Milliseconds a step: the best of some runs, because a loaded machine only ever adds."""
    runs = max(1, 60 // steps)
    return min([sum([await run_of(store, steps, keep=keep) for _ in range(runs)]) / runs / steps for _ in range(repeat)]) * 1000


async def engine_step(store: Any, steps: int) -> tuple[float, float]:
    """The same through the engine, one request a step: milliseconds and milliseconds of CPU a step."""

    async def agent(turn: Turn, ctx: Any) -> Reply:
        return Reply(
            then="continue" if turn.step + 1 < steps else "finish", messages=({"role": "assistant", "content": "x" * 460},)
        )

    engine = Engine(store, {"bench": FunctionAgent(agent)}, lambda _: FunctionAgent.view)
    run = key()
    await store.claim(run, claim_id="-", holder="", lease=0, carrier=None, new=NEW)
    began, used = time.perf_counter(), cpu()
    for _ in range(steps):
        await engine.advance(run, carrier="any")
    return (time.perf_counter() - began) / steps * 1000, (cpu() - used) / steps * 1000


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def wal_per_step(place: Postgres, store: Any, steps: int) -> float:
    """Bytes of log a step."""
    runs = max(1, 200 // steps)
    await run_of(store, 20)
    before = place.wal()
    for _ in range(runs):
        await run_of(store, steps)
    return (place.wal() - before) / runs / steps


async def trips(place: Postgres) -> tuple[float, float]:
    """Round trips a step on the wire: with a claim for each, and with a claim that is kept."""
    wire = await Wire.before(place.server.url()).start()
    store = type(place.store())(wire.url(place.server.url()))
    found = []
    await run_of(store, 2)
    for keep in (False, True):
        before = wire.trips
        await run_of(store, 20, keep=keep)
        found.append((wire.trips - before - 1) / 20)  # less the creation
    await store.close()
    await wire.stop()
    return found[0], found[1]


async def throughput(store: Any, runs: int = 50, steps: int = 20) -> float:
    """Steps per second of many runs at once."""
    began = time.perf_counter()
    await asyncio.gather(*(run_of(store, steps) for _ in range(runs)))
    return runs * steps / (time.perf_counter() - began)


async def beside_history(store: Any, messages: int = 100_000) -> float:
    """Milliseconds of a claim and its commit on a run with so many messages, all but the last 20 below the floor."""
    run, a_step = key(), 500
    claimed = await claim(store, run, NEW)
    for n in range(messages // a_step):
        floor = n if n * a_step >= messages - 20 * a_step else None
        await store.commit(
            claimed.claim, commit_of(claimed, messages=(MESSAGE,) * a_step, floor=n + 1 if floor is None else floor)
        )
        if n + 1 < messages // a_step:
            claimed = await claim(store, run)
    claimed = await claim(store, run)
    await store.commit(claimed.claim, commit_of(claimed, floor=claimed.run.step))
    return await _best_pair(store, run)


async def beside_runs(place: Postgres, store: Any, runs: int) -> tuple[float, float]:
    """Milliseconds of a claim with its commit, and of `due`, beside so many other runs: half ended, half due to others."""
    place.server.sql(
        f"""DELETE FROM steprelay.run WHERE tenant = 'crowd';
        INSERT INTO steprelay.run (tenant, id, agent, adapter, labels, created_at, "schema", limits, round, floor, due_at, carrier,
                                   status, ended, step, updated_at, tally)
        SELECT 'crowd', md5(i::text), 'a', 'function', '{{}}', i, 1, '{{}}', 0, 0, CASE WHEN i % 2 = 0 THEN i END, 'client',
               CASE WHEN i % 2 = 0 THEN 'RUNNING' ELSE 'COMPLETED' END, i % 2 = 1, 5, i, '{{}}'
          FROM generate_series(1, {runs}) i;
        ANALYZE steprelay.run;"""
    )
    run = key()
    await store.claim(run, claim_id="-", holder="", lease=0, carrier=None, new=NEW)
    pair = await _best_pair(store, run)
    best = 1e9
    for _ in range(20):
        began = time.perf_counter()
        await store.due(["background"], 100)
        best = min(best, time.perf_counter() - began)
    return pair, best * 1000


async def _best_pair(store: Any, run: RunKey) -> float:
    best = 1e9
    for _ in range(15):
        began = time.perf_counter()
        claimed = await claim(store, run)
        await store.commit(claimed.claim, commit_of(claimed, floor=claimed.run.step))
        best = min(best, time.perf_counter() - began)
    return best * 1000
