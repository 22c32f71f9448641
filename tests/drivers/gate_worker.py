"""A process that carries whatever is due in a store, two at once over all processes: `gate_worker.py URL WITNESS`.

What its agent does is written to the witness, a file that knows nothing of the store: when a step began (`+`), hangs (`h`)
and ended (`-`), by a clock that all processes of this machine share.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from steprelay import App, Reply
from steprelay.core.model import Filter

LIMIT, LEASE, STEPS = 2, 1.5, 3


def tell(witness: str, what: str, run: str) -> None:
    line = f"{time.monotonic()!r} {what} {os.getpid()} {run}\n".encode()
    file = os.open(witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)


def an_app(url: str, witness: str) -> App:
    async def work(turn: Any, ctx: Any) -> Any:
        tell(witness, "+", turn.key.id)
        if turn.key.id.startswith("hangs") and turn.attempt == 1 and turn.step == 1:
            tell(witness, "h", turn.key.id)
            await asyncio.sleep(3600)
        await asyncio.sleep(0.05)
        tell(witness, "-", turn.key.id)
        return "done" if turn.step == STEPS - 1 else Reply()

    return App(work, store=url, lease=LEASE, concurrency={"key": "agent", "limit": LIMIT}, auth=False, observer=None)


async def main(url: str, witness: str) -> None:
    app = an_app(url, witness)
    while await app.store.read(Filter(tenant=app.tenant, status=("RUNNING", "WAITING")), "runs", limit=1):
        await app.sweeper.once()
        await asyncio.sleep(0.2)
    await app.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
