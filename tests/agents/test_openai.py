"""The real OpenAI client, streaming, against a server on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_bench import Bench
from openai_server import serving
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

from steprelay.core import codec
from steprelay.core.model import Result, Text
from steprelay.core.noun import replace

Benches = Callable[..., Bench]


async def test_tools_words_usage_and_money(bench: Benches) -> None:
    with serving([("c1", "add", {"a": 1, "b": 2}), ("c2", "add", {"a": 3, "b": 4})], "that is 3 and 7") as server:
        agent = Agent(OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(base_url=server.url, api_key="none")))

        @agent.tool_plain(metadata={"effect": "read"})
        def add(a: int, b: int) -> int:
            return a + b

        b = bench(agent, usd=1.0)
        run = await b.finish()
    assert (run.status, run.step) == ("COMPLETED", 3)
    assert await b.output() == "that is 3 and 7 "
    assert [r.value for r in await b.parts(Result)] == [3, 7]
    assert [x.part.text for x in b.live if not x.committed and isinstance(x.part, Text)] == ["that ", "is ", "3 ", "and ", "7 "]
    tools = [m for m in server.requests[1]["messages"] if m["role"] == "tool"]
    assert [(m["tool_call_id"], m["content"]) for m in tools] == [("c1", "3"), ("c2", "7")]
    total = codec.tally(run.tally).total
    assert (total.requests, total.input_tokens, total.cached_tokens, total.output_tokens) == (2, 2000, 800, 200)
    assert total.usd is not None
    assert 0 < total.usd < 0.01


async def test_a_model_by_name_takes_the_usual_variables(bench: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("hello") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        b = bench(Agent("openai-chat:gpt-5-mini"))
        assert (await b.finish()).status == "COMPLETED"
    assert server.requests[0]["model"] == "gpt-5-mini"


async def test_a_full_provider_releases_the_step_after_one_request(bench: Benches) -> None:
    with serving((429, {"retry-after": "9"}), "now it works") as server:
        b = bench(Agent(OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(base_url=server.url, api_key="none"))))
        done = await b.step()
        assert done.run is not None
        assert (done.run.status, done.run.stop_reason, done.run.step) == ("WAITING", "rate_limited", 0)
        assert done.run.due_at == pytest.approx(done.now + 9.0, abs=1.0)
        assert len(server.requests) == 1, "the client does not sit and retry inside the step"


async def test_a_provider_that_is_gone_releases_the_step(bench: Benches) -> None:
    with serving() as server:
        url = server.url
    b = bench(Agent(OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(base_url=url, api_key="none"))))
    done = await b.step()
    assert done.run is not None
    assert (done.run.status, done.run.stop_reason, done.run.attempts) == ("WAITING", "retry", 0)


async def test_a_response_in_the_background_is_polled_by_releases(bench: Benches) -> None:
    with serving() as server:
        model = OpenAIResponsesModel("gpt-5-mini", provider=OpenAIProvider(base_url=server.url, api_key="none"))
        b = bench(Agent(model, model_settings=OpenAIResponsesModelSettings(openai_background=True)))
        polls = 0
        while True:
            done = await b.step()
            assert done.run is not None
            if done.run.ended:
                break
            assert (done.run.status, done.run.stop_reason, done.run.step) == ("WAITING", "provider", 0)
            polls += 1
            assert polls < 5
            rows = b.store._runs[done.run.key]  # the time until the next poll passes at once
            rows.run = replace(rows.run, due_at=0.0, wait=None, status="RUNNING")
    assert (done.run.status, await b.output()) == ("COMPLETED", "deep answer"), await b.parts()
    assert len(server.requests) == 1, "asked once, polled after"
    assert codec.tally(done.run.tally).total.requests == 1
    assert [p.text for p in await b.parts(Text)] == ["go", "deep answer"]


@pytest.mark.slow
def test_the_example_runs_on_any_server_that_speaks_openai(tmp_path: Path) -> None:
    (tmp_path / "tea.txt").write_text("green")
    example = Path(__file__).parents[2] / "examples" / "pydantic_agent.py"
    command = [sys.executable, "-c", "from steprelay.cli import main; main()", "run", str(example), "What tea?"]
    with serving([("c1", "list_files", {})], "The tea is green.") as server:
        settings = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": server.url, "STEPRELAY_STORE": f"sqlite:{tmp_path}/runs.db"}
        said = subprocess.run(command, cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True, timeout=90)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "The tea is green." in said.stdout
    assert [r["stream"] for r in server.requests] == [True, True]
