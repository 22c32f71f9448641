"""These tests drive Node; where there is none, a line says what was not run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WITHOUT_NODE = ("test_bundle.py", "test_init.py")
_left_out: list[pytest.Item] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if shutil.which("node"):
        return
    _left_out.extend(i for i in items if i.path.parent == HERE and i.path.name not in WITHOUT_NODE)
    items[:] = [i for i in items if i not in _left_out]
    config.hook.pytest_deselected(items=_left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left_out:
        terminalreporter.write_line(
            f"not run: {len(_left_out)} tests of tests/netlify need Node 20 or newer (apt-get install nodejs)"
        )
