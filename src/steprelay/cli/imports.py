"""`steprelay import`: sessions of a home-made agent loop become runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..core.model import Status
    from ..importer import Note, Report

SHOWN = 20
"""Rows that are named one by one; the rest is counted."""


@click.command("import")
@click.argument("target", required=False, metavar="[FILE|MODULE[:NAME]]")
@click.option("--from", "source", required=True, metavar="URL", help="sqlite:PATH, postgres://…, or a .csv or .jsonl file.")
@click.option("--table", default="agent_sessions", show_default=True, help="The table, where the source is a database.")
@click.option("--columns", default="session_id,context,status", show_default=True, help="Their names, in this order.")
@click.option("--messages", default="messages", show_default=True, help="The key of the messages in a context that is an object.")
@click.option(
    "--status", "words", multiple=True, metavar="WORD=STATUS", help="What a word of yours means, such as asleep=RUNNING."
)
@click.option("--agent", help="Whose runs they become; else the target's first agent.")
@click.option("--dry-run", is_flag=True, help="Read and judge every row, write nothing.")
def imports(
    target: str | None,
    source: str,
    table: str,
    columns: str,
    messages: str,
    words: tuple[str, ...],
    agent: str | None,
    dry_run: bool,
) -> None:
    """Make a run of every row of a session table.

    A run keeps its session's id, so an import can be repeated: what is there already is left alone. Unfinished sessions go
    on when their page asks for the next step; nothing starts by itself. Exits with 1 when a row could not be taken.
    """
    from ..core.errors import BadInput
    from ..importer import Columns, Target, import_sessions, rows
    from .target import find, load

    names = columns.split(",")
    if len(names) != 3:
        raise BadInput(f"--columns {columns!r}: give three names, the session's id, its context, its status")
    app = load(find(target, Path.cwd()))
    new = app.new("", agent=agent)
    into = Target(
        agent=new.agent,
        adapter=new.adapter,
        seed=app.agents[new.agent].seed,
        tenant=app.tenant,
        limits=app.limits,
        statuses=_statuses(words),
        messages=messages,
    )
    found = rows(source, table, Columns(session=names[0], context=names[1], status=names[2]))

    async def run() -> Report:
        try:
            return await import_sessions(found, app.store, into, dry_run=dry_run)
        finally:
            await app.store.close()

    import asyncio

    report = asyncio.run(run())
    _tell(report, "would be created" if dry_run else "created")
    if report.bad:
        raise SystemExit(1)


def _statuses(words: tuple[str, ...]) -> dict[str, Status]:
    from ..core.errors import BadInput
    from ..importer import STATUSES

    statuses: dict[str, Any] = dict(STATUSES)
    for given in words:
        word, _, status = given.partition("=")
        if status not in STATUSES.values():
            raise BadInput(f"--status {given!r}: give WORD=STATUS with one of {', '.join(dict.fromkeys(STATUSES.values()))}")
        statuses[word.lower()] = status
    return statuses


def _tell(report: Report, done: str) -> None:
    click.echo(f"{report.created} {done}, {report.there} there already, {len(report.changed)} changed, {len(report.bad)} bad")
    _list("changed", report.changed)
    _list("bad", report.bad)


def _list(what: str, notes: list[Note]) -> None:
    for note in notes[:SHOWN]:
        click.echo(f"  {what}: row {note.row} {note.session!r}: {note.why}", err=True)
    if len(notes) > SHOWN:
        click.echo(f"  {what}: {len(notes) - SHOWN} rows more", err=True)
