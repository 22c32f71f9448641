"""A reader of event streams over a real app: it takes one step after the other, says where it was, and may be cut off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from steprelay import App
from steprelay.stores.memory import MemoryStore

Event = dict[str, Any]
"""`{event, id, data}` of one Server-Sent Event; `data` is a string where it is no JSON."""


class Reader:
    """Reads one run in one protocol. `heard`: every event of every stream, in order, as a client would join them."""

    def __init__(self, agents: Any, protocol: str, **settings: Any) -> None:
        settings.setdefault("store", MemoryStore())
        self.app = App(agents, auth=False, observer=None, ui=False, **settings)
        self.protocol = protocol
        self.heard: list[Event] = []
        self.headers: list[dict[str, str]] = []  # of each stream
        self.hears = asyncio.Event()  # something has come

    async def start(self, prompt: str = "go", **body: Any) -> None:
        await self.ask("POST", "/api/runs", {"userPrompt": prompt, "sessionId": "r", **body})

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request whose answer is JSON."""
        status, _, chunks = await self._request(method, path, body, {})
        assert status < 300, (status, chunks)
        return json.loads(b"".join(chunks))

    async def step(self, expect: int | None = None, until: Callable[[Event], bool] | None = None) -> list[Event]:
        """One step. `until`: the line is cut when this event has come; what the server does then goes on."""
        body = {} if expect is None else {"expectedStep": expect}
        return await self._stream("POST", "/api/runs/r/step", body, until)

    async def follow(self) -> list[Event]:
        return await self._stream("GET", "/api/runs/r/parts", None)

    async def run(self, at_most: int = 20) -> None:
        """Steps until somebody is asked or the round is over."""
        for _ in range(at_most):
            await self.step()
            if (await self.ask("GET", "/api/runs/r"))["next"]["action"] != "pulse":
                return
        raise AssertionError(f"no end in {at_most} steps")

    async def _stream(self, method: str, path: str, body: Any, until: Callable[[Event], bool] | None = None) -> list[Event]:
        headers = {"accept": "text/event-stream"}
        if last := next((e["id"] for e in reversed(self.heard) if e["id"]), None):
            headers["last-event-id"] = last
        status, told, chunks = await self._request(method, f"{path}?protocol={self.protocol}", body, headers, until)
        assert status in (200, 202), (status, chunks)
        self.headers.append(told)
        events = _events(b"".join(chunks))
        if until is not None:
            events = events[: next(i for i, e in enumerate(events) if until(e)) + 1]
        self.heard += events
        return events

    async def _request(
        self, method: str, path: str, body: Any, headers: dict[str, str], until: Callable[[Event], bool] | None = None
    ) -> tuple[int, dict[str, str], list[bytes]]:
        path, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path, "raw_path": b"",
            "root_path": "", "scheme": "http", "query_string": query.encode(), "server": ("localhost", 80), "client": ("127.0.0.1", 1),
            "headers": [(k.encode(), v.encode()) for k, v in {"host": "localhost", **headers}.items()],
        }  # fmt: skip
        sent = [{"type": "http.request", "body": json.dumps(body).encode() if body is not None else b""}]
        gone, enough = asyncio.Event(), asyncio.Event()
        status, told, chunks = 0, dict[str, str](), list[bytes]()

        async def receive() -> Any:
            if sent:
                return sent.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status, told
            if message["type"] == "http.response.start":
                status, told = message["status"], {k.decode(): v.decode() for k, v in message["headers"]}
            elif message["type"] == "http.response.body" and not enough.is_set():
                chunks.append(message.get("body", b""))
                self.hears.set()
                if until is not None and any(map(until, _events(b"".join(chunks)))):
                    enough.set()

        serving = asyncio.ensure_future(self.app(scope, receive, send))
        cut = asyncio.ensure_future(enough.wait())
        await asyncio.wait({serving, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        gone.set()
        with suppress(asyncio.CancelledError):
            await serving
        return status, told, chunks


def _events(raw: bytes) -> list[Event]:
    found = []
    for block in raw.decode().replace("\r\n", "\n").split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if data := fields.get("data"):
            found.append(
                {"event": fields.get("event"), "id": fields.get("id"), "data": data if data[0] == "[" else json.loads(data)}
            )
    return found
