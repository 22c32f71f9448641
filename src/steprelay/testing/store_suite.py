"""The contract suite of the Store port: what a store must pass to be one.

A store of your own is held to it by one test module; it needs pytest, pytest-asyncio and hypothesis:

    import pytest
    from steprelay.testing.store_suite import Place, SharedStoreSuite

    class TestMyStore(SharedStoreSuite):
        @pytest.fixture
        def place(self, tmp_path):
            return Place(target="my_package.store:MyStore", url=f"mystore:{tmp_path}/runs")

`place` names an empty store for each test. `StoreSuite` holds the verbs to their words; `SharedStoreSuite` adds what only
stores can do that other processes see: races and `kill -9` at every point. Time is a parameter (`now`), so nothing sleeps.
The rules that the checks compare with are `core.machine.TABLE` and `core.machine.apply`; `store_machine` compares a store
with MemoryStore under random histories.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

pytest.register_assert_rewrite("steprelay.testing.store_checks")

from ..ports import Store  # noqa: E402
from .store_checks.claims import Claims  # noqa: E402
from .store_checks.commits import Commits  # noqa: E402
from .store_checks.payloads import Payloads  # noqa: E402
from .store_checks.place import Place  # noqa: E402
from .store_checks.processes import Processes  # noqa: E402
from .store_checks.signals import Signals  # noqa: E402
from .store_checks.views import Views  # noqa: E402

__all__ = ["Place", "SharedStoreSuite", "StoreSuite"]


@pytest.mark.asyncio
class StoreSuite(Claims, Commits, Signals, Views, Payloads):
    """Every sentence of the Store port. Give it a fixture `place`."""

    @pytest_asyncio.fixture
    async def store(self, place: Place) -> AsyncIterator[Store]:
        store = place.open()
        await store.migrate()
        yield store
        await store.close()


class SharedStoreSuite(StoreSuite, Processes):
    """The same, and what stores owe that several processes use at once."""
