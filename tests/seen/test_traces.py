"""One trace a run, whoever takes its steps; and not a word of it unless asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode
from watched_agent import CANARY, Process, secretive

from steprelay import App, Limits, Reply, RunKey, Transient, telemetry
from steprelay.core.model import Request, Signal

RUN = "run-1"
KEY = RunKey("default", RUN)


@pytest.fixture
def three(tmp_path: Any) -> list[Process]:
    return [Process(f"sqlite:{tmp_path}/runs.db") for _ in range(3)]


async def relay(processes: list[Process]) -> list[Any]:
    """Step 0 by the first, asked for again at the second, which dies in step 1; the third takes it over and ends the run."""
    first, second, third = processes
    await first.app.start(f"{CANARY} prompt", id=RUN, labels={"who": f"{CANARY} label"})
    request = Request(id="r0", hash="h")
    await first.step(RUN, request=request)
    assert (await second.step(RUN, request=request)).replayed
    await second.dies(RUN)
    await third.step(RUN)
    assert (await third.step(RUN)).outcome.status == "COMPLETED"
    for p in processes:
        await p.app.shutdown()
    return [s for p in processes for s in p.spans]


def named(spans: Any, name: str) -> list[Any]:
    return sorted((s for s in spans if s.name == name), key=lambda s: s.start_time)


async def test_a_run_over_three_processes_is_one_trace(three: list[Process]) -> None:
    spans = await relay(three)
    assert {f"{s.context.trace_id:032x}" for s in spans} == {telemetry.trace_id(KEY)}
    assert len({s.context.span_id for s in spans}) == len(spans)
    (root,) = [s for s in spans if s.parent is None]
    assert (root.name, root.attributes["steprelay.status"]) == ("invoke_agent scout", "COMPLETED")
    attempts = [s for s in named(spans, "invoke_agent scout") if s is not root]
    assert [(s.attributes["steprelay.step"], s.attributes["steprelay.attempt"]) for s in attempts] == [
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 1),
    ]
    assert {s.parent.span_id for s in attempts} == {root.context.span_id}
    assert [s.attributes.get("error.type") for s in attempts] == [None, "died", None, None]
    for earlier, later in pairwise(attempts):
        assert root.start_time <= earlier.start_time <= earlier.end_time <= later.start_time <= root.end_time
    (replay,) = named(spans, "replay scout")
    assert (replay.attributes["steprelay.replayed"], replay.attributes["steprelay.step"]) == (True, 0)
    assert replay.parent.span_id == root.context.span_id


async def test_models_and_tools_are_named_as_the_conventions_say(three: list[Process]) -> None:
    spans = await relay(three)
    (step, *_) = [s for s in named(spans, "invoke_agent scout") if s.parent and s.attributes["steprelay.step"] == 0]
    (chat,) = named(spans, "chat gpt-x")
    assert (chat.kind, chat.parent.span_id) == (SpanKind.CLIENT, step.context.span_id)
    assert {k: v for k, v in chat.attributes.items() if k.startswith("gen_ai")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "acme",
        "gen_ai.response.model": "gpt-x",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
    }
    good, bad = named(spans, "execute_tool search")
    assert (good.parent.span_id, good.end_time - good.start_time < 5_001_000) == (step.context.span_id, True)
    assert good.attributes["gen_ai.tool.call.id"] == "c0"
    assert (good.status.status_code, bad.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    (root,) = [s for s in spans if s.parent is None]
    assert (root.attributes["gen_ai.usage.input_tokens"], root.attributes["steprelay.usd"]) == (
        400,
        1.0,
    )  # the dead one is charged


async def test_no_word_of_a_run_is_exported_or_logged(three: list[Process]) -> None:
    spans = await relay(three)
    assert len(spans) > 8
    assert CANARY not in "".join(s.to_json() for s in spans)
    assert CANARY not in json.dumps([p.heard for p in three])


async def test_content_is_exported_when_asked_for(tmp_path: Any) -> None:
    spans = await relay([Process(f"sqlite:{tmp_path}/runs.db", content=True) for _ in range(3)])
    said = "".join(s.to_json() for s in spans)
    for what in ("prompt", "thought", "argument", "result", "words"):
        assert f"{CANARY} {what}" in said, what
    (root,) = [s for s in spans if s.parent is None]
    told = json.loads(root.attributes["gen_ai.input.messages"])
    assert told == [{"role": "user", "parts": [{"type": "text", "content": f"{CANARY} prompt"}]}]


async def test_without_inner_spans_there_are_only_rounds_and_attempts(tmp_path: Any) -> None:
    spans = await relay([Process(f"sqlite:{tmp_path}/runs.db", inner=False) for _ in range(3)])
    assert {s.name for s in spans} == {"invoke_agent scout", "replay scout"}


async def test_what_the_agent_traces_hangs_under_its_attempt(tmp_path: Any) -> None:
    async def traces(turn: Any, ctx: Any) -> Reply:
        with process.provider.get_tracer("mine").start_as_current_span("look something up"):
            return Reply(then="finish")

    process = Process("memory:", traces)
    await process.app.start("go", id=RUN)
    await process.step(RUN)
    (mine,) = named(process.spans, "look something up")
    (attempt,) = [s for s in named(process.spans, "invoke_agent scout") if s.parent]
    assert (mine.context.trace_id, mine.parent.span_id) == (attempt.context.trace_id, attempt.context.span_id)


async def test_an_agent_of_a_framework_is_traced_by_us_or_by_the_framework() -> None:
    """Its models and tools are named from its own messages; what it traces itself comes to hang under the attempts."""
    from pydantic_ai import Agent, InstrumentationSettings
    from pydantic_ai.models.test import TestModel

    def count(cups: int) -> int:
        return cups

    ours = Process("memory:", Agent(TestModel(), tools=[count]))
    theirs = Process("memory:", Agent(TestModel(), tools=[count]), inner=False)
    settings = InstrumentationSettings(tracer_provider=theirs.provider, include_content=False)
    theirs.app.agents["scout"].agent.instrument = settings
    for process in (ours, theirs):
        await process.app.start(f"{CANARY} prompt", id=RUN)
        await process.app.result(RUN)
    inner = [s for s in ours.spans if s.parent and s.name != "invoke_agent scout"]
    assert [s.name for s in sorted(inner, key=lambda s: s.start_time)] == ["chat test", "execute_tool count", "chat test"]
    known = {s.context.span_id for s in theirs.spans}
    assert {s.context.trace_id for s in theirs.spans} == {s.context.trace_id for s in ours.spans}
    assert all(s.parent.span_id in known for s in theirs.spans if s.parent)
    assert {"chat test", "execute_tool count"} <= {s.name for s in theirs.spans}
    assert CANARY not in "".join(s.to_json() for s in ours.spans)


async def test_a_failed_attempt_says_why_and_no_message(tmp_path: Any) -> None:
    async def limited(turn: Any, ctx: Any) -> Reply:
        if turn.step == 0 and not failed:
            failed.append(1)
            raise Transient(f"{CANARY} limit", after=0.0, reason="rate_limited")
        raise ValueError(f"{CANARY} broken")

    failed: list[int] = []
    process = Process("memory:", limited)
    process.app.limits = Limits(attempts=1)
    await process.app.start("go", id=RUN)
    await process.step(RUN)
    await process.step(RUN)
    first, second = [s for s in named(process.spans, "invoke_agent scout") if s.parent]
    assert first.attributes["steprelay.stop_reason"] == "rate_limited"
    assert second.attributes["error.type"] == "agent_error"
    assert {s.status.status_code for s in (first, second)} == {StatusCode.ERROR}
    assert first.context.span_id != second.context.span_id
    assert CANARY not in "".join(s.to_json() for s in process.spans)


async def test_every_round_has_its_own_span_in_the_same_trace() -> None:
    process = Process("memory:", lambda turn, ctx: Reply(then="finish", output=1))
    await process.app.start("one", id=RUN)
    await process.step(RUN)
    await process.app.store.signal(KEY, Signal(kind="prompt", body='"two"', reopens=True))
    await process.step(RUN)
    rounds = [s for s in process.spans if s.parent is None]
    assert [s.attributes["steprelay.round"] for s in rounds] == [0, 1]
    assert len({s.context.span_id for s in rounds}) == 2
    assert len({s.context.trace_id for s in process.spans}) == 1


async def test_a_run_belongs_to_the_trace_it_was_started_in() -> None:
    process = Process("memory:", lambda turn, ctx: Reply(then="finish"))
    with process.provider.get_tracer("caller").start_as_current_span("caller") as caller:
        await process.app.start("go", id=RUN, labels=telemetry.labels())
    assert telemetry.labels() == {}
    await process.step(RUN)
    (round,) = [s for s in process.spans if s.parent and s.parent.span_id == caller.context.span_id]
    assert round.name == "invoke_agent scout"
    assert {s.context.trace_id for s in process.spans} == {caller.context.trace_id}


@pytest.mark.parametrize("label", ["nonsense", f"00-{'0' * 32}-{'0' * 16}-01", 7])
async def test_a_label_that_is_no_traceparent_is_ignored(label: Any) -> None:
    process = Process("memory:", lambda turn, ctx: Reply(then="finish"))
    await process.app.start("go", id=RUN, labels={"traceparent": label})
    await process.step(RUN)
    assert {f"{s.context.trace_id:032x}" for s in process.spans} == {telemetry.trace_id(KEY)}


async def test_all_processes_sample_a_run_or_none_does(tmp_path: Any) -> None:
    kept, all_ids = set(), [f"run-{i}" for i in range(30)]
    for run in all_ids:
        processes = [Process(f"sqlite:{tmp_path}/runs.db") for _ in range(2)]
        for p in processes:
            p.provider.sampler = ParentBased(TraceIdRatioBased(0.5))
        await processes[0].app.start("x", id=run)
        for p in (processes[0], processes[1], processes[0]):
            await p.step(run)
        seen = [bool(p.spans) for p in processes]
        assert seen[0] == seen[1]
        kept |= {run} if seen[0] else set()
        for p in processes:
            await p.app.shutdown()
    assert 0 < len(kept) < len(all_ids)


async def test_an_exporter_that_fails_harms_no_run(caplog: Any) -> None:
    class Broken(TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no tracer today")

    heard: list[Any] = []
    app = App(secretive, store="memory:", observer=telemetry.observer(next=heard.append, tracer_provider=Broken()))
    await app.start("go", id=RUN)
    assert await app.result(RUN) == f"{CANARY} answer"
    assert "the observer failed" in caplog.text
    assert len(heard) == 3


def process(store: str, role: str) -> list[Any]:
    """The spans of a real process that was told by its environment to trace."""
    script = Path(__file__).with_name("one_process.py")
    environ = {**os.environ, "STEPRELAY_OTEL": "1"}
    done = subprocess.run([sys.executable, script, store, role], capture_output=True, text=True, timeout=60, env=environ)
    assert done.returncode == (-9 if role == "dies" else 0), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_killed_process_is_in_the_trace_that_others_tell(tmp_path: Any) -> None:
    """What it had traced itself hangs under the attempt that its successor tells of."""
    first, dead, last = [process(f"sqlite:{tmp_path}/runs.db", role) for role in ("first", "dies", "last")]
    assert [s["name"] for s in dead] == ["inside dies"]
    spans = [*first, *dead, *last]
    assert {s["context"]["trace_id"] for s in spans} == {"0x" + telemetry.trace_id(KEY)}
    known = {s["context"]["span_id"]: s for s in spans}
    assert len(known) == len(spans)
    (died,) = [s for s in spans if s["attributes"].get("error.type") == "died"]
    assert died in last
    assert dead[0]["parent_id"] == died["context"]["span_id"]
    assert [s["name"] for s in spans if s["parent_id"] is None] == ["invoke_agent scout"]
    assert all(s["parent_id"] in known for s in spans if s["parent_id"])


def test_without_the_extra_the_error_names_it() -> None:
    code = "import sys; sys.modules['opentelemetry.sdk.trace'] = None\nimport steprelay.telemetry"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'steprelay[otel]'" in told.stderr
