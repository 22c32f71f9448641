"""The founding page and loop, unchanged, against every kind of agent; written from the contract alone."""

from __future__ import annotations

import asyncio

import http_world as w
import pytest

from steprelay.core.model import Limits, Reply, RunKey


async def test_a_run_is_created_by_its_first_request_and_driven_to_its_end():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    async with world.browser() as page:
        thoughts, last = await w.founding_loop(page, "s1")
    assert thoughts == ["Searching 0", "Searching 1", "the answer"]
    data = last.json()
    assert data["isTerminal"] is True
    assert data["output"] == data["data"]["finalAnswer"] == "the answer to find out"
    assert world.calls == 3


async def test_every_answer_has_the_whole_envelope():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    async with world.browser() as page:
        first = (await w.founding(page, "s1")).json()
    assert first == {
        "sessionId": "s1", "status": "CONTINUE", "isTerminal": False, "stopReason": None, "step": 0, "reasoning": "Searching 0",
        "output": None, "logs": ["Searching 0", 'search({"q": 0})', "search answered found 0"],
        "data": {"currentThought": "Searching 0", "toolUsed": "search", "finalAnswer": None},
        "next": {"action": "pulse", "afterMs": 0}, "interrupts": [],
        "usage": {"requests": 1, "inputTokens": 10, "outputTokens": 5, "cachedTokens": 0, "toolCalls": 1}, "error": None,
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/api/agent-step", "/.netlify/functions/agent-step", "/api/step"])
async def test_the_three_paths_are_one(path: str):
    world = w.World(w.three_steps, anonymous_start="allow")
    async with world.client() as client:
        answer = await w.founding(client, "s1", path=path)
        wrong = await client.get(path)
        missing = await client.post(path, content="{}")
    assert answer.status_code == 200
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert (missing.status_code, missing.json()["code"]) == (400, "bad_input")
    assert "sessionId" in missing.json()["detail"]


async def test_one_that_never_ends_is_landed_by_the_brake():
    world = w.World(w.never_ends, anonymous_start="same-origin", limits=Limits(steps=4))
    async with world.browser() as page:
        thoughts, last = await w.founding_loop(page, "s1")
    data = last.json()
    assert (data["status"], data["stopReason"]) == ("COMPLETED", "max_steps")
    assert data["data"]["finalAnswer"] == "summed up because of max_steps"
    assert len(thoughts) == 5


async def test_one_that_fails_is_an_error_response_with_the_envelope():
    world = w.World(w.fails, anonymous_start="same-origin")
    async with world.browser() as page:
        _, last = await w.founding_loop(page, "s1")
        again = await w.founding(page, "s1")
    assert (last.status_code, last.headers["content-type"]) == (500, "application/json")
    data = last.json()
    assert (data["status"], data["isTerminal"], data["error"]["message"]) == ("ERROR", True, "the source is gone")
    assert again.status_code == 500
    assert again.content == last.content
    assert world.calls == 1


async def test_one_that_was_cancelled_is_an_error_response():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    async with world.browser() as page:
        await w.founding(page, "s1")
        assert (await page.post("/api/runs/s1/cancel")).status_code == 200
        last = await w.founding(page, "s1")
    assert (last.status_code, last.json()["status"]) == (500, "CANCELLED")
    assert world.calls == 1


async def test_a_timer_holds_the_request_and_the_loop_goes_on():
    world = w.World(w.waits(0.3), anonymous_start="same-origin")
    async with world.browser() as page:
        first = await w.founding(page, "s1")
        _, last = await w.founding_loop(page, "s1", at_most=1)
    assert (first.json()["status"], first.json()["next"]["action"]) == ("CONTINUE", "wait")
    assert last.json()["output"] == "waited"


async def test_a_long_timer_is_held_for_the_hold_and_answered_with_continue():
    world = w.World(w.waits(3600), anonymous_start="same-origin", hold=0.2)
    async with world.browser() as page:
        await w.founding(page, "s1")
        held = await w.founding(page, "s1")
    assert held.status_code == 200
    assert held.json()["status"] == "CONTINUE"
    assert held.json()["next"]["action"] == "wait"
    assert held.json()["data"] is not None


async def test_the_hold_never_passes_the_wall():
    world = w.World(w.waits(3600), anonymous_start="same-origin", wall=0.4)
    loop = asyncio.get_running_loop()
    async with world.browser() as page:
        await w.founding(page, "s1")
        began = loop.time()
        held = await w.founding(page, "s1")
    assert held.json()["status"] == "CONTINUE"
    assert loop.time() - began < 5  # the hold alone would be 20


async def test_a_run_that_somebody_else_drives_is_held_until_that_step_is_done(monkeypatch: pytest.MonkeyPatch):
    going, go_on = asyncio.Event(), asyncio.Event()

    async def slow(turn, ctx):
        if turn.step == 0:
            going.set()
            await go_on.wait()
            return Reply()
        return Reply(then="finish", output="done")

    world = w.World(slow, anonymous_start="same-origin")
    async with world.browser() as page:
        first = asyncio.create_task(w.founding(page, "s1"))
        await going.wait()
        cookie = world.auth.owner()  # another tab of a stranger does not see it
        async with world.client({"cookie": f"steprelay_owner={cookie[1]}", "origin": w.ORIGIN}) as stranger:
            assert (await w.founding(stranger, "s1")).status_code == 404
        async with world.server() as other:
            refused = w.refusal(world.store, monkeypatch)
            second = asyncio.create_task(w.founding(other, "s1"))
            assert await refused == "busy"
            assert not second.done()
            go_on.set()
            assert (await first).json()["step"] == 0
            assert (await second).json()["output"] == "done"
    assert world.calls == 2


async def test_one_that_asks_shows_its_question():
    world = w.World(w.asks, anonymous_start="same-origin")
    async with world.browser() as page:
        asked = await w.founding(page, "s1")
        again = await w.founding(page, "s1")
        await page.post("/api/runs/s1/input", json={"userPrompt": "Oslo"})
        done = await w.founding(page, "s1")
    for response in (asked, again):
        data = response.json()
        assert (response.status_code, data["status"]) == (200, "AWAITING_INPUT")
        assert data["output"] == data["data"]["currentThought"] == "Which town?"
    assert done.json()["output"] == {"answer": "Oslo"}
    assert done.json()["data"]["finalAnswer"] == '{"answer": "Oslo"}'


async def test_a_prompt_counts_only_for_creation():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    async with world.browser() as page:
        await w.founding_loop(page, "s1")
        after = await w.founding(page, "s1", prompt="something else")
    assert after.json()["output"] == "the answer to find out"
    assert world.calls == 3


async def test_an_unknown_session_without_a_prompt_is_not_created():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    async with world.browser() as page:
        response = await page.post("/api/agent-step", json={"sessionId": "nobody"})
    assert response.status_code == 404
    assert await world.store.read(RunKey("default", "nobody"), "run") == []


async def test_a_dead_drivers_run_is_held_until_its_lease_is_over(clock: w.Clock):
    world = w.World(w.three_steps, anonymous_start="same-origin", lease=0.4)
    async with world.browser() as page:
        await w.founding(page, "s1")
        await world.store.claim(RunKey("default", "s1"), claim_id="dead", holder="gone", lease=0.3, carrier="client")
        second = await w.founding(page, "s1")
    assert second.json()["step"] == 1
    rows = await world.store.read(RunKey("default", "s1"), "steps", after=0)
    assert rows[0].attempt == 2
