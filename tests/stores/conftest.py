from __future__ import annotations

from pathlib import Path

import pytest
from store_places import PLACES

from steprelay.registry import STORES
from steprelay.testing.store_suite import Place


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The empty store that the parameter names."""
    return Place(target=STORES[request.param], url=PLACES[request.param](tmp_path))
