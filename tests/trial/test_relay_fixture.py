"""The fixture that users test their own agents with: it finds what is broken, and lets what is sound go through."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from steprelay import Limits, Reply, ToolError
from steprelay.core.model import Interrupt
from steprelay.ledger import StepContext


async def buys(turn, ctx):
    """Pays in three steps, one after the other."""
    with suppress(ToolError):
        await ctx.call("pay", asyncio.sleep, 0.001, f"paid {turn.step}", effect="once")
    return "bought" if turn.step == 2 else Reply()


def test_an_agent_that_is_sound_comes_through(relay) -> None:
    trials = relay(buys, "tea", seeds=40)
    assert {t.output for t in trials} == {"bought"}
    assert {len(t.steps) for t in trials} == {3}
    assert sum(t.deaths for t in trials) > 20
    assert sum(t.lost for t in trials) > 20
    assert sum(t.repeated for t in trials) > 20
    assert any(s.attempt > 1 for t in trials for s in t.steps)


async def test_it_can_be_used_in_an_async_test_and_with_a_sync_agent(relay) -> None:
    def sync(turn, ctx):
        return ctx.call_sync("count", len, turn.prompt, effect="read")

    assert {t.output for t in relay(sync, "four")} == {4}


def test_a_guard_that_is_gone_is_noticed(relay, monkeypatch) -> None:
    async def unguarded(self, full, key) -> None:
        """The tool runs, and no marker says that it began."""

    monkeypatch.setattr(StepContext, "_announce", unguarded)
    with pytest.raises(AssertionError, match=r"seed \d+: once-only calls ran more than once: \['\d/pay'\]"):
        relay(buys, seeds=40)


def test_a_state_that_grows_is_noticed(relay) -> None:
    def hoards(turn, ctx):
        return "done" if turn.step == 9 else Reply(state=(turn.state or "") + "x" * 500)

    with pytest.raises(AssertionError, match="step 8 wrote 45"):
        relay(hoards, seeds=1, step_bytes=4_100)
    assert relay(hoards, seeds=1)


def test_timers_and_questions_cost_no_time_and_are_answered(relay) -> None:
    def waits(turn, ctx):
        for message in turn.inbox:
            return message.body["payload"]
        if turn.step == 0:
            return Reply(then="wait", after=86_400.0)
        return Reply(then="ask", interrupts=(Interrupt(id="q", kind="question", prompt="How many?"),))

    assert {t.output for t in relay(waits, answer=lambda i: f"{i.prompt} 12")} == {"How many? 12"}


def test_what_an_agent_says_no_to_ends_as_it_would(relay) -> None:
    def fails(turn, ctx):
        return Reply(then="fail", error="no tea left")

    assert {(t.run.status, t.run.stop_reason) for t in relay(fails)} == {("FAILED", "agent_error")}
    endless = relay(lambda turn, ctx: Reply(), limits=Limits(steps=3), seeds=2)
    assert {t.run.stop_reason for t in endless} == {"max_steps"}


def test_a_pydantic_ai_agent_comes_through(relay) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    agent = Agent(TestModel())

    @agent.tool_plain
    def stock() -> int:
        return 12

    assert {"12" in str(t.output) for t in relay(agent, "How much tea?", seeds=3)} == {True}
