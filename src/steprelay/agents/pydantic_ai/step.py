"""One step of a `pydantic_ai.Agent`.

    history              the stored messages, and a response the provider still works on (`held`)
    agent.iter(history)  its first node says what this step is: a model request, or the tools of the last response
    Guard (tools.py)     every tool execution goes through the ledger

Nothing of the framework survives a step. What the messages do not say is in `state`, which stays small: retry counters,
the questions that are open and the children that are at work, a response that is not finished.
"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pydantic_ai import Agent, DeferredToolRequests, ModelMessagesTypeAdapter, UsageLimits
from pydantic_ai.exceptions import AgentRunError, FallbackExceptionGroup, ModelAPIError, RunCancelled, UserError
from pydantic_ai.messages import ModelResponse, PartDeltaEvent, PartStartEvent
from pydantic_ai.output import PendingModelResponse
from pydantic_graph import End

from ...core.errors import AgentError
from ...core.model import Reply, Text, Thought, Turn, Value
from ...ports import Context
from .children import ended, ids_of, starts
from .history import closing, prompt_of
from .questions import answers, questions, spawning
from .spend import spent, streams, translated, usage_so_far
from .tools import ANY, Guard

if TYPE_CHECKING:
    from . import PydanticAIAgent

LANDING = (
    "Your budget for this task is spent ({reason}). Do not call any tool. Say in a few sentences what you have found or done, "
    "and what is still open."
)
POLL = 5.0
"""Seconds until a provider is asked again that does not say when."""
THREADS = ThreadPoolExecutor(max_workers=32, thread_name_prefix="steprelay-tool")
"""Sync tools run here: unlike the framework's own threads these can be left behind when a tool is late or cancelled."""


def warm() -> None:
    """Build what the first step would have to: the message schema, the price list, the event loop's backend."""
    import anyio._backends._asyncio  # noqa: F401
    from genai_prices.data_snapshot import get_snapshot

    ModelMessagesTypeAdapter.validate_python([])
    get_snapshot()


async def take(adapter: PydanticAIAgent, turn: Turn, ctx: Context) -> Reply:
    """The step of `turn`. Raises Transient and AgentError; a cancelled step answers with what it has."""
    one = _Step(adapter, turn, ctx)
    try:
        return await one.take()
    except asyncio.CancelledError as e:
        if not ctx.cancelled:  # the host's time is up: another attempt takes the step
            raise
        return one.partial(RunCancelled.from_cancellation(e))
    except (ModelAPIError, FallbackExceptionGroup) as e:
        raise translated(e) from e
    except AgentRunError as e:  # a retry budget is spent, the provider refused the content, a tool called ctx.cancel()
        return one.reply(then="fail", error=str(e))
    except UserError as e:
        raise AgentError(str(e), final=True) from e


