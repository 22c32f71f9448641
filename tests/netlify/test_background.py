"""Runs that no tab carries: the background function, its relay, the sweep; and a function that was declared wrongly."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest
from netlify_world import FUNCTIONS, SECRET, Platform, eventually, linked_site, platform

from steprelay import App
from steprelay.core.errors import StoreUnavailable
from steprelay.core.model import RunKey
from steprelay.drivers import function
from steprelay.testing import servers

KEY = RunKey("default", "r")
PATH = "/.netlify/functions/start-job-background"


@pytest.fixture
def site(tmp_path) -> Path:
    return linked_site(tmp_path / "site")


async def ended(world: Platform, id: str, *, sweeping: bool = False, seconds: float = 40) -> dict:
    """The run, once it has ended; the clock strikes twice a second if `sweeping`."""
    async with asyncio.timeout(seconds):
        while True:
            view = await world.status(id)
            if view.get("isTerminal"):
                return view
            if sweeping:
                await world.client.post("/platform/sweep")
            await asyncio.sleep(0.5 if sweeping else 0.1)


async def started(world: Platform, id: str, prompt: str) -> httpx.Response:
    return await world.client.post("/api/start-job", json={"sessionId": id, "userPrompt": prompt})


def at(port: int) -> dict[str, str]:
    return {"STEPRELAY_PUBLIC_URL": f"http://127.0.0.1:{port}"}


@pytest.mark.slow
async def test_a_job_is_carried_to_its_end_in_legs_with_nobody_asking(site) -> None:
    """Each instance of the background function may live for 5.5 s, of which Python has 1.5: ten steps need several."""
    file = site / "netlify/functions/start-job-background.mjs"
    file.write_text(file.read_text().replace("(request, context);", "(request, context, 5500);"))
    with platform(site, **at(servers.free_port())) as world:
        async with httpx.AsyncClient(base_url=world.url, timeout=60) as world.client:
            told = await started(world, "job", "count:10")
            assert (told.status_code, told.json()["status"]) == (202, "RUNNING")
            view = await ended(world, "job")
            log = await world.log()
    assert (view["status"], view["step"]) == ("COMPLETED", 9)
    assert log.count('"event": "step"') == 10  # no attempt was lost
    assert log.count('"carrier": "background"') == 10
    assert "background_undeclared" not in log


@pytest.mark.slow
async def test_a_run_whose_carrier_was_killed_is_found_by_the_sweep(site, tmp_path) -> None:
    with platform(site, **at(servers.free_port())) as world:
        async with httpx.AsyncClient(base_url=world.url, timeout=60) as world.client:
            pid = await world.output("first", "pid:")
            await started(world, "job", f"hang:{tmp_path / 'go'}")
            await asyncio.to_thread(eventually, Path(f"{tmp_path / 'go'}.begun").exists)
            os.kill(pid, signal.SIGKILL)
            (tmp_path / "go").touch()
            view = await ended(world, "job", sweeping=True)
    assert (view["status"], view["output"]) == ("COMPLETED", "ended")


@pytest.mark.slow
async def test_the_door_of_the_background_function_is_open_to_signed_messages_only(site) -> None:
    with platform(site, **at(servers.free_port())) as world:
        async with httpx.AsyncClient(base_url=world.url, timeout=60) as world.client:
            await world.step("mine", "say:x")
            body = {"tenant": "default", "id": "mine", "carrier": "background"}
            assert (await world.client.post(PATH, json=body)).status_code == 202  # as for everybody: nothing is told
            await world.logged("start-job-background: 401")
            assert "driver_only" in await world.log()


@pytest.mark.slow
async def test_a_background_function_that_is_none_is_told_and_survived(site) -> None:
    """It is cut off after three seconds, with all that runs in its instance. A run of fourteen steps of 0.25 s ends all the same."""
    with platform(site, "--undeclared", "3000", TEST_REQUEST_SECONDS="3", **at(servers.free_port())) as world:
        async with httpx.AsyncClient(base_url=world.url, timeout=60) as world.client:
            assert (await started(world, "job", "count:14")).status_code == 202
            view = await ended(world, "job", sweeping=True)
            log = await world.log()
    assert (view["status"], view["step"]) == ("COMPLETED", 13)
    assert '"event": "background_undeclared"' in log
    assert "export const config = { background: true }" in log


class Call:
    """Stands for the other side: answers with these headers, or as if none came in time."""

    def __init__(self, answer: dict[str, str] | Exception) -> None:
        self.answer, self.patience = answer, []

    async def __call__(self, key, carrier, *, read=None):
        self.patience.append(read)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def unanswered(cause: Exception) -> StoreUnavailable:
    error = StoreUnavailable("the self-call failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("answer", "noticed"), [({}, False), ({"x-steprelay-waited": "1"}, True), (unanswered(httpx.ReadTimeout("late")), True)]
)
async def test_whoever_waits_for_a_background_function_notices(monkeypatch, answer, noticed) -> None:
    monkeypatch.setenv("NETLIFY", "true")
    seen = []
    app = App(lambda turn, ctx: "x", store="memory:", secret=SECRET, public_url="https://a.example", observer=seen.append)
    app.waker.call = Call(answer)
    await app.waker.wake(KEY, "background")
    assert [e["event"] for e in seen] == ["background_undeclared"] * noticed
    assert await app.waker.wall(896.0) == (55.0 if noticed else 896.0)
    await app.waker.wake(KEY, "background")
    assert app.waker.call.patience == [function.PATIENCE, function.HURRY if noticed else function.PATIENCE]
    assert (await app.store.get(function.NOTE) is not None) == noticed


async def test_a_background_function_that_was_not_reached_is_an_error(monkeypatch) -> None:
    monkeypatch.setenv("NETLIFY", "true")
    app = App(lambda turn, ctx: "x", store="memory:", secret=SECRET, public_url="https://a.example")
    app.waker.call = Call(unanswered(httpx.ConnectError("no route")))
    with pytest.raises(StoreUnavailable):
        await app.waker.wake(KEY, "background")
    assert await app.store.get(function.NOTE) is None


async def test_a_wake_for_later_is_left_to_the_sweep(monkeypatch) -> None:
    monkeypatch.setenv("NETLIFY", "true")
    app = App(lambda turn, ctx: "x", store="memory:", secret=SECRET, public_url="https://a.example")
    app.waker.call = Call({})
    await app.waker.wake(KEY, "background", after=30)
    assert app.waker.call.patience == []


def test_its_functions_say_what_they_are() -> None:
    """What Netlify reads from the files before anything runs."""
    texts = {f.stem: f.read_text() for f in FUNCTIONS.iterdir()}
    assert set(texts) == {"agent-step", "start-job-background", "sweep"}
    assert "export const config = { background: true };" in texts["start-job-background"]
    assert 'export const config = { schedule: "* * * * *" };' in texts["sweep"]
    assert "config" not in texts["agent-step"].split("export default")[1]
