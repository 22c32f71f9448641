"""What a store owes that several processes use: one winner, and nothing lost to `kill -9`. Real processes, no sleeping: they
wait for each other's lines, and a lease is passed by `now`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from ...core.model import Alive, Claimed, Committed, Signal
from ...ports import Store
from .common import KEY, LEASE, forward, new, row
from .place import Place

PATIENCE = 60.0
"""Seconds until a process that says nothing is taken for broken."""


class Worker:
    """One `store_worker` process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self._process.stdout.readline()).decode().strip()

    async def until(self, word: str) -> list[str]:
        """What it says before that word."""
        said: list[str] = []
        while (line := await self.line()) != word:
            assert line or not self._process.stdout.at_eof(), f"it ended before it said {word!r}: {said}"  # type: ignore[union-attr]
            said.append(line)
        return said

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def workers(place: Place, count: int, *act: str) -> AsyncIterator[list[Worker]]:
    """So many processes, all ready, none gone yet."""
    args = ("-m", "steprelay.testing.store_worker", place.target, place.url, *act)
    pipe = asyncio.subprocess.PIPE
    made = [Worker(await asyncio.create_subprocess_exec(sys.executable, *args, stdin=pipe, stdout=pipe)) for _ in range(count)]
    try:
        for worker in made:
            await worker.until("ready")
        yield made
    finally:
        for worker in made:
            await worker.kill()


class Processes:
    async def test_one_process_wins_each_index(self, place: Place, store: Store) -> None:
        steps = 40
        await _create(store)
        async with workers(place, 4, "race", KEY.tenant, KEY.id, str(steps)) as racers:
            for racer in racers:
                racer.go()
            said = await asyncio.gather(*(racer.until("done") for racer in racers))
        won = sorted(int(line.removeprefix("won ")) for lines in said for line in lines)
        assert won == list(range(steps))
        kept = await store.read(KEY, "steps")
        assert [s.index for s in kept] == won
        assert len({s.claim_id for s in kept}) == steps

    @pytest.mark.parametrize("point", ["claimed", "told", "committed"])
    async def test_kill_9_costs_at_most_one_lease(self, place: Place, store: Store, point: str) -> None:
        await _create(store)
        async with workers(place, 1, "hold", KEY.tenant, KEY.id, point) as (victim,):
            victim.go()
            await victim.until(point)
            await victim.kill()
        at = (await row(store)).updated_at
        claimed = await store.claim(KEY, claim_id="heir", holder="", lease=LEASE, carrier=None, now=at + 2 * LEASE)
        assert isinstance(claimed, Claimed)
        index, fence, attempts = (1, 2, 1) if point == "committed" else (0, 2, 2)
        assert (claimed.claim.index, claimed.claim.fence, claimed.run.attempts) == (index, fence, attempts)
        assert [s.index for s in claimed.steps] == list(range(index))
        assert claimed.ledger == ({"0/mail": '{"started":1}'} if point == "told" else {})
        assert claimed.run.tail == ('"words"' if point == "told" else None)
        assert isinstance(await store.commit(claimed.claim, forward(claimed), now=at + 2 * LEASE), Committed)
        assert (await row(store)).step == index + 1

    async def test_a_living_holder_keeps_others_out(self, place: Place, store: Store) -> None:
        await _create(store)
        async with workers(place, 1, "hold", KEY.tenant, KEY.id, "claimed") as (holder,):
            holder.go()
            await holder.until("claimed")
            refused = await store.claim(KEY, claim_id="x", holder="", lease=LEASE, carrier=None)
            assert not isinstance(refused, Claimed)
            assert refused.reason == "busy"
            assert refused.until == (await row(store)).lease_until

    async def test_kill_9_in_the_middle_of_commits_leaves_whole_steps(self, place: Place, store: Store) -> None:
        """Killed wherever it happens to be; what it told as won is there, and the history has no gap."""
        await _create(store)
        chance, told, now = Random(7), -1, None
        for round in range(6):
            async with workers(place, 1, "race", KEY.tenant, KEY.id, "100000") as (racer,):
                racer.go()
                for _ in range(chance.randrange(1, 12)):
                    told = int((await racer.line()).removeprefix("won "))
            run, steps = await row(store), await store.read(KEY, "steps", limit=100_000)
            assert [s.index for s in steps] == list(range(run.step))
            assert run.step > told
            now = run.lease_until or run.updated_at
            claimed = await store.claim(KEY, claim_id=f"heir-{round}", holder="", lease=LEASE, carrier=None, now=now)
            assert isinstance(claimed, Claimed)
            assert claimed.claim.index == run.step
            await store.commit(claimed.claim, forward(claimed, step=None, attempts=0), now=now - LEASE)

    async def test_a_cancel_reaches_a_step_in_another_process(self, place: Place, store: Store) -> None:
        await _create(store)
        claimed = await store.claim(KEY, claim_id="c", holder="", lease=LEASE, carrier=None)
        assert isinstance(claimed, Claimed)
        other = place.open()
        await other.signal(KEY, Signal(kind="cancel"))
        alive = await store.progress(claimed.claim, lease=LEASE)
        await other.close()
        assert alive == Alive(now=alive.now, cancel=True)

    async def test_what_was_answered_is_there_after_reopening(self, place: Place, store: Store) -> None:
        await _create(store)
        claimed = await store.claim(KEY, claim_id="c", holder="", lease=LEASE, carrier=None)
        assert isinstance(claimed, Claimed)
        await store.commit(claimed.claim, forward(claimed, blobs={"b": "1"}))
        before = await row(store), await store.read(KEY, "steps")
        await store.close()
        again = place.open()
        assert (await row(again), await again.read(KEY, "steps")) == before
        assert await again.read(KEY, "blob", name="b") == ["1"]
        await again.close()

    async def test_processes_that_migrate_at_once_apply_each_migration_once(self, place: Place) -> None:
        async with workers(place, 4, "migrate") as movers:
            for mover in movers:
                mover.go()
            said = [line for mover in movers for line in await mover.until("done")]
        applied = [name for line in said for name in line.split()]
        assert len(applied) == len(set(applied)) > 0


async def _create(store: Store) -> None:
    await store.claim(KEY, claim_id="create", holder="", lease=0, carrier=None, new=new())
