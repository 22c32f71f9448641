"""`steprelay demo`: a real server, a real run, and what can happen to both; told by numbers that are counted.

Nothing is staged. The server is killed with SIGKILL in the middle of a step, one of its answers is thrown away unread,
and at the end the run's rows are compared with what the server's own witness saw.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

LEASE, LEASE_ELSEWHERE = "2", "6"
"""Seconds: short, so that a death costs this demo little; in a store that is given, long enough for its server to be
restarted meanwhile. The default is 15."""


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("question", required=False)
@click.option("--no-open", is_flag=True, help="Do not open the page, and end when the run has.")
def demo(folder: Path | None, question: str | None, no_open: bool) -> None:
    """Watch a run survive kill -9 of its server and a lost answer.

    An agent answers a question about FOLDER (this one) by reading its files; without a model's key a small offline model
    stands in. The server is killed half-way and started again. Takes less than a minute. The run is kept in .steprelay/
    unless STEPRELAY_STORE says otherwise.
    """
    import asyncio

    from ..deploy.asgi import Supervisor, python
    from .relay import Relay
    from .show import console

    root = (folder or Path.cwd()).resolve()
    home = _home()
    witness = home / f"demo-{os.getpid()}.log"
    given = os.environ.get("STEPRELAY_STORE", "")
    if given.startswith("memory:"):
        raise click.UsageError("STEPRELAY_STORE=memory: would die with the server that the demo kills; unset it")
    store = given or (f"sqlite:///{home / 'demo.db'}" if home.is_absolute() else f"sqlite:{home / 'demo.db'}")
    supervisor = Supervisor(
        python("steprelay.cli.server", f"@demo:{root}", "--loopback", "--witness", str(witness)),
        env={"STEPRELAY_STORE": store, "STEPRELAY_LEASE": LEASE_ELSEWHERE if given else LEASE, "STEPRELAY_DEADLINE": ""},
    )
    out = console()
    shown = not no_open and out.is_terminal and sys.stdin.isatty()
    try:
        supervisor.start()
        relay = Relay(out, supervisor, witness, root)
        clean = asyncio.run(relay.go(question or _question(root), shown))
        _next(out, "" if given else f"STEPRELAY_STORE={store} ", relay.id)
        if shown:
            out.print(f"\nThe page stays: {supervisor.url}/#/runs/{relay.id}   (Ctrl-C ends it)", markup=False)
            supervisor.say = lambda line: out.print(line, style="bright_black", markup=False)
            supervisor.run()
    finally:
        supervisor.close()
        witness.unlink(missing_ok=True)
    raise SystemExit(0 if clean else 1)


def _question(root: Path) -> str:
    from ..demo import ELSEWHERE, QUESTION

    return QUESTION if (root / "src" / "steprelay").is_dir() else ELSEWHERE


def _home() -> Path:
    """Where the demo keeps its run: `.steprelay` here, or a temporary folder where nothing can be written."""
    home = Path(".steprelay")
    try:
        home.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return home
    except OSError:
        return Path(tempfile.mkdtemp(prefix="steprelay-"))


def _next(console: Console, store: str, run: str) -> None:
    """Three things to type. `store`: what goes before a command that is to find the run."""
    me = "steprelay" if shutil.which("steprelay") else os.path.relpath(sys.argv[0])
    console.print("\nNext:", style="bold")
    for what, line in (
        ("another folder, another question", f'{me} demo FOLDER "question"'),
        ("your own agent, with its page", f"{me} dev agent.py"),
        ("this run again", f"{store}{me} runs show {run}"),
    ):
        console.print(f"  {what:<34}{line}", markup=False, soft_wrap=True)
