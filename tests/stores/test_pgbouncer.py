"""The store contract through PgBouncer in transaction mode; straight to PostgreSQL it is in test_contract."""

from __future__ import annotations

import pytest

from steprelay.testing.servers import fresh_url
from steprelay.testing.store_suite import Place, SharedStoreSuite


class TestPgBouncer(SharedStoreSuite):
    @pytest.fixture
    def place(self) -> Place:
        return Place(target="steprelay.stores.postgres:PostgresStore", url=fresh_url("pgbouncer"))
