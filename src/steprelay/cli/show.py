"""What a run looks like in a terminal: the relay track, its steps, and the counted line. Drawn from step rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from ..core import codec
from ..core.model import Call, End, Interrupt, Part, Result, Step, Text, Thought, Usage, Value

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text as Styled

HUES = ("cyan", "magenta", "green", "yellow", "blue")
NAMES = {"client": "Browser", "background": "Background", "process": "This process", "any": "Anyone"}
"""Carriers as people call them; the others by their own name."""


def console() -> Console:
    """Where everything is printed: as wide as the terminal, or as a page of paper is."""
    from rich.console import Console

    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=110)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A step row as it is shown. Times in seconds since the epoch."""

    index: int
    attempt: int
    carrier: str
    began: float
    ended: float
    tokens: int
    parts: tuple[Part, ...]
    bytes: int = 0  # of its messages and parts, as they are stored

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended - self.began)


def from_step(step: Step, parts: tuple[Part, ...]) -> Row:
    """A row of this process's own."""
    usage = codec.unpack(Usage, step.usage)
    return Row(
        index=step.index, attempt=step.attempt, carrier=step.carrier, began=step.claimed_at, ended=step.committed_at,
        tokens=usage.tokens, parts=parts, bytes=sum(map(len, (*step.messages, *step.parts))),
    )  # fmt: skip


def from_wire(step: Mapping[str, Value]) -> Row:
    """A row of `/api/runs/{id}/steps`."""
    usage = step.get("usage") or {}
    return Row(
        index=step["index"], attempt=step["attempt"], carrier=step["carrier"], began=_seconds(step["claimedAt"]),
        ended=_seconds(step["committedAt"]), tokens=usage.get("inputTokens", 0) + usage.get("outputTokens", 0),
        parts=tuple(codec.part_from(p) for p in step["parts"]), bytes=step.get("bytes", 0),
    )  # fmt: skip


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def deaths(rows: Iterable[Row]) -> int:
    """Attempts that did not live to commit."""
    return sum(row.attempt - 1 for row in rows)


# ------------------------------------------------------------ the relay track


def track(rows: Sequence[Row], *, width: int = 96, now: str = "", names: Mapping[str, str] = NAMES) -> Styled:
    """Lanes are carriers, blocks are steps as long as they took, `╮╰` is the baton passing, `╳` an attempt that died and
    `░` the lease running out after it. `now`: the carrier of a step under way; `names`: what lanes are called."""
    from rich.text import Text as Styled

    lanes = list(dict.fromkeys([r.carrier for r in rows] + ([now] if now else [])))
    margin = max((len(names.get(lane, lane)) for lane in lanes), default=0) + 2
    cells = {lane: Styled(names.get(lane, lane).ljust(margin), style=_hue(lanes, lane)) for lane in lanes}
    blocks = _widths(rows, width - margin)
    at = rows[0].carrier if rows else now
    for row, size in zip(rows, blocks, strict=True):
        if row.carrier != at:
            _pass(cells, lanes, at, row.carrier)
            at = row.carrier
        for _ in range(row.attempt - 1):
            _put(cells, at, f"━{row.index}╳", "red")
            _put(cells, at, "░░ ", "bright_black")
        _put(cells, at, f"{row.index}".center(size, "━"), _hue(lanes, at))
        _put(cells, at, " ", "")
    if now:
        if now != at:
            _pass(cells, lanes, at, now)
        _put(cells, now, "╌╌╌", _hue(lanes, now))
    return Styled("\n").join(cells[lane] for lane in lanes)


def _widths(rows: Sequence[Row], room: int) -> list[int]:
    """A block's width: its number, and more the longer it took, all within the room there is."""
    least = [len(str(r.index)) + 2 for r in rows]
    dead = sum((r.attempt - 1) * (len(str(r.index)) + 5) for r in rows)
    batons = 2 * sum(a.carrier != b.carrier for a, b in pairwise(rows))
    free = max(0, room - sum(least) - len(rows) - dead - batons)
    total = sum(r.seconds for r in rows) or 1.0
    return [a + min(12, int(free * r.seconds / total)) for a, r in zip(least, rows, strict=True)]


