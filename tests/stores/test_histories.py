"""Random histories of every verb: a store against the model."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from store_places import PLACES, SHARED

from steprelay.registry import STORES
from steprelay.testing.store_machine import StoreMachine
from steprelay.testing.store_suite import Place

BOUNDED = settings(
    stateful_step_count=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), print_blob=True,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_random_histories_agree_with_the_model(name: str, tmp_path: Path) -> None:
    folders = count()

    def begin() -> StoreMachine:
        return StoreMachine(Place(target=STORES[name], url=PLACES[name](tmp_path / str(next(folders)))).open())

    examples = 40 if name == "sqlite" else 12  # each begins with a new database, which takes a server a while
    run_state_machine_as_test(begin, settings=settings(BOUNDED, max_examples=examples))
