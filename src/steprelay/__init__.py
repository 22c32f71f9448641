"""steprelay: autonomous agents on serverless functions, one durable step per request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .core.errors import (
    AgentError, BadInput, ConfigError, Denied, OutcomeUnknown, StepRelayError, StoreUnavailable, ToolError, Transient,
)  # fmt: skip
from .core.model import (
    Call, End, Interrupt, Limits, Part, Reply, Result, RunKey, State, Text, Thought, Turn, Usage,
)  # fmt: skip

if TYPE_CHECKING:
    from .app import App
    from .engine import Engine
    from .schedules import Schedule

__version__ = "0.1.0"
__all__ = [
    "AgentError", "App", "BadInput", "Call", "ConfigError", "Denied", "End", "Engine", "Interrupt", "Limits",
    "OutcomeUnknown", "Part", "Reply", "Result", "RunKey", "Schedule", "State", "StepRelayError", "StoreUnavailable", "Text",
    "Thought", "ToolError", "Transient", "Turn", "Usage",
]  # fmt: skip
_LATE = {"App": "app", "Engine": "engine", "Schedule": "schedules"}


def __getattr__(name: str) -> Any:
    """Load what needs more than the nouns when it is first used."""
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
