"""Inngest as a carrier, with its real server."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from steprelay.app import App
from steprelay.core.model import Interrupt, Reply, RunKey, Signal
from steprelay.testing.driver_suite import DriverSuite, Stage
from steprelay.testing.engines import Inngest, engine

pytestmark = pytest.mark.engines("inngest")


def held_for(run: str) -> int:
    """The functions of a run that have not ended."""
    server = engine("inngest")
    assert isinstance(server, Inngest)
    return sum(event["data"].get("run") == run for event in server.functions())


class TestInngest(DriverSuite):
    engine = "inngest"

    async def pending(self, stage: Stage, run: str) -> int:
        return held_for(run)

    @pytest.mark.all  # uvicorn waits five seconds for what is under way
    async def test_our_process_is_told_to_end_in_the_middle_of_a_step(self, stage: Stage) -> None:
        await super().test_our_process_is_told_to_end_in_the_middle_of_a_step(stage)

    @pytest.mark.all  # after a crash Inngest looks for half a minute whether the calls of before are still under way
    async def test_the_engine_is_killed_and_comes_back(self, stage: Stage) -> None:
        await super().test_the_engine_is_killed_and_comes_back(stage)

    @pytest.mark.all
    async def test_the_engine_is_killed_while_a_run_waits(self, stage: Stage) -> None:
        await super().test_the_engine_is_killed_while_a_run_waits(stage)


# ---------------------------------------------------------------- a wake that comes while a function is ending


class Held:
    """An app whose answers to Inngest can be held back; `url`: where it is served."""

    def __init__(self, app: App) -> None:
        self.app, self.url = app, ""
        self.hold = lambda: False
        self.held, self.release = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def late(message: Any) -> None:
            if message["type"] == "http.response.start" and self.hold():
                self.held.set()
                await self.release.wait()
            await send(message)

        await self.app(scope, receive, late if scope["type"] == "http" and scope["method"] == "POST" else send)


@asynccontextmanager
async def served(agent: Any, monkeypatch: pytest.MonkeyPatch, path: Path) -> AsyncIterator[Held]:
    """An app of its own in this process, known to the real server."""
    for name, value in engine("inngest").env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("INNGEST_APP_ID", f"steprelay-{path.name}")
    app = App(agent, store=f"sqlite:{path}/runs.db", auth=False, observer=None)
    held = Held(app)
    server = uvicorn.Server(uvicorn.Config(held, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held.url = f"http://127.0.0.1:{listening.getsockname()[1]}/api/inngest"
        serving = asyncio.create_task(server.serve([listening]))
        try:
            await until(lambda: server.started)
            await app.orchestrator("inngest").register(held.url)
            yield held
        finally:
            server.should_exit = True
            await serving
            await app.shutdown()


async def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not (answer := true()) or (isinstance(answer, Awaitable) and not await answer):
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.02)


def status(app: App, run: str, *wanted: str) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        rows = await app.store.read(RunKey("default", run), "run")
        return bool(rows) and rows[0].status in wanted

    return there


async def test_an_answer_that_comes_while_the_function_that_asked_is_still_ending_is_not_lost(monkeypatch, tmp_path):
    question = Reply(then="ask", interrupts=(Interrupt(id="q", kind="question", prompt="Well?"),))

    def agent(turn, ctx):
        return question if turn.step == 0 else Reply(then="finish", output="over")

    async with served(agent, monkeypatch, tmp_path) as here:
        here.hold = lambda: not here.release.is_set()
        await here.app.start("go", id="r", carrier="inngest")
        await asyncio.wait_for(here.held.wait(), 30)
        assert await status(here.app, "r", "AWAITING_INPUT")()
        answer = Signal(kind="answer", body='{"id":"q","status":"resolved","payload":"Yes"}', request_id="answer:q")
        await here.app.store.signal(RunKey("default", "r"), answer)
        await here.app.wakers.wake(RunKey("default", "r"), "inngest")
        await until(lambda: held_for("r") == 2)  # Inngest has the wake, and has not heard yet that the run waits
        here.release.set()
        await until(status(here.app, "r", "COMPLETED"))
        await until(lambda: held_for("r") == 0)


async def test_a_cancel_that_comes_before_the_timer_is_set_leaves_no_timer(monkeypatch, tmp_path):
    async with served(lambda turn, ctx: Reply(then="wait", after=3600.0), monkeypatch, tmp_path) as here:
        here.hold = lambda: not here.release.is_set()
        await here.app.start("go", id="t", carrier="inngest")
        await asyncio.wait_for(here.held.wait(), 30)
        await here.app.store.signal(RunKey("default", "t"), Signal(kind="cancel"))
        await here.app.wakers.wake(RunKey("default", "t"), "inngest")
        await until(lambda: held_for("t") == 2)
        here.release.set()
        await until(status(here.app, "t", "CANCELLED"))
        await until(lambda: held_for("t") == 0)


@pytest.mark.all
async def test_an_engine_that_has_forgotten_everything_leaves_its_runs_to_the_sweep(monkeypatch, tmp_path):
    def agent(turn, ctx):
        return Reply(then="wait", after=2.0) if turn.step == 0 else Reply(then="finish", output="over")

    monkeypatch.setenv("STEPRELAY_LEASE", "1")
    async with served(agent, monkeypatch, tmp_path) as here:
        await here.app.start("go", id="f", carrier="inngest")
        await until(status(here.app, "f", "WAITING"))
        server = engine("inngest")
        server.crash()
        shutil.rmtree(server.data / "appendonlydir")
        server.start()
        assert held_for("f") == 0

        async def swept() -> bool:
            await here.app.sweeper.once()
            return await status(here.app, "f", "COMPLETED")()

        await until(swept)
        steps = await here.app.store.read(RunKey("default", "f"), "steps")
        assert [s.carrier for s in steps] == ["inngest", "background"]
