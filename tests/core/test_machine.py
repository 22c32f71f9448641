"""Every rule of the table, every stop reason and every brake, through the engine as a driver meets them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, get_args

import pytest

from steprelay.core import codec, machine
from steprelay.core.errors import AgentError, Transient
from steprelay.core.model import Again, Call, Interrupt, Reply, Result, Status, StopReason, Tally, Text, Usage, Wait
from steprelay.core.noun import replace
from steprelay.testing.fakes import virtual
from steprelay.testing.stage import Stage

FINISH = Reply(then="finish", output="done")
ASK = Reply(then="ask", interrupts=(Interrupt(id="q", kind="question"),))
APPROVE = Reply(then="ask", interrupts=(Interrupt(id="q", kind="approval"),))
WORDS = Reply(parts=(Text(text="thinking"),))
LOOPING = Reply(parts=(Call(id="c", name="look"), Result(id="c", name="look", value="nothing")))


async def cancelled(stage: Stage) -> None:
    await stage.advance()
    await stage.signal("cancel")
    await stage.engine.advance(stage.key, carrier=None)


async def killed(stage: Stage) -> None:
    """Every attempt dies: it claims, and is never heard of again."""
    for n in range(3):
        await stage.store.claim(stage.key, claim_id=f"dead{n}", holder="", lease=1.0, carrier="client", new=stage.new)
        await asyncio.sleep(2.0)
    await stage.until_quiet()


async def killed_at_the_wall(stage: Stage) -> None:
    for n in range(3):
        claimed = await stage.store.claim(stage.key, claim_id=f"dead{n}", holder="", lease=1.0, carrier="client", new=stage.new)
        await stage.store.progress(claimed.claim, lease=1.0, tail='{"left":0.5,"text":""}')
        await asyncio.sleep(2.0)
    await stage.until_quiet()


async def broken(stage: Stage) -> None:
    await stage.advance()
    rows = stage.store.inner._runs[stage.key]
    rows.run = replace(rows.run, tally="[]")
    await stage.advance()


async def quietly(stage: Stage) -> None:
    await stage.until_quiet()


CASES: dict[str, tuple[Any, dict[str, Any], Status, Callable[[Stage], Awaitable[None]]]] = {
    "finished": ([FINISH], {}, "COMPLETED", quietly),
    "max_steps": ([WORDS], {"steps": 2}, "COMPLETED", quietly),
    "max_tool_calls": ([LOOPING], {"tool_calls": 2}, "COMPLETED", quietly),
    "max_tokens": ([Reply(usage=Usage(requests=1, input_tokens=60))], {"tokens": 100}, "COMPLETED", quietly),
    "max_cost": ([Reply(usage=Usage(requests=1, usd=0.6))], {"usd": 1.0}, "COMPLETED", quietly),
    "repetition": ([LOOPING], {"repeats": 3}, "COMPLETED", quietly),
    "deadline": ([Reply(then="wait", after=60.0)], {"seconds": 90.0}, "FAILED", quietly),
    "step_exceeds_deadline": ([WORDS], {}, "FAILED", killed_at_the_wall),
    "attempts_exhausted": ([WORDS], {}, "FAILED", killed),
    "agent_error": ([AgentError("no", final=True)], {}, "FAILED", quietly),
    "state_invalid": ([WORDS], {}, "FAILED", broken),
    "cancelled": ([ASK], {}, "CANCELLED", cancelled),
    "expired": ([ASK], {"expires": 5.0}, "CANCELLED", quietly),
}
WAITS: dict[str, tuple[Any, Status]] = {
    "timer": (Reply(then="wait", after=9.0), "WAITING"),
    "child": (Reply(then="wait", needs=("c",), reason="child"), "WAITING"),
    "event": (Reply(then="wait", needs=("e",), reason="event"), "WAITING"),
    "provider": (Reply(then="wait", after=9.0, reason="provider", release=True), "WAITING"),
    "retry": (Transient("503"), "WAITING"),
    "rate_limited": (Transient("429", after=9.0, reason="rate_limited"), "WAITING"),
    "question": (ASK, "AWAITING_INPUT"),
    "approval": (APPROVE, "AWAITING_INPUT"),
}


def test_the_cases_are_all_stop_reasons() -> None:
    assert CASES.keys() | WAITS.keys() == set(get_args(StopReason))


@pytest.mark.parametrize("reason", CASES)
@virtual
async def test_every_end_is_a_step_row_that_says_why(reason: str) -> None:
    script, limits, status, play = CASES[reason]
    stage = Stage(*script, limits=limits)
    await play(stage)
    run, end, newest = await stage.run(), await stage.end(), (await stage.steps())[-1]
    assert (run.status, run.stop_reason, run.ended, run.due_at, run.claim_id) == (status, reason, True, None, None)
    assert (newest.status, newest.stop_reason) == (end.status, end.stop_reason) == (status, reason)
    assert (end.error is None) == (status != "FAILED" and reason != "expired")


@pytest.mark.parametrize("reason", WAITS)
@virtual
async def test_every_wait_says_what_for(reason: str) -> None:
    line, status = WAITS[reason]
    stage = Stage(line)
    await stage.advance()
    run = await stage.run()
    assert (run.status, run.stop_reason, run.ended, run.claim_id) == (status, reason, False, None)
    assert codec.wait(run.wait) is not None


def test_every_rule_leads_where_a_rule_goes_on_or_ends() -> None:
    for (status, cause), after in machine.TABLE.items():
        assert after in machine.TERMINAL or any(s == after for s, _ in machine.TABLE), (status, cause)
    assert {s for s, _ in machine.TABLE} >= machine.TERMINAL


@virtual
async def test_a_soft_brake_grants_one_landing_without_counting_it() -> None:
    stage = Stage(WORDS, WORDS, Reply(then="finish", output="in short"), limits={"steps": 2})
    await stage.until_quiet()
    assert [t.landing for t in stage.agent.turns] == [None, None, "max_steps"]
    assert (await stage.end()).output == "in short"


@virtual
async def test_a_landing_that_fails_ends_with_the_last_words() -> None:
    stage = Stage(WORDS, AgentError("tired", final=True), limits={"steps": 1})
    await stage.until_quiet()
    assert ((await stage.end()).stop_reason, (await stage.end()).output) == ("max_steps", "thinking")


@virtual
async def test_the_deadline_ends_a_wait_for_a_person() -> None:
    stage = Stage(ASK, limits={"seconds": 30.0})
    await stage.advance()
    await asyncio.sleep(10)
    await stage.signal("carry")  # a disturbed nap must not forget the deadline
    await stage.until_quiet()
    assert (await stage.run()).stop_reason == "deadline"


@virtual
async def test_a_prompt_after_the_end_is_the_next_round_of_the_same_run() -> None:
    stage = Stage(FINISH)
    await stage.until_quiet()
    await stage.signal("prompt", "more")
    await stage.until_quiet()
    run = await stage.run()
    assert (run.round, run.step, run.prompt, run.status) == (1, 2, '"more"', "COMPLETED")
    assert [(t.prompt, t.fresh, t.round) for t in stage.agent.turns] == [("go", True, 0), ("more", True, 1)]


@virtual
async def test_prompts_that_come_too_early_are_queued_in_their_order() -> None:
    stage = Stage(WORDS, FINISH)
    await stage.advance()
    for words in ("two", "three"):
        await stage.signal("prompt", words)
    await stage.until_quiet()
    assert [t.prompt for t in stage.agent.turns if t.fresh] == ["go", "two", "three"]


@virtual
async def test_a_cancel_between_two_rounds_takes_back_what_is_queued() -> None:
    stage = Stage(WORDS, FINISH)
    await stage.advance()
    await stage.signal("prompt", "two")
    assert (await stage.advance()).outcome == Again(after=0.0)  # round 0 is over, round 1 is due
    await stage.signal("cancel")
    await stage.until_quiet()
    assert [t.prompt for t in stage.agent.turns] == ["go", "go"]
    assert (await stage.run()).ended


@virtual
async def test_what_is_sent_after_a_cancel_is_heard_after_it() -> None:
    stage = Stage(WORDS, FINISH)
    await stage.advance()
    await stage.signal("cancel")
    await stage.signal("resume", {"limits": {"steps": 30}})
    await stage.until_quiet()
    assert [s.status for s in await stage.steps()] == ["RUNNING", "CANCELLED", "COMPLETED"]
    assert codec.limits((await stage.run()).limits).steps == 30


@virtual
async def test_resume_goes_on_with_other_limits_and_the_same_prompt() -> None:
    stage = Stage(WORDS, WORDS, FINISH, limits={"steps": 1, "tokens": 500})
    await stage.until_quiet()
    await stage.signal("resume", {"limits": {"steps": 9}})
    await stage.until_quiet()
    run = await stage.run()
    assert (run.status, run.stop_reason, run.round) == ("COMPLETED", "finished", 0)
    assert (codec.limits(run.limits).steps, codec.limits(run.limits).tokens) == (9, 500)
    assert not stage.agent.turns[-1].fresh


@virtual
async def test_an_answer_reaches_the_agent_and_another_signal_does_not_wake_it() -> None:
    stage = Stage(ASK, FINISH)
    await stage.advance()
    await stage.signal("answer", {"id": "other", "payload": 1})
    await stage.signal("event", "no object at all")
    await stage.until_quiet()
    assert (await stage.run()).status == "AWAITING_INPUT"
    await stage.signal("answer", {"id": "q", "status": "resolved", "payload": 42})
    await stage.until_quiet()
    assert {m.id: m.body.get("payload") for m in stage.agent.turns[-1].inbox} == {"other": 1, "q": 42}
    assert (await stage.run()).attempts == 0


@virtual
async def test_looking_at_a_wait_is_no_attempt() -> None:
    stage = Stage(Reply(then="wait", after=1000.0), FINISH)
    await stage.advance()
    for _ in range(10):
        await stage.signal("carry")
        await stage.advance()
    assert (await stage.run()).attempts == 0
    await stage.until_quiet()
    assert (await stage.run()).stop_reason == "finished"


@virtual
async def test_a_dead_attempt_is_charged_like_the_last_request() -> None:
    stage = Stage(Reply(usage=Usage(requests=1, input_tokens=7)), FINISH)
    await stage.advance()
    await stage.store.claim(stage.key, claim_id="dead", holder="", lease=1.0, carrier="client")
    await asyncio.sleep(2)
    await stage.until_quiet()
    assert codec.tally((await stage.run()).tally).total == Usage(requests=2, input_tokens=14)


@virtual
async def test_a_transient_error_is_no_attempt_and_has_a_cap_of_its_own() -> None:
    stage = Stage(Transient("429", after=1.0), limits={"attempts": 2, "releases": 5})
    await stage.until_quiet()
    assert len(stage.agent.turns) == 6
    assert {t.attempt for t in stage.agent.turns} == {1}
    assert (await stage.run()).stop_reason == "attempts_exhausted"


@virtual
async def test_an_error_is_tried_again_as_often_as_the_limit_says() -> None:
    stage = Stage(ValueError("no idea"), limits={"attempts": 3})
    await stage.until_quiet()
    assert [t.attempt for t in stage.agent.turns] == [1, 2, 3]
    assert "ValueError: no idea" in (await stage.end()).error.message  # type: ignore[union-attr]


def test_a_payload_of_a_later_release_is_written_back_whole() -> None:
    for cls in (Tally, Wait):
        text = codec.dumps(
            {"reason": "timer", "thought": "t", "novel": {"deep": [1]}} if cls is Tally else {"reason": "x", "novel": 1}
        )
        assert codec.loads(codec.pack(codec.unpack(cls, text))) == codec.loads(text)
