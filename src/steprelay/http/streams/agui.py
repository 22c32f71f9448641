"""AG-UI 1.0: the run is the thread, and everything up to a question or an end is one AG-UI run, however many streams
carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ...core.model import Call, End, Result, Text, Thought, Value
from .. import wire
from .encoder import Memory, Past, Sse, asked_about, call_name
from .teller import Kind, Teller
from ...watch import Live

PROTOCOL = "1.0"


class AgUi(Teller):
    """Each step is bracketed; a stream that ends before the AG-UI run does ends with CUSTOM `steprelay.continue`.

    Committed words that came live are not said again. What a dead attempt began is replaced by the snapshot with which the
    next stream begins; its ids are others than those of the live messages, so that a reader takes its order as well.
    """

    memory: ClassVar[Memory] = "thread"
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, run_id: str | None = None) -> None:
        """`run_id`: how the reader calls the AG-UI run."""
        super().__init__()
        self._id = run_id
        self._shown = -1  # the newest step that the snapshot tells of

    def begin(self, past: Past) -> list[Sse]:
        self._run, self._open = past.thread, dict(past.open)
        events = [_event("RUN_STARTED", **self._ids, protocolVersion=PROTOCOL)] if past.first else []
        if past.history is not None:
            if past.history:
                self._shown, self._last = past.history[-1].step, past.history[-1].id
            events += _snapshots(messages(past), forget=past.heard)
        return [e._replace(id=past.cursor) for e in events]

    @property
    def _ids(self) -> dict[str, str]:
        return {"threadId": self._run, "runId": self._id or self._run}

    def _part(self, live: Live) -> list[Sse]:
        told = live.step <= self._shown and isinstance(live.part, Text | Thought | Call | Result | End)
        return [] if told else super()._part(live)

    def tail(self, step: int, attempt: int, text: str) -> list[Sse]:
        return [_event("CUSTOM", name="steprelay.tail", value={"step": step, "attempt": attempt, "text": text})]

    def ending(self, envelope: wire.Object | None) -> list[Sse]:
        events = self._leave()
        if envelope is None:
            return events
        match envelope["status"]:
            case "ERROR":
                error = envelope["error"] or {"message": "the run failed", "code": envelope["stopReason"] or "agent_error"}
                return [*events, _event("RUN_ERROR", message=error["message"], code=error["code"])]
            case "AWAITING_INPUT":
                asked = [self._interrupt(i) for i in envelope["interrupts"]]
                return [*events, self._finished({"type": "interrupt", "interrupts": asked})]
            case "COMPLETED":
                output = {} if envelope["output"] is None else {"result": envelope["output"]}
                return [*events, self._finished({"type": "success"}, **output)]
            case "CANCELLED":
                return [*events, self._finished({"type": "cancelled"})]
            case _:
                more = {"next": envelope["next"], "step": envelope["step"], "status": envelope["status"]}
                return [*events, _event("CUSTOM", name="steprelay.continue", value=more)]

    def broken(self, problem: wire.Object) -> list[Sse]:
        error = _event("RUN_ERROR", message=problem["detail"], code=problem["code"])
        return [*self._leave(), error._replace(event="error")]

    def _finished(self, outcome: wire.Object, **result: Value) -> Sse:
        return _event("RUN_FINISHED", **self._ids, outcome=outcome, **result)

    def _interrupt(self, asked: wire.Object) -> wire.Object:
        """AG-UI's interrupt: id, reason, message, the call it is about, and what the answer must look like."""
        reason = "confirmation" if asked["kind"] == "approval" else "input_required"
        shown = {"id": asked["id"], "reason": reason, "message": asked["prompt"], "metadata": {"payload": asked["payload"]}}
        if (call := self._open.get(asked_about(asked))) is not None:
            shown["toolCallId"] = call
        return {**shown, "responseSchema": asked["schema"]} if isinstance(asked["schema"], dict) else shown

    # ------------------------------------------------------------ how it is said

    def entered(self, step: int) -> list[Sse]:
        return [_event("STEP_STARTED", stepName=f"step {step}")]

    def left(self, step: int) -> list[Sse]:
        return [_event("STEP_FINISHED", stepName=f"step {step}")]

    def starts(self, kind: Kind, id: str) -> list[Sse]:
        if kind == "thought":
            return [_event("REASONING_START", messageId=id), _event("REASONING_MESSAGE_START", messageId=id, role="reasoning")]
        return [_event("TEXT_MESSAGE_START", messageId=id, role="assistant")]

    def grows(self, kind: Kind, id: str, text: str) -> Sse:
        return _event("REASONING_MESSAGE_CONTENT" if kind == "thought" else "TEXT_MESSAGE_CONTENT", messageId=id, delta=text)

    def ends(self, kind: Kind, id: str) -> list[Sse]:
        if kind == "thought":
            return [_event("REASONING_MESSAGE_END", messageId=id), _event("REASONING_END", messageId=id)]
        return [_event("TEXT_MESSAGE_END", messageId=id)]

    def calls(self, call: str, name: str, args: Value) -> list[Sse]:
        return [
            _event("TOOL_CALL_START", toolCallId=call, toolCallName=name),
            _event("TOOL_CALL_ARGS", toolCallId=call, delta=_arguments(args)),
            _event("TOOL_CALL_END", toolCallId=call),
        ]

    def answers(self, call: str, result: Result) -> list[Sse]:
        content = _content(result)
        return [_event("TOOL_CALL_RESULT", messageId=f"{call}:result", toolCallId=call, content=content, role="tool")]

    def state(self, value: Value) -> list[Sse]:
        return [_event("STATE_SNAPSHOT", snapshot=value)]

    def spent(self, usage: Mapping[str, Value]) -> list[Sse]:
        return [_event("CUSTOM", name="steprelay.usage", value=usage)]


