"""`steprelay dev`: a local server that is restarted when it dies, and when the code changes."""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

import click


def time(text: str) -> float:
    """`10s`, `200ms`, `2m` or `1.5` in seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", text)
    if match is None:
        raise ValueError(text)
    return float(match[1]) * {"ms": 0.001, "s": 1, "": 1, "m": 60}[match[2]]


SHARE = click.FloatRange(0, 1)


@click.command()
@click.argument("target", required=False, metavar="[FILE|MODULE[:NAME]]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Anything but loopback needs STEPRELAY_SECRET.")
@click.option("--port", default=8000, show_default=True, help="0 takes a free one.")
@click.option("--reload", is_flag=True, help="Start again when a Python file below this folder changes.")
@click.option(
    "--deadline", type=time, metavar="TIME", help="Each request in a process of its own, killed after so long: 10s, 200ms."
)
@click.option("--kill", type=SHARE, default=0.0, help="Share of processes killed (-9) at any moment.")
@click.option("--lose-response", "lose", type=SHARE, default=0.0, help="Share of answers that are thrown away.")
@click.option("--duplicate", type=SHARE, default=0.0, help="Share of requests delivered twice.")
@click.option("--latency", type=time, metavar="TIME", default="0", help="How long a request is on its way, more or less.")
@click.option("--seed", type=int, default=0, help="The same mischief again.")
def dev(target: str | None, host: str, port: int, reload: bool, deadline: float | None, **mischief: Any) -> None:
    """Serve an agent on this machine, with its page.

    Without a target: `[tool.steprelay] app` of pyproject.toml, else agent.py or app.py, else the demo agent. Runs are kept
    in .steprelay/ unless STEPRELAY_STORE says otherwise; a server that dies is started again and goes on where it was.

    With --deadline and what follows it, this machine is a platform of functions in bad weather: `--deadline 10s --kill 0.1
    --lose-response 0.1 --duplicate 0.1 --latency 200ms`. What came of it is told at the end.
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
    if deadline or any(mischief[name] for name in ("kill", "lose", "duplicate", "latency")):
        weather = {"deadline": deadline or 10.0, **mischief}
        command += ["--weather", json.dumps(weather)]
        supervisor.env = _functions(supervisor.url, now.secret, weather["deadline"])
        click.echo(f"each request in a process of its own, killed after {weather['deadline']:g} s")
    click.echo(f"steprelay {__version__} serves {title(what)} · {store_kind(now.store)}")
    click.echo(f"  page   {supervisor.url}/")
    click.echo(f"  start  {_curl(supervisor.url, loopback)}")
    click.echo("  stop   Ctrl-C")
    try:
        raise SystemExit(supervisor.run(watch=folder if reload else None))
    finally:
        supervisor.close()


def _functions(url: str, secret: str | None, deadline: float) -> dict[str, str]:
    """The environment of a function: it ends, and reaches its successor by its own URL."""
    return {
        "STEPRELAY_DEADLINE": f"{deadline:g}",
        "STEPRELAY_PUBLIC_URL": os.environ.get("STEPRELAY_PUBLIC_URL") or url,
        "STEPRELAY_SECRET": secret or secrets.token_urlsafe(32),
    }


def _curl(url: str, loopback: bool) -> str:
    key = "" if loopback else '-H "Authorization: Bearer $STEPRELAY_SECRET" '
    body = '{"sessionId": "first", "userPrompt": "What can you do?"}'
    return f"curl {url}/api/agent-step {key}-d '{body}'"
