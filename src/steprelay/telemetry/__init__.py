"""Traces for OpenTelemetry: one trace a run, whichever processes took its steps.

    invoke_agent NAME           a round, told by whoever ends it
      invoke_agent NAME         an attempt at a step: committed, released, or died
        chat MODEL              its model requests
        execute_tool TOOL       each of its tools
      replay NAME               a step that was asked for again

Nothing is stored for it: trace and span ids are hashes of what a run's row says, so every process comes to the same ones, a
round has children before it has ended, and an attempt that died is told by the next one. The names are those of the GenAI
semantic conventions; prompts, arguments, results and error messages are left out unless asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from hashlib import sha256
from typing import Any

from ..core import codec
from ..core.errors import ConfigError, StateInvalid
from ..core.machine import TERMINAL
from ..core.model import Call, Claimed, End, Part, Result, Run, RunKey, Step, Tally, Usage, Value
from ..watch import Event, Observer
from . import attributes
from .attributes import Attributes

try:
    from opentelemetry import trace
    from opentelemetry.context import Context, attach
    from opentelemetry.sdk.trace import Tracer, TracerProvider
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import Decision
    from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ModuleNotFoundError as e:
    raise ConfigError(f"traces need {e.name!r}: pip install 'steprelay[otel]'") from e

LABEL = "traceparent"
"""The label that ties a run to the trace of whoever started it (W3C Trace Context)."""
_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_FAILED = ("retry", "rate_limited")


def observer(
    next: Observer | None = None, *, content: bool = False, inner: bool = True, tracer_provider: TracerProvider | None = None
) -> Tracing:
    """An observer that makes spans, and calls `next` as well: `App(agent, observer=telemetry.observer(next=log_line))`.

    `content`: prompts, words, arguments, results and error messages too. `inner=False`: no spans for model requests and
    tools, when the agent's framework makes its own. The provider is that of the process, as soon as it has one.
    """
    return Tracing(next, content=content, inner=inner, tracer_provider=tracer_provider)


def trace_id(key: RunKey) -> str:
    """The trace of a run that was started on its own, as 32 hex digits."""
    return _digest("trace", key)[:32]


def labels() -> dict[str, str]:
    """Labels for a run that shall belong to the trace that is current here; none if there is none."""
    here = trace.get_current_span().get_span_context()
    return {LABEL: f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags & 1:02x}"} if here.is_valid else {}


class Tracing:
    """See `observer`. Its `begin` makes an attempt's span the parent of all that the agent itself traces."""

    def __init__(self, next: Observer | None, *, content: bool, inner: bool, tracer_provider: TracerProvider | None) -> None:
        self._next, self._content, self._inner, self._provider = next, content, inner, tracer_provider
        self._ids = _GivenIds()
        self._made: Tracer | None = None

    def __call__(self, event: dict[str, Value]) -> None:
        if self._next is not None:
            self._next(event)
        tracer = self._tracer()
        if tracer is None or not isinstance(event, Event):
            return
        spans = _Spans(tracer, self._ids, event, content=self._content)
        if event.claimed is not None and event.attempted:
            spans.attempt(event.claimed, inner=self._inner)
        elif event["event"] == "replay":
            spans.replay()

    def begin(self, event: Event) -> None:
        """Called in the context that the agent will have."""
        tracer = self._tracer()
        if tracer is not None and event.claimed is not None:
            claim = event.claimed.claim
            attach(_parent(_Thread(tracer, event.run).context(_span_id(event.run, "attempt", claim.index, claim.fence))))

    def _tracer(self) -> Tracer | None:
        """Ours, once the process has a provider that records."""
        if self._made is None:
            provider = self._provider or trace.get_tracer_provider()
            tracer = provider.get_tracer("steprelay") if isinstance(provider, TracerProvider) else None
            if isinstance(tracer, Tracer):
                tracer.id_generator = self._ids
                self._made = tracer
        return self._made


