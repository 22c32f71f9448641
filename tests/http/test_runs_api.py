"""Runs as resources: created once, listed, read, answered, stopped, resumed, forked, handed over, explained."""

from __future__ import annotations

import asyncio

import http_world as w
import msgspec
import pytest

from steprelay.core.model import Filter, Limits, Reply, RunKey, Text
from steprelay.http import shapes

KEY = RunKey("default", "s1")


async def start(client, id="s1", **more):
    response = await client.post("/api/runs", json={"userPrompt": "find out", "sessionId": id, **more})
    assert response.status_code == 201, response.text
    return response.json()


async def step(client, id="s1"):
    return (await client.post(f"/api/runs/{id}/step", json={})).json()


# ---------------------------------------------------------------- creation


async def test_a_run_is_created_with_its_place_and_a_token():
    world = w.World(w.three_steps)
    async with world.server() as c:
        made = await c.post(
            "/api/runs", json={"userPrompt": "x", "limits": {"steps": 7, "toolCalls": None}, "labels": {"a": "b"}}
        )
    run = msgspec.json.decode(made.content, type=shapes.Created)
    assert made.headers["location"] == f"/api/runs/{run.session_id}"
    assert len(run.session_id) == 32
    assert (run.status, run.step, run.limits["steps"], run.labels) == ("RUNNING", -1, 7, {"a": "b"})
    async with world.client({"authorization": f"Bearer {run.token}"}) as browser:
        assert (await browser.get(made.headers["location"])).status_code == 200


async def test_the_same_key_is_the_same_run_and_another_body_is_refused():
    world = w.World(w.three_steps)
    key = {"Idempotency-Key": "order-7"}
    async with world.server() as c:
        first = await c.post("/api/runs", json={"userPrompt": "x"}, headers=key)
        again = await c.post("/api/runs", json={"userPrompt": "x"}, headers=key)
        other = await c.post("/api/runs", json={"userPrompt": "y"}, headers=key)
    assert again.json()["sessionId"] == first.json()["sessionId"]
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert len(await world.store.read(Filter(tenant="default"), "runs")) == 1


async def test_an_id_that_is_taken_is_a_conflict():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        await start(c)
        other = await c.post("/api/runs", json={"userPrompt": "else", "sessionId": "s1"})
    assert (other.status_code, other.json()["code"]) == (409, "run_exists")


async def test_a_run_may_begin_with_a_history():
    seen = []

    def agent(turn, ctx):
        seen.append((turn.prompt, [m["content"] for m in turn.messages]))
        return Reply(then="finish", output="ok")

    world = w.World(agent)
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and now?"}]
    async with world.server() as c:
        made = await c.post("/api/runs", json={"messages": said, "sessionId": "s1"})
        done = await step(c)
        messages = (await c.get("/api/runs/s1/messages")).json()["messages"]
        bad = await c.post("/api/runs", json={"messages": said[:2]})
    assert made.json()["step"] == 0
    assert (done["step"], done["output"]) == (1, "ok")
    assert seen == [("and now?", ["hi", "hello"])]
    assert [m.get("content", m.get("text")) for m in messages] == ["hi", "hello", "and now?"]
    assert bad.status_code == 400


async def test_a_job_is_answered_before_its_first_step_and_woken():
    world = w.World(w.three_steps)
    async with world.server() as c:
        job = await c.post("/api/start-job", json={"userPrompt": "x", "limits": {"steps": 3}})
        id = job.json()["sessionId"]
        busy = await c.post(f"/api/runs/{id}/step", json={})
    assert (job.status_code, job.json()["status"], job.headers["location"]) == (202, "RUNNING", f"/api/runs/{id}")
    assert (job.json()["carrier"], job.json()["takeoverAfter"]) == ("background", 15.0)
    assert world.woken == [(id, "background")]
    assert busy.status_code == 202
    assert world.calls == 0


async def test_a_wake_that_fails_does_not_lose_the_job(monkeypatch: pytest.MonkeyPatch):
    world = w.World(w.three_steps)

    async def fails(key, carrier):
        raise OSError("no route")

    object.__setattr__(world.app.state.api, "wake", fails)
    async with world.server() as c:
        job = await c.post("/api/start-job", json={"userPrompt": "x"})
    assert job.status_code == 202


# ---------------------------------------------------------------- reading


