"""What a run looks like: the relay track, steps and results, from step rows alone."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from steprelay.cli.show import Feed, Row, carried, counted, gist, size, track
from steprelay.core.model import Call, End, Part, Result, Text, Thought


def row(index: int, carrier: str = "client", *parts: Part, attempt: int = 1, seconds: float = 1.0, tokens: int = 0) -> Row:
    return Row(index=index, attempt=attempt, carrier=carrier, began=index, ended=index + seconds, tokens=tokens, parts=parts)


def drawn(*rows: Row, width: int = 60, now: str = "") -> list[str]:
    return [line.rstrip() for line in track(rows, width=width, now=now).plain.splitlines()]


def told(*rows: Row, deaths: bool = True) -> str:
    out = StringIO()
    feed = Feed(Console(file=out, width=100, highlight=False), deaths=deaths)
    for one in rows:
        feed.tell(one)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


@pytest.mark.parametrize(
    ("bytes", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_345_678, "2.3 MB"), (5e12, "5,000.0 GB")]
)
def test_the_size_of_a_history_in_words(bytes: int, said: str) -> None:
    halves = [replace(row(i), bytes=n) for i, n in enumerate((bytes // 2, bytes - bytes // 2))]
    assert size(halves) == f"{said} of history"


def test_one_carrier_is_one_lane() -> None:
    (line,) = drawn(row(0), row(1), width=24)
    assert re.fullmatch("Browser  ━+0━+ ━+1━+", line)


def test_the_baton_passes_between_lanes() -> None:
    first, second = drawn(row(0), row(1, "background"), width=30)
    assert first.startswith("Browser")
    assert second.startswith("Background")
    assert first.endswith("╮")
    assert second.index("╰") == first.index("╮")
    assert second.index("1") > second.index("╰") > first.index("0")


def test_the_baton_comes_back_and_passes_lanes_between() -> None:
    lanes = drawn(row(0), row(1, "background"), row(2, "temporal"), row(3))
    assert "╭" in lanes[0]
    assert "│" in lanes[1]
    assert "╯" in lanes[2]
    assert lanes[0].index("╭") == lanes[1].index("│") == lanes[2].index("╯")


def test_a_death_is_a_cut_block_and_the_lease_that_ran_out() -> None:
    assert "━1╳░░" in drawn(row(0), row(1, attempt=2))[0]
    assert drawn(row(0, attempt=3))[0].count("╳") == 2


def test_a_step_under_way_is_an_outline() -> None:
    assert drawn(row(0), now="client")[0].endswith("╌╌╌")
    assert drawn(now="background") == ["Background  ╌╌╌"]


def test_longer_steps_are_wider() -> None:
    line = drawn(row(0, seconds=9), row(1, seconds=1), width=40)[0].split()
    assert len(line[1]) > len(line[2])


@pytest.mark.parametrize("n", [1, 7, 20, 40])
def test_a_track_keeps_its_width(n: int) -> None:
    rows = [row(i, "client" if i % 3 else "background", attempt=1 + (i % 5 == 0)) for i in range(n)]
    least = 12 + sum(len(str(i)) + 3 for i in range(n)) + n // 5 * 7 + 2 * n
    assert all(len(line) <= max(100, least) for line in drawn(*rows, width=100))


def test_a_step_says_its_thought_its_calls_and_its_cost() -> None:
    said = told(
        row(0, "client", Thought(text="I look around."), Call(id="a", name="search", args={"n": 3, "query": "tea"}), tokens=42)
    )
    first, second = said.splitlines()
    assert first.startswith("  0  I look around.  ")
    assert first.endswith("  1.0 s · 42 tok")
    assert second == "     → search tea n=3"


def test_a_result_is_told_with_its_call_and_what_it_found() -> None:
    hits = {"hits": [{"path": "a.py", "line": 3, "text": "tea = 1"}, {"path": "b.py", "line": 9, "text": "tea"}], "total": 2}
    said = told(
        row(0, "client", Call(id="a", name="search", args={"query": "tea"})),
        row(1, "client", Result(id="a", name="search", value=hits), Result(id="b", name="buy", value="no money", status="error")),
    )
    assert "✓ search tea · 2 hits" in said
    assert "a.py:3: tea = 1" in said
    assert "✗ buy (error) · no money" in said


def test_deaths_and_hand_overs_are_told_between_the_steps() -> None:
    said = told(row(0), row(1, "background", attempt=2)).splitlines()
    assert said[1:3] == ["  ✗  Killed while step 1 was running. Nothing was lost.", "  ⇄  Background carries on from step 1."]
    assert "attempt 2 · 1.0 s" in said[3]


def test_markup_of_others_is_not_ours() -> None:
    assert "[red]tea[/nonsense]" in told(row(0, "client", Text(text="[red]tea[/nonsense]")))


def test_the_answer_is_not_told_twice() -> None:
    end = End(status="COMPLETED", stop_reason="finished", output="It is 42.")
    assert "It is 42." not in told(row(0, "client", Text(text="It is 42."), end))


def test_counting() -> None:
    assert counted([row(0, tokens=1200), row(1, attempt=2)]) == "2 steps · 1 death · 1,200 tokens"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("tea", "tea"),
        ({"files": [1, 2], "total": 2}, "2 files"),
        ({"text": "a\nb"}, "a\nb"),
        ({"n": 1}, '{"n":1}'),
        (None, "null"),
    ],
)
def test_a_result_in_few_words(value: Any, says: str) -> None:
    assert gist(value) == says


def test_who_had_the_baton_when_is_said_in_one_line() -> None:
    rows = [row(0), row(1), row(2, "background"), row(3)]
    assert carried(rows) == "steps 0-1 carried by client, 2 by background, 3 by client"
    assert carried(rows[:1]) == "step 0 carried by client"
    assert carried([]) == "no steps yet"
