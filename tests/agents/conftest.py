"""The bench for everybody here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from agent_bench import Bench


@pytest.fixture
def bench() -> Callable[..., Bench]:
    return Bench
