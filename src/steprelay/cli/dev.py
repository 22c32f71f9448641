"""`steprelay dev`: a local server that is restarted when it dies, and when the code changes."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("target", required=False, metavar="[FILE|MODULE[:NAME]]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Anything but loopback needs STEPRELAY_SECRET.")
@click.option("--port", default=8000, show_default=True, help="0 takes a free one.")
@click.option("--reload", is_flag=True, help="Start again when a Python file below this folder changes.")
def dev(target: str | None, host: str, port: int, reload: bool) -> None:
    """Serve an agent on this machine, with its page.

    Without a target: `[tool.steprelay] app` of pyproject.toml, else agent.py or app.py, else the demo agent. Runs are kept
    in .steprelay/ unless STEPRELAY_STORE says otherwise; a server that dies is started again and goes on where it was.
    """
    from .. import __version__
    from ..config import settings, store_kind
    from ..core.errors import ConfigError
    from ..deploy.asgi import Supervisor, is_loopback, python
    from .target import find, title

    loopback = is_loopback(host)
    folder = Path.cwd()
    now = settings(folder=folder)
    if not loopback and not now.secret:
        raise ConfigError(
            f"--host {host} can be reached from outside and STEPRELAY_SECRET is not set; set it "
            "(python -c 'import secrets; print(secrets.token_urlsafe(32))'), or leave --host away"
        )
    what = find(target, folder)
    command = python("steprelay.cli.server", what, *(["--loopback"] if loopback else []))
    supervisor = Supervisor(command, host=host, port=port, say=lambda line: click.echo(f"steprelay: {line}", err=True))
    click.echo(f"steprelay {__version__} serves {title(what)} · {store_kind(now.store)}")
    click.echo(f"  page   {supervisor.url}/")
    click.echo(f"  start  {_curl(supervisor.url, loopback)}")
    click.echo("  stop   Ctrl-C")
    try:
        raise SystemExit(supervisor.run(watch=folder if reload else None))
    finally:
        supervisor.close()


def _curl(url: str, loopback: bool) -> str:
    key = "" if loopback else '-H "Authorization: Bearer $STEPRELAY_SECRET" '
    body = '{"sessionId": "first", "userPrompt": "What can you do?"}'
    return f"curl {url}/api/agent-step {key}-d '{body}'"
