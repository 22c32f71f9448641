"""A process that uses a store and may be killed at any point: `python -m steprelay.testing.store_worker TARGET URL ACT …`.

It says what it has done, one line each, and waits for a line wherever its parent may want to kill it.

    migrate                       apply what is missing
    race TENANT RUN STEPS         claim and commit until the run has that many steps; tells each index it won
    hold TENANT RUN POINT         stop at `claimed`, `committed` (and answered), or `told` a sign of life with a ledger entry
"""

from __future__ import annotations

import asyncio
import os
import sys

from ..core.model import Claimed, Committed, RunKey
from ..ports import Store
from .store_checks.common import forward
from .store_checks.place import Place

LEASE = 15.0


async def main(target: str, url: str, act: str, *words: str) -> None:
    store = Place(target=target, url=url).open()
    say("ready")
    sys.stdin.readline()
    match act:
        case "migrate":
            say(*await store.migrate())
        case "race":
            await race(store, RunKey(words[0], words[1]), int(words[2]))
        case "hold":
            await hold(store, RunKey(words[0], words[1]), words[2])
    say("done")
    await store.close()


async def race(store: Store, key: RunKey, steps: int) -> None:
    n = 0
    while True:
        n += 1
        claimed = await store.claim(key, claim_id=f"{os.getpid()}-{n}", holder=str(os.getpid()), lease=LEASE, carrier=None)
        if isinstance(claimed, Claimed):
            index = claimed.claim.index
            if index >= steps:
                await store.commit(claimed.claim, forward(claimed, step=None))
                return
            assert [s.index for s in claimed.steps] == list(range(index)), "a load with a gap"
            if isinstance(await store.commit(claimed.claim, forward(claimed)), Committed):
                say("won", str(index))
        elif claimed.run is not None and claimed.run.step >= steps:
            return


async def hold(store: Store, key: RunKey, point: str) -> None:
    claimed = await store.claim(key, claim_id=str(os.getpid()), holder=str(os.getpid()), lease=LEASE, carrier=None)
    assert isinstance(claimed, Claimed)
    if point == "told":
        await store.progress(claimed.claim, lease=LEASE, tail='"words"', ledger={"0/mail": '{"started":1}'})
    if point == "committed":
        assert isinstance(await store.commit(claimed.claim, forward(claimed)), Committed)
    say(point)
    sys.stdin.readline()


def say(*words: str) -> None:
    print(*words, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
