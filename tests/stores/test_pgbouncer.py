"""The store contract through PgBouncer in transaction mode; straight to PostgreSQL it is in test_contract."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from steprelay.testing.servers import fresh_url
from steprelay.testing.store_machine import StoreMachine
from steprelay.testing.store_suite import Place, SharedStoreSuite

TARGET = "steprelay.stores.postgres:PostgresStore"


@pytest.mark.slow
class TestPgBouncer(SharedStoreSuite):
    @pytest.fixture
    def place(self) -> Place:
        return Place(target=TARGET, url=fresh_url("pgbouncer"))


@pytest.mark.slow
def test_random_histories_agree_with_the_model() -> None:
    def begin() -> StoreMachine:
        return StoreMachine(Place(target=TARGET, url=fresh_url("pgbouncer")).open())

    bounded = settings(
        max_examples=8, stateful_step_count=40, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(begin, settings=bounded)
