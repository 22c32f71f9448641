"""The engine at its seams: what it asks of the store, and what it does when store, agent, host or person misbehave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from steprelay.core import codec
from steprelay.core.errors import BadInput, SchemaTooNew, StateInvalid, StoreUnavailable
from steprelay.core.model import Again, Busy, Done, Reply, Request, Text, Turn
from steprelay.core.noun import replace
from steprelay.testing.fakes import virtual
from steprelay.testing.stage import Stage
from steprelay.watch import Live

GO = Reply(parts=(Text(text="on"),))
FINISH = Reply(then="finish", output="done")


def always(_: float) -> bool:
    return True


@virtual
async def test_a_step_is_two_verbs_the_first_one_too() -> None:
    stage = Stage(GO)
    await stage.advance()
    assert stage.store.calls == ["claim", "commit"]
    await stage.advance()
    assert stage.store.calls == ["claim", "commit"] * 2


@virtual
async def test_k_steps_in_one_request_are_one_claim_and_k_commits() -> None:
    stage = Stage(GO, GO, GO, FINISH)
    advanced = await stage.advance(more=always)
    assert stage.store.calls == ["claim"] + ["commit"] * 4
    assert [s.index for s in advanced.taken] == [0, 1, 2, 3]
    assert advanced.outcome == Done(status="COMPLETED", stop_reason="finished")


@virtual
async def test_busy_and_replay_are_one_verb() -> None:
    stage = Stage(GO)
    request = Request(id="x", hash="h")
    first = await stage.advance(request=request)
    stage.store.calls.clear()
    again = await stage.advance(request=request)
    assert (again.refused, again.step, stage.store.calls) == ("replay", first.step, ["claim"])
    assert (await stage.advance(request=Request(id="x", hash="other"))).refused == "conflict"
    await stage.store.claim(stage.key, claim_id="c", holder="h", lease=15.0, carrier="client")
    busy = await stage.advance()
    assert isinstance(busy.outcome, Busy)
    assert busy.outcome.until == pytest.approx(busy.now + 15.0)


@virtual
async def test_a_packed_request_belongs_to_its_last_commit() -> None:
    stage = Stage(GO, GO, FINISH)
    request = Request(id="x", hash="h")
    await stage.advance(request=request, more=always)
    assert [s.request for s in await stage.steps()] == [None, None, request]
    again = await stage.advance(request=request)
    assert (again.refused, again.step and again.step.index) == ("replay", 2)


@pytest.mark.parametrize("verb", ["claim", "commit", "read"])
@pytest.mark.parametrize("fault", ["lost", "away"])
@pytest.mark.parametrize("packed", [False, True])
@virtual
async def test_a_lost_message_costs_no_step_and_makes_none(verb: str, fault: str, packed: bool) -> None:
    stage = Stage(GO, GO, FINISH)
    getattr(stage.store, fault)[verb] = 2
    if verb == "read":
        stage.store.lost["commit"] = 1  # only then the engine looks
    while (await stage.advance(more=always if packed else None)).outcome != Done(status="COMPLETED", stop_reason="finished"):
        pass
    assert len(stage.agent.turns) == len(await stage.steps()) == 3
    assert (await stage.run()).fence <= 3


@virtual
async def test_a_lost_renewal_is_not_taken_for_a_held_claim() -> None:
    stage = Stage(GO, FINISH)
    stage.store.lost["commit"] = 1
    advanced = await stage.advance(more=always)
    assert (advanced.refused, advanced.outcome, len(stage.agent.turns)) == (None, Again(after=0.0), 1)
    assert (await stage.run()).claim_id is None


@virtual
async def test_a_release_whose_answer_was_lost_is_still_a_release() -> None:
    stage = Stage(ValueError("later"), FINISH)
    stage.store.lost["commit"] = 1
    advanced = await stage.advance()
    assert advanced.refused is None
    assert isinstance(advanced.outcome, Again)


@virtual
async def test_a_store_that_stays_away_is_an_error_the_caller_hears() -> None:
    stage = Stage(GO)
    stage.store.away["claim"] = 10_000
    with pytest.raises(StoreUnavailable):
        await stage.advance()
    assert stage.agent.turns == []


@virtual
async def test_a_zombie_changes_nothing_and_stops_quietly() -> None:
    stage = Stage(GO)

    async def robbed() -> None:
        await asyncio.sleep(100)
        await stage.store.inner.claim(
            stage.key, claim_id="thief", holder="", lease=15.0, carrier="client", now=asyncio.get_running_loop().time()
        )

    stage.store.before["commit"] = robbed
    advanced = await stage.advance()
    assert (advanced.refused, await stage.steps(), (await stage.run()).claim_id) == ("fenced", [], "thief")


@virtual
async def test_a_step_that_loses_its_claim_is_stopped_by_the_sign_of_life() -> None:
    ended: list[str] = []

    async def long(turn: Turn, ctx: Any) -> Reply:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            ended.append("stopped")
            raise
        return GO

    stage = Stage(long)

    async def robbed() -> None:
        rows = stage.store.inner._runs[stage.key]
        rows.run = replace(rows.run, fence=99)

    stage.store.before["progress"] = robbed
    assert (await stage.advance()).refused == "fenced"
    assert ended == ["stopped"]


@virtual
async def test_a_cancel_in_mid_step_keeps_what_was_said_and_ends_the_run() -> None:
    async def talks(turn: Turn, ctx: Any) -> Reply:
        ctx.emit(Text(text="so ", id="a", delta=True))
        ctx.emit(Text(text="far", id="a", delta=True))
        await stage.signal("cancel")
        await asyncio.sleep(1000)
        return GO

    stage = Stage(talks, FINISH)
    advanced = await stage.advance()
    assert advanced.outcome == Done(status="CANCELLED", stop_reason="cancelled")
    assert [p.text for p in await stage.parts() if isinstance(p, Text)] == ["so far"]
    await stage.signal("resume")
    await stage.until_quiet()
    assert stage.agent.turns[-1].fresh  # the prompt was never answered: it is given again


@virtual
async def test_an_overrun_hands_the_run_back_before_the_wall() -> None:
    async def slow(turn: Turn, ctx: Any) -> Reply:
        await asyncio.sleep(1000)
        return GO

    stage, loop = Stage(slow, limits={"attempts": 2}), asyncio.get_running_loop()
    began = loop.time()
    advanced = await stage.advance(wall=10.0)
    assert loop.time() - began <= 10.0
    assert isinstance(advanced.outcome, Again)
    await stage.advance(wall=10.0)
    assert ((await stage.run()).status, (await stage.run()).stop_reason) == ("FAILED", "step_exceeds_deadline")


@virtual
async def test_an_agent_that_ignores_being_stopped_is_left_behind_before_the_wall() -> None:
    release = asyncio.Event()

    async def stubborn(turn: Turn, ctx: Any) -> Reply:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return GO

    stage, loop = Stage(stubborn), asyncio.get_running_loop()
    began = loop.time()
    advanced = await stage.advance(wall=10.0)
    assert loop.time() - began <= 10.0
    assert isinstance(advanced.outcome, Again)
    release.set()


@virtual
async def test_a_shutdown_hands_the_run_back_whole_and_counts_no_attempt() -> None:
    at_work = asyncio.Event()

    async def kept() -> str:
        return "kept"

    async def works(turn: Turn, ctx: Any) -> Reply:
        if len(stage.agent.turns) == 1:
            await ctx.call("a", kept, effect="idempotent")
            at_work.set()
            await asyncio.sleep(1000)
        return Reply(then="finish", output=turn.ledger)

    stage = Stage(works)
    task = asyncio.create_task(stage.advance())
    await at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    run = await stage.run()
    assert (run.claim_id, run.attempts, run.due_at is not None) == (None, 0, True)
    await stage.advance()
    assert (await stage.end()).output == {"0/a": {"value": "kept"}}


@virtual
async def test_a_shutdown_stays_a_shutdown_when_the_store_is_away() -> None:
    at_work = asyncio.Event()

    async def works(turn: Turn, ctx: Any) -> Reply:
        at_work.set()
        await asyncio.sleep(1000)
        return GO

    stage = Stage(works)
    task = asyncio.create_task(stage.advance())
    await at_work.wait()
    stage.store.away["commit"] = 10_000
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@virtual
async def test_a_hand_over_ends_the_packing_of_steps() -> None:
    async def handed(turn: Turn, ctx: Any) -> Reply:
        if turn.step == 1:
            await stage.signal("carry", carrier="background")
        return GO

    stage = Stage(handed)
    advanced = await stage.advance(more=always)
    assert [s.index for s in advanced.taken] == [0, 1]
    refused = await stage.advance()
    assert (refused.refused, refused.outcome) == ("busy", Busy(until=None, carrier="background"))


@pytest.mark.parametrize(
    "rubbish",
    [None, "a string", Reply(messages=(float("nan"),)), Reply(messages=(object(),)), Reply(parts=("x",)), Reply(then="ask")],
)  # type: ignore[arg-type]
@virtual
async def test_rubbish_from_an_agent_ends_the_run_with_a_reason(rubbish: Any) -> None:
    stage = Stage(lambda turn, ctx: rubbish)
    await stage.until_quiet()
    assert ((await stage.run()).stop_reason, len(stage.agent.turns)) == ("agent_error", 1)


@virtual
async def test_an_unknown_agent_ends_the_run_and_names_the_known_ones() -> None:
    stage = Stage(GO)
    stage.engine.agents = {"b": stage.agent}
    await stage.advance()
    assert "'b'" in (await stage.end()).error.message  # type: ignore[union-attr]


@virtual
async def test_a_newer_schema_is_left_untouched() -> None:
    stage = Stage(GO)
    await stage.advance()
    rows = stage.store.inner._runs[stage.key]
    rows.run = replace(rows.run, schema=99, tally='{"novel":1}')
    with pytest.raises(SchemaTooNew):
        await stage.advance()
    run = await stage.run()
    assert (run.tally, run.status, run.attempts, run.claim_id, run.step) == ('{"novel":1}', "RUNNING", 0, None, 1)
    assert run.due_at is not None
    assert run.due_at > asyncio.get_running_loop().time()


@virtual
async def test_a_load_with_a_gap_is_loaded_anew_before_it_is_believed() -> None:
    stage = Stage(GO)
    await stage.advance()
    rows, whole = stage.store.inner._runs[stage.key], list(stage.store.inner._runs[stage.key].steps)
    rows.steps.clear()

    async def heals() -> None:
        async def later() -> None:
            rows.steps[:] = whole

        stage.store.before["claim"] = later

    stage.store.before["claim"] = heals
    assert (await stage.advance()).refused is None
    assert [s.index for s in await stage.steps()] == [0, 1]


@virtual
async def test_events_tell_figures_and_never_words() -> None:
    heard: list[dict[str, Any]] = []
    stage = Stage(Reply(parts=(Text(text="SECRET-WORDS"),)), FINISH, observer=heard.append)
    stage.new = replace(stage.new, prompt='"SECRET-PROMPT"')
    await stage.until_quiet()
    assert [(e["event"], e["step"], e["status"]) for e in heard] == [("step", 0, "RUNNING"), ("step", 1, "COMPLETED")]
    assert "SECRET" not in json.dumps(heard)


@virtual
async def test_listeners_hear_live_parts_and_then_the_committed_ones() -> None:
    heard: list[Live] = []

    async def talks(turn: Turn, ctx: Any) -> Reply:
        ctx.emit(Text(text="o", delta=True))
        return GO

    stage = Stage(talks)
    await stage.advance(listen=heard.append)
    assert [live.id for live in heard] == ["0.1.0", "0.c.0"]


def test_what_is_not_json_is_refused_by_name() -> None:
    for value in (float("nan"), float("inf"), object(), {1, 2}, b"x"):
        with pytest.raises(BadInput):
            codec.dumps(value)
    with pytest.raises(StateInvalid):
        codec.loads("{")


@virtual
async def test_an_event_that_came_before_the_wait_asked_is_not_lost() -> None:
    async def asks_late(turn: Turn, ctx: Any) -> Reply:
        heard = {m.id: m.body["payload"] for m in turn.inbox}
        if turn.step < 2:
            return Reply()
        if turn.step == 2:
            return Reply(then="wait", needs=("door",), reason="event")
        return Reply(then="finish", output=heard)

    stage = Stage(asks_late)
    await stage.advance()
    await stage.signal("event", {"id": "door", "payload": "open"}, request_id="e1")
    while not isinstance((await stage.advance()).outcome, Done):
        pass
    assert (await stage.end()).output == {"door": "open"}
