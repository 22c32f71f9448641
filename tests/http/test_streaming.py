"""Server-Sent Events: live parts, committed parts, the envelope at the end; resuming from a step's start; AG-UI."""

from __future__ import annotations

import asyncio
import json

import http_world as w
import pytest

from steprelay.core.model import Call, Reply, Result, Text, Thought
from steprelay.http.streams import AgUi, Past
from steprelay.watch import Live

SSE = {"accept": "text/event-stream"}


def events(text: str) -> list[dict]:
    """Events of a stream: {event, id, data}."""
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            found.append({"event": fields.get("event"), "id": fields.get("id"), "data": json.loads(fields["data"])})
    return found


def speaks(turn, ctx):
    for word in ("Hel", "lo"):
        ctx.emit(Text(text=word, id="t", delta=True))
    said = (Text(text="Hello"),)
    return Reply(then="finish", output="Hello", parts=said) if turn.step else Reply(parts=said)


async def start(client):
    (await client.post("/api/runs", json={"userPrompt": "hi", "sessionId": "s1"})).raise_for_status()


async def test_a_step_streams_live_then_committed_then_the_envelope():
    world = w.World(speaks)
    async with world.server() as c:
        await start(c)
        plain = await c.post("/api/runs/s1/step", json={}, headers=SSE)
    assert plain.headers["content-type"].startswith("text/event-stream")
    heard = events(plain.text)
    assert [(e["event"], e["id"]) for e in heard] == [
        ("part", "0.1.0"), ("part", "0.1.1"), ("part", "0.c.0"), ("part", "0.c.1"), ("envelope", None),
    ]  # fmt: skip
    assert [e["data"]["part"].get("text") for e in heard[:4]] == ["Hel", "lo", "hi", "Hello"]
    assert heard[-1]["data"]["status"] == "CONTINUE"


async def test_agent_step_streams_as_well_and_is_then_not_the_founding_dialect():
    world = w.World(w.fails)
    async with world.server() as c:
        answer = await c.post("/api/agent-step", json={"sessionId": "s1", "userPrompt": "x"}, headers=SSE)
    assert answer.status_code == 200
    assert events(answer.text)[-1]["data"]["status"] == "ERROR"


async def test_a_replay_streams_the_committed_parts_and_the_same_envelope():
    world = w.World(speaks)
    async with world.server() as c:
        await start(c)
        first = await c.post("/api/runs/s1/step", json={"expectedStep": 0})
        replay = await c.post("/api/runs/s1/step", json={"expectedStep": 0}, headers=SSE)
    assert replay.headers["idempotent-replayed"] == "true"
    assert [e["id"] for e in events(replay.text)] == ["0.c.0", "0.c.1", None]
    assert events(replay.text)[-1]["data"] == first.json()
    assert world.calls == 1


async def test_what_is_refused_has_its_own_status():
    world = w.World(speaks)
    async with world.server() as c:
        unknown = await c.post("/api/runs/nobody/step", json={}, headers=SSE)
        await start(c)
        mismatch = await c.post("/api/runs/s1/step", json={"expectedStep": 9}, headers=SSE)
        protocol = await c.post("/api/runs/s1/step?protocol=morse", json={}, headers=SSE)
    assert [r.status_code for r in (unknown, mismatch, protocol)] == [404, 409, 400]
    assert world.calls == 0


async def test_a_busy_run_streams_its_snapshot_with_202():
    going, go_on = asyncio.Event(), asyncio.Event()

    async def slow(turn, ctx):
        going.set()
        await go_on.wait()
        return Reply(then="finish", output="done")

    world = w.World(slow)
    async with world.server() as c:
        await start(c)
        first = asyncio.create_task(c.post("/api/runs/s1/step", json={}))
        await going.wait()
        busy = await c.post("/api/runs/s1/step", json={}, headers=SSE)
        go_on.set()
        await first
    assert (busy.status_code, events(busy.text)[-1]["data"]["status"]) == (202, "CONTINUE")
    assert "retry-after" in busy.headers


async def test_parts_are_followed_to_the_end():
    world = w.World(speaks)
    async with world.server() as c:
        await start(c)
        following = asyncio.create_task(c.get("/api/runs/s1/parts", headers=SSE))
        await c.post("/api/runs/s1/step", json={})
        await c.post("/api/runs/s1/step", json={})
        heard = events((await following).text)
    assert [e["id"] for e in heard] == ["0.c.0", "0.c.1", "1.c.0", "1.c.1", None]
    assert heard[-1]["data"]["status"] == "COMPLETED"


@pytest.mark.parametrize(("cursor", "first"), [("0.c.1", "0.c.0"), ("1.c.0", "1.c.0"), ("1.3.7", "1.c.0")])
async def test_a_reader_that_comes_back_gets_its_step_from_the_start(cursor: str, first: str):
    world = w.World(speaks)
    async with world.server() as c:
        await start(c)
        await c.post("/api/runs/s1/step", json={}, headers={"Prefer": "steps=fit"})
        answer = await c.get("/api/runs/s1/parts", headers={**SSE, "Last-Event-ID": cursor})
        wrong = await c.get("/api/runs/s1/parts", headers={**SSE, "Last-Event-ID": "what"})
    assert events(answer.text)[0]["id"] == first
    assert wrong.status_code == 400