class _Step:
    def __init__(self, adapter: PydanticAIAgent, turn: Turn, ctx: Context) -> None:
        self.agent: Agent[Any, Any] = adapter.agent
        self.deps, self.stream, self.turn, self.ctx = adapter.deps, adapter.stream, turn, ctx
        state = turn.state or {}
        if state.get("round", 0) != turn.round:  # counters and questions are those of one round
            state = {}
        self.held: list[Value] = state.get("held", [])
        self.asked: dict[str, Any] = {} if turn.landing else state.get("asked", {})
        self.said: dict[str, Value] | None = state.get("said")
        self.children: dict[str, Any] = state.get("children", {})
        self.retries: dict[str, int] = state.get("retries", {})
        self.output_retries: int = state.get("output_retries", 0)
        self.landing = turn.landing if not self.held else None  # what the provider is at comes first
        self.closed: list[Value] = []
        self.run: Any = None

    async def take(self) -> Reply:
        if self.asked and self.said is None and ids_of(self.children):
            return self._children_first()
        history = ModelMessagesTypeAdapter.validate_python([*self.turn.messages, *self.held])
        prompt = prompt_of(self.turn, history) if not self.held else None
        ends = ended(self.turn.inbox)
        if (prompt is not None or self.landing) and (close := closing(history, self.children, ends)):
            history.append(close)
            self.closed = _dump([close])
        guard = Guard(self.ctx, self.retries, landing=bool(self.landing), money=self.turn.limits.usd is not None)
        with Agent.using_thread_executor(THREADS), self.agent.override(native_tools=[]) if self.landing else nullcontext():
            async with self.agent.iter(
                prompt, message_history=history or None, deps=await self._deps(), usage=usage_so_far(self.turn.usage),
                usage_limits=UsageLimits(request_limit=None),  # the brakes are the engine's
                conversation_id=str(self.turn.key), capabilities=[guard], output_type=self._output_type(),
                deferred_tool_results=None if self.landing else answers(self.asked, self._said(), self.children, ends),
                instructions=LANDING.format(reason=self.landing) if self.landing else None,
            ) as self.run:  # fmt: skip
                self.run.ctx.state.output_retries_used = self.output_retries
                self.run.ctx.state.run_step = sum(isinstance(m, ModelResponse) for m in history)
                node = await self._leg(guard)
        return self._came_to(node, guard)

    async def _deps(self) -> Any:
        if not inspect.isroutine(self.deps):
            return self.deps
        made = self.deps(self.turn)
        return await made if inspect.isawaitable(made) else made

    def _output_type(self) -> Any:
        """The agent's own, and what may come instead. An agent with output validators takes no other (the framework's rule):
        if its tools ask, it has to name DeferredToolRequests itself."""
        if getattr(self.agent, "_output_validators", None):
            return None
        if self.landing:
            return str
        own = self.agent.output_type
        several = list(own) if isinstance(own, list | tuple) else [own]
        return [*several, *(t for t in (DeferredToolRequests, PendingModelResponse) if t not in several)]

    async def _leg(self, guard: Guard) -> Any:
        """Run one model request, or all tools of one response; answers what would come next."""
        node = await self.run.next(self.run.next_node)  # routes only
        if not Agent.is_model_request_node(node):
            return await self.run.next(node)
        if self.stream and not self.held and streams(self.run.ctx.deps.model, self.agent.model_settings):
            await self._tell(node)
        node = await self.run.next(node)
        if Agent.is_call_tools_node(node) and all(c.tool_name in guard.output_tools for c in node.model_response.tool_calls):
            node = await self.run.next(node)  # words or structured output: there is no tool to wait for
        return node

    async def _tell(self, node: Any) -> None:
        """Stream one model request to whoever listens."""
        async with node.stream(self.run.ctx) as stream:
            async for event in stream:
                match event:
                    case PartStartEvent(index=i, part=p):
                        self._say(i, p.part_kind, getattr(p, "content", None))
                    case PartDeltaEvent(index=i, delta=d):
                        self._say(i, d.part_delta_kind, getattr(d, "content_delta", None))

    def _say(self, index: int, kind: str, words: Any) -> None:
        if isinstance(words, str) and words and kind in ("text", "thinking"):
            part = Text if kind == "text" else Thought
            self.ctx.emit(part(text=words, delta=True, id=f"{self.turn.step}.{index}"))

    def _came_to(self, node: Any, guard: Guard) -> Reply:
        if not isinstance(node, End):
            # A request is in no history until it is sent.
            coming = [node.request] if Agent.is_model_request_node(node) else []
            return self.reply(coming=coming)
        output = node.data.output
        if isinstance(output, PendingModelResponse):
            after = guard.model.continuation_delay(output.response)
            return Reply(
                then="wait", release=True, reason="provider", after=POLL if after is None else after,
                state=self._state(held=self._new()),
            )  # fmt: skip
        if isinstance(output, DeferredToolRequests):
            return self._paused(output)
        return self.reply(then="finish", output=ANY.dump_python(output, mode="json"))

    def _paused(self, requests: DeferredToolRequests) -> Reply:
        """People are asked and other runs are started at once. Who has to be waited for first are the people."""
        asks, asked = questions(requests, self.turn)
        children, outbox, lent = starts(spawning(requests), self.turn)
        state, needs = self._state(asked=asked, children=children), ids_of(children)
        then: Any = {"then": "ask"} if asks else {"then": "wait", "needs": needs, "reason": "child"} if needs else {}
        return self.reply(**then, interrupts=asks, keep_ledger=True, state=state, outbox=outbox, children=lent)

    def _children_first(self) -> Reply:
        """The people have answered, and some children may still be at work: their answers are kept until all have ended."""
        state = self._state(asked=self.asked, children=self.children, said=self._said())
        return Reply(then="wait", needs=ids_of(self.children), reason="child", keep_ledger=True, state=state)

    def _said(self) -> dict[str, Value]:
        """What people have answered, by interrupt."""
        return (self.said or {}) | {m.id: m.body for m in self.turn.inbox if m.kind == "answer" and m.id is not None}

    def reply(self, *, coming: Any = (), **fields: Any) -> Reply:
        """A reply with what this step added to the history."""
        if self.run is None:
            return Reply(state=self._state(), **fields)
        fields.setdefault("state", self._state())
        return Reply(messages=tuple(self._new(coming)), usage=spent(self.run.usage, self.turn.usage), **fields)

    def partial(self, stopped: RunCancelled | None) -> Reply:
        """What a cancelled step has: the words so far, the tools that were done."""
        new = _dump(stopped.new_messages()) if stopped else []
        usage = spent(stopped.usage, self.turn.usage) if stopped else spent(usage_so_far(self.turn.usage), self.turn.usage)
        return Reply(messages=(*self.closed, *new), usage=usage, state=self._state())

    def _new(self, coming: Any = ()) -> list[Value]:
        """Only what this step added. Not `all_messages()[n:]`: loading merges neighbouring requests. Once a held response is
        resumed it counts as new, in its newest form."""
        return [*self.closed, *self.held[:-1], *_dump([*self.run.new_messages(), *coming])]

    def _state(self, **more: Any) -> dict[str, Value]:
        """All that is not in the messages."""
        retries, output_retries = self.retries, self.output_retries
        if self.run is not None:
            tools = self.run.ctx.deps.tool_manager
            kept = tools.ctx.retries if tools.ctx else retries
            retries = {k: v for k, v in kept.items() if v and k not in tools.succeeded_tools}
            retries |= {k: retries.get(k, 0) + 1 for k in tools.failed_tools}
            output_retries = self.run.ctx.state.output_retries_used
        state = {"round": self.turn.round, "retries": retries, "output_retries": output_retries, **more}
        return {k: v for k, v in state.items() if v}


def _dump(messages: Any) -> list[Value]:
    dumped: list[Value] = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
    return dumped
