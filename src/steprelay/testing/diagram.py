"""Draws core/machine.TABLE: `python -m steprelay.testing.diagram` rewrites the drawn part of docs/states.md.

With `--check` nothing is written: the exit status says whether the file still shows the table the code runs on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from ..core.machine import TABLE, TERMINAL, Cause
from ..core.model import Status

BEGIN: Final = "<!-- drawn by `python -m steprelay.testing.diagram`: edit core/machine.py instead -->"
END: Final = "<!-- end of the drawn part -->"
PAGE: Final = Path("docs/states.md")

MEANING: Final[dict[Cause, str]] = {
    "continue": "the agent took a step and wants another",
    "finish": "the agent gave its output",
    "ask": "the agent, or a tool of it, needs a person",
    "wait": "the agent waits for a time, an event or another run",
    "retry": "the step could not be taken now: it is tried again later, without a step row",
    "fail": "the agent gave up, or failed too often",
    "brake": "a hard brake: a deadline passed, or one step died or was put off too often",
    "land": "a soft brake, after the one extra step in which the agent sums up",
    "cancel": "somebody stopped the run",
    "due": "the time has come, or what was waited for is there",
    "answer": "a person answered everything that was asked",
    "unmet": "woken too early: back to waiting, at the price of no attempt",
    "expire": "what was waited for never came in time",
    "prompt": "a new prompt opens the next round",
    "resume": "somebody lets the same round go on, perhaps with other limits",
}


def transitions() -> list[tuple[Status, Cause, Status]]:
    """The table in the order of its words, however it is written down."""
    statuses, causes = get_args(Status), get_args(Cause)
    rows = [(status, cause, to) for (status, cause), to in TABLE.items()]
    return sorted(rows, key=lambda row: (statuses.index(row[0]), causes.index(row[1])))


def mermaid() -> str:
    """The state diagram, one arrow for each pair of statuses."""
    arrows: dict[tuple[Status, Status], list[Cause]] = {}
    for status, cause, to in transitions():
        arrows.setdefault((status, to), []).append(cause)
    lines = ["stateDiagram-v2", "    [*] --> RUNNING: created"]
    lines += [f"    {a} --> {b}: {', '.join(causes)}" for (a, b), causes in arrows.items()]
    lines += [f"    {status} --> [*]" for status in sorted(TERMINAL)]
    return "\n".join(lines)


def table() -> str:
    """The same as a Markdown table, with what each cause means."""
    rows = [f"| {status} | {cause} | {to} | {MEANING[cause]} |" for status, cause, to in transitions()]
    return "\n".join(["| from | cause | to | when |", "| --- | --- | --- | --- |", *rows])


def drawn(page: str) -> str:
    """The page with its drawn part made anew. Raises ValueError when a marker is missing."""
    head, found, rest = page.partition(BEGIN)
    _, closed, tail = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r} around the drawn part")
    return f"{head}{BEGIN}\n\n```mermaid\n{mermaid()}\n```\n\n{table()}\n\n{END}{tail}"


def main(argv: Sequence[str]) -> int:
    """Draw into the page given, or docs/states.md. Answers the exit status: 1 when `--check` finds it out of date."""
    check = "--check" in argv
    page = Path(next((a for a in argv if not a.startswith("-")), PAGE))
    old = page.read_text(encoding="utf-8")
    new = drawn(old)
    if check and new != old:
        print(f"{page} does not show core/machine.TABLE: run python -m steprelay.testing.diagram", file=sys.stderr)
        return 1
    if not check:
        page.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