async def test_a_new_attempt_has_other_ids():
    def fails_once(turn, ctx):
        ctx.emit(Text(text="try", id="t", delta=True))
        if turn.attempt == 1:
            raise RuntimeError("gone")
        return Reply(then="finish", output="done")

    world = w.World(fails_once)
    async with world.server() as c:
        await start(c)
        first = await c.post("/api/runs/s1/step", json={"expectedStep": 0}, headers=SSE)
        held = await w.founding(c, "s1")
    assert events(first.text)[0]["id"] == "0.1.0"
    assert events(first.text)[-1]["data"]["error"]["message"] == "RuntimeError: gone"
    assert held.json()["output"] == "done"


# ---------------------------------------------------------------- AG-UI


def agui_types(text: str) -> list[str]:
    return [e["data"]["type"] for e in events(text)]


async def test_agui_slices_join_to_one_run():
    world = w.World(speaks)
    async with world.server() as c:
        await start(c)
        slices = [await c.post("/api/runs/s1/step?protocol=agui&runId=r1", json={}, headers=SSE) for _ in range(2)]
    words = ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]
    assert agui_types(slices[0].text) == ["RUN_STARTED", "STEP_STARTED", *words, "STEP_FINISHED", "CUSTOM"]
    assert agui_types(slices[1].text) == ["STEP_STARTED", *words, "STEP_FINISHED", "RUN_FINISHED"]
    assert events(slices[0].text)[0]["data"] == {
        "type": "RUN_STARTED", "threadId": "s1", "runId": "r1", "protocolVersion": "1.0",
    }  # fmt: skip
    assert events(slices[0].text)[-1]["data"]["name"] == "steprelay.continue"
    last = events(slices[1].text)[-1]["data"]
    assert (last["runId"], last["outcome"], last["result"]) == ("r1", {"type": "success"}, "Hello")


async def test_agui_asks_with_an_interrupt_and_begins_anew_after_the_answer():
    world = w.World(w.asks)
    async with world.server() as c:
        await start(c)
        asked = await c.post("/api/runs/s1/step?protocol=agui", json={}, headers=SSE)
        await c.post("/api/runs/s1/input", json=[{"interruptId": "q0", "status": "resolved", "payload": "Oslo"}])
        done = await c.post("/api/runs/s1/step?protocol=agui", json={}, headers=SSE)
    outcome = events(asked.text)[-1]["data"]["outcome"]
    assert (outcome["type"], outcome["interrupts"][0]["id"], outcome["interrupts"][0]["message"]) == (
        "interrupt",
        "q0",
        "Which town?",
    )
    assert agui_types(done.text)[:2] == ["RUN_STARTED", "MESSAGES_SNAPSHOT"]
    assert events(done.text)[-1]["data"]["outcome"] == {"type": "success"}


async def test_agui_tells_failures_and_cancels():
    failing, stopped = w.World(w.fails), w.World(w.three_steps)
    async with failing.server() as c:
        await start(c)
        failed = await c.post("/api/runs/s1/step?protocol=agui", json={}, headers=SSE)
    async with stopped.server() as c:
        await start(c)
        await c.post("/api/runs/s1/cancel")
        cancelled = await c.get("/api/runs/s1/parts?protocol=agui", headers=SSE)
    assert events(failed.text)[-1]["data"] == {"type": "RUN_ERROR", "message": "the source is gone", "code": "agent_error"}
    assert events(cancelled.text)[-1]["data"]["outcome"] == {"type": "cancelled"}


async def test_an_agui_reader_begins_with_what_was_said():
    world = w.World(speaks)
    async with world.server() as c:
        await start(c)
        await c.post("/api/runs/s1/step", json={})
        await c.post("/api/runs/s1/step", json={})
        heard = events((await c.get("/api/runs/s1/parts?protocol=agui", headers=SSE)).text)
    assert [e["data"]["type"] for e in heard] == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    said = [(m["role"], m["content"]) for m in heard[1]["data"]["messages"]]
    assert said == [("user", "hi"), ("assistant", "Hello"), ("assistant", "Hello")]


def test_agui_says_nothing_twice():
    agui = AgUi()
    agui.begin(Past(thread="s1"))
    said = [
        agui.live(Live(step=0, attempt=1, index=0, part=Thought(text="hm", id="a", delta=True))),
        agui.live(Live(step=0, attempt=1, index=1, part=Text(text="Hi", id="a", delta=True))),
        agui.live(Live(step=0, attempt=1, index=2, part=Call(id="c", name="search", args={"q": 1}))),
        agui.live(Live(step=0, attempt=1, index=3, part=Result(id="c", name="search", value=[1]))),
    ]
    parts = (
        Thought(text="hm"),
        Text(text="Hi"),
        Call(id="c", name="search", args={"q": 1}),
        Result(id="c", name="search", value=[1]),
    )
    again = [agui.live(Live(step=0, attempt=1, index=i, part=p, committed=True)) for i, p in enumerate(parts)]
    types = [e.data["type"] for batch in said for e in batch]
    assert types == [
        "STEP_STARTED", "REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END",
        "REASONING_END", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "TOOL_CALL_START", "TOOL_CALL_ARGS",
        "TOOL_CALL_END", "TOOL_CALL_RESULT",
    ]  # fmt: skip
    assert again == [[], [], [], []]
