"""A server that lives on: uvicorn in a child process, and a supervisor that holds the listening socket.

The socket belongs to the supervisor. A child that dies, by `kill -9` too, is started again behind the same socket, and
who connects meanwhile waits in its backlog instead of being refused. A child whose supervisor is gone ends by itself.

    supervisor ── socket, lifeline ──▶ child: serve(app)
        ▲                                │
        └──────── died: start again ─────┘
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

STARTED_AT = "STEPRELAY_CHILD_BORN"
DEATHS = "STEPRELAY_CHILD_DEATHS"
STUCK = 3
"""Crashes in a row, each within `SOON` seconds of its start, after which a supervisor gives up."""
SOON = 2.0
GRACE = 5
"""Seconds open requests get when a server is asked to end."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


# ------------------------------------------------------------ the child


class Killable:
    """An app with two routes more, for the page's "Kill the server" button: `GET /api/demo`, `POST /api/demo/kill`.

    For servers on loopback under a supervisor only: this is a way to end the process.
    """

    def __init__(self, app: Asgi) -> None:
        from starlette.routing import Route, Router

        self._app = app
        self._router = Router([Route("/api/demo", self.about), Route("/api/demo/kill", self.kill, methods=["POST"])])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"] in ("/api/demo", "/api/demo/kill")
        await (self._router if ours else self._app)(scope, receive, send)

    async def about(self, request: Any) -> Any:
        """Which process answers, since when, and how many before it died."""
        from starlette.responses import JSONResponse

        born, deaths = float(os.environ.get(STARTED_AT, 0)), int(os.environ.get(DEATHS, 0))
        return JSONResponse({"pid": os.getpid(), "startedAt": born, "deaths": deaths}, headers={"cache-control": "no-store"})

    async def kill(self, request: Any) -> Any:
        """Answer, then die at once, the hard way. Only for this page on this machine: see `_ours`."""
        from starlette.responses import JSONResponse

        if not _ours(request.headers):
            return JSONResponse({"error": "only the page of this server may kill it"}, status_code=403)
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGKILL)
        return JSONResponse({"pid": os.getpid()}, status_code=202)


def _ours(headers: Any) -> bool:
    """No other site's page: the host is loopback by name (a rebound name is not) and the origin, if any, is that host."""
    host = headers.get("host", "")
    origin = headers.get("origin")
    return is_loopback(host.rsplit(":", 1)[0].strip("[]")) and origin in (None, f"http://{host}")


class _Guarded:
    """Keeps what went wrong at startup, so that it is told in one line and not in a traceback of the server's."""

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self.error: ConfigError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.failed":
                self.error = ConfigError(message.get("message") or "the app did not start")
                logging.getLogger("uvicorn.error").disabled = True
            await send(message)

        await self._app(scope, receive, watched if scope["type"] == "lifespan" else send)


def serve(app: Asgi, *, fd: int, lifeline: int | None = None, killable: bool = False) -> None:
    """Serve `app` on the inherited socket `fd` until SIGTERM, or until the pipe `lifeline` closes.

    Raises ConfigError with what kept the app from starting.
    """
    import uvicorn

    if lifeline is not None:
        threading.Thread(target=_follow, args=(lifeline,), daemon=True).start()
    guarded = _Guarded(Killable(app) if killable else app)
    config = uvicorn.Config(guarded, lifespan="on", log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE)
    try:
        uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])
    except SystemExit:
        if guarded.error is None:
            raise
    if guarded.error is not None:
        raise guarded.error


def _follow(lifeline: int) -> None:
    """Ends this process when the other end of the pipe is gone: nobody would be left to end it."""
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


# ------------------------------------------------------------ the supervisor


@dataclass
class Supervisor:
    """One child at a time behind one socket. `command` is run with `--fd N --lifeline M` appended."""

    command: Sequence[str]
    host: str = "127.0.0.1"
    port: int = 0
    env: dict[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = lambda line: None
    deaths: int = 0

    def __post_init__(self) -> None:
        self.told = threading.Event()
        self.socket = bind(self.host, self.port)
        self.port = self.socket.getsockname()[1]
        self._ear, self._line = os.pipe()
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients find the server."""
        host = self.host if is_loopback(self.host) else socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start a child; it inherits the socket and the reading end of the lifeline."""
        fd = self.socket.fileno()
        told = {STARTED_AT: f"{time.time():.3f}", DEATHS: str(self.deaths)}
        self.child = subprocess.Popen(
            [*self.command, "--fd", str(fd), "--lifeline", str(self._ear)],
            env={**os.environ, **self.env, **told}, pass_fds=(fd, self._ear), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return self.child

    def kill(self) -> int:
        """`kill -9` the child and answer the pid it had. `start` is the next thing to call."""
        assert self.child is not None, "start() first"
        self.child.kill()
        self.child.wait()
        self.deaths += 1
        return self.child.pid

    def stop(self) -> None:
        """End the child in good order; after its grace, at once."""
        if self.child is not None and self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(GRACE + 2)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def close(self) -> None:
        """Stop, and give up the port."""
        self.stop()
        os.close(self._line)
        os.close(self._ear)
        self.socket.close()

    def run(self, watch: Path | None = None) -> int:
        """`keep`, until SIGINT or SIGTERM as well."""
        before = {s: signal.signal(s, lambda *_: self.told.set()) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self.keep(watch)
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    def keep(self, watch: Path | None = None) -> int:
        """Keep a child alive until `told` is set or the child ends by itself; answers the exit status. With `watch`, a
        change of a Python file below that folder starts it anew."""
        try:
            return self._keep(_changes(watch) if watch else None)
        finally:
            self.stop()

    def _keep(self, changes: Iterator[str] | None) -> int:
        crashes = 0
        child, began = self.child or self.start(), time.monotonic()
        while not self.told.wait(0.2):
            changed = next(changes) if changes else ""
            code = child.poll()
            if changed:
                self.say(f"{changed} changed: starting again")
                self.stop()
            elif code is None or (code > 0 and changes):  # well, or waiting for a change that puts it right
                continue
            elif code >= 0:
                return code
            else:
                self.deaths += 1
                crashes = crashes + 1 if time.monotonic() - began < SOON else 1
                name = signal.Signals(-code).name
                if crashes >= STUCK:
                    self.say(f"the server died {crashes} times as soon as it was started ({name}): giving up")
                    return 1
                self.say(f"the server died ({name}): started again, its runs go on where they were")
            child, began = self.start(), time.monotonic()
        return 0


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ConfigError that says what to do about it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as e:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({e.strerror or e}); choose another with --port, or --port 0 for a free one"
        ) from e
    sock.listen(256)
    return sock


def python(module: str, *arguments: str) -> list[str]:
    """The command of a child that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def _changes(folder: Path) -> Iterator[str]:
    """The path of a Python file that changed since the last look, or ''; for ever."""
    seen = _mtimes(folder)
    while True:
        now = _mtimes(folder)
        changed = next((p for p in {**seen, **now} if seen.get(p) != now.get(p)), "")
        seen = now
        yield os.path.relpath(changed, folder) if changed else ""


def _mtimes(folder: Path) -> dict[str, float]:
    """Python files below a folder; hidden folders, environments and packages of others are left out."""
    found: dict[str, float] = {}
    for base, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith((".", "_")) and f not in ("node_modules", "venv", "site-packages")]
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(base, name)
                try:
                    found[path] = os.stat(path).st_mtime
                except FileNotFoundError:
                    continue
    return found
