"""Wakers against servers on loopback: what is sent, and that our own door takes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import standardwebhooks.webhooks

from steprelay import App
from steprelay.core.errors import StoreUnavailable
from steprelay.core.model import RunKey
from steprelay.drivers.wake import HttpWaker, QStashWaker
from steprelay.http.auth import Auth, driver_secret
from steprelay.http.problem import Problem
from steprelay.stores.memory import MemoryStore

SECRET = "a secret that only these tests know"
KEY = RunKey("default", "r1")


class Server(ThreadingHTTPServer):
    """Keeps what it is sent and answers `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.seen = 202, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


async def who(headers: dict[str, str], body: bytes) -> str:
    return (await Auth(SECRET).who(headers, {}, body, MemoryStore())).kind


async def test_a_self_call_is_one_that_our_own_door_takes(server: Server) -> None:
    await HttpWaker(server.url, driver_secret(SECRET)).wake(KEY, "background")
    ((path, headers, body),) = server.seen
    assert path == "/api/carry"
    assert await who(headers, body) == "driver"
    with pytest.raises(Problem, match="signature"):
        await who(headers, body.replace(b"r1", b"r2"))


async def test_a_self_call_later_is_left_to_the_sweeper(server: Server) -> None:
    await HttpWaker(server.url, driver_secret(SECRET)).wake(KEY, "background", after=5.0)
    assert server.seen == []


def delivered(headers: dict[str, str]) -> dict[str, str]:
    """What the queue passes on."""
    return {name.removeprefix("upstash-forward-"): v for name, v in headers.items() if name.startswith("upstash-forward-")}


async def test_the_queue_is_asked_to_deliver_a_call_that_our_own_door_takes(server: Server) -> None:
    waker = QStashWaker("https://agents.example.com/", driver_secret(SECRET), "queue token", api=server.url)
    await waker.wake(KEY, "background")
    ((path, headers, body),) = server.seen
    assert path == "/v2/publish/https://agents.example.com/api/carry"
    assert (headers["authorization"], "upstash-delay" in headers) == ("Bearer queue token", False)
    assert delivered(headers)["prefer"] == "wait"
    assert await who(delivered(headers), body) == "driver"
    assert "authorization" not in delivered(headers), "the queue's token is for the queue"


async def test_a_delayed_delivery_is_good_when_it_arrives_and_not_before(server: Server, monkeypatch) -> None:
    waker = QStashWaker("https://agents.example.com", driver_secret(SECRET), "t", api=server.url)
    await waker.wake(KEY, "background", after=3599.2)
    ((_, headers, body),) = server.seen
    assert headers["upstash-delay"] == "3600s"
    with pytest.raises(Problem, match="signature"):
        await who(delivered(headers), body)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Later)
    assert await who(delivered(headers), body) == "driver"


@pytest.mark.parametrize("make", [
    lambda url: HttpWaker(url, driver_secret(SECRET)),
    lambda url: QStashWaker("https://a.example", driver_secret(SECRET), "queue token", api=url),
])  # fmt: skip
async def test_a_call_that_is_not_taken_is_told_without_secrets(server: Server, make) -> None:
    server.status = 503
    with pytest.raises(StoreUnavailable, match="answered 503; the sweeper will find the run") as refused:
        await make(server.url).wake(KEY, "background")
    assert "queue token" not in str(refused.value)
    server.server_close()
    with pytest.raises(StoreUnavailable, match="the sweeper will find the run"):
        await make("http://127.0.0.1:1").wake(KEY, "background")


@pytest.mark.parametrize(("environ", "kind"), [
    ({}, "TaskWaker"),
    ({"STEPRELAY_PUBLIC_URL": "https://a.example"}, "TaskWaker"),
    ({"STEPRELAY_PUBLIC_URL": "https://a.example", "STEPRELAY_DEADLINE": "10"}, "HttpWaker"),
    ({"STEPRELAY_PUBLIC_URL": "https://a.example", "NETLIFY": "true"}, "FunctionWaker"),
    ({"STEPRELAY_PUBLIC_URL": "https://a.example", "QSTASH_TOKEN": "t"}, "QStashWaker"),
])  # fmt: skip
async def test_the_app_chooses_its_waker_by_where_it_is(environ, kind, monkeypatch) -> None:
    for name in ("STEPRELAY_PUBLIC_URL", "STEPRELAY_DEADLINE", "NETLIFY", "QSTASH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    app = App(lambda turn, ctx: "x", store="memory:", secret=SECRET)
    assert type(app.waker).__name__ == kind
