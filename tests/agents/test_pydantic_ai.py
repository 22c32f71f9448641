"""What the Pydantic AI adapter makes of the framework, feature by feature. The suite beside it holds it to the port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from agent_bench import KEY, Bench
from models import Script, call, look, results
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    ApprovalRequired,
    BinaryContent,
    CallDeferred,
    DeferredToolRequests,
    ModelRetry,
    NativeOutput,
    PromptedOutput,
    RunContext,
    ToolOutput,
    ToolReturn,
)  # fmt: skip
from pydantic_ai.messages import ImageUrl, ThinkingPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import FunctionModel

from steprelay.agents.pydantic_ai import UNKNOWN, PydanticAIAgent
from steprelay.core import codec
from steprelay.core.model import End, Result, Signal, Text, Thought

Benches = Callable[..., Bench]


# ---------------------------------------------------------------- steps


async def test_one_model_request_or_all_tools_of_a_response_is_a_step(bench: Benches) -> None:
    script = Script([call("add", "c1", a=1, b=2), call("add", "c2", a=3, b=4)], lambda m, _: f"sums: {results(m)}")
    agent = Agent(script.model)

    @agent.tool_plain(metadata={"effect": "read"})
    def add(a: int, b: int) -> int:
        return a + b

    run = await (b := bench(agent)).finish()
    assert (run.status, run.step) == ("COMPLETED", 3)
    assert [[type(p).__name__ for p in b.engine.parts("pydantic_ai", s)] for s in await b.steps()] == [
        ["Text", "Call", "Call", "Usage"],
        ["Result", "Result"],
        ["Text", "Usage", "End"],
    ]
    assert (await b.output()).strip() == "sums: [3, 7]"


async def test_words_and_thoughts_are_shown_while_they_come(bench: Benches) -> None:
    b = bench(Agent(Script(lambda *_: [ThinkingPart("let me see"), call("look", "c1")], "it is there").model, tools=[look]))
    await b.finish()
    live = [x.part for x in b.live if not x.committed and isinstance(x.part, Text | Thought)]
    assert all(p.delta for p in live)
    assert "".join(p.text for p in live if isinstance(p, Thought)) == "let me see"
    assert [p.text for p in live if isinstance(p, Text)] == ["it ", "is ", "there "]
    assert len({p.id for p in live}) == 2
    assert [p.text for p in await b.parts(Thought)] == ["let me see"]


async def test_a_model_that_cannot_stream_is_asked_without(bench: Benches) -> None:
    script = Script("plain words")
    b = bench(Agent(FunctionModel(script._answer)))
    assert (await b.finish()).status == "COMPLETED"
    assert await b.output() == "plain words"


async def test_stream_can_be_turned_off(bench: Benches) -> None:
    b = bench(PydanticAIAgent(Agent(Script("some words here").model), stream=False))
    await b.finish()
    assert not [x for x in b.live if not x.committed]


async def test_structured_output_is_validated_and_retried(bench: Benches) -> None:
    class Report(BaseModel):
        total: int

    script = Script(
        lambda _, info: [call(info.output_tools[0].name, "o1", total="many")],
        lambda _, info: [call(info.output_tools[0].name, "o2", total=30)],
    )
    b = bench(Agent(script.model, output_type=Report, retries=2))
    run = await b.finish()
    assert run.status == "COMPLETED"
    assert await b.output() == {"total": 30}
    assert [r.status for r in await b.parts(Result)][:1] == ["error"]


class Total(BaseModel):
    total: int


@pytest.mark.parametrize(
    "output_type",
    [Total, [Total, str], ToolOutput(Total), PromptedOutput(Total), NativeOutput(Total), [Total, DeferredToolRequests]],
    ids=["type", "list", "tool", "prompted", "native", "deferred"],
)
async def test_every_way_to_ask_for_output_works(bench: Benches, output_type: Any) -> None:
    def answer(_: Any, info: Any) -> Any:
        return [call(info.output_tools[0].name, "o1", total=3)] if info.output_tools else '{"total": 3}'

    b = bench(Agent(Script(answer).model, output_type=output_type))
    assert (await b.finish()).status == "COMPLETED"
    assert await b.output() == {"total": 3}


async def test_output_validators_and_deps_of_each_step_work(bench: Benches) -> None:
    made: list[int] = []

    async def deps(turn: Any) -> int:
        made.append(turn.step)
        return turn.step

    agent = Agent(Script("first", "second").model, deps_type=int, retries=3)

    @agent.output_validator
    def not_the_first(ctx: RunContext[int], output: str) -> str:
        if output.startswith("first"):
            raise ModelRetry("say something else")
        return f"{output.strip()} with deps {ctx.deps}"

    b = bench(PydanticAIAgent(agent, deps=deps))
    assert (await b.finish()).status == "COMPLETED"
    assert await b.output() == "second with deps 1"
    assert made == [0, 1]


async def test_output_retries_are_counted_over_steps(bench: Benches) -> None:
    class Report(BaseModel):
        total: int

    script = Script(*[lambda _, info: [call(info.output_tools[0].name, f"o{len(script.sent)}", total="x")]] * 9)
    b = bench(Agent(script.model, output_type=Report, retries=2))
    run = await b.finish()
    assert (run.status, run.stop_reason) == ("FAILED", "agent_error")
    assert len(script.sent) == 3


async def test_tool_retries_are_counted_over_steps_and_reset_by_success(bench: Benches) -> None:
    script = Script(*[[call("flaky", f"c{i}", x=i)] for i in range(9)])
    agent, seen = Agent(script.model, retries=2), []

    @agent.tool(metadata={"effect": "read"})
    def flaky(ctx: RunContext, x: int) -> str:
        seen.append(ctx.retry)
        if x == 2:
            return "ok"
        raise ModelRetry("not like this")

    b = bench(agent)
    run = await b.finish()
    assert seen == [0, 1, 2, 0, 1, 2]
    assert (run.status, run.stop_reason) == ("FAILED", "agent_error")
    assert "flaky" in (await b.parts(End))[-1].error.message


async def test_the_model_hears_the_words_of_a_retry(bench: Benches) -> None:
    agent = Agent(Script([call("flaky", "c1")], lambda m, _: str(results(m))).model)

    @agent.tool_plain
    def flaky() -> str:
        raise ModelRetry("x must be at least 2")

    b = bench(agent)
    await b.finish()
    assert "x must be at least 2" in await b.output()
    assert "ToolRetryError" not in await b.output()


async def test_instructions_are_made_anew_for_every_request_and_not_shown(bench: Benches) -> None:
    script = Script([call("look", "c1")], "done")
    agent = Agent(script.model, instructions="Be exact.", system_prompt="You are a test.", tools=[look])

    @agent.instructions
    def now(ctx: RunContext) -> str:
        return f"This is request {ctx.run_step}."

    b = bench(agent)
    await b.finish()
    assert ["request 1" in str(i.instructions) for _, i in script.sent] == [True, False]
    assert "request 2" in str(script.sent[1][1].instructions)
    assert [p.text for p in await b.parts(Text) if p.role == "user"] == ["go"]
    assert not any("You are a test" in p.text for p in await b.parts(Text))


async def test_a_second_round_sees_the_first(bench: Benches) -> None:
    script = Script("one", "two")
    b = bench(Agent(script.model))
    await b.finish()
    await b.prompt("and now?")
    assert (await b.finish()).round == 1
    prompts = [p.content for m in script.sent[1][0] for p in m.parts if isinstance(p, UserPromptPart)]
    assert prompts == ["go", "and now?"]


async def test_a_prompt_may_have_parts(bench: Benches) -> None:
    script = Script("seen")
    prompt = ["what is this?", {"kind": "image-url", "url": "https://x.test/y.png"}, {"type": "text", "text": "tell me"}]
    b = bench(Agent(script.model), prompt)
    await b.finish()
    (part,) = [p for m in script.sent[0][0] for p in m.parts if isinstance(p, UserPromptPart)]
    assert [type(c) for c in part.content] == [str, ImageUrl, str]
    assert [p.text for p in await b.parts(Text) if p.role == "user"] == ["what is this?", "[https://x.test/y.png]", "tell me"]


async def test_a_prompt_that_is_none_ends_the_run_with_a_reason(bench: Benches) -> None:
    b = bench(Agent(Script("never").model), [{"kind": "nonsense"}])
    assert (await b.finish()).status == "FAILED"
    assert "is no part of a prompt" in (await b.parts(End))[-1].error.message


# ---------------------------------------------------------------- tools


async def test_what_a_tool_says_nothing_about_is_taken_for_once(bench: Benches) -> None:
    effects: list[str] = []
    agent = Agent(Script([call("look", "c1"), call("declared", "c2")], "done").model, tools=[look])

    @agent.tool_plain(metadata={"effect": "read"})
    def declared() -> str:
        return "x"

    b = bench(agent)
    await b.step()
    progress = b.store.progress

    async def watched(*args: Any, ledger: Any = None, **options: Any) -> Any:
        effects.extend(k for k, v in (ledger or {}).items() if "started" in v)
        return await progress(*args, ledger=ledger, **options)

    b.store.progress = watched  # type: ignore[method-assign]
    await b.step()
    assert effects == ["1/c1#1"]


async def test_an_effect_that_does_not_exist_is_told(bench: Benches) -> None:
    agent = Agent(Script([call("odd", "c1")], lambda m, _: str(results(m))).model)
    agent.tool_plain(look, name="odd", metadata={"effect": "sometimes"})
    b = bench(agent)
    await b.finish()
    assert "must be one of read, idempotent, once, needs_approval" in await b.output()


async def test_a_tool_that_fails_is_told_to_the_model(bench: Benches) -> None:
    agent = Agent(Script([call("broken", "c1"), call("nobody", "c2")], lambda m, _: f"heard: {results(m)}").model)

    @agent.tool_plain
    def broken() -> str:
        raise ValueError("no such table")

    b = bench(agent)
    assert (await b.finish()).status == "COMPLETED"
    assert "ValueError: no such table" in await b.output()
    assert [r.status for r in await b.parts(Result)] == ["error", "error"]


async def test_a_late_tool_is_told_even_when_it_is_sync(bench: Benches) -> None:
    import threading

    over = threading.Event()
    agent = Agent(Script([call("stuck", "c1")], lambda m, _: str(results(m))).model)

    @agent.tool_plain(metadata={"effect": "read", "timeout": 0.05})
    def stuck() -> str:
        over.wait(30)
        return "late"

    b = bench(agent)
    try:
        await b.finish()
    finally:
        over.set()
    assert "stuck did not answer in time (0.05 s)" in await b.output()


async def test_a_started_once_tool_is_not_run_again_and_the_model_hears_of_it(bench: Benches) -> None:
    ran: list[int] = []
    agent = Agent(Script([call("pay", "c1")], lambda m, _: str(results(m))).model)

    @agent.tool_plain
    async def pay() -> str:
        ran.append(1)
        raise AssertionError("must not run")

    b = bench(agent)
    await b.step()
    claimed: Any = await b.store.claim(KEY, claim_id="dead", holder="", lease=0.001, carrier="client")
    await b.store.progress(claimed.claim, lease=-1.0, ledger={"1/c1#1": codec.dumps({"started": 1})})
    assert (await b.finish()).status == "COMPLETED"
    assert not ran
    assert UNKNOWN in await b.output()
    assert [r.status for r in await b.parts(Result)] == ["unknown"]


async def test_rich_results_come_back_as_they_were(bench: Benches) -> None:
    image = BinaryContent(data=b"\x89PNG", media_type="image/png")
    sent: list[Any] = []

    @dataclass
    class Point:
        x: int

    def check(messages: list[Any], _: Any) -> str:
        sent.extend(p for m in messages for p in m.parts if isinstance(p, ToolReturnPart))
        return "done"

    agent = Agent(Script([call("picture", "c1"), call("both", "c2"), call("tagged", "c3"), call("point", "c4")], check).model)
    agent.tool_plain(lambda: image, name="picture")
    agent.tool_plain(lambda: ToolReturn(return_value="short", content=["long", image], metadata={"k": 1}), name="both")
    agent.tool_plain(lambda: {"$steprelay": "retry", "message": "mine"}, name="tagged")
    agent.tool_plain(lambda: Point(3), name="point")
    assert (await bench(agent).finish()).status == "COMPLETED"
    by_id = {p.tool_call_id: p for p in sent}
    assert isinstance(by_id["c1"].content, BinaryContent)
    assert by_id["c1"].content.data == image.data
    assert (by_id["c2"].content, by_id["c2"].metadata) == ("short", {"k": 1})
    assert by_id["c3"].content == {"$steprelay": "retry", "message": "mine"}
    assert by_id["c4"].content == {"x": 3}


async def test_a_huge_result_is_cut_before_it_is_kept(bench: Benches) -> None:
    agent = Agent(Script([call("huge", "c1")], "done").model)
    agent.tool_plain(lambda: "x" * 5000, name="huge")
    b = bench(agent, result_bytes=1000)
    await b.finish()
    (result,) = await b.parts(Result)
    assert len(result.value) < 1200
    assert "[cut: 1000 of 5000 characters shown]" in result.value


# ---------------------------------------------------------------- people and the outside


async def test_approve_refuse_and_edit_in_one_response(bench: Benches) -> None:
    done: list[str] = []
    agent = Agent(Script([call("publish", f"c{i}", text=f"t{i}") for i in (1, 2, 3)], lambda m, _: str(results(m))).model)

    @agent.tool
    def publish(ctx: RunContext, text: str) -> str:
        if not ctx.tool_call_approved:
            raise ApprovalRequired(metadata={"why": "public"})
        done.append(f"{text} {ctx.tool_call_metadata}")
        return f"published {text}"

    b = bench(agent)
    assert (await b.finish()).stop_reason == "approval"
    asked = await b.questions()
    first = asked[0]
    assert (first.id, first.kind, first.payload["tool"], first.payload["args"]) == ("c1", "approval", "publish", {"text": "t1"})
    await b.answer("c1", True)
    await b.answer("c2", {"approve": False, "reason": "too early"})
    assert (await b.finish()).status == "AWAITING_INPUT", "one is still open"
    await b.answer("c3", {"approved": True, "args": {"text": "edited"}})
    assert (await b.finish()).status == "COMPLETED"
    assert sorted(done) == ["edited {'why': 'public'}", "t1 {'why': 'public'}"]
    assert "too early" in await b.output()
    assert sorted(r.status for r in await b.parts(Result)) == ["denied", "ok", "ok"]


async def test_an_outside_result_and_other_tools_of_the_same_response(bench: Benches) -> None:
    ran: list[str] = []
    agent = Agent(Script([call("remote", "e1", q=1), call("ping", "e2")], lambda m, _: str(results(m))).model)

    @agent.tool_plain
    def remote(q: int) -> str:
        raise CallDeferred(metadata={"ticket": 7})

    @agent.tool_plain
    def ping() -> str:
        ran.append("ping")
        return "pong"

    b = bench(agent)
    run = await b.finish()
    (question,) = await b.questions()
    assert (run.status, question.kind, question.payload["metadata"]) == ("AWAITING_INPUT", "external", {"ticket": 7})
    await b.answer("e1", {"rows": [1, 2]})
    assert (await b.finish()).status == "COMPLETED"
    assert ran == ["ping"], "a finished tool is not run again"
    assert "rows" in await b.output()
    assert "pong" in await b.output()


async def test_a_model_that_reuses_call_ids_gets_its_questions_answered(bench: Benches) -> None:
    agent = Agent(Script([call("wipe", "call_0")], "one", [call("wipe", "call_0")], "two").model)
    agent.tool_plain(look, name="wipe", metadata={"effect": "needs_approval"})
    b = bench(agent)
    ids = []
    for _ in range(2):
        await b.finish()
        (question,) = await b.questions()
        ids.append(question.id)
        await b.answer(question.id, True)
        assert (await b.finish()).status == "COMPLETED"
        await b.prompt("again")
    assert ids[0] == "call_0"
    assert ids[1] != "call_0"
    assert [r.value for r in await b.parts(Result)] == ["seen", "seen"]


async def test_a_prompt_after_a_cancelled_question_closes_it(bench: Benches) -> None:
    script = Script([call("wipe", "c1")], lambda m, _: str(results(m)))
    agent = Agent(script.model)
    agent.tool_plain(look, name="wipe", metadata={"effect": "needs_approval"})
    b = bench(agent)
    await b.finish()
    await b.store.signal(KEY, Signal(kind="cancel"))
    assert (await b.finish()).status == "CANCELLED"
    await b.prompt("something else")
    assert (await b.finish()).status == "COMPLETED"
    assert "This call was not made" in await b.output()
