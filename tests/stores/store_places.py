"""Where each registered store keeps its runs in these tests. A new store needs one line in PLACES."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from steprelay.testing.servers import fresh_url

Url = Callable[[Path], str]
PLACES: dict[str, Url] = {
    "memory": lambda folder: "memory:",
    "sqlite": lambda folder: f"sqlite:///{folder}/runs.db",
    "postgres": lambda folder: fresh_url("postgres"),  # one server for the whole test run, a database for each test
}
"""name in the registry -> the url of an empty store of that kind; `folder` is fresh for each test."""
SHARED = [name for name in PLACES if name != "memory"]
"""Those that several processes can use."""
