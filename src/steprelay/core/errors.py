"""The error tree.

    StepRelayError
    ├─ ConfigError          a setting is missing or wrong; the message says what to set
    ├─ BadInput             a caller's value cannot be taken; nothing was changed
    ├─ StateInvalid         a stored payload cannot be read
    │  └─ SchemaTooNew      ... because a newer steprelay wrote it; the row is left as it is
    ├─ StoreError           the store refused or broke
    │  └─ StoreUnavailable  ... for now: connection lost, restarting, locked (retryable)
    ├─ AgentError           the agent's own logic failed: the step counts as an attempt
    │  └─ Transient         ... but the same call may work later (429, 5xx, timeout): the step is released
    ├─ ToolError            a tool failed; told to the model in-band
    │  ├─ OutcomeUnknown    a `once` tool was started by an attempt that died; it was not run again
    │  └─ Denied            a person refused the call
    └─ Paused               not a failure: unwinds a function agent that has to wait for a person

`code` is the stable name on the wire; `retryable` says whether the same act may succeed later.
"""

from __future__ import annotations

from typing import ClassVar


class StepRelayError(Exception):
    """Base of everything steprelay raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class ConfigError(StepRelayError):
    """A setting is missing or wrong."""

    code = "config"


class BadInput(StepRelayError):
    """A caller's value cannot be taken."""

    code = "bad_input"


class StateInvalid(StepRelayError):
    """A stored payload cannot be read."""

    code = "state_invalid"


class SchemaTooNew(StateInvalid):
    """A payload was written by a newer steprelay than this one."""


class StoreError(StepRelayError):
    """The store refused or broke."""

    code = "store"


class StoreUnavailable(StoreError):
    """The store cannot be reached now, or the answer to a statement was lost."""

    code = "store_unavailable"
    retryable = True


class AgentError(StepRelayError):
    """The agent's own logic failed; raise it yourself with `final=True` to end the run without another attempt."""

    code = "agent_error"

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Transient(AgentError):
    """The same call may work later: the step is released and taken again after `after` seconds (None = backoff)."""

    code = "retry"
    retryable = True

    def __init__(self, message: str, *, after: float | None = None, reason: str = "retry") -> None:
        super().__init__(message)
        self.after = after
        self.reason = reason


class ToolError(StepRelayError):
    """A tool failed in a way the model should hear of."""

    code = "tool_error"


class OutcomeUnknown(ToolError):
    """A `once` operation was started by an attempt that died before it could say how it ended."""

    code = "outcome_unknown"


class Denied(ToolError):
    """A person refused the call."""

    code = "denied"


class Paused(StepRelayError):
    """Unwinds a function agent whose call waits for a person; the adapter turns it into `then="ask"`."""

    code = "paused"
