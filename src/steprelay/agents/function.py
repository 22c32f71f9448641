"""A plain function as an agent: `async def agent(turn, ctx) -> Reply` (or a sync one, run in a thread).

One call is one step. `ctx.call(key, fn, *args, effect=…)` runs a tool through the ledger and shows it; what `ctx.emit`
is given stays in the history, deltas excepted. The function may answer a Reply, or anything else: that finishes the run
with it as output.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence

from functools import partial
from typing import Any, Literal

from ..core import codec
from ..core.errors import AgentError, BadInput, Denied, OutcomeUnknown, Paused, ToolError
from ..core.noun import replace
from ..core.model import Call, Effect, Part, Reply, Result, Text, Thought, Turn, Value
from ..ports import Agent, Context, Unknown

Function = Callable[[Turn, "FunctionContext"], Reply | Value | Awaitable[Reply | Value]]


class FunctionContext:
    """What a function agent may do in its step. Thread-safe where a sync function needs it: `call_sync`, `emit`."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._loop = asyncio.get_running_loop()
        self.parts: list[Part] = []

    @property
    def cancelled(self) -> bool:
        return self._ctx.cancelled

    def remaining(self) -> float:
        """Seconds this step may still use."""
        return self._ctx.remaining()

    def idempotency_key(self, key: str) -> str:
        """The same for every attempt of the call `key`: give it to the outside service."""
        return self._ctx.idempotency_key(key)

    def emit(self, part: Part) -> None:
        """Show a part now, and keep it unless it is a delta."""
        if not (isinstance(part, Text | Thought) and part.delta):
            self.parts.append(part)
        self._loop.call_soon_threadsafe(self._ctx.emit, part)

    async def call(
        self, key: str, fn: Callable[..., Any], *args: Any, effect: Effect = "once", timeout: float | None = None,
        unknown: Unknown = "tell_model", ask: Value = None, keep: bool = False, **kwargs: Any,
    ) -> Value:  # fmt: skip
        """Run `fn(*args, **kwargs)` once under `key` (unique within the step) and answer its JSON value.

        Raises ToolError, OutcomeUnknown or Denied, which you may catch and tell your model. See ports.Context.call.
        """
        name = getattr(fn, "__name__", key)
        self.emit(Call(id=key, name=name, args=_shown(args, kwargs)))
        began = self._loop.time()
        status: Literal["ok", "error", "unknown", "denied"]
        try:
            thunk = partial(fn, *args, **kwargs)
            value = await self._ctx.call(key, thunk, effect=effect, timeout=timeout, unknown=unknown, ask=ask, keep=keep)
            status = "ok"
            return value
        except ToolError as e:
            status = "unknown" if isinstance(e, OutcomeUnknown) else "denied" if isinstance(e, Denied) else "error"
            value = str(e)
            raise
        except BaseException:
            status, value = "error", None
            self.parts.pop()  # the step ends here: it is not this call's history yet
            raise
        finally:
            if value is not None or status == "ok":
                self.emit(Result(id=key, name=name, value=value, status=status, ms=round((self._loop.time() - began) * 1000, 1)))

    def call_sync(self, key: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Value:
        """`call` for a sync function agent."""
        return asyncio.run_coroutine_threadsafe(self.call(key, fn, *args, **kwargs), self._loop).result()


class FunctionAgent(Agent):
    """Adapter of one function."""

    granularity = "step"

    def __init__(self, function: Function) -> None:
        if not callable(function):
            raise BadInput(f"{function!r} is not callable; give a function (turn, ctx) -> Reply")
        self.function = function

    async def step(self, turn: Turn, ctx: Context) -> Reply:
        context = FunctionContext(ctx)
        try:
            if inspect.iscoroutinefunction(self.function):
                answer = await self.function(turn, context)
            else:
                answer = await asyncio.to_thread(self.function, turn, context)
                if inspect.isawaitable(answer):
                    answer = await answer
        except Paused:
            if not ctx.interrupts:
                raise
            answer = Reply(then="ask", interrupts=tuple(ctx.interrupts), keep_ledger=True)
        reply = answer if isinstance(answer, Reply) else _finish(answer)
        said: tuple[Value, ...] = ()
        if turn.fresh and turn.prompt is not None:
            said = ({"role": "user", "content": _words(turn.prompt)},)  # as `seed` keeps it: one shape in a history
        return replace(reply, messages=(*said, *reply.messages), parts=(*context.parts, *reply.parts))

    @staticmethod
    def view(message: Value) -> Iterable[Part]:
        """A part's own JSON, or `{role, content}`; any other message shows nothing."""
        if isinstance(message, dict):
            if message.get("type") in codec.PARTS:
                return (codec.part_from(message),)
            if isinstance(message.get("content"), str):
                role: Literal["user", "assistant"] = "user" if message.get("role") == "user" else "assistant"
                return (Text(text=message["content"], role=role),)
        return ()

    @staticmethod
    def seed(messages: Sequence[Value]) -> list[Value]:
        for m in messages:
            if not (isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)):
                raise BadInput(f"{m!r:.80} is no message; give {{'role': 'user' | 'assistant', 'content': '…'}}")
        return list(messages)


def _finish(answer: Value) -> Reply:
    if answer is None:
        raise AgentError("the function returned None; return a Reply, or the output to finish with", final=True)
    return Reply(then="finish", output=answer)


def _shown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    """Arguments fit for the history: JSON, or their repr."""
    shown: Value = kwargs if not args else list(args) if not kwargs else {"args": list(args), **kwargs}
    try:
        codec.dumps(shown)
    except BadInput:
        return repr(shown)[:500]
    return shown


def _words(prompt: Value) -> str:
    return prompt if isinstance(prompt, str) else codec.dumps(prompt)
