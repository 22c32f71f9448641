"""Tests against an engine whose server is not on this machine are left out, and said to be; `make test-all` has them all."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from steprelay.core.errors import ConfigError
from steprelay.testing import engines

MISSING = pytest.StashKey[Counter[str]]()


def needed(item: pytest.Item) -> set[str]:
    """The engines a test talks to: its suite's, and those that its mark names."""
    marks = {name for mark in item.iter_markers("engines") for name in mark.args}
    suite = getattr(getattr(item, "cls", None), "engine", None)
    return marks | ({suite} if isinstance(suite, str) else set())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    there, missing = set(engines.installed()), Counter[str]()
    left_out = []
    for item in items:
        if absent := needed(item) - there:
            left_out.append(item)
            missing.update(absent)
    if missing and os.environ.get("STEPRELAY_TEST_ENGINES") == "all":
        raise pytest.UsageError(f"not on this machine: {', '.join(sorted(missing))}; {engines.BUILD} builds what is missing")
    config.stash[MISSING] = missing
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, tests in sorted(config.stash.get(MISSING, Counter()).items()):
        terminalreporter.write_line(f"not run: {tests} tests against {name}: {why(name)}", yellow=True)


def why(name: str) -> str:
    """What is missing, and the remedy."""
    try:
        return str(engines.program(name))
    except ConfigError as e:
        return str(e)
