"""A plain function as an agent: `async def agent(turn, ctx) -> Reply` (or a sync one, run in a thread).

One call is one step. `ctx.call(key, fn, *args, effect=…)` runs a tool through the ledger and shows it; what `ctx.emit`
is given stays in the history, deltas excepted. The function may answer a Reply, or anything else: that finishes the run
with it as output.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from ..children import child_id, shares, start
from ..core import codec
from ..core.errors import AgentError, BadInput, Denied, OutcomeUnknown, Paused, ToolError
from ..core.noun import replace
from ..core.model import Call, Effect, Limits, Outgoing, Part, Reply, Result, RunKey, Text, Thought, Turn, Value
from ..ports import Agent, Context, Unknown

Function = Callable[[Turn, "FunctionContext"], Reply | Value | Awaitable[Reply | Value]]
EventUrl = Callable[[RunKey, str, bool], tuple[str, str]]
"""(run, event, signed) -> the URL that delivers the event to the run, and the secret its sender signs with if `signed`."""


class FunctionContext:
    """What a function agent may do in its step. Thread-safe where a sync function needs it: `call_sync`, `emit`."""

    def __init__(self, ctx: Context, turn: Turn, event_url: EventUrl | None = None) -> None:
        self._ctx, self._turn, self._event_url = ctx, turn, event_url
        self._loop = asyncio.get_running_loop()
        self._spawned: dict[str, dict[str, Any]] = {}
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
        name = getattr(fn, "__name__", key).replace("<lambda>", key)
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
                ms = round((self._loop.time() - began) * 1000, 1)
                self.emit(Result(id=key, name=name, value=value, status=status, ms=ms, blob=self._ctx.blob(key)))

    def call_sync(self, key: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Value:
        """`call` for a sync function agent."""
        return asyncio.run_coroutine_threadsafe(self.call(key, fn, *args, **kwargs), self._loop).result()

    def spawn(
        self, name: str, prompt: Value, *, agent: str | None = None, limits: Mapping[str, Value] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> str:  # fmt: skip
        """Start a run with the commit of this step, and answer its id, which is what to wait for:
        `Reply(then="wait", needs=(id, …), reason="child")`. Its end comes to `turn.inbox` as a `child` of that id.

        `name` is unique within the step; an attempt that repeats the step starts the same run. `agent`: the app's default
        unless told. `limits`: fields of Limits. Steps, tool calls, tokens and usd are taken from what this run has left;
        children that name none share it equally with this run. Raises AgentError for a name used twice.
        """
        id = child_id(self._turn, name)
        if id in self._spawned:
            raise AgentError(f"this step spawns {name!r} twice; give each child a name of its own", final=True)
        if unknown := set(limits or ()) - set(Limits.fields):
            raise AgentError(f"spawn: there is no limit {min(unknown)!r}; there are {', '.join(Limits.fields)}", final=True)
        self._spawned[id] = {"prompt": prompt, "agent": agent, "limits": dict(limits or {}), "labels": labels or {}}
        return id

    def starts(self) -> tuple[tuple[Outgoing, ...], dict[str, Value]]:
        """What this step has spawned: the messages that start it, and what is lent to each. Raises AgentError when there is
        not enough left to lend."""
        heard = {m.id for m in self._turn.inbox}
        new = {id: child for id, child in self._spawned.items() if id not in heard}  # the others have ended by now
        lent = dict(zip(new, shares(self._turn.left, [c["limits"] for c in new.values()]), strict=True)) if new else {}
        for id, child in new.items():
            child["limits"] |= lent[id]
        return tuple(start(id, **child) for id, child in new.items()), lent

    def event_url(self, name: str, *, signed: bool = False) -> str:
        """Where the outside delivers the event `name`, as JSON by POST, to this run, which waits for it with
        `Reply(then="wait", needs=(name,), reason="event")`. `signed`: only with a Standard Webhooks signature by
        `event_secret(name)`. Raises AgentError when the app has no public URL."""
        return self._event(name, signed)[0]

    def event_secret(self, name: str) -> str:
        """What the sender to `event_url(name, signed=True)` signs with: `whsec_…`."""
        return self._event(name, True)[1]

    def _event(self, name: str, signed: bool) -> tuple[str, str]:
        if self._event_url is None:
            raise AgentError("events need an address: set STEPRELAY_PUBLIC_URL, or App(public_url=…)", final=True)
        return self._event_url(self._turn.key, name, signed)


class FunctionAgent(Agent):
    """Adapter of one function."""

    granularity = "step"

    def __init__(self, function: Function, event_url: EventUrl | None = None) -> None:
        if not callable(function):
            raise BadInput(f"{function!r} is not callable; give a function (turn, ctx) -> Reply")
        self.function, self._event_url = function, event_url
        self.provider: str | None = getattr(function, "provider", None)  # whom it calls, see drivers/gate.py

    async def step(self, turn: Turn, ctx: Context) -> Reply:
        context = FunctionContext(ctx, turn, self._event_url)
        outbox: tuple[Outgoing, ...] = ()
        lent: dict[str, Value] = {}
        try:
            if inspect.iscoroutinefunction(self.function):
                answer = await self.function(turn, context)
            else:
                answer = await asyncio.to_thread(self.function, turn, context)
                if inspect.isawaitable(answer):
                    answer = await answer
            outbox, lent = context.starts()
        except Paused:  # the step goes on when a person has answered: it spawns then
            if not ctx.interrupts:
                raise
            answer = Reply(then="ask", interrupts=tuple(ctx.interrupts), keep_ledger=True)
        reply = answer if isinstance(answer, Reply) else _finish(answer)
        said: tuple[Value, ...] = ()
        if turn.fresh and turn.prompt is not None:
            said = ({"role": "user", "content": _words(turn.prompt)},)  # as `seed` keeps it: one shape in a history
        return replace(
            reply, messages=(*said, *reply.messages), parts=(*context.parts, *reply.parts), outbox=(*outbox, *reply.outbox),
            children=reply.children | lent,
        )  # fmt: skip

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
