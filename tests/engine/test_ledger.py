"""Tools through the ledger: once is once, whatever dies; results are kept, cut, denied, asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from steprelay.agents.function import FunctionAgent, FunctionContext
from steprelay.core import codec
from steprelay.core.errors import Denied, OutcomeUnknown, StoreUnavailable, ToolError, Transient
from steprelay.core.model import Effect, Interrupt, Reply, Result, Turn
from steprelay.testing.fakes import virtual
from steprelay.testing.stage import Stage

Step = Callable[[Turn, FunctionContext], Awaitable[Any]]


def stage_of(step: Step, **options: Any) -> Stage:
    return Stage(agent=FunctionAgent(step), **options)


class Tool:
    """Counts how often it ran; the first `dies` times it never comes back."""

    def __init__(self, value: Any = "sent", *, dies: int = 0, error: Exception | None = None) -> None:
        self.ran, self.value, self.dies, self.error = 0, value, dies, error
        self.running = asyncio.Event()

    async def __call__(self) -> Any:
        self.ran += 1
        self.running.set()
        await asyncio.sleep(1.0)
        if self.ran <= self.dies:
            await asyncio.sleep(10_000)
        if self.error is not None:
            raise self.error
        return self.value


async def abandon(stage: Stage, tool: Tool) -> None:
    """The host of a step dies while its tool runs: nothing it did afterwards reaches the store."""
    task = asyncio.create_task(stage.advance())
    await tool.running.wait()
    for verb in ("commit", "progress"):
        stage.store.away[verb] = 10_000
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    stage.store.away.clear()
    await asyncio.sleep(60)


async def result_of(call: Awaitable[Any]) -> str:
    try:
        return f"ok {await call}"
    except ToolError as e:
        return e.code


@pytest.mark.parametrize(
    ("effect", "times", "told"), [("once", 1, "outcome_unknown"), ("idempotent", 2, "ok sent"), ("read", 2, "ok sent")]
)
@virtual
async def test_after_a_death_in_a_tool_its_effect_class_decides(effect: Effect, times: int, told: str) -> None:
    tool = Tool(dies=1)

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        return await result_of(ctx.call("mail", tool.__call__, effect=effect))

    stage = stage_of(step)
    await abandon(stage, tool)
    await stage.until_quiet()
    assert (tool.ran, (await stage.end()).output) == (times, told)


@virtual
async def test_the_marker_is_in_the_store_before_a_once_tool_runs() -> None:
    seen: list[Any] = []

    async def tool() -> None:
        seen.append((list(stage.store.calls), dict(stage.store.inner._runs[stage.key].ledger)))

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        await ctx.call("mail", tool)
        return "done"

    stage = stage_of(step)
    await stage.advance()
    assert seen == [(["claim", "progress"], {"0/mail": '{"started":1}'})]


@pytest.mark.parametrize("fault", ["lost", "away"])
@virtual
async def test_a_marker_whose_message_is_lost_is_sent_again(fault: str) -> None:
    tool = Tool()

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        return await result_of(ctx.call("mail", tool.__call__))

    stage = stage_of(step)
    getattr(stage.store, fault)["progress"] = 3
    await stage.until_quiet()
    assert (tool.ran, (await stage.end()).output) == (1, "ok sent")


@virtual
async def test_a_tool_that_could_not_be_announced_did_not_happen() -> None:
    tool = Tool()

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        return await result_of(ctx.call("mail", tool.__call__))

    stage = stage_of(step)
    stage.store.away["progress"] = 10_000
    await stage.advance()
    assert tool.ran == 0
    stage.store.away.clear()
    await stage.until_quiet()
    assert (tool.ran, (await stage.end()).output) == (1, "ok sent")


@virtual
async def test_no_tool_begins_once_a_cancel_is_known() -> None:
    tool = Tool()

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        await stage.signal("cancel")
        return await result_of(ctx.call("mail", tool.__call__))

    stage = stage_of(step)
    await stage.until_quiet()
    assert (tool.ran, (await stage.run()).status) == (0, "CANCELLED")


@virtual
async def test_a_kept_ledger_survives_a_renewed_claim() -> None:
    tool = Tool()

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        told = await ctx.call("mail", tool.__call__)
        await asyncio.sleep(30)  # long enough for the result to be in the store already
        return Reply(keep_ledger=True) if turn.step < 2 else told

    stage = stage_of(step)
    await stage.advance(more=lambda _: True)
    assert (tool.ran, (await stage.end()).output, (await stage.run()).step) == (1, "sent", 3)


@virtual
async def test_a_step_that_keeps_nothing_begins_a_new_journal() -> None:
    tool = Tool()

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        told = await ctx.call("mail", tool.__call__)
        return Reply() if turn.step == 0 else told

    stage = stage_of(step)
    await stage.advance(more=lambda _: True)
    assert tool.ran == 2
    assert stage.store.inner._runs[stage.key].ledger == {}


@virtual
async def test_the_same_key_twice_at_once_runs_once() -> None:
    tool = Tool()

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        return await asyncio.gather(*(result_of(ctx.call("mail", tool.__call__)) for _ in range(2)))

    stage = stage_of(step)
    await stage.until_quiet()
    assert (tool.ran, (await stage.end()).output) == (1, ["ok sent", "outcome_unknown"])


@virtual
async def test_a_tool_that_hangs_is_told_as_an_error() -> None:
    tool = Tool(dies=9)

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        try:
            await ctx.call("slow", tool.__call__, timeout=5.0)
        except ToolError as e:
            return str(e)

    stage = stage_of(step)
    await stage.until_quiet()
    assert (await stage.end()).output == "slow did not answer in time (5 s)"


@virtual
async def test_a_transient_tool_may_run_again() -> None:
    tool = Tool(error=Transient("429", after=1.0))

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        if turn.ledger.get("0/mail") == {}:
            tool.error = None
        return await ctx.call("mail", tool.__call__)

    stage = stage_of(step)
    await stage.until_quiet()
    assert (tool.ran, (await stage.end()).output) == (2, "sent")


@pytest.mark.parametrize(
    ("payload", "ran", "told"),
    [
        (True, 1, "ok sent"),
        ({"approved": True}, 1, "ok sent"),
        (False, 0, "denied"),
        ({"approved": False, "reason": "no"}, 0, "denied"),
        ("yes", 0, "denied"),
    ],
)
@virtual
async def test_an_approval_is_asked_for_once_and_obeyed(payload: Any, ran: int, told: str) -> None:
    tool = Tool()

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        return await result_of(ctx.call("pay", tool.__call__, effect="needs_approval", ask="May I?"))

    stage = stage_of(step)
    await stage.until_quiet()
    asked = [p for p in await stage.parts() if isinstance(p, Interrupt)]
    assert [(p.id, p.kind, p.prompt) for p in asked] == [("0/pay", "approval", "May I?")]
    assert ((await stage.run()).status, tool.ran) == ("AWAITING_INPUT", 0)
    await stage.signal("answer", {"id": "0/pay", "status": "resolved", "payload": payload})
    await stage.until_quiet()
    assert (tool.ran, (await stage.end()).output) == (ran, told)


@virtual
async def test_several_approvals_are_asked_one_after_another_and_none_is_forgotten() -> None:
    first, second = Tool("a"), Tool("b")

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        a = await ctx.call("a", first.__call__, effect="needs_approval")
        return a + await ctx.call("b", second.__call__, effect="needs_approval")

    stage = stage_of(step)
    for name in ("0/a", "0/b"):
        await stage.until_quiet()
        await stage.signal("answer", {"id": name, "payload": True})
    await stage.until_quiet()
    assert ((await stage.end()).output, first.ran, second.ran) == ("ab", 1, 1)


@virtual
async def test_a_person_may_say_what_came_of_a_tool_that_was_cut_off() -> None:
    tool = Tool(dies=1)

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        return await ctx.call("mail", tool.__call__, unknown="ask_person")

    stage = stage_of(step)
    await abandon(stage, tool)
    await stage.until_quiet()
    await stage.signal("answer", {"id": "0/mail?", "payload": "it arrived"})
    await stage.until_quiet()
    assert (tool.ran, (await stage.end()).output) == (1, "it arrived")


@virtual
async def test_a_verifier_finds_out_what_came_of_a_tool_that_was_cut_off() -> None:
    tool = Tool(dies=1)

    async def look() -> str:
        return "found"

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        return await ctx.call("mail", tool.__call__, unknown=look)

    stage = stage_of(step)
    await abandon(stage, tool)
    await stage.until_quiet()
    assert (tool.ran, (await stage.end()).output) == (1, "found")


@pytest.mark.parametrize("keep", [False, True])
@virtual
async def test_a_long_result_is_cut_with_a_marker_and_kept_whole_if_asked(keep: bool) -> None:
    tool = Tool("x" * 5000)

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        return await ctx.call("read", tool.__call__, effect="read", keep=keep)

    stage = stage_of(step, limits={"result_bytes": 100})
    await stage.until_quiet()
    shown = (await stage.end()).output
    assert shown.startswith("x" * 100 + "… [cut: 100 of 5000")
    blobs = await stage.store.inner.read(stage.key, "blob", name="0/read")
    assert blobs == ([codec.dumps("x" * 5000)] if keep else [])
    assert [p.blob for p in await stage.parts() if isinstance(p, Result)] == ["0/read" if keep else None]


@pytest.mark.parametrize("dies", [True, False])
@virtual
async def test_a_whole_that_is_kept_outlives_the_attempt_that_got_it(dies: bool) -> None:
    tool, later = Tool("x" * 5000), Tool(dies=1)

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        shown = await ctx.call("read", tool.__call__, keep=True)
        await asyncio.sleep(1.0)  # a sign of life takes the entry along
        await ctx.call("later", later.__call__, effect="read" if dies else "needs_approval")
        return shown

    stage = stage_of(step, limits={"result_bytes": 100})
    if dies:
        await abandon(stage, later)
    else:
        await stage.until_quiet()
        await stage.signal("answer", {"id": "0/later", "payload": {"approved": True}})
        later.dies = 0
    await stage.until_quiet()
    assert tool.ran == 1
    assert "the whole is blob '0/read'" in (await stage.end()).output
    assert await stage.store.inner.read(stage.key, "blob", name="0/read") == [codec.dumps("x" * 5000)]


@virtual
async def test_what_a_tool_answers_must_be_json_and_the_model_is_told() -> None:
    tool = Tool(object())

    async def step(turn: Turn, ctx: FunctionContext) -> Any:
        return await result_of(ctx.call("odd", tool.__call__, effect="read"))

    stage = stage_of(step)
    await stage.until_quiet()
    assert (await stage.end()).output == "tool_error"
    assert [p.status for p in await stage.parts() if isinstance(p, Result)] == ["error"]


def test_what_a_model_is_told_of_are_tool_errors() -> None:
    assert issubclass(OutcomeUnknown, ToolError)
    assert issubclass(Denied, ToolError)
    assert not issubclass(StoreUnavailable, ToolError)
