"""Names -> where they live. Looked up late; entry points (`steprelay.<kind>`) are asked only on a miss."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .core.errors import ConfigError

STORES = {
    "memory": "steprelay.stores.memory:MemoryStore",
    "sqlite": "steprelay.stores.sqlite:SQLiteStore",
    "postgres": "steprelay.stores.postgres:PostgresStore",
}
AGENTS = {"function": "steprelay.agents.function:FunctionAgent", "pydantic_ai": "steprelay.agents.pydantic_ai:PydanticAIAgent"}
DRIVERS = {
    "temporal": "steprelay.drivers.temporal:Temporal",
    "restate": "steprelay.drivers.restate:Restate",
    "inngest": "steprelay.drivers.inngest:Inngest",
}
"""Durable engines; each has a setting of its name."""
EXTRAS = {"postgres": "postgres", "pydantic_ai": "pydantic-ai"} | {name: name for name in DRIVERS}
_ALIASES = {"postgresql": "postgres", "file": "sqlite"}
_KINDS = {"stores": STORES, "agents": AGENTS, "drivers": DRIVERS}


def load(kind: str, name: str) -> Any:
    """The class behind a name. Raises ConfigError for an unknown name, or with the install line of a missing extra."""
    name = _ALIASES.get(name, name)
    table = _KINDS[kind]
    target = table.get(name) or _entry_point(kind, name)
    if target is None:
        raise ConfigError(f"no {kind.removesuffix('s')} is called {name!r}; there are {', '.join(table)}")
    module, _, attr = target.partition(":")
    try:
        return getattr(import_module(module), attr)
    except ModuleNotFoundError as e:
        if name in EXTRAS and not (e.name or "").startswith("steprelay"):
            raise ConfigError(f"{name} needs {e.name!r}: pip install 'steprelay[{EXTRAS[name]}]'") from e
        raise


def _entry_point(kind: str, name: str) -> str | None:
    from importlib.metadata import entry_points

    return next((e.value for e in entry_points(group=f"steprelay.{kind}", name=name)), None)