async def test_runs_are_listed_a_page_at_a_time():
    world = w.World({"agent": w.three_steps, "other": w.asks})
    async with world.server() as c:
        for n in range(5):
            await start(c, f"s{n}", labels={"n": str(n % 2)}, agent="other" if n == 4 else "agent")
        await step(c, "s4")
        seen, cursor = [], ""
        while cursor is not None:
            page = await c.get(f"/api/runs?limit=2{cursor and f'&cursor={cursor}'}")
            listed = msgspec.json.decode(page.content, type=shapes.RunList)
            seen += [r.session_id for r in listed.runs]
            cursor = listed.cursor
        by = {
            q: [r["sessionId"] for r in (await c.get(f"/api/runs?{q}")).json()["runs"]]
            for q in ("status=awaiting_input", "agent=other", "label=n:1", "status=COMPLETED")
        }
        bad = [await c.get(f"/api/runs?{q}") for q in ("status=what", "cursor=!!", "limit=x")]
    assert sorted(seen) == ["s0", "s1", "s2", "s3", "s4"]
    assert len(seen) == 5
    assert by["status=awaiting_input"] == by["agent=other"] == ["s4"]
    assert sorted(by["label=n:1"]) == ["s1", "s3"]
    assert by["status=COMPLETED"] == []
    assert [r.status_code for r in bad] == [400] * 3


async def test_history_is_read_by_pages():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        for _ in range(3):
            await step(c)
        first = msgspec.json.decode((await c.get("/api/runs/s1/steps?limit=2")).content, type=shapes.StepList)
        rest = msgspec.json.decode((await c.get(f"/api/runs/s1/steps?after={first.after}")).content, type=shapes.StepList)
        parts = msgspec.json.decode((await c.get("/api/runs/s1/parts?after=1")).content, type=shapes.PartList)
    assert [s.index for s in first.steps] == [0, 1]
    assert [s.index for s in rest.steps] == [2]
    assert rest.after is None
    assert [p.id for p in parts.parts] == ["2.c.0", "2.c.1"]
    assert rest.steps[0].parts[1] == shapes.EndPart(
        status="COMPLETED", stop_reason="finished", output="the answer to find out"
    )  # fmt: skip
    assert first.steps[0].usage.tool_calls == 1


async def test_a_run_has_an_etag_and_can_be_waited_for():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        first = await c.get("/api/runs/s1")
        etag = {"If-None-Match": first.headers["etag"]}
        same = await c.get("/api/runs/s1", headers=etag)
        waiting = asyncio.create_task(c.get("/api/runs/s1?wait=20", headers=etag))
        await step(c)
        changed = await waiting
    assert (same.status_code, same.content) == (304, b"")
    assert (changed.status_code, changed.json()["step"]) == (200, 0)
    assert changed.headers["etag"] != first.headers["etag"]


async def test_a_wait_ends_with_the_round():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        waiting = asyncio.create_task(c.get("/api/runs/s1?wait=20"))
        for _ in range(3):
            await step(c)
        run = msgspec.json.decode((await waiting).content, type=shapes.RunView)
    assert (run.status, run.output, run.round_usage.tool_calls) == ("COMPLETED", "the answer to find out", 2)


# ---------------------------------------------------------------- input


async def test_answers_in_aguis_shape_and_the_first_one_counts():
    world = w.World(w.asks_twice)
    yes = {"interruptId": "a", "status": "resolved", "payload": {"approved": True}}
    async with world.server() as c:
        await start(c)
        await step(c)
        approvals = (await c.get("/api/approvals")).json()["approvals"]
        plain = await c.post("/api/runs/s1/input", json={"userPrompt": "yes"})
        first = await c.post("/api/runs/s1/input", json=[yes])
        again = await c.post("/api/runs/s1/input", json={"answers": [yes]})
        other = await c.post("/api/runs/s1/input", json=[{**yes, "status": "cancelled"}])
        unknown = await c.post("/api/runs/s1/input", json=[{"interruptId": "zz", "status": "resolved"}])
        still = await step(c)
        await c.post("/api/runs/s1/input", json=[{"interruptId": "b", "status": "cancelled"}])
        done = await step(c)
        late = await c.post("/api/runs/s1/input", json=[yes])
    assert [(a["sessionId"], [i["id"] for i in a["interrupts"]]) for a in approvals] == [("s1", ["a", "b"])]
    assert (plain.status_code, plain.json()["code"]) == (409, "answers_needed")
    assert (first.status_code, again.status_code, late.status_code) == (200, 200, 200)
    assert (other.status_code, other.json()["answers"]["a"]["status"]) == (409, "resolved")
    assert unknown.status_code == 404
    assert still["status"] == "AWAITING_INPUT"
    assert done["output"] == {"a": "resolved", "b": "cancelled"}


