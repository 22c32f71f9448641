"""The agent that the driver suite has carried: it does what its prompt says and notes every call in a file outside.

The prompt is a plan, all of it optional but `steps`: {"steps": 8, "slow": 0.05, "waits": {"2": 0.5}, "asks": [3], "hangs": [4],
"gates": [5]}. A step that hangs does so the first time only, until its process ends or the run is cancelled; one at a gate
waits for a file, WITNESS.RUN.STEP. WITNESS is the file STEPRELAY_TEST_WITNESS; a line of it: run, step, attempt, pid, `begun`
or `done`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from ..app import App
from ..core.model import Interrupt, Limits, Reply, Turn

WITNESS = "STEPRELAY_TEST_WITNESS"


def note(turn: Turn, what: str) -> None:
    """One line, whole, whoever else writes."""
    line = f"{turn.key.id} {turn.step} {turn.attempt} {os.getpid()} {what}\n"
    file = os.open(os.environ[WITNESS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def begun(turn: Turn) -> bool:
    """Whether anybody has begun this step before."""
    lines = Path(os.environ[WITNESS]).read_text().splitlines()
    return any(line.startswith(f"{turn.key.id} {turn.step} ") for line in lines)


def gate(witness: str, run: str, step: int) -> Path:
    """The file that opens a gate."""
    return Path(f"{witness}.{run}.{step}")


async def opened(file: Path) -> None:
    while not file.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it, and a look is quick
        await asyncio.sleep(0.02)


async def agent(turn: Turn, ctx: Any) -> Reply:
    """One step of the plan. Raises when what it is given is not exactly what went before."""
    plan: Any = turn.prompt
    before: list[Any] = [m["step"] for m in turn.messages if isinstance(m, dict) and "step" in m]
    if before != list(range(turn.step)):
        raise ValueError(f"step {turn.step} was given {before}")
    hangs = turn.step in plan.get("hangs", ()) and not begun(turn)
    note(turn, "begun")
    if hangs:
        await asyncio.Event().wait()
    if turn.step in plan.get("gates", ()):
        await opened(gate(os.environ[WITNESS], turn.key.id, turn.step))
    if plan.get("slow"):
        await asyncio.sleep(plan["slow"])
    note(turn, "done")
    return _reply(turn, plan)


def _reply(turn: Turn, plan: Any) -> Reply:
    message = ({"step": turn.step},)
    if turn.step + 1 >= plan["steps"]:
        return Reply(then="finish", output=turn.step + 1, messages=message)
    if turn.step in plan.get("asks", ()):
        question = Interrupt(id=f"q{turn.step}", kind="question", prompt="Well?")
        return Reply(then="ask", interrupts=(question,), messages=message)
    if (after := plan.get("waits", {}).get(str(turn.step))) is not None:
        return Reply(then="wait", after=after, messages=message)
    return Reply(messages=message)


def build(**options: Any) -> App:
    """An app of it, set up by the environment."""
    return App(agent, limits=Limits(steps=None, repeats=None, attempts=10), **options)


def __getattr__(name: str) -> Any:
    """`app`, for who names this module as a target."""
    if name == "app":
        return build()
    raise AttributeError(name)
