"""An agent without a model: finds links in a folder's Markdown files that lead to no file.

    steprelay dev examples/function_agent.py

Prompt it with a folder, such as `docs`. One file is one step; kill the server in between and it goes on with the next file.
"""

from __future__ import annotations

import re
from pathlib import Path

from steprelay import App, Limits, Reply, Text, ToolError, Turn
from steprelay.agents.function import FunctionContext

JOURNAL = Path(".steprelay/link-checks.log")
LINK = re.compile(r"\[[^\]]*\]\(([^)#?\s]+)[^)]*\)")


def pages(folder: str) -> list[str]:
    """The Markdown files below a folder of this project."""
    here = Path.cwd()
    root = (here / folder).resolve()
    if not (root.is_dir() and root.is_relative_to(here)):
        raise ValueError(f"{folder!r} is no folder below {here}")
    found = (p.relative_to(here) for p in root.rglob("*.md"))
    return sorted(str(p) for p in found if not any(part.startswith(".") for part in p.parts))


def broken_links(page: str) -> list[str]:
    """Targets of a page's links that are neither on the web nor a file."""
    path = Path(page)
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    return [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (path.parent / t).exists()]


def note_down(line: str) -> str:
    """Append a line to the journal. Done twice it would stand there twice: that is what `once` is for."""
    JOURNAL.parent.mkdir(exist_ok=True)
    with JOURNAL.open("a", encoding="utf-8") as journal:
        journal.write(line + "\n")
    return str(JOURNAL)


async def check_links(turn: Turn, ctx: FunctionContext) -> Reply:
    """One step: list the pages, then check one page a step, then note down what was found."""
    if turn.fresh:
        try:
            found = await ctx.call("pages", pages, str(turn.prompt), effect="read")
        except ToolError as e:
            return Reply(then="fail", error=str(e))
        ctx.emit(Text(text=f"{len(found)} pages to check."))
        return Reply(state={"left": found, "checked": 0, "broken": {}})
    left, checked, broken = turn.state["left"], turn.state["checked"], turn.state["broken"]
    if left:
        missing = await ctx.call("links", broken_links, left[0], effect="read")
        broken = {**broken, left[0]: missing} if missing else broken
        return Reply(state={"left": left[1:], "checked": checked + 1, "broken": broken})
    count = sum(map(len, broken.values()))
    summary = f"{count} broken links in {checked} pages"
    await ctx.call("note", note_down, summary, effect="once")
    listed = "\n".join(f"- {page}: {', '.join(missing)}" for page, missing in broken.items())
    return Reply(then="finish", output=f"{summary}.\n{listed}".strip())


app = App({"links": check_links}, limits=Limits(steps=1000))