class _GivenIds(RandomIdGenerator):
    """Ids for the next span of this context; random ones when none are given."""

    def __init__(self) -> None:
        self.given: ContextVar[tuple[int, int] | None] = ContextVar("steprelay_span", default=None)

    def generate_trace_id(self) -> int:
        given = self.given.get()
        return given[0] if given else super().generate_trace_id()

    def generate_span_id(self) -> int:
        given = self.given.get()
        return given[1] if given else super().generate_span_id()


class _Thread:
    """What runs through all processes: the trace of a run, whether it is sampled, and the span it hangs under."""

    def __init__(self, tracer: Tracer, run: Run) -> None:
        given = codec.loads(run.labels).get(LABEL)
        came = _PARENT.fullmatch(given) if isinstance(given, str) else None
        self.trace = int(came[1], 16) if came else int(trace_id(run.key), 16)
        self.above = int(came[2], 16) if came else 0
        if came and self.trace and self.above:
            sampled = bool(int(came[3], 16) & 1)
        else:
            self.trace, self.above = int(trace_id(run.key), 16), 0
            sampled = tracer.sampler.should_sample(Context(), self.trace, "invoke_agent").decision is Decision.RECORD_AND_SAMPLE
        self.flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)

    def context(self, span: int) -> SpanContext:
        return SpanContext(self.trace, span, is_remote=True, trace_flags=self.flags)