def messages(past: Past) -> list[wire.Object]:
    """What was said so far, as AG-UI messages; at last the prompt that no step has taken in yet."""
    run, open, out = past.thread, dict[str, str](), list[wire.Object]()
    spoken = -1  # the newest step with words for the reader
    for live in past.history or ():
        id = f"{run}:{live.step}:{live.index}"
        match live.part:
            case Text(role=role, text=text) if text:
                spoken = live.step if role == "assistant" else spoken
                out.append({"id": id, "role": role, "content": text})
            case Thought(text=text) if text:
                out.append({"id": id, "role": "reasoning", "content": text})
            case Call(id=call, name=name, args=args):
                open[call] = call_name(run, live, call)
                out.append(_called(id, open[call], name, args))
            case Result() as result:
                if result.id not in open:
                    open[result.id] = call_name(run, live, result.id)
                    out.append(_called(f"{id}:call", open[result.id], result.name, None))
                call = open.pop(result.id)
                answer = {"id": id, "role": "tool", "toolCallId": call, "content": _content(result)}
                out.insert(_after(out, call), answer)
            case End(status="COMPLETED", output=output) if output is not None and spoken != live.step:
                out.append({"id": id, "role": "assistant", "content": wire.shown(output)})
            case _:
                pass
    if past.prompt is not None:
        out.append({"id": f"{run}:{past.step}:prompt", "role": "user", "content": wire.shown(past.prompt)})
    return out


def _after(out: list[wire.Object], call: str) -> int:
    """The place right after a call."""
    made = next(i for i, m in enumerate(out) if any(c["id"] == call for c in m.get("toolCalls", ())))
    return made + 1


def _snapshots(said: list[wire.Object], *, forget: bool) -> list[Sse]:
    """A snapshot without thoughts leaves the reader's alone. To `forget` them, one with a thought comes first, in the place
    of a message that the next one brings back."""
    snapshot = _event("MESSAGES_SNAPSHOT", messages=said)
    if not forget or not said or any(m["role"] == "reasoning" for m in said):
        return [snapshot]
    thought = {"id": said[0]["id"], "role": "reasoning", "content": ""}
    return [_event("MESSAGES_SNAPSHOT", messages=[thought, *said[1:]]), snapshot]


def _called(id: str, call: str, name: str, args: Value) -> wire.Object:
    function = {"name": name, "arguments": _arguments(args)}
    return {"id": id, "role": "assistant", "toolCalls": [{"id": call, "type": "function", "function": function}]}


def _event(type: str, **fields: Value) -> Sse:
    return Sse(None, None, {"type": type, **fields})


def _arguments(args: Value) -> str:
    """JSON, whatever the model has sent."""
    return wire.encode({} if args is None else args).decode()


def _content(result: Result) -> str:
    return wire.shown(result.value) if result.status == "ok" else f"{result.status}: {wire.shown(result.value)}"
