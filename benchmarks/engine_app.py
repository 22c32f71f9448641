"""What `benchmarks.drivers` has served: steps that do nothing; with BENCH_ALONE an engine's calls are answered without one."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from steprelay.app import App
from steprelay.core.model import Limits, Reply, Turn
from steprelay.drivers.leg import Leg, Next

STEPS = int(os.environ["BENCH_STEPS"])
DONE = Path(os.environ["BENCH_DONE"])


class Instant(Leg):
    """Says `again` so many times, then `done`, and takes no step at all."""

    def __init__(self) -> None:
        self.tenant = "default"
        self._calls: dict[str, int] = {}

    async def take(self, run: str, carrier: str, request: str, **_: Any) -> Next:
        calls = self._calls[run] = self._calls.get(run, 0) + 1
        if calls < STEPS:
            return Next(kind="again", after=0.0, step=calls)
        finished(run)
        return Next(kind="done")


async def agent(turn: Turn, ctx: Any) -> Reply:
    if turn.step + 1 < STEPS:
        return Reply(messages=({"role": "assistant", "content": "x" * 460},))
    finished(turn.key.id)
    return Reply(then="finish", output="done")


def finished(run: str) -> None:
    with DONE.open("a") as file:
        file.write(f"{run}\n")


class Alone(App):
    """Its engine's calls come to nothing."""

    def orchestrator(self, name: str) -> Any:
        driver: Any = super().orchestrator(name)
        if not isinstance(driver._leg, Instant):
            driver._leg = Instant()
        return driver


for _name in ("temporal", "restate", "inngest"):
    if os.environ.get(f"STEPRELAY_{_name.upper()}"):
        _driver: Any = import_module(f"steprelay.drivers.{_name}")
        _driver.SPAN = float(os.environ.get("BENCH_SPAN", _driver.SPAN))
app = (Alone if os.environ.get("BENCH_ALONE") else App)(agent, limits=Limits(steps=None, repeats=None), observer=None)
