"""An agent that asks before it deletes: Python's `__pycache__` folders below this one.

    steprelay dev examples/approval.py

Prompt it with a folder, such as `.`; then approve or refuse on the page, or with curl (docs/http.md shows how).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from steprelay import App, Denied, Reply, Text, ToolError, Turn
from steprelay.agents.function import FunctionContext


def caches(folder: str) -> list[str]:
    """The `__pycache__` folders below a folder of this project, hidden ones left out."""
    here = Path.cwd()
    root = (here / folder).resolve()
    if not (root.is_dir() and root.is_relative_to(here)):
        raise ValueError(f"{folder!r} is no folder below {here}")
    found = (p.relative_to(here) for p in root.rglob("__pycache__"))
    return sorted(str(p) for p in found if not any(part.startswith(".") for part in p.parts))


def delete(folders: list[str]) -> int:
    """Delete folders; answers how many were there."""
    there = [f for f in folders if Path(f).is_dir()]
    for folder in there:
        shutil.rmtree(folder)
    return len(there)


async def tidy(turn: Turn, ctx: FunctionContext) -> Reply:
    """First step: look. Second step: ask, and when a person has answered, do it or leave it."""
    if turn.fresh:
        try:
            found = await ctx.call("look", caches, str(turn.prompt), effect="read")
        except ToolError as e:
            return Reply(then="fail", error=str(e))
        if not found:
            return Reply(then="finish", output="Nothing to tidy up.")
        ctx.emit(Text(text=f"{len(found)} cache folders found."))
        return Reply(state=found)
    ask = {"delete": turn.state}
    try:
        deleted = await ctx.call("delete", delete, turn.state, effect="needs_approval", ask=ask)
    except Denied as no:
        return Reply(then="finish", output=f"Nothing was deleted: {no}")
    return Reply(then="finish", output=f"{deleted} folders deleted.")


app = App({"tidy": tidy})
