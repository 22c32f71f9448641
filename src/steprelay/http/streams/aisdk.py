"""The UI message stream protocol of the AI SDK 7, version 1: the run is the chat, a round is one assistant message, and
what an approval interrupts goes on in the same message.

A step of that protocol is a model turn: the results of calls that were made before belong to the step of their calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ...core.model import Result, Value
from .. import wire
from .encoder import Memory, Past, Sse, asked_about
from .teller import Kind, Teller

DONE = Sse(None, None, "[DONE]")


class AiSdk(Teller):
    """What a dead attempt began is taken back with `reset-step`; a stream that ends before the round does ends with a
    transient part `data-steprelay-continue`. Questions are calls of a tool `question` that the reader answers."""

    memory: ClassVar[Memory] = "round"
    headers: ClassVar[Mapping[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}

    def __init__(self) -> None:
        super().__init__()
        self._heard: int | None = None  # the step that the reader knows the beginning of
        self._begun = False  # a step of the protocol is open since this attempt

    def begin(self, past: Past) -> list[Sse]:
        self._run, self._open = past.thread, {**past.open, **past.asked}
        events = [_chunk("start", messageId=f"{past.thread}:{past.round}")] if past.first else []
        if past.heard and not self._open:
            self._heard = past.step
            events.append(_chunk("reset-step"))
        return [*(e._replace(id=past.cursor) for e in events), *(e for live in past.missed for e in self.live(live))]

    def tail(self, step: int, attempt: int, text: str) -> list[Sse]:
        return [_data("tail", {"step": step, "attempt": attempt, "text": text})]

    def ending(self, envelope: wire.Object | None) -> list[Sse]:
        if envelope is None:
            return [*self._leave(), DONE]
        events = self._close()
        if self._at is not None and self._begun and envelope["step"] < self._at[0]:
            events.append(_chunk("reset-step"))  # the attempt failed: there will be another
        if envelope["status"] == "AWAITING_INPUT":
            events += [e for asked in envelope["interrupts"] for e in self._asks(asked)]
        return [*events, *self._leave(), *_ending(envelope), DONE]

    def broken(self, problem: wire.Object) -> list[Sse]:
        error = _chunk("error", errorText=problem["detail"])
        return [*self._leave(), error._replace(event="error"), DONE]

    def _asks(self, asked: wire.Object) -> list[Sse]:
        """A request for an approval of a call, which is shown first if it was not yet; or a question."""
        about, (step, attempt) = asked_about(asked), self._at or (0, 0)
        call = self._open.get(about)
        if asked["kind"] == "approval":
            name = call or f"{self._run}:{step}.{attempt}:{about}"
            shown = [] if call else self.calls(name, about, asked["payload"])
            why = {"reason": asked["prompt"]} if asked["prompt"] else {}
            return [*shown, _chunk("tool-approval-request", approvalId=asked["id"], toolCallId=name, **why)]
        if asked["kind"] == "external":
            return []
        question = {"prompt": asked["prompt"], "payload": asked["payload"], "schema": asked["schema"]}
        told = {"toolMetadata": {"steprelay": {"interruptId": asked["id"]}}, "providerExecuted": False, "dynamic": True}
        name = call or f"{self._run}:{asked['id']}"
        return [_chunk("tool-input-available", toolCallId=name, toolName="question", input=question, **told)]

    # ------------------------------------------------------------ how it is said

    def entered(self, step: int) -> list[Sse]:
        self._begun = step == self._heard
        return [] if self._open else self.needs_step()

    def left(self, step: int) -> list[Sse]:
        return [_chunk("finish-step")] if self._begun else []

    def needs_step(self) -> list[Sse]:
        begun, self._begun = self._begun, True
        return [] if begun else [_chunk("start-step")]

    def starts(self, kind: Kind, id: str) -> list[Sse]:
        return [_chunk(f"{_WORD[kind]}-start", id=id)]

    def grows(self, kind: Kind, id: str, text: str) -> Sse:
        return _chunk(f"{_WORD[kind]}-delta", id=id, delta=text)

    def ends(self, kind: Kind, id: str) -> list[Sse]:
        return [_chunk(f"{_WORD[kind]}-end", id=id)]

    def calls(self, call: str, name: str, args: Value) -> list[Sse]:
        return [_tool("tool-input-available", call, toolName=name, input={} if args is None else args)]

    def answers(self, call: str, result: Result) -> list[Sse]:
        match result.status:
            case "ok":
                return [_tool("tool-output-available", call, output=result.value)]
            case "denied":
                return [_chunk("tool-output-denied", toolCallId=call)]
            case _:
                return [_tool("tool-output-error", call, errorText=wire.shown(result.value))]

    def state(self, value: Value) -> list[Sse]:
        return [_chunk("data-state", id="state", data=value)]

    def spent(self, usage: Mapping[str, Value]) -> list[Sse]:
        return [_data("usage", usage)]


_WORD: Mapping[Kind, str] = {"text": "text", "thought": "reasoning"}


def _ending(envelope: wire.Object) -> list[Sse]:
    why = {"messageMetadata": {"steprelay": {"stopReason": envelope["stopReason"], "step": envelope["step"]}}}
    match envelope["status"]:
        case "COMPLETED":
            reason = "stop" if envelope["stopReason"] == "finished" else "length"
            return [_chunk("finish", finishReason=reason, **why)]
        case "AWAITING_INPUT":
            return [_chunk("finish", finishReason="tool-calls", **why)]
        case "CANCELLED":
            return [
                _chunk("abort", reason=envelope["stopReason"] or "cancelled"),
                _chunk("finish", finishReason="interrupted", **why),
            ]
        case "ERROR":
            error = envelope["error"] or {"message": "the run failed"}
            return [_chunk("error", errorText=error["message"])]
        case status:
            return [_data("continue", {"next": envelope["next"], "step": envelope["step"], "status": status})]


def _chunk(type: str, **fields: Value) -> Sse:
    return Sse(None, None, {"type": type, **fields})


def _tool(type: str, call: str, **fields: Value) -> Sse:
    return _chunk(type, toolCallId=call, **fields, providerExecuted=True, dynamic=True)


def _data(name: str, value: Value) -> Sse:
    """A part that concerns the reader, not the message."""
    return _chunk(f"data-steprelay-{name}", data=value, transient=True)
