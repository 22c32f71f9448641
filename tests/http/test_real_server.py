"""A real uvicorn on a free port: streams arrive part by part, and a reader that leaves does not stop the run."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import http_world as w
import httpx
import uvicorn

from steprelay.core.model import Reply, Text


class Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, app) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_level="error"))
        self.listens = asyncio.Event()

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def served(world: w.World):
    server = Server(world.app)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        await server.listens.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {world.auth.server_key}"}, timeout=20
        ) as client:
            yield client
    finally:
        server.should_exit = True
        await task


async def test_a_stream_arrives_while_the_step_is_under_way():
    go_on = asyncio.Event()

    async def speaks(turn, ctx):
        ctx.emit(Text(text="first", id="t", delta=True))
        await go_on.wait()
        return Reply(then="finish", output="done")

    world = w.World(speaks)
    async with served(world) as c:
        await c.post("/api/runs", json={"userPrompt": "x", "sessionId": "s1"})
        async with c.stream("POST", "/api/runs/s1/step", json={}, headers={"accept": "text/event-stream"}) as stream:
            lines = stream.aiter_lines()
            seen = [line async for line in _until(lines, "first")]
            assert not go_on.is_set()
            go_on.set()
            seen += [line async for line in _until(lines, '"isTerminal":true')]
    assert "event: envelope" in seen


async def test_a_reader_that_leaves_does_not_stop_the_step():
    going, go_on = asyncio.Event(), asyncio.Event()

    async def speaks(turn, ctx):
        ctx.emit(Text(text="first", id="t", delta=True))
        going.set()
        await go_on.wait()
        return Reply(then="finish", output="done")

    world = w.World(speaks)
    async with served(world) as c:
        await c.post("/api/runs", json={"userPrompt": "x", "sessionId": "s1"})
        async with c.stream(
            "POST", "/api/runs/s1/step", json={"expectedStep": 0}, headers={"accept": "text/event-stream"}
        ) as stream:
            async for _ in _until(stream.aiter_lines(), "first"):
                pass
        go_on.set()
        await asyncio.gather(*world.app.state.api.tasks)
        replay = await c.post("/api/runs/s1/step", json={"expectedStep": 0})
    assert (replay.json()["output"], replay.headers["idempotent-replayed"]) == ("done", "true")
    assert world.calls == 1


async def test_a_reader_follows_the_tail_of_a_step_that_another_drives():
    go_on = asyncio.Event()

    async def speaks(turn, ctx):
        ctx.emit(Text(text="half a sent", id="t", delta=True))
        await go_on.wait()
        return Reply(then="finish", output="done")

    world = w.World(speaks, lease=1.0)
    async with served(world) as c:
        await c.post("/api/runs", json={"userPrompt": "x", "sessionId": "s1"})
        driving = asyncio.create_task(c.post("/api/runs/s1/step", json={}))
        async with c.stream("GET", "/api/runs/s1/parts", headers={"accept": "text/event-stream"}) as stream:
            lines = stream.aiter_lines()
            tail = [line async for line in _until(lines, "half a sent")]
            go_on.set()
            rest = [line async for line in _until(lines, '"isTerminal":true')]
        await driving
    assert "event: tail" in tail
    assert "id: 0.c.0" in rest


async def test_the_founding_page_over_a_socket():
    world = w.World(w.three_steps)
    async with served(world) as c:
        thoughts, last = await w.founding_loop(c, "s1")
    assert len(thoughts) == 3
    assert last.json()["data"]["finalAnswer"] == "the answer to find out"


async def _until(lines, text: str):
    """Lines up to and including the first that holds `text`."""
    async with asyncio.timeout(15):
        async for line in lines:
            yield line
            if text in line:
                return
