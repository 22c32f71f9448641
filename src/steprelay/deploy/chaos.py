"""A platform of functions on this machine, in bad weather: what `steprelay dev --deadline 10s --kill 0.1 …` serves with.

    client ──▶ front ── asks ──▶ zygote ── fork ──▶ function: one process for one request
                 │  ▲                                  │
                 │  └── 202 ── self-call /api/carry ◀──┤
                 └── kill -9 at the deadline, at random, and when the answer is out

The zygote has imported everything and does nothing but fork, so a function begins in milliseconds. Whatever a function
leaves behind when it has answered dies with it. Requests are repeated and delayed, answers thrown away. A self-call is
answered at once and carried on by a function of its own, as a background function is. A page is served by the front itself.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import signal
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from ..core.model import Filter

if TYPE_CHECKING:
    import httpx

    from ..app import App

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BACKGROUND = "/api/carry"
CREATES = ("/api/runs", "/api/start-job", "/fork")
"""Calls that make something new each time, unless they bring an Idempotency-Key: no proxy repeats them."""
_UNTIL = b"x-steprelay-until"
_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"x-steprelay-wall-ms", _UNTIL}
_ORDER = struct.Struct("!cI")
_ANSWER = struct.Struct("!I")


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What the platform does. Shares are of requests, times in seconds."""

    deadline: float
    kill: float = 0.0
    lose: float = 0.0
    duplicate: float = 0.0
    copies: int = 2
    """How often a request that is repeated arrives in all."""
    latency: float = 0.0
    seed: int = 0
    sweep: float = 5.0
    """Between two calls of `/api/sweep`, as a platform's scheduler makes them."""


# ------------------------------------------------------------ processes


class Zygote:
    """Forks functions: processes that serve one app each, on a socket they are given. Make it before any thread is started.

    Only the zygote kills and buries, so a process id is never somebody else's.
    """

    def __init__(self, make: Callable[[], Any], *, private: tuple[int, ...] = ()) -> None:
        """`make()` answers the ASGI app, in the function's own process; `private`: descriptors that functions must not have."""
        self._line, theirs = socket.socketpair()
        self._asking = asyncio.Lock()
        gc.freeze()
        self._pid = os.fork()
        if self._pid == 0:
            self._line.close()
            for fd in private:
                os.close(fd)
            _breed(theirs, make)
        theirs.close()

    async def fork(self, listening: socket.socket) -> int:
        """A function that serves on this socket; answers its process id."""
        async with self._asking:
            return await asyncio.to_thread(self._order, b"F", 0, [listening.fileno()])

    async def kill(self, pid: int) -> None:
        """`kill -9`."""
        async with self._asking:
            await asyncio.to_thread(self._order, b"K", pid, [])

    def _order(self, what: bytes, pid: int, fds: list[int]) -> int:
        socket.send_fds(self._line, [_ORDER.pack(what, pid)], fds)
        answer: int = _ANSWER.unpack(self._line.recv(_ANSWER.size, socket.MSG_WAITALL))[0]
        return answer

    def close(self) -> None:
        """End the zygote and every function."""
        self._line.close()
        os.waitpid(self._pid, 0)


def _breed(line: socket.socket, make: Callable[[], Any]) -> None:
    """The zygote's life: until its line is closed."""
    for s in (signal.SIGINT, signal.SIGTERM):  # a terminal's Ctrl-C is for the front, which closes the line
        signal.signal(s, signal.SIG_IGN)
    alive: set[int] = set()
    while True:
        data, fds, _, _ = socket.recv_fds(line, _ORDER.size, 1)
        if not data:
            break
        what, pid = _ORDER.unpack(data)
        if what == b"F":
            if (pid := os.fork()) == 0:
                line.close()
                _function(make, fds[0])
            os.close(fds[0])
            alive.add(pid)
        else:
            _bury(pid)
            alive.discard(pid)
        line.sendall(_ANSWER.pack(pid))
    for pid in alive:
        _bury(pid)
    os._exit(0)


