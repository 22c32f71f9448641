"""`notifyUrl` from end to end: an App over HTTP, its outbox, and a receiver on loopback that fails first."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from receiver import Receiver
from standardwebhooks import Webhook

from steprelay import App, Reply
from steprelay.core.errors import StoreUnavailable
from steprelay.core.model import Interrupt, RunKey
from steprelay.drivers.sweep import Swept
from steprelay.http.auth import driver_secret
from steprelay.stores import memory

SECRET = "a secret that only these tests know"


async def asks_then_answers(turn: Any, ctx: Any) -> Any:
    if turn.inbox:
        return {"you said": turn.inbox[0].body["payload"]}
    return Reply(then="ask", interrupts=(Interrupt(id="size", kind="question", prompt="Which size?"),))


class Scene:
    """An app whose store's clock can be put forward, and somebody with its server key."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, agent: Any = asks_then_answers) -> None:
        self.ahead, clock = 0.0, memory._clock
        monkeypatch.setattr(memory, "_clock", lambda now: clock(now) + self.ahead if now is None else now)
        self.seen: list[dict[str, Any]] = []
        self.app = App(agent, store=memory.MemoryStore(), secret=SECRET, observer=self.seen.append)
        key = {"authorization": f"Bearer {self.app.rights.server_key}"}
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app.asgi), base_url="http://localhost", headers=key)

    async def start(self, url: str) -> str:
        asked = {"userPrompt": "go", "notifyUrl": url, "carrier": "client"}
        return str((await self.client.post("/api/runs", json=asked)).json()["sessionId"])

    async def step(self, run: str) -> Any:
        return (await self.client.post(f"/api/runs/{run}/step", json={})).json()

    async def sweep(self, after: float = 0.0) -> Swept:
        self.ahead += after
        return await self.app.sweeper.once()


def verified(headers: dict[str, str], body: bytes) -> Any:
    return Webhook(driver_secret(SECRET)).verify(body, headers)


async def test_a_receiver_that_fails_is_told_again_the_same_message_until_it_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, agent=lambda turn, ctx: "done")
    async with Receiver(500, 503, 200) as receiver, scene.client:
        run = await scene.start(receiver.url)
        await scene.step(run)
        assert (await scene.sweep()).delivered == 0, "the first try came with the step; the next is not due at once"
        for _ in range(2):
            await scene.sweep(after=120.0)
        assert (await scene.sweep(after=120.0)).delivered == 0, "taken once, it is not told again"
    assert len(receiver.taken) == 3
    assert len({h["webhook-id"] for h, _ in receiver.taken}) == 1
    assert len({body for _, body in receiver.taken}) == 1
    told = [verified(h, body) for h, body in receiver.taken][-1]
    assert (told["type"], told["data"]["run"], told["data"]["output"]) == ("run.ended", run, "done")
    failed = [e for e in scene.seen if e["event"] == "undelivered"]
    assert [e["tries"] for e in failed] == [1, 2]
    assert not any("127.0.0.1" in json.dumps(e) for e in failed), "where it goes is the user's business"


async def test_a_question_and_the_end_are_two_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    async with Receiver(204) as receiver, scene.client:
        run = await scene.start(receiver.url)
        await scene.step(run)
        answer = [{"interruptId": "size", "status": "resolved", "payload": "L"}]
        await scene.client.post(f"/api/runs/{run}/input", json=answer)
        await scene.step(run)
        await scene.sweep()
    told = [verified(h, body) for h, body in receiver.taken]
    assert [t["type"] for t in told] == ["run.awaiting_input", "run.ended"]
    assert told[0]["data"]["interrupts"][0]["prompt"] == "Which size?"
    assert told[1]["data"]["output"] == {"you said": "L"}
    assert len({h["webhook-id"] for h, _ in receiver.taken}) == 2


async def test_a_message_that_waits_for_its_next_try_does_not_go_out_with_another_of_its_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    async with Receiver(500, 204, 204) as receiver, scene.client:
        run = await scene.start(receiver.url)
        await scene.step(run)
        answer = [{"interruptId": "size", "status": "resolved", "payload": "L"}]
        await scene.client.post(f"/api/runs/{run}/input", json=answer)
        await scene.step(run)
        assert [verified(h, body)["type"] for h, body in receiver.taken] == ["run.awaiting_input", "run.ended"]
        assert (await scene.sweep(after=120.0)).delivered == 1
    assert [verified(h, body)["type"] for h, body in receiver.taken][2:] == ["run.awaiting_input"]


async def test_a_message_whose_receipt_is_lost_comes_again_under_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, agent=lambda turn, ctx: "done")
    ack, lost = scene.app.store.ack, []

    async def forgetful(key: RunKey, delivered: Any, *args: Any, **options: Any) -> None:
        if not lost:
            lost.append(delivered)
            raise StoreUnavailable("the ack was lost")
        await ack(key, delivered, *args, **options)

    monkeypatch.setattr(scene.app.store, "ack", forgetful)
    async with Receiver(200) as receiver, scene.client:
        await scene.step(await scene.start(receiver.url))
        await scene.sweep()
        await scene.sweep()
    assert len(receiver.taken) == 2
    assert receiver.taken[0][0]["webhook-id"] == receiver.taken[1][0]["webhook-id"]


async def test_a_receiver_that_is_not_there_costs_the_run_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, agent=lambda turn, ctx: "done")
    async with Receiver(200) as gone:
        pass
    async with scene.client:
        run = await scene.start(gone.url)
        assert (await scene.step(run))["status"] == "COMPLETED"
        await scene.sweep()
    (waiting,) = await scene.app.store.read(RunKey("default", run), "outbox")
    assert waiting.tries >= 1