def _put(cells: dict[str, Styled], lane: str, text: str, style: str) -> None:
    for name, cell in cells.items():
        cell.append(text if name == lane else " " * len(text), style=style)


def _pass(cells: dict[str, Styled], lanes: Sequence[str], old: str, new: str) -> None:
    down = lanes.index(new) > lanes.index(old)
    for i, name in enumerate(lanes):
        low, high = sorted((lanes.index(old), lanes.index(new)))
        mark = (
            "╮"
            if name == old and down
            else "╯"
            if name == old
            else "╰"
            if name == new and down
            else "╭"
            if name == new
            else "│"
            if low < i < high
            else " "
        )
        cells[name].append(mark + ("╴" if name == new else " "), style="red")


def _hue(lanes: Sequence[str], lane: str) -> str:
    return HUES[lanes.index(lane) % len(HUES)]


# ------------------------------------------------------------ steps


class Feed:
    """Steps in one quiet column, as they come: a thought in plain words, the tools as chips, at the right what it cost."""

    def __init__(self, console: Console, *, deaths: bool = True) -> None:
        """`deaths=False`: they are told by somebody else."""
        self._console, self._deaths = console, deaths
        self._calls: dict[str, Call] = {}
        self.rows: list[Row] = []

    def tell(self, row: Row) -> None:
        """Print what happened to the run before a step, and the step."""
        from rich.table import Table

        for line in between(self.rows[-1] if self.rows else None, row) if self._deaths else ():
            self._console.print(line)
        self._calls |= {p.id: p for p in row.parts if isinstance(p, Call)}
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(justify="right", width=3)
        grid.add_column(ratio=1, overflow="fold")
        grid.add_column(justify="right", no_wrap=True, style="bright_black")
        grid.add_row(f"{row.index}", self._body(row), _cost(row))
        self._console.print(grid)
        self.rows.append(row)

    def _body(self, row: Row) -> RenderableType:
        from rich.console import Group
        from rich.text import Text as Styled

        said = words(row.parts)
        answered = {p.id for p in row.parts if isinstance(p, Result)}
        lines = [Styled(said)] if said else []
        for part in row.parts:
            if isinstance(part, Call) and part.id not in answered:
                lines.append(_line(f"→ {_chip(part)}", "cyan"))
            elif isinstance(part, Result):
                lines += self._result(part)
        return Group(*lines or [Styled("…")])

    def _result(self, part: Result) -> list[Styled]:
        call = self._calls.get(part.id)
        good = part.status == "ok"
        said = "" if good else f" ({part.status})"
        line = _line(f"{'✓' if good else '✗'} {_chip(call) if call else part.name}{said}", "green" if good else "red")
        line.append(f" · {clip(gist(part.value), 60)}", style="bright_black")
        cut = [] if part.blob is None else [f"cut; the whole is at /blobs/{part.blob} of the run"]
        return [line, *(_line(f"  {quote}", "bright_black") for quote in [*_quotes(part.value), *cut])]


def _line(text: str, style: str) -> Styled:
    """One line, cut at the edge."""
    from rich.text import Text as Styled

    return Styled(text, style=style, no_wrap=True, overflow="ellipsis")


def between(before: Row | None, row: Row) -> Iterable[Styled]:
    """What happened to the run between two steps, and what it means for whoever waits for it."""
    from rich.text import Text as Styled

    if row.attempt > 1:
        times = "" if row.attempt == 2 else f" {row.attempt - 1} times"
        yield Styled(f"  ✗  Killed{times} while step {row.index} was running. Nothing was lost.", style="red")
    if before is not None and before.carrier != row.carrier:
        yield Styled(f"  ⇄  {NAMES.get(row.carrier, row.carrier)} carries on from step {row.index}.", style="magenta")


def words(parts: Iterable[Part], width: int = 200) -> str:
    """What the agent said or thought in a step, in one line. The end of a round is shown by itself."""
    parts = tuple(parts)
    end = ending(parts)
    if end is not None and end.status == "COMPLETED":
        return "The answer." if end.output is not None else ""
    said = [p.text for p in parts if isinstance(p, Text) and p.role == "assistant"] or [
        p.text for p in parts if isinstance(p, Thought)
    ]
    return clip(" ".join(said), width)


