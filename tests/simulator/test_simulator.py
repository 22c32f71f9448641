"""The simulator: clean on the real engine, repeatable to the letter, and able to see every guard that is taken out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import pytest

from steprelay.testing.simulator import main, simulate, storm

BOUND = 150
"""Seeds in which a missing guard has to be noticed; the slowest is seen within 15."""


def storms(histories: int, seed: int = 0, chunk: int = 250) -> Counter[str]:
    """The same seeds as one long storm, spread over the processors; answers what was counted. Fails at the first break."""
    counted: Counter[str] = Counter()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        parts = [pool.submit(storm, chunk, seed=s) for s in range(seed, seed + histories, chunk)]
        for part in as_completed(parts):
            broken, found, why = part.result()
            if broken is not None:
                pool.shutdown(cancel_futures=True)
            assert broken is None, f"seed {broken}: {why}"
            counted.update(found)
    return counted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_thousand_histories_are_clean() -> None:
    counted = storms(2_000)
    # A storm in which nothing goes wrong proves nothing.
    floor = {
        "deaths": 10_000, "lost answers": 2_000, "replays": 500, "steps": 20_000, "told unknown or denied": 500,
        "ended cancelled": 200, "ended max_steps": 200, "ended attempts_exhausted": 50, "ended agent_error": 100,
    }  # fmt: skip
    assert {name: counted[name] for name, least in floor.items() if counted[name] < least} == {}


@pytest.mark.all
@pytest.mark.timeout(1800)
def test_ten_thousand_more_histories_are_clean() -> None:
    assert storms(10_000, seed=1_000_000)["steps"] > 100_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "symptom"),
    [
        ("fence", "a zombie's"),
        ("cas", "a zombie's|steps, rows"),
        ("ledger", "once tool .* ran 2 times"),
        ("attempts", "no end in sight|killed . hosts"),
        ("replay", "took more than one step|is that of another step"),
    ],
)
def test_a_missing_guard_is_noticed(mutant: str, symptom: str) -> None:
    broken, _, why = storm(BOUND, mutant=mutant)
    assert broken is not None, f"{BOUND} histories without {mutant}, and nothing was noticed"
    assert re.search(symptom, why), why


def test_the_same_seed_is_the_same_history_in_every_process() -> None:
    script = "from steprelay.testing.simulator import simulate; print([simulate(s).digest for s in range(3)])"
    heard = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(heard) == 1
    assert simulate(1).digest != simulate(2).digest


def test_the_command_line_says_which_seed_broke(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--histories", "2"]) == 0
    assert "2 histories, no violation" in capsys.readouterr().out
    assert main(["--histories", str(BOUND), "--mutant", "cas"]) == 1
    assert "VIOLATION at seed" in capsys.readouterr().out
