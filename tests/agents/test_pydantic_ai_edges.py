"""The Pydantic AI adapter where money, providers and stored messages come in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from agent_bench import KEY, Bench
from models import Script, call, look, results
from pydantic_ai import Agent, RunContext  # fmt: skip
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel

from steprelay.agents.pydantic_ai import PydanticAIAgent
from steprelay.core import codec
from steprelay.core.errors import BadInput
from steprelay.core.model import Call, End, Result, Signal, Text, Usage

Benches = Callable[..., Bench]


# ---------------------------------------------------------------- brakes and money


async def test_landing_has_no_tools_and_its_own_instruction(bench: Benches) -> None:
    script = Script([call("look", "c1")], [call("look", "c2")], "I saw it once.", "I saw it once.")
    b = bench(Agent(script.model, tools=[look]), steps=3)
    run = await b.finish()
    assert (run.status, run.stop_reason) == ("COMPLETED", "max_steps")
    assert await b.output() == "I saw it once. "
    messages, info = script.sent[-1]
    assert not info.function_tools
    assert "max_steps" in str(info.instructions)
    assert results(messages)[-1].startswith("This call was not made")


async def test_usage_is_counted_and_seen_by_tools(bench: Benches) -> None:
    seen: list[int] = []
    agent = Agent(Script([call("count", "c1")], "done").model)

    @agent.tool
    def count(ctx: RunContext) -> str:
        seen.append(ctx.usage.requests)
        return "ok"

    b = bench(agent)
    run = await b.finish()
    total = codec.tally(run.tally).total
    assert (total.requests, total.tool_calls) == (2, 1)
    assert total.output_tokens > 0
    assert seen == [1]
    assert [u.requests for u in await b.parts(Usage)] == [1, 1]


async def test_a_limit_in_money_needs_a_price_before_anything_is_sent(bench: Benches) -> None:
    script = Script("never")
    b = bench(Agent(script.model), usd=1.0)
    assert (await b.finish()).status == "FAILED"
    message = (await b.parts(End))[-1].error.message
    assert "no price is known for model" in message
    assert "limits.usd" in message
    assert not script.sent


async def test_a_model_that_says_it_is_free_may_run_under_a_limit_in_money(bench: Benches) -> None:
    model = Script("done").model
    model.free = True  # type: ignore[attr-defined]
    assert (await bench(Agent(model), usd=1.0).finish()).status == "COMPLETED"


async def test_every_model_that_may_answer_needs_a_price(bench: Benches) -> None:
    free = Script("done").model
    free.free = True  # type: ignore[attr-defined]
    assert (await bench(Agent(FallbackModel(free, TestModel())), usd=1.0).finish()).status == "FAILED"


# ---------------------------------------------------------------- providers


@pytest.mark.parametrize(
    ("status", "headers", "reason", "after"),
    [(429, {"Retry-After": "7"}, "rate_limited", 7.0), (503, None, "retry", None), (500, None, "retry", None), (529, None, "retry", None)],
)  # fmt: skip
async def test_what_may_pass_releases_the_step(
    bench: Benches, status: int, headers: Any, reason: str, after: float | None
) -> None:
    def fail(*_: Any) -> Any:
        raise _http(status, headers)

    b = bench(Agent(Script(fail).model))
    done = await b.step()
    assert done.run is not None
    assert (done.run.status, done.run.stop_reason, done.run.step, done.run.attempts) == ("WAITING", reason, 0, 0)
    if after is not None:
        assert done.run.due_at == pytest.approx(done.now + after, abs=0.5)


def _http(status: int, headers: Any) -> Exception:
    from pydantic_ai._model_errors import http_status_category

    category = http_status_category(status)
    return ModelHTTPError.for_category(category, status_code=status, model_name="m", body=None, headers=headers)


@pytest.mark.parametrize("status", [400, 401, 402, 404])
async def test_what_will_not_pass_ends_the_run_at_once(bench: Benches, status: int) -> None:
    calls: list[int] = []

    def fail(*_: Any) -> Any:
        calls.append(1)
        raise _http(status, None)

    b = bench(Agent(Script(fail).model))
    run = await b.finish()
    assert (run.status, run.stop_reason, len(calls)) == ("FAILED", "agent_error", 1)
    assert str(status) in (await b.parts(End))[-1].error.message


@pytest.mark.parametrize(("statuses", "status"), [((401, 429), "WAITING"), ((401, 404), "FAILED")])
async def test_a_chain_of_models_may_pass_if_one_of_them_may(bench: Benches, statuses: tuple[int, int], status: str) -> None:
    def failing(code: int) -> FunctionModel:
        def fail(*_: Any) -> Any:
            raise _http(code, {"Retry-After": "5"})

        return Script(fail).model

    done = await bench(Agent(FallbackModel(*map(failing, statuses)))).step()
    assert done.run is not None
    assert done.run.status == status


async def test_a_missing_key_ends_the_run_and_names_it(bench: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    b = bench(Agent("openai:gpt-5-mini", defer_model_check=True))
    assert (await b.finish()).status == "FAILED"
    assert "OPENAI_API_KEY" in (await b.parts(End))[-1].error.message


async def test_a_cancelled_tool_step_ends_soon_and_keeps_what_was_done(bench: Benches) -> None:
    import threading

    begun, over = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    agent = Agent(Script([call("quick", "c1"), call("stuck", "c2")]).model)

    @agent.tool_plain
    def stuck() -> str:
        loop.call_soon_threadsafe(begun.set)
        over.wait(30)
        return "late"

    agent.tool_plain(look, name="quick", metadata={"effect": "read"})
    b = bench(agent)
    await b.step()
    b_engine = b.engine
    b_engine.lease = 0.3
    step = asyncio.create_task(b_engine.advance(KEY, carrier="client"))
    try:
        await begun.wait()
        await b.store.signal(KEY, Signal(kind="cancel"))
        done = await asyncio.wait_for(step, 5)
    finally:
        over.set()
    assert done.run is not None
    assert done.run.status == "CANCELLED"


# ---------------------------------------------------------------- view and seed


def test_seeded_messages_are_read_by_the_framework() -> None:
    from pydantic_ai import ModelMessagesTypeAdapter

    seeded = PydanticAIAgent.seed(
        [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    )
    assert [m.kind for m in ModelMessagesTypeAdapter.validate_python(seeded)] == ["request", "request", "response"]
    shown = [p for m in seeded for p in PydanticAIAgent.view(m)]
    assert shown == [Text(text="u", role="user"), Text(text="a")]


@pytest.mark.parametrize(
    "message", [None, "hi", {"role": "user"}, {"role": "user", "content": 3}, {"role": "tool", "content": "x"}]
)
def test_what_is_no_message_is_refused(message: Any) -> None:
    with pytest.raises(BadInput, match="is no message"):
        PydanticAIAgent.seed([message])


def test_view_shows_nothing_it_does_not_know() -> None:
    assert list(PydanticAIAgent.view({"kind": "response", "parts": [{"part_kind": "new-thing", "content": 1}, 3]})) == []
    assert list(PydanticAIAgent.view("text")) == []


def test_view_of_calls_with_text_arguments_and_retries() -> None:
    parts = [
        {"part_kind": "tool-call", "tool_name": "t", "tool_call_id": "c1", "args": '{"a": 1}'},
        {"part_kind": "tool-call", "tool_name": "t", "tool_call_id": "c2", "args": '{"a": '},
        {"part_kind": "retry-prompt", "content": "no", "tool_name": "t", "tool_call_id": "c2"},
    ]
    assert list(PydanticAIAgent.view({"kind": "request", "parts": parts})) == [
        Call(id="c1", name="t", args={"a": 1}),
        Call(id="c2", name="t", args='{"a": '),
        Result(id="c2", name="t", value="no", status="error"),
    ]


def test_only_agents_are_taken() -> None:
    with pytest.raises(BadInput, match=r"no pydantic_ai\.Agent"):
        PydanticAIAgent(object())


def test_the_adapter_is_imported_without_the_framework() -> None:
    import subprocess
    import sys

    code = "import sys, steprelay.agents.pydantic_ai; print(any(m.partition('.')[0] in ('pydantic', 'pydantic_ai') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout.strip() == "False"
