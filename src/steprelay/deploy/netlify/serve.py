"""The child of a function instance: the app on a Unix socket, for as long as somebody holds our standard input.

proxy.mjs ── stdin, its end is ours; socket; fd 3, one byte when we listen ──▶ main(socket, app)
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError, StepRelayError

if TYPE_CHECKING:
    from ...app import App

Message = MutableMapping[str, Any]
UP = 3
"""The file descriptor on which we say that requests may come."""
LIFE = "/api/netlify/life"
"""Where `steprelay doctor` measures how long a request lives."""
GRACE = 5
"""Seconds open requests get when we are asked to end."""


def main(path: str, target: str) -> None:
    """Serve the app `target` (`agent.py:app`, `module:name`) on the socket `path`. What keeps it from starting is one line on stderr."""
    threading.Thread(target=_follow, daemon=True).start()
    _log()
    try:
        _run(load(target), path)
    except StepRelayError as e:
        print(f"steprelay: {' '.join(str(e).split())}", file=sys.stderr)
        sys.exit(1)


def load(target: str) -> App:
    """The App a target stands for, set up for this host; a file's own folder is first on the path. Raises ConfigError."""
    from ...app import App

    where, _, name = target.rpartition(":")
    folder, file = os.path.split(where)
    if file.endswith(".py"):
        sys.path.insert(0, os.path.abspath(folder))
    found = getattr(importlib.import_module(file.removesuffix(".py")), name)
    app = found if isinstance(found, App) else App(found)
    app.ui = False  # the page is a static file of the site
    app.http = {"wall_header": True, "address_header": "x-steprelay-client-ip", **app.http}
    there = os.environ.get("AWS_LAMBDA_FUNCTION_NAME") and not os.environ.get("NETLIFY_DEV")  # `netlify dev` keeps its files
    if there and app.settings.store.partition(":")[0] in ("sqlite", "memory"):
        raise ConfigError(
            "a function keeps no files: set NETLIFY_DB_URL or STEPRELAY_STORE to a PostgreSQL URL (postgres://…), for functions "
            "and builds"
        )
    return app


def _run(app: App, path: str) -> None:
    import uvicorn

    started = _Started(app)
    config = uvicorn.Config(
        started, lifespan="on", loop="asyncio", ws="none", log_level="warning", access_log=False,
        timeout_graceful_shutdown=GRACE,
    )  # fmt: skip
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(256)
        try:
            uvicorn.Server(config).run(sockets=[sock])
        except SystemExit:
            if started.failed is None:
                raise
    if started.failed is not None:
        raise ConfigError(started.failed)


class _Started:
    """Says that the app has started, or keeps why it did not."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.failed: str | None = None

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                os.write(UP, b"1")
            elif message["type"] == "lifespan.startup.failed":
                self.failed = message.get("message") or "the app did not start"
                logging.getLogger("uvicorn.error").disabled = True
            await send(message)

        if scope["type"] == "http" and scope["path"] == LIFE:
            await _live(self._app, scope, send)
        else:
            await self._app(scope, receive, watched if scope["type"] == "lifespan" else send)


async def _live(app: App, scope: Message, send: Callable[[Message], Awaitable[None]]) -> None:
    """For the server key: counts the seconds this request lives, then says that it was not cut."""
    headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
    try:
        trusted = (await app.rights.who(headers, {}, b"", app.store)).trusted
    except Exception:
        trusted = False
    await send({"type": "http.response.start", "status": 200 if trusted else 401, "headers": [(b"content-type", b"text/plain")]})
    left = int(headers.get("x-steprelay-wall-ms", 0)) / 1000 if trusted else 0
    for second in range(1, int(left)):
        await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"%d\n" % second, "more_body": True})
    await send({"type": "http.response.body", "body": b"not cut\n" if trusted else b""})


def _follow() -> None:
    """End when the function instance is gone: open requests first, for as long as that may take."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE + 2)
    os._exit(1)


def _log() -> None:
    """One line a step into the function's log; of others, what is wrong."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("steprelay").setLevel(logging.INFO)
