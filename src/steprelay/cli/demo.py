"""`steprelay demo`: a run that survives what is done to it, told by numbers that are counted."""

from __future__ import annotations
import click


@click.command()
@click.argument("folder", required=False)
@click.argument("question", required=False)
def demo(folder: str | None, question: str | None) -> None:
    """Watch a run survive."""
