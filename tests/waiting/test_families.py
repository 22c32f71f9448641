"""Families of runs on PostgreSQL, their sweepers killed at random; and proof that the judge would notice.

The whole of it: `python -m steprelay.testing.families --parents 200 --deaths 60`.
"""

from __future__ import annotations

import pytest

from steprelay.testing.families import main


@pytest.mark.all
@pytest.mark.timeout(180)
def test_every_result_is_applied_once_and_the_budgets_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--parents", "40", "--sweepers", "4", "--deaths", "30", "--seed", "7"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "40 parents, 200 children" in said
    assert " 0 of the sweepers killed" not in said


@pytest.mark.all
@pytest.mark.timeout(180)
def test_a_message_that_counts_twice_is_noticed() -> None:
    assert main(["--parents", "10", "--deaths", "10", "--seed", "3", "--mutant", "twice"]) == 1
