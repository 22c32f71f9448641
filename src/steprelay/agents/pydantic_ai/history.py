"""What goes into a step: the round's prompt, and answers for calls that nobody will make any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart, UserContent

from ...core import codec
from ...core.errors import AgentError
from ...core.model import Turn, Value
from .children import outcome

CONTENT: TypeAdapter[Any] = TypeAdapter(UserContent)
CLOSED = "This call was not made: the task was stopped before."
GO_ON = "Go on."


def prompt_of(turn: Turn, history: Sequence[ModelMessage]) -> Any:
    """The prompt of a fresh round. A round that is resumed after its last answer needs words to go on."""
    if not turn.fresh or turn.prompt is None:
        last = history[-1] if history else None
        done = isinstance(last, ModelResponse) and not last.tool_calls and last.state != "suspended"
        return GO_ON if done and not turn.landing else None
    match turn.prompt:
        case str(text):
            return text
        case [*parts]:
            return [_content(p) for p in parts]
        case other:
            return codec.dumps(other)


def _content(part: Value) -> Any:
    """One part of a prompt: words, AG-UI's `{type: text | binary}`, or the framework's own JSON."""
    match part:
        case str(text) | {"type": "text", "text": str(text)}:
            return text
        case {"type": "binary" | "image", "url": str(url)}:
            kind = str(part.get("mimeType", "image")).partition("/")[0]
            part = {"kind": f"{kind if kind in ('image', 'audio', 'video') else 'document'}-url", "url": url}
        case {"type": "binary" | "image", "data": str(data)}:
            part = {"kind": "binary", "data": data, "media_type": part.get("mimeType", "image/png")}
    try:
        return CONTENT.validate_python(part)
    except ValidationError as e:
        raise AgentError(
            f"{part!r:.80} is no part of a prompt; give text, or {{'kind': 'image-url', 'url': …}}", final=True
        ) from e


def closing(
    history: Sequence[ModelMessage], children: Mapping[str, Any], ends: Mapping[str | None, Value]
) -> ModelRequest | None:  # fmt: skip
    """Answers for the calls of the last response that are still open; None if there are none. What other runs have come to
    by now is an answer as well (`children`, `ends`: see questions.answers)."""
    said: set[str | None] = set()
    for message in reversed(history):
        if isinstance(message, ModelResponse):
            parts = [_closed(c, children, ends) for c in message.tool_calls if c.tool_call_id not in said]
            return ModelRequest(parts=parts) if parts else None
        said |= {p.tool_call_id for p in message.parts if hasattr(p, "tool_call_id")}
    return None


def _closed(call: ToolCallPart, children: Mapping[str, Any], ends: Mapping[str | None, Value]) -> ToolReturnPart:
    started = children.get(call.tool_call_id)
    if started is None or not all(id in ends for id in started.get("ids", ())):
        return ToolReturnPart(call.tool_name, CLOSED, tool_call_id=call.tool_call_id, outcome="interrupted")
    worked, value = outcome(started, ends)
    return ToolReturnPart(call.tool_name, value, tool_call_id=call.tool_call_id, outcome="success" if worked else "failed")