def gist(value: Value) -> str:
    """A result in few words: how much of what, or its beginning."""
    if isinstance(value, dict):
        many_ = {k: v for k, v in value.items() if isinstance(v, list)}
        if many_:
            return ", ".join(f"{len(v)} {k}" for k, v in many_.items())
        value = value.get("text", value)
    return value if isinstance(value, str) else codec.dumps(value)


def _quotes(value: Value, most: int = 2) -> list[str]:
    """`path:line  text` of what a search found."""
    found = [v for v in value.values() if isinstance(v, list)] if isinstance(value, dict) else []
    hits = [h for h in (found[0] if found else []) if isinstance(h, dict) and {"path", "line", "text"} <= h.keys()]
    return [clip(f"{h['path']}:{h['line']}: {h['text']}", 90) for h in hits[:most]]


def ending(parts: Iterable[Part]) -> End | None:
    return next((p for p in parts if isinstance(p, End)), None)


def questions(parts: Iterable[Part]) -> list[Interrupt]:
    return [p for p in parts if isinstance(p, Interrupt)]


def _cost(row: Row) -> str:
    again = f"attempt {row.attempt} · " if row.attempt > 1 else ""
    tokens = f" · {row.tokens} tok" if row.tokens else ""
    return f"{again}{row.seconds:.1f} s{tokens}"


def print_end(console: Console, end: End | None) -> None:
    """How the round ended, and what can be done about it."""
    if end is None:
        return
    if end.error is not None:
        console.print(f"\n[red]{end.status.lower()}[/red] ({end.stop_reason}): {end.error.message}", highlight=False)
    elif end.output is not None:
        console.print()
        console.print(end.output if isinstance(end.output, str) else codec.dumps(end.output), markup=False, highlight=False)
    else:
        console.print(f"\n{end.status.lower()} ({end.stop_reason})")


def carried(rows: Iterable[Row]) -> str:
    """`steps 0-6 carried by client, 7-11 by background`: who had the baton when."""
    legs: list[tuple[str, int, int]] = []
    for row in rows:
        if legs and legs[-1][0] == row.carrier:
            legs[-1] = (row.carrier, legs[-1][1], row.index)
        else:
            legs.append((row.carrier, row.index, row.index))
    if not legs:
        return "no steps yet"
    said = [f"{first}-{last} by {carrier}" if first < last else f"{first} by {carrier}" for carrier, first, last in legs]
    noun = "step" if legs[0][1] == legs[-1][2] else "steps"
    return f"{noun} {', '.join(said)}".replace(" by ", " carried by ", 1)


def counted(rows: Sequence[Row]) -> str:
    """`12 steps · 1 death · 4,210 tokens`."""
    n, died, tokens = len(rows), deaths(rows), sum(r.tokens for r in rows)
    return " · ".join([many(n, "step"), many(died, "death"), f"{tokens:,} tokens"])


def size(rows: Iterable[Row]) -> str:
    """`12.3 kB of history`: what is stored of the steps, without what was cut and kept aside."""
    n = float(sum(row.bytes for row in rows))
    for unit in ("bytes", "kB", "MB"):
        if n < 1000:
            return f"{n:.1f} {unit} of history" if unit != "bytes" else f"{n:.0f} bytes of history"
        n /= 1000
    return f"{n:,.1f} GB of history"


def many(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def clip(text: str, width: int) -> str:
    """One line, at most that wide."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _chip(call: Call) -> str:
    """`read_file src/relay/codec.py start=1 end=40`: words as they are, the rest by name."""
    if isinstance(call.args, dict):
        said = [v for v in call.args.values() if isinstance(v, str)]
        named = [f"{k}={_value(v)}" for k, v in call.args.items() if not isinstance(v, str)]
        return clip(" ".join([call.name, *said, *reversed(named)]), 90)
    return call.name if call.args is None else clip(f"{call.name} {_value(call.args)}", 90)


def _value(value: Value) -> str:
    return value if isinstance(value, str) else codec.dumps(value)
