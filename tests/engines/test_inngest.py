"""Inngest as a carrier, with its real server."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from steprelay.app import App
from steprelay.core.model import Interrupt, Reply, RunKey, Signal
from steprelay.testing.driver_suite import DriverSuite, Stage
from steprelay.testing.engines import engine

pytestmark = pytest.mark.engines("inngest")
HELD = """
select count(*) from (
    select max(f.run_id is not null) as over
    from events e left join function_runs r on r.event_id = e.internal_id left join function_finishes f using (run_id)
    where e.event_name like 'steprelay-%' and json_extract(e.event_data, '$.run') = ? group by e.event_id
) where not over
"""
"""Events of a run whose function has not ended: it runs, sleeps, or was not started yet. One sent twice starts one."""


def asked(query: str, *values: Any) -> list[Any]:
    """Ask the database in which Inngest notes what it was told and what it did."""
    with closing(sqlite3.connect(f"file:{engine('inngest').data}/main.db?mode=ro", uri=True)) as db:
        return db.execute(query, values).fetchall()


def held_for(run: str) -> int:
    return int(asked(HELD, run)[0][0])


class TestInngest(DriverSuite):
    engine = "inngest"

    async def pending(self, stage: Stage, run: str) -> int:
        return held_for(run)


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


async def test_inngest_is_told_which_run_and_which_step_and_nothing_else(monkeypatch, tmp_path):
    def agent(turn, ctx):
        return Reply(then="wait", after=0.1) if turn.step < 2 else Reply(then="finish", output="secret output")

    async with served(agent, monkeypatch, tmp_path) as here:
        await here.app.start("secret prompt", id="quiet", carrier="inngest")
        await until(status(here.app, "quiet", "COMPLETED"))
        await until(lambda: held_for("quiet") == 0)
        told = asked("select event_name, event_data from events where json_extract(event_data, '$.run') = 'quiet'")
        names = {name.rpartition(".")[2] for name, _ in told}
        assert names == {"wake", "pause", "next"}
        assert all(json.loads(data).keys() <= {"run", "step"} for _, data in told)
        assert not any("secret" in text for row in asked("select event_data from events") for text in row)
