"""What a durable engine is told after a step, that its retries are replays, and how it is reached at all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest

from steprelay.app import App
from steprelay.core.errors import ConfigError
from steprelay.core.model import Busy, Interrupt, Reply, RunKey, Signal
from steprelay.drivers.leg import ENGINES, SOONEST, Leg, Next, following
from steprelay.engine import Advanced
from steprelay.registry import DRIVERS
from steprelay.testing.fakes import ScriptedAgent

ON = Reply(messages=("on",))
END = Reply(then="finish", output="over")


class Fake:
    """An engine that only notes who wakes it, and answers at its endpoint."""

    def __init__(self, url, leg) -> None:
        self.url, self.leg, self.woken = url, leg, []

    async def wake(self, key, carrier, after=0.0) -> None:
        self.woken.append((key.id, carrier))

    async def endpoint(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{scope['root_path']} {scope['path']}".encode()})

    async def close(self) -> None: ...


@asynccontextmanager
async def an_app(*script, carrier="temporal"):
    """An app with a run for `carrier`, and the leg that takes its steps."""
    agent = ScriptedAgent(script)
    app = App(agent, store="memory:", auth=False, observer=None)
    try:
        await app.start("go", id="r", carrier=carrier)
        yield app, Leg(app.loop, app.outbox.deliver), agent
    finally:
        await app.shutdown()


async def test_a_try_that_was_answered_already_is_answered_again_and_nothing_runs_twice():
    async with an_app(ON, ON, END) as (_, leg, agent):
        assert await leg.take("r", "temporal", "a/0") == Next(kind="again", after=0.0, step=1)
        assert await leg.take("r", "temporal", "a/0") == Next(kind="again", after=0.0, step=1)
        assert len(agent.turns) == 1
        await leg.take("r", "temporal", "a/1")
        assert await leg.take("r", "temporal", "a/2") == Next(kind="done")
        assert await leg.take("r", "temporal", "b/0") == Next(kind="done")
        assert len(agent.turns) == 3


async def test_a_run_that_waits_for_a_person_waits_for_a_wake():
    question = Reply(then="ask", interrupts=(Interrupt(id="q", kind="question", prompt="Well?"),))
    async with an_app(question, END) as (app, leg, _):
        assert await leg.take("r", "temporal", "a/0") == Next(kind="waiting", step=1)
        await app.store.signal(
            RunKey("default", "r"),
            Signal(kind="answer", body='{"id":"q","status":"resolved","payload":"Yes"}', request_id="answer:q"),
        )
        assert await leg.take("r", "temporal", "a/1") == Next(kind="done")


async def test_a_timer_says_when():
    async with an_app(Reply(then="wait", after=60.0), END) as (_, leg, _agent):
        told = await leg.take("r", "temporal", "a/0")
        assert told.kind == "again"
        assert 55 < told.after <= 60


async def test_who_lost_the_run_to_another_carrier_is_done_with_it():
    async with an_app(ON, carrier="background") as (_, leg, agent):
        assert await leg.take("r", "temporal", "a/0") == Next(kind="done")
        assert not agent.turns
        assert await leg.take("nobody", "temporal", "a/0") == Next(kind="done")


async def test_while_somebody_else_takes_a_step_the_engine_looks_again_when_that_lease_is_over():
    async with an_app(ON) as (app, leg, agent):
        await app.store.claim(RunKey("default", "r"), claim_id="other", holder="h", lease=15, carrier="temporal")
        told = await leg.take("r", "temporal", "a/0")
        assert told.kind == "busy"
        assert 14 < told.after <= 15
        assert not agent.turns


async def test_who_expects_a_step_that_was_taken_without_it_is_done():
    async with an_app(ON, ON, ON) as (app, leg, agent):
        assert (await leg.take("r", "temporal", "a/0", expect=0)).step == 1
        assert (await leg.take("r", "temporal", "b/0")).step == 2
        assert await leg.take("r", "temporal", "a/1", expect=1) == Next(kind="done")
        assert (await leg.take("r", "temporal", "a/0", expect=0)).kind == "again", "a lost answer is not a lost race"
        assert len(agent.turns) == 2
        await app.store.claim(RunKey("default", "r"), claim_id="other", holder="h", lease=15, carrier="temporal")
        assert (await leg.take("r", "temporal", "a/2", expect=1)).kind == "busy", "who has it may be a try of ours"


async def test_steps_that_are_quick_go_together_under_the_id_of_the_last():
    async with an_app(ON, ON, END) as (app, leg, agent):
        assert await leg.take("r", "temporal", "a/0", span=5.0) == Next(kind="done")
        assert await leg.take("r", "temporal", "a/0", span=5.0) == Next(kind="done")
        steps = await app.store.read(RunKey("default", "r"), "steps")
        assert [s.request and s.request.id for s in steps] == [None, None, "a/0"]
        assert len(agent.turns) == 3


async def test_a_step_that_is_slow_goes_alone_and_a_span_cuts_none_short():
    async def slow(turn, ctx):
        await asyncio.sleep(0.2)
        return ON

    async with an_app(slow) as (_, leg, agent):
        assert await leg.take("r", "temporal", "a/0", span=0.1) == Next(kind="again", after=0.0, step=1)
        assert len(agent.turns) == 1


async def test_a_cancel_of_the_engine_is_durable_and_is_nothing_to_a_run_that_is_anothers():
    async with an_app(ON, carrier="background") as (app, leg, _):
        await leg.cancel("r", "temporal", "c")
        await leg.cancel("nobody", "temporal", "c")
        run = await the_run(app)
        assert (await app.engine.advance(run.key, carrier="background")).run.status == "RUNNING"
        await app.store.signal(run.key, Signal(kind="carry", carrier="temporal"))
        await leg.cancel("r", "temporal", "c")
        assert await leg.take("r", "temporal", "a/0") == Next(kind="done")
        assert (await the_run(app)).status == "CANCELLED"


async def test_who_lost_its_claim_looks_again_at_once_to_hear_who_has_the_run():
    async with an_app(ON) as (app, _leg, _agent):
        busy = Advanced(outcome=Busy(until=None, carrier="temporal"), run=await the_run(app), step=None, now=0.0)
        assert following(busy, "temporal") == Next(kind="busy", after=SOONEST, step=0)


async def the_run(app):
    return (await app.store.read(RunKey("default", "r"), "run"))[0]


def test_every_registered_engine_is_a_carrier_by_name():
    assert tuple(DRIVERS) == ENGINES


async def test_jobs_hand_overs_and_cancels_reach_the_engine_they_name(monkeypatch):
    monkeypatch.setitem(DRIVERS, "restate", f"{__name__}:Fake")
    monkeypatch.setenv("STEPRELAY_RESTATE", "http://restate.invalid")
    app = App(ScriptedAgent([ON]), store="memory:", auth=False, observer=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        job = await http.post("/api/start-job", json={"userPrompt": "go", "sessionId": "j", "carrier": "restate"})
        assert (job.status_code, job.json()["carrier"]) == (202, "restate")
        fake = app.orchestrator("restate")
        assert (fake.url, fake.woken) == ("http://restate.invalid", [("j", "restate")])
        assert (await http.get("/api/runs/j")).json()["takeoverAfter"] == app.settings.lease

        await http.post("/api/runs/j/hand-over", json={"carrier": "client"})
        assert fake.woken == [("j", "restate")] * 2, "it was not told that the run is another's"
        await http.post("/api/runs/j/hand-over", json={"carrier": "restate"})
        await http.post("/api/runs/j/cancel")
        assert len(fake.woken) == 4, "it was not told of the run that came back, or not of its end"

        assert (await http.post("/api/restate/invoke/x")).text == "/api/restate /invoke/x"
        missing = await http.post("/api/start-job", json={"userPrompt": "go", "carrier": "temporal"})
        assert (missing.status_code, missing.json()["code"]) == (400, "unknown_carrier")
        assert "STEPRELAY_TEMPORAL" in missing.json()["detail"]
    with pytest.raises(ConfigError, match="STEPRELAY_INNGEST"):
        app.orchestrator("inngest")
    await app.shutdown()