def _bury(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _function(make: Callable[[], Any], fd: int) -> None:
    """A function's life: until it is killed."""
    import uvicorn

    try:
        uvicorn.Server(_served(_timed(make()))).run(sockets=[socket.socket(fileno=fd)])
    finally:
        os._exit(1)


def _served(app: Any) -> Any:
    """uvicorn's settings for a function."""
    import uvicorn

    return uvicorn.Config(app, lifespan="on", log_level="error", access_log=False, loop="asyncio", http="h11", ws="none")


def _timed(app: Any) -> Any:
    """Says to an app how long its request may live: the front says until when, by the clock that all processes share."""

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        until = next((float(v) for k, v in scope.get("headers", ()) if k == _UNTIL), None)
        if until is not None:
            left = str(max(0, int((until - time.monotonic()) * 1000))).encode()
            scope = {**scope, "headers": [*scope["headers"], (b"x-steprelay-wall-ms", left)]}
        await app(scope, receive, send)

    return timed


# ------------------------------------------------------------ the front


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One request, whole, to be delivered as often as the weather wants."""

    method: str
    path: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def background(self) -> bool:
        return self.path == BACKGROUND

    @property
    def repeatable(self) -> bool:
        keyed = any(name == b"idempotency-key" for name, _ in self.headers)
        return self.method == "POST" and (keyed or not self.path.endswith(CREATES))


class _Killed(Exception):
    """The function died before it had answered."""


@dataclass
class Front:
    """The platform, as an ASGI app. `app` is only looked at: its settings, its page, and its store for the summary."""

    zygote: Zygote
    app: App
    weather: Weather
    say: Callable[[str], None] = print
    counted: Counter[str] = field(default_factory=Counter)
    told: set[tuple[str, int]] = field(default_factory=set)
    """Steps that a client has heard of: run and index."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.weather.seed)
        self._folder = tempfile.TemporaryDirectory(prefix="steprelay-")
        self._tasks: set[asyncio.Task[None]] = set()
        self._usual = {False: 0.2, True: self.weather.deadline}  # how long functions live, by background
        self._began = time.time()
        self._static: Any = None
        logging.getLogger("uvicorn.error").addFilter(lambda record: "without completing" not in record.getMessage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["path"].startswith(("/api/", "/.netlify/functions/")):
            await self._api(await _read(scope, receive), send)
        elif scope["type"] == "http":
            await self._page(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._spawn(self._sweeping())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def close(self) -> None:
        """End every function, and say what came of it all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.zygote.close()
        self._folder.cleanup()
        for line in await self.summary():
            self.say(line)
        await self.app.store.close()

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._static is None:
            from starlette.staticfiles import StaticFiles

            self._static = StaticFiles(directory=Path(__file__).parent.parent / "ui", html=True)
        from starlette.exceptions import HTTPException
        from starlette.responses import PlainTextResponse

        try:
            await self._static(scope, receive, send)
        except HTTPException as e:
            await PlainTextResponse(e.detail, e.status_code)(scope, receive, send)

    # ------------------------------------------------------------ one request

    async def _api(self, request: _Request, send: Send) -> None:
        self.counted["requests"] += 1
        repeated = request.repeatable and self._chance.random() < self.weather.duplicate
        for _ in range(self.weather.copies - 1 if repeated else 0):
            self.counted["repeated"] += 1
            self._spawn(self._deliver(request, None))
        if request.background:
            self._spawn(self._deliver(request, None))
            await _answer(send, 202, b"{}")
        else:
            await self._deliver(request, send)

    async def _deliver(self, request: _Request, send: Send | None) -> None:
        """Have it answered by a function; `send`: who hears it, if anybody."""
        chance, weather = self._chance, self.weather
        doomed, lost = chance.random() < weather.kill, chance.random() < weather.lose
        moment = chance.random() * self._usual[request.background]
        await asyncio.sleep(weather.latency * (0.5 + chance.random()))
        started: list[int] = []

        async def pass_on(message: MutableMapping[str, Any]) -> None:
            if send is not None:
                started.append(1)
                await send(message)

        try:
            await self._live(request, pass_on, moment if doomed else None, lost)
        except _Killed:
            if send is not None and not started:
                await _answer(send, 502, b"the function died")

    async def _live(self, request: _Request, send: Send, moment: float | None, lost: bool) -> None:
        """One function from its birth to its death. One that is to be killed does not get to answer. Raises _Killed."""
        path = f"{self._folder.name}/{self.counted['functions']}"
        self.counted["functions"] += 1
        began = time.monotonic()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            pid = await self.zygote.fork(listening)
        silent = moment is not None or lost
        try:
            async with asyncio.timeout(min(self.weather.deadline, moment or self.weather.deadline)):
                await self._ask(path, request, began + self.weather.deadline, None if silent else send)
            self._usual[request.background] += 0.2 * (time.monotonic() - began - self._usual[request.background])
            if moment is None and lost:
                self.counted["lost"] += 1
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        except TimeoutError:
            self.counted["deadlines"] += moment is None
            raise _Killed from None
        finally:
            self.counted["killed"] += moment is not None
            await asyncio.shield(self.zygote.kill(pid))
            with suppress(FileNotFoundError):
                os.unlink(path)
        if moment is not None:
            raise _Killed

    async def _ask(self, path: str, request: _Request, until: float, send: Send | None) -> None:
        """Send the request to a function and its answer on. Raises _Killed when it dies under it."""
        import httpx

        added = [(_UNTIL, f"{until:.3f}".encode()), *([(b"prefer", b"wait")] if request.background else [])]
        asked = httpx.Request(
            request.method, f"http://function{request.target}", headers=[*request.headers, *added], content=request.body
        )
        try:
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path)) as client:
                answer = await client.send(asked, stream=True)
                await self._relay(request, answer, send)
        except httpx.TransportError:
            raise _Killed from None

    async def _relay(self, request: _Request, answer: httpx.Response, send: Send | None) -> None:
        headers = [(k, v) for k, v in answer.headers.raw if k.lower() not in _HOP]
        start = {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        if "text/event-stream" in answer.headers.get("content-type", ""):
            if send is not None:
                await send(start)
            async for chunk in answer.aiter_raw():
                if send is not None:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            body = b""
        else:
            body = await answer.aread()
            if send is not None:
                await send(start)
        if send is not None:
            await send({"type": "http.response.body", "body": body})
            self._hear(request, answer.status_code, body)

    def _hear(self, request: _Request, status: int, body: bytes) -> None:
        """Remember what a client was told: it must still be so in the end."""
        if status == 200 and request.path.endswith("step"):
            said = json.loads(body or b"{}")
            if said.get("step", -1) >= 0:
                self.told.add((said["sessionId"], said["step"]))

    async def _sweeping(self) -> None:
        """What a scheduler does."""
        secret = self.app.settings.secret
        headers = [(b"host", b"localhost"), *([(b"authorization", f"Bearer {secret}".encode())] if secret else [])]
        sweep = _Request(method="POST", path="/api/sweep", target="/api/sweep", headers=headers, body=b"")
        while True:
            await asyncio.sleep(self.weather.sweep)
            await self._deliver(sweep, None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------ what came of it

    async def summary(self) -> list[str]:
        """Two lines: what the platform did, and what the store says came of it."""
        c, there, rows, asked = self.counted, set[tuple[str, int]](), 0, Counter[tuple[str, str]]()
        runs = [r for r in await self.app.store.read(Filter(tenant=self.app.tenant), "runs", limit=1000)]
        touched = [r for r in runs if r.updated_at >= self._began - 1]
        gaps = 0
        for run in touched:
            steps, after = 0, -1
            while page := await self.app.store.read(run.key, "steps", after=after, limit=500):
                steps += len(page)
                after = page[-1].index
                there |= {(run.key.id, s.index) for s in page}
                asked.update((run.key.id, s.request.id) for s in page if s.request)
            rows += steps
            gaps += run.step - steps
        lost = gaps + len(self.told - there)
        doubled = rows - len(there) + sum(n - 1 for n in asked.values())
        return [
            f"{c['requests']} requests, {c['functions']} functions: {c['killed']} killed, {c['deadlines']} cut off at their "
            f"deadline, {c['lost']} answers lost, {c['repeated']} requests repeated",
            f"{len(touched)} runs, {rows} steps: {lost} lost, {doubled} doubled",
        ]


async def _read(scope: Scope, receive: Receive) -> _Request:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    query = scope.get("query_string", b"").decode()
    target = scope.get("raw_path", scope["path"].encode()).decode() + (f"?{query}" if query else "")
    headers = [(k, v) for k, v in scope["headers"] if k not in _HOP]
    return _Request(method=scope["method"], path=scope["path"], target=target, headers=headers, body=bytes(body))


async def _answer(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def platform(load: Callable[[], App], weather: Weather, *, private: tuple[int, ...], say: Callable[[str], None]) -> Front:
    """A platform for the app that `load` answers; call it before any thread or event loop is there.

    Raises ConfigError for a store that lives in one process only.
    """
    app = load()
    _warm(app)
    if type(app.store).__name__ == "MemoryStore":
        raise ConfigError("functions share nothing but their store, and memory: is in one process; use sqlite:… or postgres://…")

    def make() -> App:
        one = load()
        one.holder = one.loop.holder = f"{socket.gethostname()}:{os.getpid()}"
        one.http = {**one.http, "wall_header": True}
        return one

    return Front(Zygote(make, private=private), app, weather, say=say)


def _warm(app: App) -> None:
    """Have everything imported that a function needs, so that the zygote has it; nothing is opened or started."""
    import httpx
    import itsdangerous
    import sse_starlette
    import standardwebhooks

    from ..http import live, shapes

    _ = (httpx, itsdangerous, sse_starlette, standardwebhooks, live, shapes, app.asgi)
    _served(app).load()
    for agent in app.agents.values():
        if hasattr(agent, "warm"):
            agent.warm()
