"""What cannot be taken: each refused with a problem document that says where, and no agent is asked."""

from __future__ import annotations

import http_world as w
import pytest

STEP = "/api/agent-step"
BAD = {
    "empty": (STEP, b"", "sessionId"),
    "no json": (STEP, b"hello", "JSON"),
    "cut off": (STEP, b'{"sessionId": "s', "JSON|truncated"),
    "not utf-8": (STEP, b'{"sessionId": "\xff\xfe"}', "."),
    "an array": (STEP, b"[1]", "object"),
    "null": (STEP, b"null", "object"),
    "a number for an id": (STEP, b'{"sessionId": 7}', "$.sessionId"),
    "an empty id": (STEP, b'{"sessionId": ""}', "$.sessionId"),
    "a path for an id": (STEP, b'{"sessionId": "../etc"}', "$.sessionId"),
    "a long id": (STEP, b'{"sessionId": "' + b"x" * 201 + b'"}', "$.sessionId"),
    "NUL in an id": (STEP, b'{"sessionId": "a\\u0000b"}', "$.sessionId"),
    "a surrogate": (STEP, b'{"sessionId": "a", "userPrompt": "\\ud800"}', "JSON|truncated|surrogate"),
    "NaN": (STEP, b'{"sessionId": "a", "expectedStep": NaN}', "JSON"),
    "Infinity": ("/api/runs", b'{"userPrompt": "x", "messages": [1e999]}', "range"),
    "a negative step": (STEP, b'{"sessionId": "a", "expectedStep": -1}', "$.expectedStep"),
    "an unknown field": (STEP, b'{"sessionId": "a", "promt": "x"}', "promt"),
    "an unknown limit": ("/api/runs", b'{"userPrompt": "x", "limits": {"stepz": 3}}', "$.limits"),
    "a limit of nothing": ("/api/runs", b'{"userPrompt": "x", "limits": {"steps": 0}}', "$.limits.steps"),
    "an unknown agent": ("/api/runs", b'{"userPrompt": "x", "agent": "nobody"}', "nobody"),
    "no prompt": ("/api/runs", b"{}", "userPrompt"),
    "a strange url": ("/api/start-job", b'{"userPrompt": "x", "notifyUrl": "file:///etc/passwd"}', "$.notifyUrl"),
    "a strange carrier": ("/api/runs", b'{"userPrompt": "x", "carrier": "A B"}', "$.carrier"),
    "too deep": (STEP, b"[" * 100_000, "."),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_makes_no_sense_is_refused_with_a_reason(name: str):
    path, body, said = BAD[name]
    world = w.World(w.three_steps)
    async with world.server() as c:
        answer = await c.post(path, content=body)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["type"]) == (400, 400, "about:blank")
    text = problem["detail"] + str(problem.get("path"))
    assert any(s in text for s in said.split("|")), text
    assert world.calls == 0


async def test_odd_characters_in_a_prompt_come_back_as_they_went():
    odd = 'NUL \x00, emoji 🏃, right-to-left ‮, quote ", 2^63 9223372036854775808'
    world = w.World(lambda turn, ctx: turn.prompt)
    async with world.server() as c:
        answer = await w.founding(c, "s1", prompt=odd)
    assert answer.json()["output"] == odd


async def test_an_answer_may_hold_what_utf8_cannot():
    world = w.World(lambda turn, ctx: "half a pair \ud83d")
    async with world.server() as c:
        answer = await w.founding(c, "s1")
    assert b"\\ud83d" in answer.content


@pytest.mark.parametrize("declared", [True, False])
async def test_a_huge_body_is_refused_without_reading_it_all(declared: bool):
    world = w.World(w.three_steps, body_limit=1000)
    read = 0

    async def chunks():
        nonlocal read
        for _ in range(100):
            read += 100
            yield b"x" * 100

    async with world.server() as c:
        answer = await c.post(STEP, content=b"x" * 5000 if declared else chunks())
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert world.calls == 0


@pytest.mark.parametrize("path", ["/api/nothing", "/", "/api/runs/s1/nothing"])
async def test_there_is_nothing_elsewhere(path: str):
    world = w.World(w.three_steps)
    async with world.server() as c:
        answer = await c.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("id", ["nobody", "a%20b", "%00", "x" * 300, "%F0%9F%8F%83"])
async def test_an_unknown_or_impossible_id_is_the_same_404(id: str):
    world = w.World(w.three_steps)
    async with world.server() as c:
        answers = [await c.get(f"/api/runs/{id}"), await c.post(f"/api/runs/{id}/step", json={}), await c.get("/api/runs/other")]
    assert {(a.status_code, a.content) for a in answers} == {(404, answers[2].content)}


async def test_a_request_id_must_be_printable_and_short():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await w.founding(c, "s1")
        answers = [await c.post("/api/runs/s1/step", json={}, headers={"Idempotency-Key": k}) for k in ("x" * 201, "a\tb")]
    assert [a.status_code for a in answers] == [400, 400]


async def test_a_broken_agent_is_not_a_broken_server():
    def breaks(turn, ctx):
        raise ValueError("secret detail of the agent")

    world = w.World(breaks)
    async with world.server() as c:
        answer = await c.post(STEP, json={"sessionId": "s1", "userPrompt": "x", "expectedStep": 0})
    assert answer.status_code == 202
    assert answer.json()["error"] == {
        "code": "agent_error",
        "message": "ValueError: secret detail of the agent",
        "retryable": True,
    }


async def test_a_bug_of_ours_is_told_without_its_details(monkeypatch: pytest.MonkeyPatch):
    world = w.World(w.three_steps)

    async def breaks(*args, **kwargs):
        raise ZeroDivisionError("the innards")

    monkeypatch.setattr(world.store, "read", breaks)
    async with world.server() as c:
        answer = await c.get("/api/runs")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "innards" not in answer.text
