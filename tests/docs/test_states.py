"""docs/states.md shows the table the code runs on."""

from pathlib import Path
from typing import get_args

from steprelay.core.machine import SOFT, TABLE, TERMINAL, Cause
from steprelay.core.model import Status, StopReason
from steprelay.testing import diagram

PAGE = Path(__file__).parents[2] / "docs/states.md"


def test_the_page_shows_the_table():
    assert diagram.main(["--check", str(PAGE)]) == 0, "run python -m steprelay.testing.diagram"


def test_a_page_that_is_out_of_date_is_found_and_mended(tmp_path, capsys):
    page = tmp_path / "states.md"
    old = PAGE.read_text()
    page.write_text(old.replace("RUNNING --> RUNNING: continue", "RUNNING --> FAILED: continue"))
    assert diagram.main(["--check", str(page)]) == 1
    assert "python -m steprelay.testing.diagram" in capsys.readouterr().err
    assert diagram.main([str(page)]) == 0
    assert page.read_text() == old


def test_every_cause_is_explained_and_used():
    causes = set(get_args(Cause))
    assert set(diagram.MEANING) == causes
    assert {cause for _, cause in TABLE} == causes


def test_every_row_of_the_table_is_drawn():
    picture, table = diagram.mermaid(), diagram.table()
    for (status, cause), to in TABLE.items():
        arrow = next(line for line in picture.splitlines() if line.strip().startswith(f"{status} --> {to}:"))
        assert cause in arrow.split(":")[1].replace(",", "").split()
        assert f"| {status} | {cause} | {to} |" in table


def test_every_stop_reason_is_explained_under_its_status():
    rows = [line.split("|") for line in PAGE.read_text().split("## Stop reasons")[1].splitlines() if line.startswith("| ")]
    listed = {reason.strip("` "): row[1].strip() for row in rows[2:] for reason in row[2].split(",")}
    assert set(listed) == {*get_args(StopReason), "none"}
    assert set(listed.values()) == set(get_args(Status))
    assert all(listed[reason] == "COMPLETED" for reason in SOFT.values())
    assert {"COMPLETED", "FAILED", "CANCELLED"} == TERMINAL
