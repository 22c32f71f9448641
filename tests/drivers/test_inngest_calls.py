"""What Inngest's driver demands before it starts, whom its endpoint listens to, and what it does when things fail; no server."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from contextlib import asynccontextmanager

import httpx
import jcs
import pytest

from steprelay.app import App
from steprelay.core.errors import ConfigError, StoreUnavailable
from steprelay.core.model import Reply, RunKey, Text
from steprelay.core.noun import replace
from steprelay.drivers import inngest as driver
from steprelay.testing.fakes import ScriptedAgent

KEY = "0123456789abcdef"
ON, END = Reply(messages=("on",)), Reply(then="finish", output="over")
SETTINGS = (
    "DEV",
    "SIGNING_KEY",
    "SIGNING_KEY_FALLBACK",
    "EVENT_KEY",
    "BASE_URL",
    "API_BASE_URL",
    "EVENT_API_BASE_URL",
    "APP_ID",
    "ENV",
)


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    """Inngest with keys, at an address where nobody is."""
    for name in SETTINGS:
        monkeypatch.delenv(f"INNGEST_{name}", raising=False)
    monkeypatch.setenv("STEPRELAY_INNGEST", "http://inngest.invalid")
    monkeypatch.setenv("INNGEST_SIGNING_KEY", f"signkey-test-{KEY}")
    monkeypatch.setenv("INNGEST_EVENT_KEY", "event key")


@asynccontextmanager
async def an_app(*script, prompt="go"):
    """An app with a run `r`, its HTTP face, and the events that Inngest would have been sent."""
    app = App(ScriptedAgent(script), store="memory:", auth=False, observer=None)
    sent: list[httpx.Request] = []

    def taken(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"ids": ["1"], "status": 200})

    engine = app.orchestrator("inngest")
    engine._http = httpx.AsyncClient(transport=httpx.MockTransport(taken))
    await app.start(prompt, id="r", carrier="inngest")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http:
        yield app, http, sent
    await app.shutdown()


def signed(body: bytes, key: str = KEY) -> dict[str, str]:
    """As Inngest signs."""
    stamp = str(int(time.time()))
    told = hmac.new(key.encode(), jcs.canonicalize(json.loads(body)) + stamp.encode(), hashlib.sha256).hexdigest()
    return {"x-inngest-signature": f"t={stamp}&s={told}", "x-inngest-server-kind": "cloud", "content-type": "application/json"}


def a_call(*, function: str = "relay", steps: dict | None = None, attempt: int = 0, **data) -> tuple[str, bytes]:
    """A call of Inngest: where to, and its body."""
    event = {"name": "e", "data": {"run": "r", **data}, "ts": 1}
    ctx = {"attempt": attempt, "disable_immediate_execution": False, "run_id": "F", "stack": {"stack": []}}
    body = {"ctx": ctx, "event": event, "events": [event], "steps": steps or {}, "use_api": False}
    return f"/api/inngest?fnId=steprelay-default-{function}&stepId=step", json.dumps(body).encode()


async def called(http: httpx.AsyncClient, **call) -> httpx.Response:
    url, body = a_call(**call)
    return await http.post(url, content=body, headers=signed(body))


# ---------------------------------------------------------------- before it starts


@pytest.mark.parametrize("missing", ["INNGEST_SIGNING_KEY", "INNGEST_EVENT_KEY"])
def test_without_its_keys_it_does_not_start_unless_it_is_told_that_this_is_development(monkeypatch, missing):
    monkeypatch.delenv(missing)
    app = App(ScriptedAgent([]), store="memory:", auth=False)
    with pytest.raises(ConfigError, match=rf"{missing}.*INNGEST_DEV=1"):
        app.orchestrator("inngest")
    monkeypatch.setenv("INNGEST_DEV", "1")
    assert app.orchestrator("inngest").endpoint


async def test_a_server_without_its_keys_does_not_start(monkeypatch):
    monkeypatch.delenv("INNGEST_SIGNING_KEY")
    app = App(ScriptedAgent([]), store="memory:", auth=False)
    with pytest.raises(ConfigError, match="INNGEST_SIGNING_KEY"):
        await app.startup()
    await app.shutdown()


def test_a_signing_key_that_is_none_is_told_without_showing_it(monkeypatch):
    monkeypatch.setenv("INNGEST_SIGNING_KEY", "hunter2")
    with pytest.raises(ConfigError, match=r"INNGEST_SIGNING_KEY.*hexadecimal") as told:
        App(ScriptedAgent([]), store="memory:", auth=False).orchestrator("inngest")
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("url", ["http://[nowhere", "http://inngest", "localhost:8288", "redis://a.b:1"])
def test_an_address_that_is_none_is_told(monkeypatch, url):
    monkeypatch.setenv("STEPRELAY_INNGEST", url)
    with pytest.raises(ConfigError, match=re.escape(f"STEPRELAY_INNGEST is {url!r}")):
        App(ScriptedAgent([]), store="memory:", auth=False).orchestrator("inngest")


@pytest.mark.parametrize(
    ("url", "events"),
    [("https://api.inngest.com", "https://inn.gs/"), ("http://inngest.internal:8288", "http://inngest.internal:8288/")],
)
def test_the_hosted_inngest_takes_events_elsewhere_and_ones_own_where_it_is(monkeypatch, url, events):
    monkeypatch.setenv("STEPRELAY_INNGEST", url)
    engine = App(ScriptedAgent([]), store="memory:", auth=False).orchestrator("inngest")
    assert engine._client.event_api_origin.rstrip("/") == events.rstrip("/")
    assert engine._client.api_origin.rstrip("/") == url


async def test_who_is_not_taken_as_an_app_is_told_why_and_what_to_look_at(monkeypatch):
    monkeypatch.setenv("STEPRELAY_INNGEST", "http://127.0.0.1:1")
    app = App(ScriptedAgent([]), store="memory:", auth=False)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1 does not take 'http://app/api/inngest'.*STEPRELAY_INNGEST") as told:
        await app.orchestrator("inngest").register("http://app/api/inngest")
    assert KEY not in str(told.value)
    await app.shutdown()


# ---------------------------------------------------------------- whom it listens to


async def test_a_call_that_inngest_has_not_signed_takes_no_step():
    async with an_app(ON) as (app, http, _):
        url, body = a_call()
        for headers in ({}, signed(body, "fedcba9876543210"), signed(body.replace(b'"r"', b'"s"'))):
            assert (await http.post(url, content=body, headers=headers)).status_code == 401
        assert (await app.store.read(RunKey("default", "r"), "run"))[0].step == 0
        assert (await http.post(url, content=body, headers=signed(body))).status_code == 206
        assert (await app.store.read(RunKey("default", "r"), "run"))[0].step > 0


async def test_nobody_but_inngest_can_make_it_tell_inngest_that_this_app_has_moved():
    async with an_app(ON) as (_, http, _sent):
        told = await http.put("/api/inngest", headers={"host": "evil.invalid"}, content=b'{"url":"http://evil.invalid"}')
        assert told.status_code == 401
        body = b'{"url":"http://app.test/api/inngest"}'
        asked = await http.put("/api/inngest", content=body, headers={**signed(body), "x-inngest-sync-kind": "in_band"})
        assert asked.status_code == 200
        functions = asked.json()["functions"]
        urls = {f["steps"]["step"]["runtime"]["url"].partition("?")[0] for f in functions}
        assert (len(functions), urls) == (2, {"http://app.test/api/inngest"})


async def test_what_is_no_call_of_inngest_is_refused():
    async with an_app(ON) as (_, http, _sent):
        assert (await http.delete("/api/inngest")).status_code == 405
        assert (await http.get("/api/inngest/else")).status_code == 404
        assert (await http.get("/api/inngest")).status_code == 401
        assert (await http.post("/api/inngest", content=b"x" * (driver.LARGEST + 1))).status_code == 413


# ---------------------------------------------------------------- what it does when things fail


async def test_a_try_whose_answer_was_lost_is_answered_again(monkeypatch):
    monkeypatch.setattr(driver, "SPAN", 0.0)
    async with an_app(ON, ON, END) as (app, http, _):
        first, again = await called(http), await called(http, attempt=1)
        assert first.json() == again.json()
        assert (await app.store.read(RunKey("default", "r"), "run"))[0].step == 1


async def test_a_call_that_is_delivered_twice_at_once_takes_one_step(monkeypatch):
    monkeypatch.setattr(driver, "SPAN", 0.0)
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(turn, ctx):
        begun.set()
        await go.wait()
        return ON

    async with an_app(slow, END) as (app, http, _):
        first = asyncio.create_task(called(http))
        await begun.wait()
        second = await called(http)
        go.set()
        assert second.json()[0]["data"]["kind"] == "busy"
        assert (await first).json()[0]["data"] == {"kind": "again", "after": 0.0, "step": 1}
        assert [turn.attempt for turn in app.agents["agent"].turns] == [1]


async def test_a_store_that_is_away_is_asked_again_soon_and_then_ever_later(monkeypatch):
    async def away(*_args, **_options):
        raise StoreUnavailable("the store is away")

    async with an_app(ON) as (app, http, _):
        monkeypatch.setattr(app.loop, "pulse", away)
        soon, later = [await called(http, attempt=attempt) for attempt in (0, 19)]
        assert (soon.status_code, later.status_code) == (500, 500)
        assert "x-inngest-no-retry" not in soon.headers
        due = [_seconds_from_now(answer.headers["retry-after"]) for answer in (soon, later)]
        assert -1 < due[0] <= 1
        assert driver.SLOWEST / 2 - 1 < due[1] <= driver.SLOWEST


def _seconds_from_now(stamp: str) -> float:
    from datetime import UTC, datetime

    return (datetime.fromisoformat(stamp.replace("Z", "+00:00")) - datetime.now(UTC)).total_seconds()


async def test_a_function_that_cannot_send_the_event_of_the_next_is_tried_again(monkeypatch):
    async with an_app(Reply(then="wait", after=60.0)) as (app, http, _sent):
        app.orchestrator("inngest")._http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(503)))
        told = (await called(http)).json()
        failed = await called(http, steps={told[0]["id"]: {"data": told[0]["data"]}})
        assert (failed.status_code, "retry-after" in failed.headers) == (500, True)
        assert "503" in failed.json()["message"]
        with pytest.raises(StoreUnavailable, match="503"):
            await app.orchestrator("inngest").wake(RunKey("default", "r"), "inngest")


async def test_a_long_step_says_that_it_lives_if_that_is_asked_for(monkeypatch):
    monkeypatch.setenv("INNGEST_STREAMING", "force")
    async with an_app(ON, END) as (_, http, _sent):
        told = await called(http)
        assert (told.status_code, told.text[0]) == (201, " ")
        assert json.loads(told.text)["status"] == 206


async def test_events_name_the_step_they_are_for_and_are_sent_once():
    async with an_app(Reply(then="wait", after=60.0)) as (_, http, sent):
        told = (await called(http)).json()
        done = await called(http, steps={told[0]["id"]: {"data": told[0]["data"]}})
        assert (done.status_code, done.json()) == (200, "pause")
        first, second = (json.loads(request.content) for request in sent)
        assert first == {"name": "steprelay-default/run.wake", "data": {"run": "r"}}
        assert second == {"name": "steprelay-default/run.pause", "data": {"run": "r", "step": 1}, "id": "F/pause"}
        assert {str(request.url) for request in sent} == {"http://inngest.invalid/e/event%20key"}


async def test_inngest_is_told_which_run_and_which_step_and_nothing_else():
    said = Reply(messages=("a secret",), parts=(Text(text="a secret"),))
    async with an_app(said, replace(said, then="wait", after=60.0), prompt="a secret") as (_, http, sent):
        answer = await called(http)
        told = answer.json()
        await called(http, steps={told[0]["id"]: {"data": told[0]["data"]}})
        assert told[0]["data"].keys() == {"kind", "after", "step"}
        assert all(json.loads(event.content)["data"].keys() <= {"run", "step"} for event in sent)
        assert "secret" not in answer.text + "".join(event.content.decode() for event in sent)


async def test_a_function_that_comes_for_a_step_already_taken_ends():
    async with an_app(ON, ON, END) as (_, http, sent):
        told = (await called(http, step=7)).json()
        assert told[0]["data"]["kind"] == "done"
        done = await called(http, step=7, steps={told[0]["id"]: {"data": told[0]["data"]}})
        assert (done.json(), len(sent)) == ("done", 1)
