"""A `pydantic_ai.Agent` as an agent: one step = one model request, or all tool calls of one response.

The user's agent stays as it is. What it may want to say goes into tool metadata:

    @agent.tool_plain(metadata={"effect": "read", "timeout": 20})

`effect`: `read` and `idempotent` tools are run again when an attempt died in them; `once` tools are not, and the model is
told; `needs_approval` tools wait for a person first. A tool that says nothing is taken for `once`: running something
twice that should have run once cannot be undone, asking the model to check can. `timeout` is in seconds.

Messages are kept as the framework's own JSON; `view` and `seed` read and make it without the framework, which is imported
in the first step (or by `warm`, in a thread).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from ...core.errors import BadInput
from ...core.model import Call, Part, Reply, Result, Text, Thought, Turn, Usage, Value
from ...ports import Agent, Context
from .children import delegate, spawn

__all__ = ["UNKNOWN", "PydanticAIAgent", "delegate", "spawn"]
UNKNOWN = "Outcome unknown: "
"""How the result of a `once` tool begins that a dead attempt had started."""


class PydanticAIAgent(Agent):
    """Adapter of one `pydantic_ai.Agent`, whatever its model, tools, toolsets and output type."""

    granularity = "op"

    def __init__(self, agent: Any, deps: Any = None, stream: bool = True) -> None:
        """`deps`: what the agent's tools get as `ctx.deps`: a value, or a function of the turn (sync or async) that makes
        one for every step. `stream`: show the model's words as they come, where the model can stream."""
        if not hasattr(agent, "iter") or not hasattr(agent, "output_type"):
            raise BadInput(f"{agent!r:.80} is no pydantic_ai.Agent")
        self.agent, self.deps, self.stream = agent, deps, stream
        self._warm = False

    @property
    def provider(self) -> str | None:
        """Whom its steps call: after a 429 all runs that call the same leave it alone for a while. None: not known beforehand."""
        model = self.agent.model
        if model is None or isinstance(model, str):
            return model
        from .spend import provider_of

        return provider_of(model)

    async def step(self, turn: Turn, ctx: Context) -> Reply:
        if not self._warm:
            await asyncio.to_thread(self.warm)  # in a thread, so that the lease keeps breathing
        from .step import take

        return await take(self, turn, ctx)

    def warm(self) -> None:
        """Import and build what a step needs of the framework: up to a CPU-second, well spent while the claim is on its way.
        The engine calls it in a thread, before its first claim."""
        from .step import warm

        warm()
        self._warm = True

    @staticmethod
    def view(message: Value) -> Iterable[Part]:
        """A stored message as parts. System prompts and instructions are not shown; unknown shapes show nothing."""
        if not isinstance(message, dict):
            return ()
        parts = [p for raw in message.get("parts", ()) if isinstance(raw, dict) for p in _part(raw)]
        return (*parts, *_usage(message))

    @staticmethod
    def seed(messages: Sequence[Value]) -> list[Value]:
        return [_seeded(m) for m in messages]


def _part(p: dict[str, Value]) -> Iterable[Part]:
    kind, content = p.get("part_kind"), p.get("content")
    match kind:
        case "text":
            return (Text(text=content),) if content else ()
        case "thinking":
            return (Thought(text=content),) if content else ()
        case "tool-call" | "builtin-tool-call":
            return (Call(id=p["tool_call_id"], name=p["tool_name"], args=_args(p.get("args"))),)
        case "tool-return" | "builtin-tool-return":
            return (Result(id=p["tool_call_id"], name=p["tool_name"], value=content, status=_status(p)),)
        case "retry-prompt" | "retry-feedback":
            name = p.get("tool_name") or "output"
            return (Result(id=p.get("tool_call_id") or name, name=name, value=content, status="error"),)
        case "user-prompt":
            said = content if isinstance(content, list) else [content]
            return tuple(Text(text=text, role="user") for c in said if (text := _words(c)))
        case "file" | "speech":
            return (Text(text=_words(content)),)
        case _:
            return ()


def _args(args: Value) -> Value:
    """Arguments come as JSON text or as an object, as the provider sent them."""
    if not isinstance(args, str):
        return args
    try:
        return json.loads(args)
    except ValueError:
        return args


def _status(p: dict[str, Value]) -> Literal["ok", "error", "unknown", "denied"]:
    match p.get("outcome", "success"):
        case "success":
            return "ok"
        case "denied":
            return "denied"
        case "interrupted":
            return "unknown"
        case _:
            return "unknown" if str(p.get("content")).startswith(UNKNOWN) else "error"


def _words(content: Value) -> str:
    """What a user sent, or what stands for it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, dict):
        return ""
    if content.get("kind") == "text-content":
        return str(content.get("content") or "")
    what = content.get("url") or content.get("media_type") or content.get("file_id") or content.get("kind")
    return f"[{what}]" if what else ""


def _usage(message: dict[str, Value]) -> Iterable[Part]:
    used = message.get("usage")
    if message.get("kind") != "response" or not isinstance(used, dict):
        return ()
    usage = Usage(
        requests=1,
        input_tokens=used.get("input_tokens") or 0,
        output_tokens=used.get("output_tokens") or 0,
        cached_tokens=used.get("cache_read_tokens") or 0,
        usd=None if used.get("cost") is None else float(used["cost"]),
    )
    return (usage,) if usage.tokens else ()


def _seeded(message: Value) -> Value:
    """`{role, content}` in the framework's words."""
    match message:
        case {"role": "user", "content": str(text)}:
            return {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": text}]}
        case {"role": "system", "content": str(text)}:
            return {"kind": "request", "parts": [{"part_kind": "system-prompt", "content": text}]}
        case {"role": "assistant", "content": str(text)}:
            return {"kind": "response", "parts": [{"part_kind": "text", "content": text}]}
    raise BadInput(f"{message!r:.80} is no message; give {{'role': 'user' | 'assistant' | 'system', 'content': '…'}}")
