"""A folder with an agent in it, and the command line called in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from said import Said

from steprelay.cli import main

AGENT = """
from steprelay import Limits, Reply, Text

async def agent(turn, ctx):
    if turn.prompt == "fail":
        raise ValueError("no tea left")
    if turn.prompt == "ask":
        await ctx.call("order", lambda: "ordered", effect="needs_approval", ask={"cups": 2})
        return "ordered"
    if turn.prompt == "long":
        await ctx.call("log", lambda: "x" * 90_000, effect="read", keep=True)
        return "read"
    if turn.step < 2:
        await ctx.call("count", len, "x" * turn.step, effect="read")
        return Reply(parts=(Text(text=f"I counted {turn.step}."),))
    return "It is 42."
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with agent.py in it, and nothing set in the environment."""
    (tmp_path / "agent.py").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = set(sys.modules)
    for name in ("STORE", "SECRET", "URL", "LEASE", "DEADLINE", "PUBLIC_URL", "DEBUG"):
        monkeypatch.delenv(f"STEPRELAY_{name}", raising=False)
    for name in ("DATABASE_URL", "NETLIFY_DB_URL"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def steprelay(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def call(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        return Said(out, err, int(ended.value.code or 0))

    return call
