"""Events from outside: a function agent hands out an address, waits, and somebody posts to it over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from standardwebhooks import Webhook

from steprelay import AgentError, App, Reply
from steprelay.core.model import Run, RunKey
from steprelay.stores import memory

SECRET = "a secret that only these tests know"
KEY = RunKey("default", "r")


def waits(signed: bool = False, after: float | None = None) -> Any:
    async def agent(turn: Any, ctx: Any) -> Any:
        if turn.inbox:
            return [m.body["payload"] for m in turn.inbox if m.id == "paid"]
        state = [ctx.event_url("paid", signed=signed), ctx.event_secret("paid")]
        return Reply(then="wait", needs=("paid",), reason="event", after=after, state=state)

    return agent


class Scene:
    """An app with one run that waits; `url` and `secret` are what its agent was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, agent: Any) -> None:
        self.ahead, clock = 0.0, memory._clock
        monkeypatch.setattr(memory, "_clock", lambda now: clock(now) + self.ahead if now is None else now)
        self.app = App(
            agent, store=memory.MemoryStore(), secret=SECRET, observer=None, public_url="https://relay.example/", deadline=None
        )
        self.outside = httpx.AsyncClient(transport=httpx.ASGITransport(self.app.asgi), base_url="https://relay.example")

    async def waiting(self) -> None:
        await self.app.start("go", id=KEY.id, carrier="any")
        await self.app.carry(KEY, "background")
        self.url, self.secret = json.loads((await self.run()).state or "[]")

    async def run(self) -> Run:
        return (await self.app.store.read(KEY, "run"))[0]

    async def post(self, body: str = '{"sum": 5}', **headers: str) -> httpx.Response:
        assert urlsplit(self.url)[:2] == ("https", "relay.example")
        return await self.outside.post(self.url, content=body, headers=headers)

    async def post_signed(self, secret: str, message: str, body: str = '{"sum": 5}') -> httpx.Response:
        at = datetime.now(UTC)
        headers = {"webhook-id": message, "webhook-timestamp": str(int(at.timestamp()))}
        return await self.post(body, **headers, **{"webhook-signature": Webhook(secret).sign(message, at, body)})


async def test_whoever_has_the_address_delivers_the_event_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, waits())
    async with scene.outside:
        await scene.waiting()
        assert (await scene.run()).due_at is None, "a run that waits for the outside costs nothing"
        assert (await scene.post()).json() == {"sessionId": "r", "first": True}
        assert (await scene.post()).json()["first"] is False, "the same message twice is one event"
    assert await scene.app.result("r") == [{"sum": 5}]


async def test_a_signed_address_takes_only_what_its_secret_has_signed_and_each_message_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, waits(signed=True))
    async with scene.outside:
        await scene.waiting()
        refused = [await scene.post(), await scene.post_signed("whsec_" + "A" * 32, "m1")]
        taken = [await scene.post_signed(scene.secret, "m1"), await scene.post_signed(scene.secret, "m1")]
        assert [r.status_code for r in refused] == [401, 401]
        assert [t.json()["first"] for t in taken] == [True, False]
    assert scene.secret.startswith("whsec_")
    assert await scene.app.result("r") == [{"sum": 5}]


async def test_an_event_that_does_not_come_in_time_ends_the_run_as_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, waits(after=60.0))
    async with scene.outside:
        await scene.waiting()
        scene.ahead = 61.0
        await scene.app.sweeper.once()
        await scene.app.carry(KEY, "background")
        run = await scene.run()
        assert (run.status, run.stop_reason, run.ended) == ("CANCELLED", "expired", True)
        late = await scene.post()
    assert late.status_code == 200, "told to nobody: the run has ended"
    assert (await scene.run()).status == "CANCELLED"


async def test_an_event_that_comes_before_it_is_waited_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(turn: Any, ctx: Any) -> Any:
        if turn.step == 0:
            return Reply(then="wait", after=3600.0, state=[ctx.event_url("paid"), ""])
        return await waits()(turn, ctx)

    scene = Scene(monkeypatch, slow)
    async with scene.outside:
        await scene.waiting()
        await scene.post()
        await scene.app.carry(KEY, "background")
        scene.ahead = 3601.0
    assert await scene.app.result("r") == [{"sum": 5}]


async def test_without_a_public_address_the_agent_is_told_what_to_set() -> None:
    app = App(waits(), store=memory.MemoryStore(), auth=False, observer=None)
    with pytest.raises(AgentError, match="STEPRELAY_PUBLIC_URL"):
        await app.result(await app.start("go"))
