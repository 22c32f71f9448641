"""`steprelay serve`: this side of a durable engine. Its endpoint, registered with it; or a worker that asks it for steps."""

from __future__ import annotations

import os
import signal
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import asyncio

    from ..app import App
    from ..drivers.leg import Orchestrator

ENGINES = ("temporal", "restate", "inngest")


@click.command()
@click.argument("engine", type=click.Choice(ENGINES), metavar="temporal|restate|inngest")
@click.argument("target", required=False, metavar="[FILE|MODULE[:NAME]]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Restate, Inngest: where to listen.")
@click.option("--port", default=9080, show_default=True, help="Restate, Inngest: 0 takes a free one.")
@click.option(
    "--url", help="Restate, Inngest: where the engine reaches this server; else STEPRELAY_PUBLIC_URL, else host and port."
)
def serve(engine: str, target: str | None, host: str, port: int, url: str | None) -> None:
    """Take the steps of runs that a durable engine carries, until SIGTERM.

    Temporal: a worker, which asks the server for work. Restate, Inngest: the whole HTTP interface with the engine's endpoint at
    /api/ENGINE, registered with it. Where the engine is says STEPRELAY_TEMPORAL, STEPRELAY_RESTATE or STEPRELAY_INNGEST.
    """
    import asyncio

    from ..config import settings
    from ..core.errors import ConfigError
    from ..deploy.asgi import is_loopback
    from .target import find, load, title

    now = settings()
    what = find(target, Path.cwd())
    worker = engine == "temporal"
    if not (worker or now.secret or is_loopback(host)):
        raise ConfigError(
            f"--host {host} can be reached from outside and STEPRELAY_SECRET is not set; set it "
            "(python -c 'import secrets; print(secrets.token_urlsafe(32))'), or leave --host away"
        )
    app = load(what, **({} if now.secret and not worker else {"auth": False}))
    orchestrator = app.orchestrator(engine)
    ready = f"steprelay serves {title(what)} to {engine} at {getattr(now, engine)}"
    if orchestrator.endpoint is None:
        asyncio.run(_work(app, orchestrator, ready))
    else:
        _endpoint(app, orchestrator, ready, host, port, url or now.public_url)


async def _work(app: App, orchestrator: Orchestrator, ready: str) -> None:
    """A worker until SIGTERM or Ctrl-C; what it has in hand goes back whole."""
    import asyncio

    working = asyncio.ensure_future(orchestrator.work(lambda: click.echo(ready)))
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, working.cancel)
    await app.startup()
    try:
        await working
    except asyncio.CancelledError:
        click.echo("stopped; what was under way is handed back")
    finally:
        working.cancel()
        await app.shutdown()


def _endpoint(app: App, orchestrator: Orchestrator, ready: str, host: str, port: int, url: str | None) -> None:
    """The server, and its registration as soon as it answers. Raises ConfigError when the engine refuses it."""
    from ..deploy.asgi import bind, is_loopback, serve

    sock = bind(host, port)
    if url is None:
        here = host if is_loopback(host) else "127.0.0.1"
        url = f"http://{f'[{here}]' if ':' in here else here}:{sock.getsockname()[1]}"
    known = Registered(app, orchestrator, f"{url.rstrip('/')}/api/{orchestrator.name}", ready)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn heeds it, and then raises it once more for who was there before
    serve(known, fd=sock.detach())
    if known.error is not None:
        raise known.error


class Registered:
    """An app that makes itself known to an engine once it is started, and ends the server when it is refused."""

    def __init__(self, app: App, orchestrator: Orchestrator, url: str, ready: str) -> None:
        self._app, self._orchestrator, self._url, self._ready = app, orchestrator, url, ready
        self._task: asyncio.Task[None] | None = None
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        import asyncio

        async def watched(message: MutableMapping[str, Any]) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._task = asyncio.create_task(self._register())

        await self._app(scope, receive, watched if scope["type"] == "lifespan" else send)

    async def _register(self) -> None:
        try:
            await self._orchestrator.register(self._url)
        except Exception as e:  # told by who called serve, in one line
            self.error = e
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            click.echo(f"{self._ready}, as {self._url}")
