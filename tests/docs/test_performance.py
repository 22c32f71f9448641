"""The charts of the performance page show the figures of its tables."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/performance.md").read_text(encoding="utf-8")


def section(name):
    return re.search(rf"<!-- {name} -->\n(.*)<!-- /{name} -->", PAGE, re.DOTALL)[1]


def measured(name, what):
    """The second column of the rows whose first one matches, without units."""
    rows = [line.strip("| ").split(" | ") for line in section(name).splitlines() if line.startswith("|")]
    return [float(row[1].split()[0]) for row in rows if re.fullmatch(what, row[0])]


def lines(chart):
    return [[float(value) for value in line.split(", ")] for line in re.findall(r"^ +line \[(.*)\]$", chart, re.MULTILINE)]


def charts(name):
    return re.findall(r"```mermaid\nxychart-beta\n(.*?)```", section(name), re.DOTALL)


@pytest.mark.parametrize("name", ["postgres", "sqlite"])
def test_the_time_of_a_step_beside_its_floor(name):
    chart = charts(name)[0]
    step, floor = lines(chart)
    assert step == pytest.approx(measured(name, r"a step, runs of \d+"), abs=0.006)
    assert floor == pytest.approx(measured(name, "floor: .*") * len(step), abs=0.006)
    assert re.search(r"x-axis .* \[20, 200, 1000\]", chart)


def test_the_log_of_a_step():
    (logged,) = lines(charts("postgres")[1])
    assert logged == pytest.approx(measured("postgres", r"log a step of .*"), abs=0.51)
