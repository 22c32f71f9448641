"""What came of a tool: it is run, and its value or its failure becomes a ledger entry."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

from .core import codec
from .core.errors import AgentError, BadInput, Paused, ToolError
from .core.model import Json, Value


async def outcome(key: str, fn: Callable[[], Value], timeout: float | None, limit: int, blob: str | None) -> dict[str, Value]:
    """Run `fn` (sync ones in a thread) for at most `timeout` seconds: `{"value": …}`, or `{"error": …}` fit for a model.

    A value longer than `limit` characters of JSON is cut; with the name of a `blob` the whole of it stands in the entry too.
    Raises what is no answer of the tool: Transient, AgentError, Paused, a cancellation.
    """
    try:
        async with asyncio.timeout(timeout):
            value = fn() if inspect.iscoroutinefunction(fn) else await asyncio.to_thread(fn)
            if inspect.isawaitable(value):
                value = await value
    except TimeoutError:
        return {"error": f"{key} did not answer in time" + (f" ({timeout:g} s)" if timeout else "")}
    except (AgentError, Paused):  # Transient is one of them
        raise
    except Exception as e:
        return {"error": str(e) if isinstance(e, ToolError) else f"{type(e).__name__}: {e}"}
    try:
        text = codec.dumps(value)
    except BadInput as e:
        return {"error": f"{key} answered something that cannot be kept: {e}"}
    return {"value": value} if len(text) <= limit else _cut(value, text, limit, blob)


def _cut(value: Value, text: Json, limit: int, blob: str | None) -> dict[str, Value]:
    """The whole, when it is kept, stands in the entry, so that it outlives this attempt as its cut does."""
    shown = value if isinstance(value, str) else text
    whole = f"; the whole is blob {blob!r}" if blob else ""
    cut = f"{shown[:limit]}… [cut: {min(limit, len(shown))} of {len(shown)} characters shown{whole}]"
    return {"value": cut, **({"whole": text} if blob else {})}