async def test_two_answers_at_once_and_one_wins():
    world = w.World(w.asks)
    async with world.server() as c:
        await start(c)
        await step(c)
        both = await asyncio.gather(
            *(
                c.post("/api/runs/s1/input", json=[{"interruptId": "q0", "status": "resolved", "payload": p}])
                for p in ("Oslo", "Rome")
            )
        )
        done = await step(c)
    assert sorted(r.status_code for r in both) == [200, 409]
    winner = ("Oslo", "Rome")[[r.status_code for r in both].index(200)]
    assert done["output"] == {"answer": winner}


async def test_a_prompt_after_the_end_is_the_next_round():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        early = await c.post("/api/runs/s1/input", json={"userPrompt": "too soon"})
        for _ in range(3):
            await step(c)
        more = await c.post("/api/runs/s1/input", json={"userPrompt": "and then?"}, headers={"Idempotency-Key": "p1"})
        twice = await c.post("/api/runs/s1/input", json={"userPrompt": "and then?"}, headers={"Idempotency-Key": "p1"})
        for _ in range(3):
            last = await step(c)
    assert (early.status_code, early.json()["code"]) == (409, "run_busy")
    assert more.json()["next"] == {"action": "pulse", "afterMs": 0}
    assert twice.status_code == 200
    assert (last["output"], last["step"]) == ("the answer to and then?", 5)
    (run,) = await world.store.read(KEY, "run")
    assert (run.round, run.ended) == (1, True)


async def test_a_prompt_may_be_queued_while_the_run_is_busy():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        await step(c)
        queued = await c.post("/api/runs/s1/input", json={"userPrompt": "next", "whenBusy": "queue"})
        answers = [await step(c) for _ in range(5)]
    assert queued.status_code == 200
    assert answers[1]["output"] == "the answer to find out"
    assert answers[4]["output"] == "the answer to next"


# ---------------------------------------------------------------- cancel, resume, fork, hand-over, explain


async def test_cancel_ends_an_idle_run_at_once_and_twice_is_once():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        await step(c)
        first, again = await c.post("/api/runs/s1/cancel"), await c.post("/api/runs/s1/cancel", json={})
        steps = (await c.get("/api/runs/s1/steps")).json()["steps"]
    assert (first.status_code, first.json()["status"], first.json()["stopReason"]) == (200, "CANCELLED", "cancelled")
    assert again.json() == first.json()
    assert len(steps) == 2
    assert world.calls == 1


async def test_cancel_reaches_a_step_under_way():
    going = asyncio.Event()

    async def endless(turn, ctx):
        ctx.emit(Text(text="so far", id="t", delta=True))
        going.set()
        await asyncio.Event().wait()

    world = w.World(endless, lease=0.3)
    async with world.server() as c:
        await start(c)
        stepping = asyncio.create_task(step(c))
        await going.wait()
        cancelled = await c.post("/api/runs/s1/cancel")
        last = await stepping
    assert cancelled.status_code == 202
    assert (last["status"], last["reasoning"]) == ("CANCELLED", "so far")


async def test_a_failed_run_is_resumed_and_a_finished_one_is_not():
    def once_bad(turn, ctx):
        return Reply(then="fail", error="no") if turn.step == 0 else Reply(then="finish", output="yes")

    world = w.World(once_bad)
    async with world.server() as c:
        await start(c)
        await step(c)
        resumed = await c.post("/api/runs/s1/resume", json={"limits": {"steps": 9}})
        done = await step(c)
        finished = await c.post("/api/runs/s1/resume", json={})
        run = (await c.get("/api/runs/s1")).json()
    assert (resumed.status_code, resumed.json()["next"]["action"]) == (200, "pulse")
    assert done["output"] == "yes"
    assert run["limits"]["steps"] == 9
    assert (finished.status_code, finished.json()["code"]) == (409, "nothing_to_resume")


async def test_a_fork_goes_on_from_a_step_with_an_edit():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        for _ in range(3):
            await step(c)
        made = await c.post("/api/runs/s1/fork", json={"step": 2, "edit": {"userPrompt": "instead"}})
        id = made.json()["sessionId"]
        for _ in range(3):
            last = await step(c, id)
        same = await c.post("/api/runs/s1/fork", json={"step": 0})
        went_on = await step(c, same.json()["sessionId"])
        ended = await c.post("/api/runs/s1/fork", json={"step": 2})
        missing = await c.post("/api/runs/s1/fork", json={"step": 9})
        again = await c.post("/api/runs/s1/fork", json={"step": -1})
    assert made.status_code == 201
    assert made.json()["parent"] == {"run": "s1", "step": 2, "kind": "fork"}
    assert (last["step"], last["output"]) == (5, "the answer to instead")
    assert (went_on["step"], went_on["reasoning"]) == (1, "Searching 1")
    assert (ended.status_code, ended.json()["code"]) == (409, "prompt_needed")
    assert missing.status_code == 404
    assert again.json()["step"] == -1