class _Spans:
    """The spans of one event."""

    def __init__(self, tracer: Tracer, ids: _GivenIds, event: Event, *, content: bool) -> None:
        self._tracer, self._ids, self._event, self._content = tracer, ids, event, content
        self._run, self._thread = event.run, _Thread(tracer, event.run)
        self._tally = _tally(event)
        self._round = event.step.round if event.step else self._run.round
        if event.commit is not None and event.commit.round is not None:
            self._round = event.commit.round
        self._round_id = _span_id(self._run, "round", self._round, self._tally.began_at)

    def attempt(self, claimed: Claimed, *, inner: bool) -> None:
        """The attempts that died before this one, this one, what it did, and the round if it ended with it."""
        event, run, index, fence = self._event, self._run, claimed.claim.index, claimed.claim.fence
        name = f"invoke_agent {run.agent}"
        for ago in range(event.died, 0, -1):
            said = self._about(attempt=run.attempts - ago)
            id = _span_id(run, "attempt", index, fence - ago)
            self._span(name, said, self._round_id, _since(claimed), claimed.now, id=id, error="died")
        parts, step = event.parts(), event.step
        end = next((p for p in parts if isinstance(p, End)), None)
        usage = codec.unpack(Usage, step.usage if step else None)
        model = attributes.model(step)
        said = self._about(attempt=run.attempts, carrier=claimed.claim.carrier, status=event["status"])
        said |= attributes.reason(event["stop_reason"]) | attributes.usage(usage) | model
        if self._content:
            said |= attributes.words(parts)
        id = _span_id(run, "attempt", index, fence)
        here = trace.get_current_span().get_span_context()
        error, why = self._failure(end)
        self._span(name, said, self._round_id, claimed.now, event.now, id=id, error=error, why=why, link=here)
        if inner:
            self._model(id, usage, model, claimed.now)
            self._tools(id, parts, claimed.now)
        if step is not None and step.status in TERMINAL:
            self._ended(step, end)

    def replay(self) -> None:
        """A request that came again."""
        said = self._about(replayed=True)
        del said["gen_ai.operation.name"]
        self._span(f"replay {self._run.agent}", said, self._round_id, self._event.now, self._event.now)

    def _ended(self, step: Step, end: End | None) -> None:
        began = self._tally.began_at or step.claimed_at
        said = (
            self._about(status=step.status, carrier=step.carrier)
            | attributes.reason(step.stop_reason)
            | attributes.usage(self._tally.round)
        )
        del said["steprelay.step"]
        if self._content:
            said["gen_ai.input.messages"] = attributes.message(
                "user", [{"type": "text", "content": attributes.text(codec.loads(self._run.prompt))}]
            )
        error, why = self._failure(end)
        name = f"invoke_agent {self._run.agent}"
        self._span(name, said, self._thread.above, began, self._event.now, id=self._round_id, error=error, why=why)

    def _model(self, under: int, usage: Usage, model: Attributes, began: float) -> None:
        if usage.requests:
            said = {"gen_ai.operation.name": "chat", "steprelay.requests": usage.requests, **model, **attributes.usage(usage)}
            name = f"chat {model.get('gen_ai.response.model', '')}".rstrip()
            self._span(name, said, under, began, self._event.now, kind=SpanKind.CLIENT)

    def _tools(self, under: int, parts: Iterable[Part], began: float) -> None:
        calls = {p.id: p for p in parts if isinstance(p, Call)}
        for result in (p for p in parts if isinstance(p, Result)):
            end = self._event.now if result.ms is None else min(self._event.now, began + result.ms / 1000)
            said: Attributes = {
                "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": result.name, "gen_ai.tool.call.id": result.id,
                "steprelay.tool.status": result.status,
            }  # fmt: skip
            if self._content:
                said["gen_ai.tool.call.result"] = attributes.text(result.value)
                if result.id in calls:
                    said["gen_ai.tool.call.arguments"] = attributes.text(calls[result.id].args)
            error = result.status if result.status in ("error", "unknown") else None
            self._span(f"execute_tool {result.name}", said, under, began, end, error=error)

    def _failure(self, end: End | None) -> tuple[str | None, str | None]:
        """The type of what went wrong, and with `content` the message."""
        if end is None:  # a release that is no failure waits for the provider
            last = self._tally.last_error
            failed = self._event.step is None and self._event["stop_reason"] in _FAILED and last is not None
            return (last.code, last.message if self._content else None) if failed and last else (None, None)
        if end.status != "FAILED":
            return None, None
        return end.stop_reason, end.error.message if end.error and self._content else None

    def _about(self, **more: Any) -> Attributes:
        run = self._run
        return {
            "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": run.agent, "gen_ai.conversation.id": run.key.id,
            "steprelay.run": run.key.id, "steprelay.tenant": run.key.tenant, "steprelay.round": self._round,
            "steprelay.step": self._event["step"], **{f"steprelay.{k}": v for k, v in more.items()},
        }  # fmt: skip

    def _span(
        self, name: str, said: Attributes, under: int, began: float, ended: float, *, id: int | None = None,
        kind: SpanKind = SpanKind.INTERNAL, error: str | None = None, why: str | None = None, link: SpanContext | None = None,
    ) -> None:  # fmt: skip
        if error is not None:
            said = {**said, "error.type": error}
        context = _parent(self._thread.context(under)) if under else Context()
        given = self._ids.given.set((self._thread.trace, id or self._ids.generate_span_id()))
        try:
            links = [Link(link)] if link is not None and link.is_valid else []
            span = self._tracer.start_span(name, context, kind, said, links, start_time=int(began * 1e9))
        finally:
            self._ids.given.reset(given)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, why))
        span.end(int(max(began, ended) * 1e9))


def _parent(span: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(span), Context())


def _digest(*what: object) -> str:
    return sha256("\0".join(map(str, what)).encode()).hexdigest()


def _span_id(run: Run, *what: object) -> int:
    return int(_digest("span", run.key, *what)[:16], 16)


def _tally(event: Event) -> Tally:
    with suppress(StateInvalid):  # of a run that ends because its payloads cannot be read
        return codec.tally(event.commit.tally if event.commit else event.run.tally)
    return Tally()


def _since(claimed: Claimed) -> float:
    """The earliest time at which a dead attempt can have begun: when the step became due, after the newest commit."""
    before = claimed.steps[-1].committed_at if claimed.steps else claimed.run.created_at
    return min(max(before, claimed.run.due_at or 0.0), claimed.now)
