"""Figures of a process, scraped over ASGI by who may."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook
from watched_agent import CANARY, secretive

from steprelay import App, Limits, Reply, RunKey, Transient
from steprelay.core.model import Request
from steprelay.http.auth import driver_secret
from steprelay.metrics import COUNTERS, MOST, SECONDS, Metrics
from steprelay.telemetry import Tracing

SECRET = "a secret that only these tests know"
RUN = RunKey("default", "run-1")


def app_of(agent: Any, **options: Any) -> App:
    return App({"scout": agent}, store="memory:", secret=SECRET, **options)


async def scrape(app: App, headers: dict[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost") as client:
        return await client.get("/api/metrics", headers={"authorization": f"Bearer {SECRET}"} if headers is None else headers)


async def figures(app: App) -> dict[str, float]:
    """`{name{label values}: value}` of a scrape; labels come in the order of their names."""
    text = (await scrape(app)).text
    return {
        f"{s.name}{{{','.join(s.labels.values())}}}": s.value for f in text_string_to_metric_families(text) for s in f.samples
    }


async def step(app: App, **options: Any) -> Any:
    return await app.engine.advance(RUN, carrier="process", **options)


async def test_a_run_is_counted() -> None:
    app = app_of(secretive, observer=None)
    await app.start(f"{CANARY} prompt", id="run-1")
    request = Request(id="r", hash="h")
    await step(app, request=request)
    assert (await step(app, request=request)).replayed
    await app.result("run-1")
    got = await figures(app)
    assert {k: v for k, v in got.items() if "seconds" not in k} == {
        "steprelay_steps_total{scout,process,RUNNING}": 2.0,
        "steprelay_steps_total{scout,process,COMPLETED}": 1.0,
        "steprelay_rounds_total{scout,finished,COMPLETED}": 1.0,
        "steprelay_replays_total{scout}": 1.0,
        "steprelay_tokens_total{scout,input}": 300.0,
        "steprelay_tokens_total{scout,output}": 60.0,
        "steprelay_tokens_total{scout,cached}": 180.0,
        "steprelay_usd_total{scout}": 0.75,
        "steprelay_tool_calls_total{scout,ok,search}": 1.0,
        "steprelay_tool_calls_total{scout,error,search}": 1.0,
    }
    assert got["steprelay_step_seconds_count{scout,process}"] == got["steprelay_step_seconds_bucket{scout,process,+Inf}"] == 3
    assert CANARY not in (await scrape(app)).text


async def test_deaths_releases_and_lost_claims_are_counted() -> None:
    async def limited(turn: Any, ctx: Any) -> Reply:
        if turn.attempt == 2 and turn.step == 0:
            raise Transient("later", after=0.0, reason="rate_limited")
        if turn.step == 1:
            await app.store.claim(RUN, claim_id="thief", holder="", lease=15, carrier="process", now=time.time() + 3600)
        return Reply()

    app = app_of(limited, observer=None, limits=Limits(attempts=5))
    await app.start("x", id="run-1")
    await app.store.claim(RUN, claim_id="dead", holder="", lease=0.0001, carrier="process")
    while (await step(app)).refused == "busy":
        pass
    await step(app)
    assert (await step(app)).refused == "fenced"
    got = await figures(app)
    assert got["steprelay_attempts_died_total{scout}"] == 1
    assert got["steprelay_releases_total{scout,rate_limited}"] == 1
    assert got["steprelay_fenced_total{scout}"] == 1


async def test_figures_are_for_the_server_and_the_drivers() -> None:
    app = app_of(secretive)
    moment = datetime.now(UTC)
    signature = Webhook(driver_secret(SECRET)).sign("m1", moment, "")
    signed = {"webhook-id": "m1", "webhook-timestamp": str(int(moment.timestamp())), "webhook-signature": signature}
    run_token = app.asgi.state.api.auth.run_token(RUN, ["read"], 60)
    answers = [await scrape(app, h) for h in (None, signed, {}, {"authorization": f"Bearer {run_token}"})]
    assert [a.status_code for a in answers] == [200, 200, 401, 401]
    assert answers[0].headers["content-type"].startswith("text/plain")
    assert "steprelay" not in answers[2].json()["title"]


async def test_without_the_library_the_answer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    answer = await scrape(app_of(secretive))
    assert answer.status_code == 501
    assert "pip install 'steprelay[metrics]'" in answer.json()["detail"]


def test_what_a_model_thinks_up_does_not_grow_without_end() -> None:
    metrics = Metrics()
    for i in range(MOST + 50):
        metrics._add("steprelay_tool_calls", "scout", f"tool{i}", "error")
    counts = metrics.counts["steprelay_tool_calls"]
    assert len(counts) == MOST + 1
    assert counts["other", "other", "other"] == 50


def test_an_app_loads_neither_library_before_it_is_asked_to() -> None:
    code = "import sys; from steprelay import App; App(lambda t, c: 1, store='memory:', auth=False); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert {"prometheus_client", "opentelemetry", "steprelay.telemetry"}.isdisjoint(loaded)


async def test_the_environment_turns_traces_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert app_of(secretive).metrics.begin is None
    monkeypatch.setenv("STEPRELAY_OTEL", "1")
    assert isinstance(app_of(secretive).metrics._next, Tracing)
    assert app_of(secretive).metrics.begin is not None


@pytest.mark.parametrize(("who", "kept"), [({"authorization": f"Bearer {SECRET}"}, True), ({}, False)])
async def test_a_trusted_caller_brings_its_trace(who: dict[str, str], kept: bool) -> None:
    app = app_of(secretive, anonymous_start="allow")
    came = f"00-{'a' * 32}-{'b' * 16}-01"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost") as client:
        made = await client.post(
            "/api/runs", json={"userPrompt": "x", "labels": {"a": "b"}}, headers={**who, "traceparent": came}
        )
    assert made.json()["labels"] == {"a": "b", **({"traceparent": came} if kept else {})}


def test_every_figure_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs/observability.md").read_text("utf-8")
    listed = set(re.findall(r"`(steprelay_\w+)`", page))
    assert listed == {*(f"{name}_total" for name in COUNTERS), SECONDS}
