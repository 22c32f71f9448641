"""Agents that hand tasks to others, and a process that takes one step after the other, each in a fork that may be killed.

spawn_worker.py STORE OUTSIDE RUN SEED      prints how many forks it took and how many were killed
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

from models import Script, call, results
from pydantic_ai import Agent

from steprelay import App, Limits
from steprelay.agents.pydantic_ai import delegate, spawn
from steprelay.core.model import RunKey
from steprelay.stores.memory import MemoryStore
from steprelay.stores.sqlite import SQLiteStore
from steprelay.testing.agent_checks.zygote import Mortal

LEASE = 0.3
TOPICS = ("tea", "coffee", "cocoa")


def agents(outside: Path) -> dict[str, Any]:
    """`lead` asks for three topics at once, one of them through `delegate`; `expert` writes down that it was asked."""
    lead_script = Script(
        [call("research", "c1", topic="tea"), call("research", "c2", topic="coffee"), call("ask_expert", "c3", task="cocoa")],
        lambda m, _: f"learned: {results(m)}",
    )
    lead = Agent(lead_script.model, toolsets=[delegate({"expert": "Knows everything."}, limits={"steps": 4})])

    @lead.tool_plain(metadata={"effect": "read"})
    def research(topic: str) -> Any:
        return spawn(topic, agent="expert", limits={"steps": 4})

    expert_script = Script([call("consult", "b1")], lambda m, _: f"{m[0].parts[0].content} is good")
    expert = Agent(expert_script.model)

    @expert.tool_plain
    def consult() -> str:
        with outside.open("a") as book:
            book.write("consulted\n")
        return "the book says so"

    return {"lead": lead, "expert": expert}


def an_app(store: Any, outside: Path, **options: Any) -> App:
    return App(
        agents(outside), store=store, auth=False, observer=None, lease=LEASE, limits=Limits(steps=20, attempts=30), **options
    )


async def one_step(path: str, outside: Path, dies: int) -> None:
    """Take a step of whatever is due, and deliver what is to be delivered."""
    store: Any = Mortal(SQLiteStore(path), dies) if dies else SQLiteStore(path)
    app = an_app(store, outside)
    for due in await store.due(("background",), 1):
        if due.why == "step":
            await app.loop.pulse(due.key, carrier="background")
        await app.outbox.deliver(due.key)
    await store.close()


async def ended(path: str, run: str) -> bool:
    store = SQLiteStore(path)
    rows = await store.read(RunKey("default", run), "run")
    await store.close()
    return rows[0].ended


async def rehearse() -> None:
    """Take a step that counts for nothing, so that all is imported and built that can be before a fork. It calls no tool: the
    threads in which tools run do not survive one."""
    app = App(Agent(Script("done").model), store=MemoryStore(), auth=False, observer=None)
    await app.result(await app.start("rehearsal"))
    await app.shutdown()


def main(path: str, outside: str, run: str, seed: str) -> None:
    chance, forks, killed = random.Random(seed), 0, 0
    asyncio.run(rehearse())
    while not asyncio.run(ended(path, run)):
        forks += 1
        dies = chance.choice((0, 0, 0, 1, 2, 3, 4, 5))
        if (pid := os.fork()) == 0:
            asyncio.run(one_step(path, Path(outside), dies))
            os._exit(0)
        killed += os.waitpid(pid, 0)[1] != 0
    print(forks, killed)


if __name__ == "__main__":
    main(*sys.argv[1:])
