"""What a pulse over HTTP costs in CPU beside the same step by the engine alone: routing, rights, shapes, the answer."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from steprelay import App
from steprelay.core.model import New, Reply, RunKey
from steprelay.stores.memory import MemoryStore

from .steps import cpu

SECRET = "only this benchmark knows it: 0123456789abcdef"
STEPS = 20


async def agent(turn: Any, ctx: Any) -> Reply:
    message = {"role": "assistant", "content": "x" * 460}
    return Reply(then="continue" if turn.step + 1 < STEPS else "finish", messages=(message,))


async def pulse(repeat: int = 30) -> tuple[float, float]:
    """Milliseconds of CPU of a step by the engine, and of a pulse over HTTP: runs of 20 on the memory store, in turn, the
    best of each. The application is called as a server calls it; parsing the bytes of HTTP is the server's."""
    app = App(agent, store=MemoryStore(), secret=SECRET, limits=None, observer=None)
    engine, http = [], []
    for _ in range(repeat):
        engine.append(await _spent(app, _step))
        http.append(await _spent(app, _post))
    await app.shutdown()
    return min(engine), min(http)


async def _spent(app: App, step: Any) -> float:
    key = RunKey(app.tenant, uuid4().hex)
    new = New(agent="agent", adapter="function", prompt='"go"', limits='{"repeats":null,"steps":null}', carrier="client")
    await app.engine.store.claim(key, claim_id="-", holder="", lease=0, carrier=None, new=new)
    began = cpu()
    for n in range(STEPS):
        await step(app, key, n)
    return (cpu() - began) / STEPS * 1000


async def _step(app: App, key: RunKey, n: int) -> None:
    advanced = await app.engine.advance(key, carrier="client", expect=n)
    assert advanced.taken, advanced


async def _post(app: App, key: RunKey, n: int) -> None:
    body = json.dumps({"sessionId": key.id, "expectedStep": n}).encode()
    headers = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body)),
               "authorization": f"Bearer {app.rights.server_key}"}  # fmt: skip
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/api/agent-step", "raw_path": b"/api/agent-step", "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("localhost", 80), "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200, sent
