"""The pytest plugin: `def test_my_agent(relay): relay(agent, "Buy tea")`. It costs nothing until the fixture is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .trial import Trial


@pytest.fixture
def relay() -> Callable[..., list[Trial]]:
    """Runs your agent while its hosts are killed, answers get lost and requests come twice: `steprelay.testing.trial.relay`."""
    from .trial import relay

    return relay