async def test_a_run_is_handed_over_and_woken():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        given = await c.post("/api/runs/s1/hand-over", content='{"carrier": "background", "takeoverAfter": 5}')
        refused = await c.post("/api/runs/s1/step", json={})
        back = await c.post("/api/runs/s1/hand-over", json={"carrier": "client"})
        taken = await c.post("/api/runs/s1/step", json={})
    assert (given.json()["carrier"], given.json()["takeoverAfter"]) == ("background", 5)
    assert world.woken == [("s1", "background")]
    assert refused.status_code == 202
    assert (back.json()["carrier"], back.json()["takeoverAfter"]) == ("client", None)
    assert taken.status_code == 200


@pytest.mark.parametrize(
    ("agent", "steps", "why", "words"),
    [
        (w.three_steps, 0, "carrier", "belongs to 'client'"),
        (w.three_steps, 3, "ended", "COMPLETED, finished"),
        (w.fails, 1, "ended", "the source is gone"),
        (w.asks, 1, "input", "Which town?"),
        (w.waits(60), 1, "timer", "due in 60 s"),
        (w.waits_for_event, 1, "external", "payment"),
    ],
)
async def test_explain_says_why_a_run_stands_still(agent, steps: int, why: str, words: str):
    world = w.World(agent)
    async with world.server() as c:
        await start(c)
        for _ in range(steps):
            await step(c)
        answer = msgspec.json.decode((await c.get("/api/runs/s1/explain")).content, type=shapes.Explanation)
    assert answer.why == why
    assert words in answer.words


async def test_explain_names_the_holder_then_what_happens_when_it_is_dead(clock: w.Clock):
    world = w.World(w.three_steps)
    async with world.server() as c:
        await start(c)
        await world.store.claim(KEY, claim_id="x", holder="host:1", lease=15, carrier="client")
        held = (await c.get("/api/runs/s1/explain")).json()
        clock.forward(16)
        dead = (await c.get("/api/runs/s1/explain")).json()
    assert (held["why"], held["holder"]) == ("held", "host:1")
    assert held["until"] is not None
    assert dead["why"] == "carrier"
    assert "attempt 2 is next" in dead["words"]


async def test_a_pruned_run_is_gone():
    world = w.World(w.fails)
    async with world.server() as c:
        await start(c)
        await step(c)
        await world.store.prune(9e9, Filter(tenant="default"))
        answers = [await c.get("/api/runs/s1"), await c.get("/api/runs/s1/steps"), await c.post("/api/runs/s1/step", json={})]
    assert [(a.status_code, a.json()["code"]) for a in answers] == [(410, "pruned")] * 3


# ---------------------------------------------------------------- for the house


async def test_an_event_reaches_the_run_that_waits_for_it_once():
    world = w.World(w.waits_for_event)
    async with world.server() as c:
        await start(c, carrier="background")
        world.woken.clear()
        await world.carry(KEY, "background")
        url = f"/api/events/{world.auth.event_token(KEY, 'payment')}"
        async with world.client() as outside:
            first = await outside.post(url, json={"paid": 5}, headers={"webhook-id": "m1"})
            again = await outside.post(url, json={"paid": 5}, headers={"webhook-id": "m1"})
            forged = await outside.post("/api/events/nonsense", json={})
            bad = await outside.post(url, content=b"{", headers={"webhook-id": "m2"})
        await world.carry(KEY, "background")
        run = (await c.get("/api/runs/s1")).json()
    assert (first.json()["first"], again.json()["first"]) == (True, False)
    assert world.woken == [("s1", "background")]
    assert forged.status_code == 404
    assert bad.status_code == 400
    assert run["output"] == {"paid": 5}


async def test_health_tells_store_schema_and_version():
    world = w.World(w.three_steps)
    async with world.client() as anyone:
        health = await anyone.get("/api/health")
    assert health.status_code == 200
    assert msgspec.json.decode(health.content, type=shapes.Health).schema == 1
    assert health.json()["store"] == "memory"


async def test_limits_are_those_of_the_server_unless_named():
    world = w.World(w.three_steps, limits=Limits(steps=5, usd=1.0))
    async with world.server() as c:
        run = await start(c, limits={"tokens": 100})
    assert (run["limits"]["steps"], run["limits"]["usd"], run["limits"]["tokens"]) == (5, 1.0, 100)
