"""Between Node and Python: what passes, what is cut, and what is started again. The real functions, a real child."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from netlify_world import FUNCTIONS, Platform, alive, eventually, linked_site, platform

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return linked_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def there(site):
    with platform(site) as one:
        yield one


@pytest.fixture
async def world(there: Platform):
    """The platform, with a client of this test's loop that has its cookie."""
    async with httpx.AsyncClient(base_url=there.url, timeout=60) as there.client:
        await there.step(uuid4().hex, "say:hello")
        yield there


@pytest.mark.parametrize("path", ["/api/health", "/.netlify/functions/agent-step/health"])
async def test_a_path_below_api_arrives_rewritten_or_not(world, path) -> None:
    assert (await world.client.get(path)).json()["status"] == "ok"


async def test_a_step_is_taken_by_python_with_its_words_and_cookies_unchanged(world) -> None:
    world.client.cookies.clear()
    told = await world.step("words", "say:grüß 𝔊ott\n" + "x" * 300_000)
    assert told.json()["output"] == "grüß 𝔊ott\n" + "x" * 300_000
    assert told.headers["content-type"] == "application/json"
    assert told.headers["set-cookie"].startswith("steprelay_owner=")


async def test_methods_and_statuses_pass(world) -> None:
    refused = await world.client.get("/.netlify/functions/agent-step")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    head = await world.client.head("/api/health")
    assert (head.status_code, head.content) == (200, b"")
    assert (await world.client.get("/api/nothing/here?x=1")).status_code == 404


async def test_an_event_stream_arrives_piece_by_piece(world, tmp_path) -> None:
    go, body = tmp_path / "go", {"sessionId": "stream", "userPrompt": f"halves:{tmp_path / 'go'}"}
    seen = ""
    async with world.client.stream("POST", "/api/agent-step", json=body, headers={"accept": "text/event-stream"}) as told:
        async for text in told.aiter_text():
            seen += text
            if "first" in seen and not go.exists():
                assert "second" not in seen
                go.touch()  # only now the agent goes on
    assert '"second"' in seen
    assert "both" in seen


async def test_the_wall_is_our_own_and_nobody_elses(world) -> None:
    left = await world.output("wall", "wall:", headers={"x-steprelay-wall-ms": "2000"})
    assert 45 < left <= 56


async def test_the_address_of_a_client_is_the_platforms(site) -> None:
    """Twenty starts a minute from one address, and what a client says of itself does not count."""
    agent = (site / "python/app/agent.py").read_text().replace("starts_a_minute=100", "starts_a_minute=2")
    (site / "python/app/strict.py").write_text(agent)
    bundle = site / "python/bundle.json"
    bundle.write_text('{"app": "strict.py:app"}')
    try:
        with platform(site, STEPRELAY_STORE=f"sqlite:{site}/strict.db") as world:
            told = [await world.step(f"one{i}", "say:x", headers={"x-steprelay-client-ip": f"10.0.0.{i}"}) for i in range(3)]
            await world.client.aclose()
    finally:
        bundle.write_text('{"app": "agent.py:app"}')
    assert [t.status_code for t in told] == [200, 200, 429]


async def test_twenty_at_once(world) -> None:
    said = await asyncio.gather(*(world.output(f"many{i}", f"say:{i}") for i in range(20)))
    assert said == [str(i) for i in range(20)]


async def test_a_child_killed_between_requests_is_replaced_before_anything_is_sent(world) -> None:
    pid = await world.output("before", "pid:")
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(eventually, lambda: not alive(pid))
    assert await world.output("after", "pid:") != pid


async def test_a_child_killed_in_a_request_costs_that_request_and_no_other(world) -> None:
    told = await world.step("dies", "die:")
    assert (told.status_code, told.json()["code"]) == (502, "python_unavailable")
    assert (await world.client.get("/api/health")).status_code == 200
    assert (await world.step("dies")).json()["output"] == "alive"


async def test_a_reader_who_leaves_does_not_end_the_step(world, tmp_path) -> None:
    file = tmp_path / "go"
    asked = asyncio.create_task(world.step("left", f"hang:{file}"))
    await asyncio.to_thread(eventually, Path(f"{file}.begun").exists)
    asked.cancel()
    file.touch()
    assert (await world.step("left")).json()["output"] == "ended"


async def test_the_child_ends_with_its_node(site) -> None:
    world = Platform(site)
    pid = await world.output("orphan", "pid:")
    world.node.kill()
    world.node.wait(10)
    await asyncio.to_thread(eventually, lambda: not alive(pid))
    await world.client.aclose()
    world.close()


async def test_an_app_that_cannot_start_says_why_in_the_log_and_nothing_outside(site) -> None:
    with platform(site, STEPRELAY_SECRET="short") as world:
        told = [await world.client.get("/api/health") for _ in range(2)]
        log = await world.log()
        await world.client.aclose()
    assert [t.status_code for t in told] == [502, 502]
    assert "STEPRELAY_SECRET" in log
    assert "SECRET" not in told[0].text


async def test_a_stuck_child_is_cut_at_the_wall_and_not_asked_again(site, tmp_path) -> None:
    """The functions with a limit that leaves three seconds to Python."""
    short = tmp_path / "netlify/functions"
    short.mkdir(parents=True)
    for file in FUNCTIONS.iterdir():
        text = (
            file.read_text()
            .replace("../../python", str(site / "python"))
            .replace("(request, context);", "(request, context, 7000);")
        )
        (short / file.name).write_text(text)
    with platform(tmp_path, STEPRELAY_STORE=f"sqlite:{site}/runs.db") as world:
        pid = await world.output("awake", "pid:")
        os.kill(pid, signal.SIGSTOP)
        try:
            late = await world.client.get("/api/health")
            assert (late.status_code, late.json()["code"]) == (504, "wall_reached")
            assert await world.output("again", "pid:") != pid
        finally:
            os.kill(pid, signal.SIGKILL)
        await world.client.aclose()


def test_a_step_is_logged_as_one_line_of_json(there: Platform) -> None:
    lines = [json.loads(line) for line in httpx.get(f"{there.url}/platform/log").text.splitlines() if line.startswith("{")]
    told = next(line for line in lines if line.get("run") == "words")
    assert {"event": "step", "status": "COMPLETED", "carrier": "client"}.items() <= told.items()
