"""Taking steps: replays are the same bytes and cost nothing, conflicts are told, a busy run is told by whom."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import http_world as w
import msgspec
import pytest
from standardwebhooks import Webhook

from steprelay.core.model import Reply, RunKey
from steprelay.http import shapes
from steprelay.http.auth import driver_secret

KEY = RunKey("default", "s1")


async def step(client, expected=None, **headers):
    body = {} if expected is None else {"expectedStep": expected}
    return await client.post("/api/runs/s1/step", json=body, headers=headers)


async def start(client, prompt="find out"):
    response = await client.post("/api/runs", json={"userPrompt": prompt, "sessionId": "s1"})
    assert response.status_code == 201
    return response.json()


async def test_a_repeated_request_gets_the_same_bytes_and_asks_no_agent():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        answers = [await step(c, n) for n in range(3)]
        repeats = [await step(c, n) for n in range(3)]
    assert [a.json()["status"] for a in answers] == ["CONTINUE", "CONTINUE", "COMPLETED"]
    for answer, repeat in zip(answers, repeats, strict=True):
        assert repeat.content == answer.content
        assert repeat.status_code == answer.status_code == 200
        assert repeat.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in answer.headers
    assert world.calls == 3


async def test_a_replay_of_a_wait_is_the_same_whenever_it_is_asked(clock: w.Clock):
    world = w.World(w.waits(30))
    async with world.server() as c:
        await start(c)
        first = await step(c, 0)
        clock.forward(20)
        repeat = await step(c, 0)
    assert first.json()["next"]["action"] == "wait"
    assert 29_000 <= first.json()["next"]["afterMs"] <= 30_000
    assert repeat.content == first.content


async def test_an_idempotency_key_is_a_request_id():
    world = w.World(w.three_steps)
    body = {"sessionId": "s1", "userPrompt": "find out"}
    async with world.server() as c:
        first = await c.post("/api/agent-step", json=body, headers={"Idempotency-Key": "k1"})
        repeat = await c.post("/api/agent-step", json=body, headers={"Idempotency-Key": "k1"})
        other = await c.post("/api/agent-step", json={**body, "userPrompt": "else"}, headers={"Idempotency-Key": "k1"})
        next_one = await c.post("/api/agent-step", json=body, headers={"Idempotency-Key": "k2"})
    assert repeat.content == first.content
    assert repeat.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert next_one.json()["step"] == 1
    assert world.calls == 2


@pytest.mark.parametrize("expected", [0, 7])
async def test_a_step_behind_or_ahead_is_a_conflict_with_the_snapshot(expected: int):
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        await step(c)
        wrong = await step(c, expected)
    problem = wrong.json()
    assert (wrong.status_code, wrong.headers["content-type"]) == (409, "application/problem+json")
    assert (problem["code"], problem["status"], problem["runStatus"]) == ("step_mismatch", 409, "CONTINUE")
    assert (problem["sessionId"], problem["step"], problem["isTerminal"]) == ("s1", 0, False)
    assert world.calls == 1


async def test_a_busy_run_says_by_whom_and_until_when():
    going, go_on = asyncio.Event(), asyncio.Event()

    async def slow(turn, ctx):
        going.set()
        await go_on.wait()
        return Reply(then="finish", output="done")

    world = w.World(slow)
    async with world.server() as c:
        await start(c)
        first = asyncio.create_task(step(c, 0))
        await going.wait()
        busy = await step(c)
        same = await step(c, 0)
        strict = await step(c, Prefer="strict")
        go_on.set()
        await first
    for answer in (busy, same):
        assert (answer.status_code, answer.json()["status"]) == (202, "CONTINUE")
        assert 1 <= int(answer.headers["retry-after"]) <= 16
        assert answer.json()["next"]["action"] == "wait"
    assert (strict.status_code, strict.json()["code"]) == (409, "not_now")
    assert "retry-after" in strict.headers
    assert world.calls == 1


async def test_a_timer_is_told_with_the_time():
    world = w.World(w.waits(30))
    async with world.server() as c:
        await start(c)
        await step(c)
        waiting = await step(c)
    assert (waiting.status_code, waiting.json()["status"], waiting.json()["stopReason"]) == (202, "WAITING", "timer")
    assert 29 <= int(waiting.headers["retry-after"]) <= 31


async def test_an_end_is_no_server_error_for_everyone_else():
    world = w.World(w.fails)
    async with world.server() as c:
        await start(c)
        failed, again = await step(c), await step(c)
    assert (failed.status_code, failed.json()["status"], failed.json()["isTerminal"]) == (200, "ERROR", True)
    assert (again.status_code, again.json()["status"]) == (200, "ERROR")


async def test_a_question_is_told_with_its_interrupts():
    world = w.World(w.asks)
    async with world.server() as c:
        await start(c)
        asked, again = await step(c), await step(c)
    assert again.json() == asked.json()
    assert asked.status_code == again.status_code == 200
    assert asked.json()["next"] == {"action": "input", "afterMs": 0}
    assert asked.json()["output"] is None
    assert [i["prompt"] for i in asked.json()["interrupts"]] == ["Which town?"]


async def test_as_many_steps_as_fit_are_packed_into_one_request():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        answer = await step(c, 0, Prefer="steps=fit")
    assert (answer.json()["status"], answer.json()["step"]) == ("COMPLETED", 2)
    assert world.calls == 3


async def test_a_closed_connection_does_not_cancel_the_step():
    going, go_on = asyncio.Event(), asyncio.Event()

    async def slow(turn, ctx):
        going.set()
        await go_on.wait()
        return Reply(then="finish", output="done")

    world = w.World(slow)
    async with world.server() as c:
        await start(c)
        request = asyncio.create_task(step(c, 0))
        await going.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        (work,) = world.app.state.api.tasks
        go_on.set()
        await work
        replay = await step(c, 0)
    assert replay.json()["output"] == "done"
    assert replay.headers["idempotent-replayed"] == "true"
    assert world.calls == 1


async def test_closing_the_app_hands_the_run_back():
    going = asyncio.Event()

    async def endless(turn, ctx):
        going.set()
        await asyncio.Event().wait()

    world = w.World(endless)
    async with world.server() as c:
        await start(c)
        request = asyncio.create_task(step(c, 0))
        await going.wait()
        await world.app.state.api.close()
        with pytest.raises(asyncio.CancelledError):
            await request
    (run,) = await world.store.read(KEY, "run")
    assert (run.claim_id, run.attempts) == (None, 0)


async def test_a_step_by_a_server_costs_two_store_calls_and_the_first_one_too(monkeypatch: pytest.MonkeyPatch):
    world = w.World(w.three_steps)
    verbs: list[str] = []
    for name in ("claim", "commit", "read", "signal", "progress"):
        verb = getattr(world.store, name)

        async def counted(*args, _verb=verb, _name=name, **kwargs):
            verbs.append(_name)
            return await _verb(*args, **kwargs)

        monkeypatch.setattr(world.store, name, counted)
    async with world.server() as c:
        await w.founding(c, "s1")
        await w.founding(c, "s1")
    assert verbs == ["claim", "commit"] * 2


async def test_the_store_being_away_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch):
    from steprelay.core.errors import StoreUnavailable

    world = w.World(w.three_steps, lease=0.05)

    async def away(*args, **kwargs):
        raise StoreUnavailable("postgres://user:password@host is gone")

    async with world.server() as c:
        await start(c)
        monkeypatch.setattr(world.store, "claim", away)
        monkeypatch.setattr(world.store, "check", away)
        answers = [await step(c), await c.get("/api/health"), await c.get("/api/runs/s1")]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert "retry-after" in answer.headers
        assert "password" not in answer.text
    assert world.calls == 0


async def test_every_envelope_has_its_shape(clock: w.Clock):
    for agent in (w.three_steps, w.fails, w.asks, w.asks_twice, w.waits(5), w.waits_for_event, w.never_ends):
        world = w.World(agent)
        async with world.server() as c:
            await start(c)
            for _ in range(3):
                answer = await step(c)
                msgspec.json.decode(answer.content, type=shapes.Envelope)
            (await c.post("/api/runs/s1/cancel")).raise_for_status()
            msgspec.json.decode((await step(c)).content, type=shapes.Envelope)


async def test_a_server_that_drives_says_who_takes_a_step():
    world = w.World(w.three_steps)
    async with world.server() as c:
        made = await c.post("/api/runs", json={"userPrompt": "x", "sessionId": "s1", "carrier": "trigger"})
        busy = await step(c, 0)
        assert (busy.status_code, busy.json()["step"]) == (202, -1), "a run is its carrier's"
        url = "/api/runs/s1/step"
        taken = await c.post(url, json={"carrier": "trigger"}, headers={"idempotency-key": "a/0"})
        again = await c.post(url, json={"carrier": "trigger"}, headers={"idempotency-key": "a/0"})
        assert (taken.json()["step"], again.content) == (0, taken.content)
        assert (await c.post(url, json={"carrier": "Not a name"})).status_code == 400
    async with world.client({"authorization": f"Bearer {made.json()['token']}"}) as stranger:
        refused = await stranger.post(url, json={"carrier": "trigger"})
        assert (refused.status_code, refused.json()["code"], refused.json()["path"]) == (403, "server_key_only", "$.carrier")
    body = '{"carrier":"trigger"}'
    async with world.client() as driver:
        assert (await driver.post(url, content=body, headers=driver_headers(body))).json()["step"] == 1
    steps = await world.store.read(KEY, "steps")
    assert [s.carrier for s in steps] == ["trigger", "trigger"]


def driver_headers(body):
    at = datetime.now(UTC)
    signature = Webhook(driver_secret(w.SECRET)).sign("msg_1", at, body)
    stamp = {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
    return {"content-type": "application/json", **stamp}
