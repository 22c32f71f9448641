"""A process that has imported everything, and forks for each step: a new process for a few milliseconds.

    python -m steprelay.testing.agent_checks.zygote module:make

One JSON line in: a `Job`. Two out: `{"pid"}` when the step's process is there, `{"died"} | {"status", …}` when it is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, TypedDict

from ...core import codec
from ...core.model import New, RunKey
from ...engine import Engine
from ...stores.memory import MemoryStore
from ...stores.sqlite import SQLiteStore
from .outside import Outside


class Job(TypedDict):
    """One process: `steps` steps of a run, with the code of `version`. `dies`: at which boundary of a store verb (1 = before
    the claim, 2 = after it, …) it is killed; 0 = not."""

    path: str
    run: str
    case: str
    version: int
    outside: str
    fatal: str | None
    dies: int
    steps: int
    lease: float
    limits: dict[str, Any]


class Mortal:
    """A store whose process ends at the n-th boundary of a verb."""

    def __init__(self, store: Any, dies: int) -> None:
        self._store, self._left = store, dies

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if name not in ("claim", "commit", "progress"):
            return verb

        async def watched(*args: Any, **options: Any) -> Any:
            self._boundary()
            answer = await verb(*args, **options)
            self._boundary()
            return answer

        return watched

    def _boundary(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def work(make: Any, adapter: str, job: Job) -> dict[str, Any]:
    """Take the steps; answers where the run stands."""
    store: Any = SQLiteStore(job["path"])
    agent = make(job["case"], Outside(Path(job["outside"]), job["fatal"]), job["version"])
    engine = Engine(Mortal(store, job["dies"]) if job["dies"] else store, {"a": agent}, lambda _: agent.view, lease=job["lease"])
    taken = 0

    def more(seconds: float) -> bool:
        nonlocal taken
        taken += 1
        return taken < job["steps"]

    new = New(agent="a", adapter=adapter, prompt=codec.dumps("go"), limits=codec.dumps(job["limits"]), carrier="test")
    done = await engine.advance(RunKey("t", job["run"]), carrier="test", holder=str(os.getpid()), new=new, more=more)
    await store.close()
    assert done.run is not None
    return {"status": done.run.status, "step": done.run.step, "refused": done.refused}


async def _rehearse(make: Any, adapter: str) -> None:
    """Take one step that counts for nothing, so that all is imported and built that can be before a fork."""
    agent = make("finish", Outside(Path(os.devnull)), 1)
    engine = Engine(MemoryStore(), {"a": agent}, lambda _: agent.view)
    new = New(agent="a", adapter=adapter, prompt=codec.dumps("go"), carrier="test")
    done = await engine.advance(RunKey("t", "rehearsal"), carrier="test", new=new)
    assert done.run is not None and done.run.status == "COMPLETED", done  # noqa: PT018


def main(target: str) -> None:
    module, _, name = target.partition(":")
    subject = import_module(module)
    make, adapter = getattr(subject, name), subject.ADAPTER
    asyncio.run(_rehearse(make, adapter))
    print("ready", flush=True)
    for line in sys.stdin:
        say, hear = os.pipe()[::-1]
        if (pid := os.fork()) == 0:
            os.close(hear)
            result = asyncio.run(work(make, adapter, json.loads(line)))
            os.write(say, json.dumps(result).encode())
            os._exit(0)
        os.close(say)
        print(json.dumps({"pid": pid}), flush=True)
        with os.fdopen(hear, "rb") as f:
            said = f.read()
        _, status = os.waitpid(pid, 0)
        print(said.decode() if said and status == 0 else json.dumps({"died": status}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
