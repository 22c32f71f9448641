"""`steprelay runs stats`: what runs came to, counted from their rows and steps."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from .admin import Span
from .client import Client, Pruned, connect

if TYPE_CHECKING:
    from rich.table import Table

Object = dict[str, Any]
PAGE = 200
AT_ONCE = 8
MOST_LABELS = 20
"""Labels shown; --json has them all."""
_UNCOUNTED = {"traceparent"}
"""Labels that differ from run to run."""


@dataclass
class Figures:
    """What a group of runs came to. `lost`: attempts beyond each step's last one; `seconds`: of each step, claim to commit."""

    status: Counter[str] = field(default_factory=Counter)
    why: Counter[tuple[str, str]] = field(default_factory=Counter)
    steps: int = 0
    lost: int = 0
    input: int = 0
    output: int = 0
    usd: float | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def runs(self) -> int:
        return self.status.total()

    def add(self, run: Object, steps: Sequence[Object]) -> None:
        """Count a run: its view and its steps, as the API shows them."""
        usage = run.get("usage") or {}
        self.status[run["status"]] += 1
        self.why[run["status"], run["stopReason"] or "none"] += 1
        self.steps += run["step"] + 1
        self.input += usage.get("inputTokens", 0)
        self.output += usage.get("outputTokens", 0)
        if usage.get("usd") is not None:
            self.usd = (self.usd or 0.0) + usage["usd"]
        for step in steps:
            if step["attempt"] > 0:  # else a message that the run began with
                self.lost += step["attempt"] - 1
                self.seconds.append(max(0.0, _seconds(step["committedAt"]) - _seconds(step["claimedAt"])))

    def percentile(self, share: float) -> float | None:
        """The smallest of the step seconds that so many are not above (nearest rank); None without a step."""
        ordered = sorted(self.seconds)
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3) if ordered else None

    def json(self) -> Object:
        reasons: Counter[str] = Counter()
        for (_, reason), n in self.why.items():
            reasons[reason] += n
        return {
            "runs": self.runs, "status": dict(self.status), "stopReason": dict(reasons), "steps": self.steps,
            "attemptsLost": self.lost, "inputTokens": self.input, "outputTokens": self.output, "usd": self.usd,
            "stepSeconds": {"p50": self.percentile(0.5), "p95": self.percentile(0.95)},
        }  # fmt: skip


@dataclass
class Stats:
    """All runs, and the same by agent and by label. `more`: there were more than should be counted."""

    all: Figures = field(default_factory=Figures)
    agents: defaultdict[str, Figures] = field(default_factory=lambda: defaultdict(Figures))
    labels: defaultdict[str, Figures] = field(default_factory=lambda: defaultdict(Figures))
    more: bool = False

    def add(self, run: Object, steps: Sequence[Object]) -> None:
        labels = [f"{k}:{v}" for k, v in run["labels"].items() if k not in _UNCOUNTED]
        for figures in (self.all, self.agents[run["agent"]], *(self.labels[name] for name in labels)):
            figures.add(run, steps)

    def json(self) -> Object:
        groups = {"agents": self.agents, "labels": self.labels}
        return {**self.all.json(), "more": self.more, **{g: {k: f.json() for k, f in m.items()} for g, m in groups.items()}}


@click.command()
@click.option("--since", type=Span(), help="Only runs that began this long ago or later: 12h, 7d.")
@click.option("--agent", help="Only runs of this agent.")
@click.option("--label", help="Only runs with this label: name:value.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="How many of the newest runs to count."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def stats(ctx: click.Context, since: float | None, agent: str | None, label: str | None, limit: int, as_json: bool) -> None:
    """What runs came to: how they ended, steps, lost attempts, tokens, money, how long a step takes."""
    import asyncio

    if label is not None and ":" not in label:
        raise click.UsageError(f"--label is {label!r}; give name:value")

    async def work() -> Stats:
        async with connect(ctx.obj) as client:
            return await gather(client, None if since is None else time.time() - since, limit, agent=agent, label=label)

    found = asyncio.run(work())
    if as_json:
        click.echo(json.dumps(found.json(), indent=2, sort_keys=True))
    else:
        _show(found)


async def gather(client: Client, since: float | None, limit: int, **which: str | None) -> Stats:
    """Count the newest runs, at most `limit`, back to a time."""
    import asyncio

    found, cursor, left = Stats(), None, limit
    while True:
        page = await client.get("runs", cursor=cursor, limit=min(PAGE, left), **which)
        runs = [r for r in page["runs"] if since is None or _seconds(r["createdAt"]) >= since]
        for i in range(0, len(runs), AT_ONCE):
            some = runs[i : i + AT_ONCE]
            steps = await asyncio.gather(*(_steps(client, r["sessionId"]) for r in some))
            for run, rows in zip(some, steps, strict=True):
                found.add(run, rows)
        left, cursor = left - len(runs), page["cursor"]
        if cursor is None or len(runs) < len(page["runs"]):
            return found
        if left == 0:
            found.more = True
            return found


async def _steps(client: Client, run: str) -> list[Object]:
    """The steps of a run; none of one that was pruned."""
    try:
        return await client.steps(run)
    except Pruned:
        return []


def _show(found: Stats) -> None:
    """The sums, how the runs ended, and a line for each agent and label."""
    from .show import console

    total = found.all
    click.echo(
        f"{total.runs:,} runs · {total.steps:,} steps · {total.lost:,} attempts lost · {_tokens(total)} tokens · {_usd(total)}"
    )
    if found.more:
        click.echo("These are the newest; there are more (--limit).")
    for (status, reason), n in total.why.most_common():
        ended = status.lower().replace("_", " ")
        click.echo(f"  {n:>5,} {ended}{'' if reason in ('none', 'finished', ended) else ': ' + reason.replace('_', ' ')}")
    for title, groups in (("agent", found.agents), ("label", found.labels)):
        if groups:
            click.echo()
            console().print(_table(title, groups))


def _table(title: str, groups: dict[str, Figures]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column(title, overflow="fold")
    for column in ("runs", "steps", "lost", "tokens", "money", "median", "p95"):
        table.add_column(column, justify="right", no_wrap=True)
    most = sorted(groups.items(), key=lambda g: (-g[1].runs, g[0]))
    for name, f in most[:MOST_LABELS]:
        table.add_row(
            escape(name),
            f"{f.runs:,}",
            f"{f.steps:,}",
            f"{f.lost:,}",
            _tokens(f),
            _usd(f),
            _s(f.percentile(0.5)),
            _s(f.percentile(0.95)),
        )
    return table


def _tokens(figures: Figures) -> str:
    return f"{figures.input + figures.output:,}"


def _usd(figures: Figures) -> str:
    return "no price known" if figures.usd is None else f"${figures.usd:,.4f}"


def _s(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
