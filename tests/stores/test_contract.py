"""The shipped suite over every store of the registry."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_places import PLACES, SHARED

import steprelay.stores
from steprelay.registry import STORES
from steprelay.testing.store_suite import SharedStoreSuite, StoreSuite


@pytest.mark.parametrize("place", sorted(set(PLACES) - set(SHARED)), indirect=True)
class TestOfOneProcess(StoreSuite):
    pass


@pytest.mark.parametrize("place", SHARED, indirect=True)
class TestShared(SharedStoreSuite):
    pass


def test_every_registered_store_is_under_contract() -> None:
    assert set(PLACES) == set(STORES)


def test_every_store_file_is_registered() -> None:
    files = {p.stem for p in Path(steprelay.stores.__path__[0]).glob("*.py") if not p.stem.startswith("_")}
    assert files == {target.partition(":")[0].rpartition(".")[2] for target in STORES.values()}
