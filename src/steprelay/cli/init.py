"""`steprelay init netlify`: a site, or what a site needs."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.group()
def init() -> None:
    """Put what a host needs into a folder."""


@init.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("--overwrite", is_flag=True, help="Change files that are there, as the diff says.")
@click.option("--backend", metavar="URL", help="The agent runs there, and not on Netlify.")
def netlify(folder: Path, overwrite: bool, backend: str | None) -> None:
    """Make a site with an agent for Netlify, or add one to a site.

    Files that are there are left alone: what should change in them is shown. Safe to run again.
    """
    from ..deploy.netlify.plan import plan

    left = 0
    changes = plan(folder, backend and backend.rstrip("/"))
    for change in changes:
        if not change.new:
            click.echo(change.diff(), nl=False)
        if change.new or overwrite:
            path = folder / change.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(change.after)
            click.secho(f"{'+' if change.new else '~'} {change.path}", fg="green")
        else:
            left += 1
            click.secho(f"! {change.path} was left as it is", fg="yellow")
    if left:
        click.echo(f"{left} of your files should change as shown: run this again with --overwrite, or do it by hand.")
        raise SystemExit(1)
    click.echo("Nothing to do." if not changes else f"Done. What comes next is in {os.path.relpath(folder / 'README.md')}.")
