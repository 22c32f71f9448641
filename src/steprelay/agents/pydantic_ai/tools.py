"""Tools in the ledger: a capability of one run, through which every tool execution goes."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic_ai import ModelRetry, ToolReturn
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import (
    AgentRunError,
    ApprovalRequired,
    CallDeferred,
    ModelAPIError,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
)  # fmt: skip
from pydantic_ai.messages import ToolReturnContent

from ...core.errors import AgentError, OutcomeUnknown, ToolError
from ...core.model import Effect, Result, Value
from ...ports import Context
from . import UNKNOWN
from .children import SPAWN, told
from .spend import check_price, once_only

TAG = "$steprelay"
"""Marks a ledger value that is not what the tool returned, but what it did instead."""
ANY, RICH, CONTENT = TypeAdapter(Any), TypeAdapter(ToolReturn), TypeAdapter(ToolReturnContent)
EFFECTS = ("read", "idempotent", "once", "needs_approval")


class RunEnds(AgentError):
    """Carries what ends the framework's run (`__cause__`) through the ledger, which tells other failures to the model."""


class Guard(AbstractCapability[Any]):
    """Sends tool executions through `ctx.call`, gives the retry counters back, hides tools on a landing, and looks after
    the price of a request."""

    def __init__(self, ctx: Context, retries: dict[str, int], *, landing: bool, money: bool) -> None:
        self.step, self.retries, self.landing, self.money = ctx, dict(retries), landing, money
        self.seen: dict[str, int] = {}
        self.output_tools: set[str] = set()
        self.model: Any = None

    async def prepare_tools(self, ctx: Any, tool_defs: list[Any]) -> list[Any]:
        self._restore(ctx)
        return [] if self.landing else tool_defs

    async def prepare_output_tools(self, ctx: Any, tool_defs: list[Any]) -> list[Any]:
        self._restore(ctx)
        self.output_tools = {t.name for t in tool_defs}
        return tool_defs

    def _restore(self, ctx: Any) -> None:
        for name, count in self.retries.items():  # the very dict the tool manager counts on
            ctx.retries.setdefault(name, count)
        self.retries = {}

    async def before_model_request(self, ctx: Any, request_context: Any) -> Any:
        self.model = request_context.model
        if self.money:
            check_price(self.model)
        return once_only(request_context)

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Callable[[Any], Any]) -> Any:
        effect, timeout = _declared(tool_def)
        approved = bool(ctx.tool_call_approved)
        if effect == "needs_approval" and not approved:
            raise ApprovalRequired()
        # An approved call is another execution than the one that asked: it has a ledger key of its own.
        n = self.seen[call.tool_call_id] = self.seen.get(call.tool_call_id, int(approved)) + 1

        async def run() -> Value:
            return await _told(handler(args))

        began = monotonic()
        try:
            key = f"{call.tool_call_id}#{n}"
            entry = await self.step.call(key, run, effect="once" if effect == "needs_approval" else effect, timeout=timeout)
        except OutcomeUnknown:
            raise ToolFailed(
                f"{UNKNOWN}an earlier attempt at {call.tool_name} was started and cut off. It was not run again; whether it "
                "took effect nobody knows. Check before you go on."
            ) from None
        except RunEnds as e:
            raise e.__cause__ or e from None
        except ToolError as e:
            raise ToolFailed(str(e).replace(key, call.tool_name)) from None
        self._show(call, entry, began)
        return _taken(entry)

    def _show(self, call: Any, entry: Value, began: float) -> None:
        """The result, live: the other calls of the response may take longer."""
        said = entry.get(TAG) if isinstance(entry, dict) else None
        if said in (None, "value"):
            value = entry["value"] if said else entry
            ms = round((monotonic() - began) * 1000, 1)
            self.step.emit(Result(id=call.tool_call_id, name=call.tool_name, value=value, ms=ms))


def _declared(tool_def: Any) -> tuple[Effect, float | None]:
    """Effect and time limit: the tool's metadata, else the hints of an MCP server, else `once`."""
    metadata = tool_def.metadata or {}
    hints = metadata.get("annotations") or {}
    default = "read" if hints.get("readOnlyHint") else "idempotent" if hints.get("idempotentHint") else "once"
    effect = metadata.get("effect", default)
    if effect not in EFFECTS:
        raise ToolFailed(f"tool {tool_def.name!r} declares effect {effect!r}; it must be one of {', '.join(EFFECTS)}")
    timeout = metadata.get("timeout")
    return cast(Effect, effect), None if timeout is None else float(timeout)


async def _told(running: Any) -> Value:
    """What a tool did, as JSON. What it asks of the run is a value too, so that it is kept as well."""
    try:
        value = await running
    except (ModelRetry, ToolRetryError) as e:
        return {TAG: "retry", "message": _message(e)}
    except (ToolFailed, ToolFailedError) as e:
        return {TAG: "failed", "message": _message(e)}
    except ApprovalRequired as e:
        return {TAG: "approval", "metadata": e.metadata}
    except CallDeferred as e:
        return {TAG: "deferred", "metadata": e.metadata, "kind": e.kind}
    except ModelAPIError:
        raise  # of an agent inside the tool: told to the model
    except AgentRunError as e:
        raise RunEnds(str(e), final=True) from e
    if asked := told(value):
        return {TAG: "spawn", **asked}
    if isinstance(value, ToolReturn):
        return {TAG: "rich", "value": RICH.dump_python(value, mode="json")}
    plain = ANY.dump_python(value, mode="json")
    return {TAG: "value", "value": plain} if isinstance(plain, dict) and TAG in plain else plain


def _message(error: BaseException) -> str:
    """What the tool said: the framework has wrapped it for the model already."""
    while isinstance(error, ToolRetryError | ToolFailedError) and error.__cause__ is not None:
        error = error.__cause__
    return str(getattr(error, "message", None) or error)


def _taken(entry: Value) -> Any:
    match entry:
        case {"$steprelay": "value", "value": value}:
            return value
        case {"$steprelay": "rich", "value": value}:
            return RICH.validate_python(value)
        case {"$steprelay": "retry", "message": message}:
            raise ModelRetry(message)
        case {"$steprelay": "failed", "message": message}:
            raise ToolFailed(message)
        case {"$steprelay": "approval", "metadata": metadata}:
            raise ApprovalRequired(metadata=metadata)
        case {"$steprelay": "deferred", "metadata": metadata, "kind": kind}:
            raise CallDeferred(metadata=metadata, kind=kind)
        case {"$steprelay": "spawn", "children": children, "many": many}:
            raise CallDeferred(metadata={SPAWN: {"children": children, "many": many}})
        case {"kind": str()} | [*_]:  # an image or a file, alone or in a list
            return CONTENT.validate_python(entry)
    return entry
