"""Storms: short ones over every real store, and proof that they notice a missing guard."""

from __future__ import annotations

import pytest

from steprelay.testing.storm import MUTANTS, main

SHORT = "--runs 10 --steps 20 --deaths 30 --freezes 8 --seed 11"


@pytest.mark.all
@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", ["sqlite", "postgres", "pgbouncer"])
def test_nothing_is_lost_doubled_or_replayed_wrongly(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    weather = "" if store == "sqlite" else "--crashes 2 --cuts 20"
    assert main(f"--store {store} {SHORT} {weather}".split()) == 0, capsys.readouterr().out
    assert "unfinished          0" in capsys.readouterr().out


@pytest.mark.all
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_missing_guard_is_noticed(mutant: str) -> None:
    """In one of ten storms: real processes on a real clock meet in the gap that the guard closes, or they do not."""
    rough = f"--store sqlite --runs 8 --steps 15 --deaths 60 --freezes 60 --lease 0.5 --mutant {mutant}"
    assert any(main([*rough.split(), "--seed", str(seed)]) == 1 for seed in range(10))


def test_a_file_has_no_server_to_crash() -> None:
    with pytest.raises(SystemExit):
        main(["--store", "sqlite", "--crashes", "1"])
