"""Handing the baton over, through real sockets: exactly one carries at a time, and silence counts only where it was agreed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import http_world as w
import httpx
from test_real_server import Server

from steprelay import App, Limits
from steprelay.core.model import Reply, RunKey, Text

LIMITS = Limits(steps=None, repeats=None)


class Baton:
    """An agent that notes who is in it, and goes on when it is told to."""

    def __init__(self) -> None:
        self.inside, self.most = 0, 0
        self.began: asyncio.Queue[int] = asyncio.Queue()
        self.go_on = asyncio.Event()
        self.last = 10_000

    async def __call__(self, turn, ctx):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.began.put_nowait(turn.step)
        try:
            await self.go_on.wait()
            await asyncio.sleep(0)
        finally:
            self.inside -= 1
        return "done" if turn.step >= self.last else Reply(parts=(Text(text=f"{turn.step}"),))


@asynccontextmanager
async def served(agent, **options) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    """An App behind uvicorn, and a client with its key."""
    app = App(agent, store="memory:", secret=w.SECRET, limits=LIMITS, observer=None, **options)
    server = Server(app)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        await server.listens.wait()
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {w.SECRET}"}, timeout=20) as client:
            yield app, client
    finally:
        server.should_exit = True
        await task


async def test_from_the_client_to_the_background_by_a_beacon_and_back() -> None:
    baton = Baton()
    async with served(baton) as (app, c), asyncio.timeout(30):
        baton.go_on.set()
        for _ in range(2):
            assert (await c.post("/api/agent-step", json={"sessionId": "s", "userPrompt": "go"})).status_code == 200
        baton.go_on.clear()
        while not baton.began.empty():
            baton.began.get_nowait()
        # sendBeacon: a string, no headers of its own, nobody waits for the answer
        beacon = json.dumps({"carrier": "background"})
        assert (await c.post("/api/runs/s/hand-over", content=beacon, headers={"content-type": "text/plain"})).status_code == 200
        assert await baton.began.get() == 2, "the background has begun by itself"
        told = await c.post("/api/runs/s/step", json={})
        assert (told.status_code, baton.inside) == (202, 1), "the client is told that it is busy, and enters nothing"
        back = await c.post("/api/runs/s/hand-over", json={"carrier": "client"})
        assert back.json()["carrier"] == "client"
        baton.go_on.set()
        await asyncio.gather(*app.waker._tasks)
        row = (await c.get("/api/runs/s")).json()
        assert (row["step"], row["lease"]["held"]) == (2, False), "the background put it down after the step under way"
        baton.last = 3
        assert (await c.post("/api/runs/s/step", json={"expectedStep": 3})).json()["output"] == "done"
        steps = await app.store.read(RunKey("default", "s"), "steps")
    assert [s.carrier for s in steps] == ["client", "client", "background", "client"]
    assert [s.attempt for s in steps] == [1, 1, 1, 1]
    assert baton.most == 1
    assert all(before.committed_at <= after.claimed_at for before, after in pairwise(steps))


async def test_silence_is_taken_over_only_where_it_was_agreed(monkeypatch) -> None:
    clock = w.Clock(monkeypatch)
    baton = Baton()
    baton.go_on.set()
    baton.last = 2
    async with served(baton, lease=15.0) as (app, c):
        for id, more in (("kept", {}), ("shared", {"takeoverAfter": 60})):
            await c.post("/api/runs", json={"sessionId": id, "userPrompt": "go", **more})
            await c.post(f"/api/runs/{id}/step", json={})
        clock.forward(59)
        assert (await c.post("/api/sweep")).json()["runs"] == 0, "a minute was agreed"
        clock.forward(2)
        assert (await c.post("/api/sweep")).json()["runs"] == 1
        await asyncio.gather(*app.waker._tasks)
        clock.forward(10 * 86_400)
        assert (await c.post("/api/sweep")).json()["runs"] == 0
        kept, shared = [(await c.get(f"/api/runs/{id}")).json() for id in ("kept", "shared")]
    assert (shared["status"], shared["carrier"]) == ("COMPLETED", "background")
    assert (kept["status"], kept["step"], kept["carrier"]) == ("RUNNING", 0, "client")
