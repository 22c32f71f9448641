"""Parts on their way to a reader: one pure encoder for each protocol, `Live` in, Server-Sent Events out.

An encoder is fed `begin`, then `live` for each part in order, then `end` with the envelope; each answers events. Another
protocol is another class with these three methods and a line in `ENCODERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ..core.model import Call, End, Interrupt, Live, Result, State, Text, Thought, Usage, Value
from . import wire
from .problem import Problem


class Sse(NamedTuple):
    """One event: its name and id (None: without), and its data."""

    event: str | None
    id: str | None
    data: wire.Object


class Encoder(Protocol):
    """What a protocol makes of a run. Stateful: one encoder for one stream."""

    snapshots: bool
    """A reader who begins anew is given the whole history in `begin`, not part by part."""

    def begin(self, thread: str, *, first: bool, history: Sequence[Live]) -> list[Sse]:
        """The stream's first events. `first`: nothing of this round was streamed before, or it begins anew after a question;
        `history`: what is known of the run already, for a reader who has to begin anew."""
        ...

    def live(self, live: Live) -> list[Sse]: ...

    def end(self, envelope: wire.Object | None) -> list[Sse]:
        """The last events; None: the stream ends here, the run does not."""
        ...


class Plain:
    """Each part as it is, under its id; at the end the envelope."""

    snapshots = False

    def begin(self, thread: str, *, first: bool, history: Sequence[Live]) -> list[Sse]:
        return []

    def live(self, live: Live) -> list[Sse]:
        return [Sse("part", live.id, wire.live_view(live))]

    def end(self, envelope: wire.Object | None) -> list[Sse]:
        return [] if envelope is None else [Sse("envelope", None, envelope)]


class AgUi:
    """AG-UI: the run is the thread, and everything up to a question or an end is one AG-UI run, however many streams carry
    it. Each step is bracketed; a stream that ends before the AG-UI run does ends with CUSTOM `steprelay.continue`.

    Words that came live are not said again when they are committed. What a dead attempt began is replaced by the
    snapshot with which the next stream begins.
    """

    snapshots = True

    def __init__(self, run_id: str | None = None) -> None:
        """`run_id`: how the reader calls the AG-UI run."""
        self._run, self._id = "", run_id
        self._step: int | None = None
        self._open: dict[str, str] = {}  # message id -> the kind of what is open
        self._said: dict[str, list[str]] = {"text": [], "thought": []}  # of this step, whole
        self._calls: set[str] = set()
        self._results: set[str] = set()
        self._pieces: dict[str, list[str]] = {}

    def begin(self, thread: str, *, first: bool, history: Sequence[Live]) -> list[Sse]:
        self._run = thread
        events = [_event("RUN_STARTED", **self._ids)] if first else []
        return [*events, _event("MESSAGES_SNAPSHOT", messages=messages(thread, history))] if history else events

    @property
    def _ids(self) -> dict[str, str]:
        return {"threadId": self._run, "runId": self._id or self._run}

    def live(self, live: Live) -> list[Sse]:
        events = [] if live.step == self._step else self._enter(live.step)
        match live.part:
            case Text(role="user"):
                pass  # the reader said it, or has it from the snapshot
            case Text() | Thought() as part:
                events += self._words(live, part)
            case Call(id=id, name=name, args=args):
                events += self._call(id, name, args)
            case Result(id=id, value=value, status=status):
                events += self._result(id, value, status)
            case State(value=value):
                events.append(_event("STATE_SNAPSHOT", snapshot=value))
            case Usage() as usage if live.committed:
                events.append(_event("CUSTOM", name="steprelay.usage", value=wire.spent(usage)))
            case Interrupt() | End() | Usage():
                pass  # told by the end of the stream
        return [e._replace(id=live.id) for e in events]

    def end(self, envelope: wire.Object | None) -> list[Sse]:
        events = self._leave()
        if envelope is None:
            return events
        ids = self._ids
        match envelope["status"]:
            case "ERROR":
                error = envelope["error"] or {"message": "the run failed", "code": envelope["stopReason"]}
                return [*events, _event("RUN_ERROR", message=error["message"], code=error["code"])]
            case "AWAITING_INPUT":
                asked = [_interrupt(i) for i in envelope["interrupts"]]
                return [*events, _event("RUN_FINISHED", **ids, outcome={"type": "interrupt", "interrupts": asked})]
            case "COMPLETED":
                return [*events, _event("RUN_FINISHED", **ids, outcome={"type": "success"}, result=envelope["output"])]
            case "CANCELLED":
                return [*events, _event("RUN_FINISHED", **ids, outcome={"type": "cancelled"})]
            case _:
                more = {"next": envelope["next"], "step": envelope["step"], "status": envelope["status"]}
                return [*events, _event("CUSTOM", name="steprelay.continue", value=more)]

    # ------------------------------------------------------------ one step

    def _enter(self, step: int) -> list[Sse]:
        events = self._leave()
        self._step = step
        self._said = {"text": [], "thought": []}
        self._pieces, self._calls, self._results = {}, set(), set()
        return [*events, _event("STEP_STARTED", stepName=f"step {step}")]

    def _leave(self) -> list[Sse]:
        if self._step is None:
            return []
        step, self._step = self._step, None
        return [*self._close(), _event("STEP_FINISHED", stepName=f"step {step}")]

    def _name(self, live: Live, kind: str = "m") -> str:
        return f"{self._run}:{live.step}:{kind}{live.index}"

    def _words(self, live: Live, part: Text | Thought) -> list[Sse]:
        kind = part.type
        if part.delta:
            id = f"{self._run}:{live.step}:{live.attempt}:{kind}:{part.id or ''}"
            opened = [] if id in self._open else [*self._close(), *_starts(kind, id)]
            self._open[id] = kind
            self._pieces.setdefault(id, []).append(part.text)
            return [*opened, _content(kind, id, part.text)] if part.text else opened
        said = self._said[kind] + ["".join(p) for i, p in self._pieces.items() if self._kind(i) == kind]
        if not part.text or part.text in said:  # it came live already
            return self._close()
        self._said[kind].append(part.text)
        return [*self._close(), *self._whole(kind, self._name(live), part.text)]

    def _kind(self, id: str) -> str:
        return id.split(":")[-2]

    def _whole(self, kind: str, id: str, text: str) -> list[Sse]:
        return [*_starts(kind, id), _content(kind, id, text), *_ends(kind, id)]

    def _close(self) -> list[Sse]:
        events = [e for id, kind in self._open.items() for e in _ends(kind, id)]
        self._open = {}
        return events

    def _call(self, id: str, name: str, args: Value) -> list[Sse]:
        if id in self._calls:
            return []
        self._calls.add(id)
        call = f"{self._run}:{id}"
        return [
            *self._close(),
            _event("TOOL_CALL_START", toolCallId=call, toolCallName=name),
            _event("TOOL_CALL_ARGS", toolCallId=call, delta=_text(args)),
            _event("TOOL_CALL_END", toolCallId=call),
        ]

    def _result(self, id: str, value: Value, status: str) -> list[Sse]:
        if id in self._results:
            return []
        self._results.add(id)
        call, content = f"{self._run}:{id}", wire.shown(value) if status == "ok" else f"{status}: {wire.shown(value)}"
        return [
            *self._close(),
            _event("TOOL_CALL_RESULT", messageId=f"{call}:result", toolCallId=call, content=content, role="tool"),
        ]


def messages(run_id: str, history: Sequence[Live]) -> list[wire.Object]:
    """What was said so far, as AG-UI messages."""
    out: list[wire.Object] = []
    for live in history:
        id = f"{run_id}:{live.step}:m{live.index}"
        match live.part:
            case Text(role=role, text=text) if text:
                out.append({"id": id, "role": role, "content": text})
            case Thought(text=text) if text:
                out.append({"id": id, "role": "reasoning", "content": text})
            case Call(id=call, name=name, args=args):
                function = {"name": name, "arguments": _text(args)}
                calls = [{"id": f"{run_id}:{call}", "type": "function", "function": function}]
                out.append({"id": id, "role": "assistant", "toolCalls": calls})
            case Result(id=call, value=value):
                out.append(
                    {
                        "id": f"{run_id}:{call}:result",
                        "role": "tool",
                        "toolCallId": f"{run_id}:{call}",
                        "content": wire.shown(value),
                    }
                )
            case _:
                pass
    return out


def _event(type: str, **fields: Value) -> Sse:
    return Sse(None, None, {"type": type, **fields})


def _starts(kind: str, id: str) -> list[Sse]:
    if kind == "thought":
        return [_event("REASONING_START", messageId=id), _event("REASONING_MESSAGE_START", messageId=id, role="reasoning")]
    return [_event("TEXT_MESSAGE_START", messageId=id, role="assistant")]


def _content(kind: str, id: str, text: str) -> Sse:
    return _event("REASONING_MESSAGE_CONTENT" if kind == "thought" else "TEXT_MESSAGE_CONTENT", messageId=id, delta=text)


def _ends(kind: str, id: str) -> list[Sse]:
    if kind == "thought":
        return [_event("REASONING_MESSAGE_END", messageId=id), _event("REASONING_END", messageId=id)]
    return [_event("TEXT_MESSAGE_END", messageId=id)]


def _interrupt(asked: wire.Object) -> wire.Object:
    """AG-UI's interrupt: id, reason, message, and what the answer must look like."""
    reason = "confirmation" if asked["kind"] == "approval" else "input_required"
    shown = {"id": asked["id"], "reason": reason, "message": asked["prompt"], "metadata": {"payload": asked["payload"]}}
    return shown if asked["schema"] is None else {**shown, "responseSchema": asked["schema"]}


def _text(args: Value) -> str:
    return args if isinstance(args, str) else wire.encode(args).decode()


ENCODERS: dict[str, Callable[[str | None], Encoder]] = {"plain": lambda _: Plain(), "agui": AgUi}


def encoder(protocol: str, run_id: str | None) -> Encoder:
    """The encoder a reader asked for; `run_id`: what that protocol's run is to be called. Raises Problem 400."""
    if protocol not in ENCODERS:
        raise Problem(
            400, "bad_input", f"There is no protocol {protocol[:40]!r}; there are {', '.join(ENCODERS)}.", path="?protocol"
        )
    return ENCODERS[protocol](run_id)
