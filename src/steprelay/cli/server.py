"""The server process that `dev` and `demo` start: `python -m steprelay.cli.server TARGET --fd N`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("target")
@click.option("--fd", type=int, required=True, help="The listening socket, inherited.")
@click.option("--lifeline", type=int, help="A pipe; this process ends when it closes.")
@click.option("--loopback", is_flag=True, help="Only this machine can reach it: no auth, and the page may kill it.")
@click.option("--witness", type=click.Path(path_type=Path), help="Note in this file what is committed and answered.")
@click.option("--weather", help="JSON of a deploy.chaos.Weather: each request in a process of its own that is mistreated.")
def server(target: str, fd: int, lifeline: int | None, loopback: bool, witness: Path | None, weather: str | None) -> None:
    """Serve TARGET until SIGTERM."""
    from ..deploy.asgi import serve
    from .target import load
    from .witness import Witness

    options: dict[str, Any] = {"auth": False} if loopback else {}
    if weather is not None:
        from ..deploy.chaos import Weather, platform

        private = (fd,) if lifeline is None else (fd, lifeline)
        front = platform(lambda: load(target, **options), Weather(**json.loads(weather)), private=private, say=click.echo)
        serve(front, fd=fd, lifeline=lifeline)
        return
    if witness is None:
        app = load(target, **options)
    else:
        noted = Witness(witness)
        app = load(target, observer=noted, **options)
        noted.watch(app)
    serve(app, fd=fd, lifeline=lifeline, killable=loopback)


if __name__ == "__main__":
    from . import main

    main(sys.argv[1:], command=server)
