"""Rows as they are shown: pure functions from run row, step row and parts to JSON objects, and the founding dialect.

The answer to a request that took a step, or repeats one, is a function of that step's row alone (`answer`): this is why
a replay is the same bytes. Every other answer shows the run as it stands (`snapshot`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ..core import codec
from ..core.machine import TERMINAL
from ..core.model import (
    Call, End, ErrorInfo, Interrupt, Json, Limits, Part, Result, Run, Status, Step, Text, Thought, Usage, Value,
)  # fmt: skip
from ..watch import Live

Object = dict[str, Any]
_STATUS: Mapping[Status, str] = {"RUNNING": "CONTINUE", "FAILED": "ERROR"}
LONG_MS = 15_000
"""When to look again at a wait that has no end of its own."""
LOG_CHARS = 500


# ---------------------------------------------------------------- the envelope


def answer(run_id: str, step: Step, parts: Sequence[Part]) -> Object:
    """The envelope of a request that took this step: a function of the step's row, whenever it is asked."""
    end = _end(parts)
    match step.status:
        case "WAITING":
            after = LONG_MS if end is None or end.until is None else _ms(end.until - step.committed_at)
            following = _next("wait", after)
        case status:
            following = _NEXT[status]
    return _envelope(run_id, step.index, step.status, step.stop_reason, parts, step.usage, following)


def snapshot(run: Run, step: Step | None, parts: Sequence[Part], now: float, until: float | None = None) -> Object:
    """The envelope of a request that took no step. `step`: the newest one; `until`: when a busy run may be had."""
    shown = _envelope(
        run.key.id, run.step - 1, run.status, run.stop_reason, parts, step.usage if step else None, following(run, now, until)
    )
    if run.status != "AWAITING_INPUT":
        shown["interrupts"] = []
    if not run.ended:
        error = codec.tally(run.tally).last_error
        shown["error"] = error and failure(error)
    return shown


def following(run: Run, now: float, until: float | None = None) -> Object:
    """What whoever drives should do about a run as it stands. `until`: when a busy run may be had."""
    due_in = None if run.due_at is None else run.due_at - now
    if run.ended:
        return _NEXT["COMPLETED"]
    if held(run, now) or until is not None:
        return _next("wait", _ms((until or run.lease_until) - now))
    if due_in is not None and due_in <= 0:
        return _next("pulse", 0)
    if run.status == "AWAITING_INPUT":
        return _NEXT["AWAITING_INPUT"]
    return _next("wait", LONG_MS if due_in is None else _ms(due_in))


def founding(envelope: Object) -> tuple[int, Object]:
    """The same for a client that knows CONTINUE, COMPLETED and failing responses only: HTTP status and body."""
    match envelope["status"]:
        case "ERROR" | "CANCELLED":
            return 500, envelope
        case "WAITING":
            return 200, {**envelope, "status": "CONTINUE"}
        case "AWAITING_INPUT":
            asked = "\n".join(i["prompt"] or f"{i['kind']}: {shown(i['payload'])}" for i in envelope["interrupts"])
            data = {**envelope["data"], "currentThought": asked or envelope["data"]["currentThought"]}
            return 200, {**envelope, "output": asked or envelope["output"], "data": data}
        case _:
            return 200, envelope


def _envelope(
    run_id: str, index: int, status: Status, reason: str | None, parts: Sequence[Part], usage: Json | None, following: Object
) -> Object:  # fmt: skip
    end, words, tool = _end(parts), thought(parts), _tool(parts)
    output = end.output if end is not None and status == "COMPLETED" else None
    error = end.error if end is not None and status in TERMINAL else None
    final = None if status != "COMPLETED" else words if output is None else shown(output)
    return {
        "sessionId": run_id,
        "status": _STATUS.get(status, status),
        "isTerminal": status in TERMINAL,
        "stopReason": reason,
        "step": index,
        "reasoning": words,
        "output": output,
        "logs": [line for p in parts if (line := _line(p))],
        "data": {"currentThought": words or (f"Using {tool}" if tool else None), "toolUsed": tool, "finalAnswer": final},
        "next": following,
        "interrupts": [interrupt(p) for p in parts if isinstance(p, Interrupt)],
        "usage": _usage(usage, parts),
        "error": error and failure(error),
    }


def _next(action: str, after_ms: int) -> Object:
    return {"action": action, "afterMs": after_ms}


_NEXT: Mapping[Status, Object] = {
    "RUNNING": _next("pulse", 0),
    "AWAITING_INPUT": _next("input", 0),
    "COMPLETED": _next("none", 0),
    "FAILED": _next("none", 0),
    "CANCELLED": _next("none", 0),
}


def _ms(seconds: float) -> int:
    return max(0, min(round(seconds * 1000), 2**31 - 1))  # a browser's timer takes no more


def _end(parts: Sequence[Part]) -> End | None:
    return next((p for p in reversed(parts) if isinstance(p, End)), None)


def thought(parts: Iterable[Part]) -> str | None:
    """The newest words of the agent."""
    said = [p.text for p in parts if isinstance(p, Thought) or (isinstance(p, Text) and p.role == "assistant")]
    return next((text for text in reversed(said) if text.strip()), None)


def _tool(parts: Iterable[Part]) -> str | None:
    names = [p.name for p in parts if isinstance(p, Call | Result)]
    return names[-1] if names else None


def _line(part: Part) -> str | None:
    """One line of the log a person reads."""
    match part:
        case Text(role="assistant", text=text) | Thought(text=text):
            return _cut(text)
        case Call(name=name, args=args):
            return _cut(f"{name}({'' if args is None else shown(args)})")
        case Result(name=name, status="ok", value=value):
            return _cut(f"{name} answered {shown(value)}")
        case Result(name=name, status=status, value=value):
            return _cut(f"{name} ({status}): {shown(value)}")
        case Interrupt(kind=kind, prompt=prompt):
            return _cut(f"{kind}: {prompt}")
        case End(error=ErrorInfo(message=message)):
            return _cut(message)
        case _:
            return None


def _cut(text: str) -> str:
    return text if len(text) <= LOG_CHARS else text[: LOG_CHARS - 1] + "…"


def shown(value: Value) -> str:
    """A value as text for people."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------- runs and steps


def run_view(run: Run, step: Step | None, parts: Sequence[Part], now: float) -> Object:
    """A run with its lease, carrier, limits and account. `step`, `parts`: its newest step."""
    tally, end = codec.tally(run.tally), _end(parts)
    ended = run.status in TERMINAL
    error = end.error if end is not None and ended else tally.last_error
    tail = codec.loads(run.tail)
    return {
        "sessionId": run.key.id,
        "agent": run.agent,
        "adapter": run.adapter,
        "prompt": codec.loads(run.prompt),
        "status": run.status,
        "stopReason": run.stop_reason,
        "isTerminal": run.ended,
        "step": run.step - 1,
        "round": run.round,
        "attempts": run.attempts,
        "carrier": run.carrier,
        "takeoverAfter": run.takeover_after,
        "lease": lease(run, now),
        "dueAt": None if run.due_at is None else time(run.due_at),
        "next": following(run, now),
        "output": end.output if end is not None and run.status == "COMPLETED" else None,
        "error": error and failure(error),
        "thought": tally.thought,
        "tail": tail.get("text") if isinstance(tail, dict) else None,
        "interrupts": [interrupt(p) for p in parts if isinstance(p, Interrupt)] if run.status == "AWAITING_INPUT" else [],
        "limits": limits_view(codec.limits(run.limits)),
        "usage": spent(tally.total),
        "roundUsage": spent(tally.round),
        "roundSteps": tally.steps,
        "labels": codec.loads(run.labels),
        "parent": codec.loads(run.parent),
        "createdAt": time(run.created_at),
        "updatedAt": time(run.updated_at),
    }


def held(run: Run, now: float) -> bool:
    return run.claim_id is not None and run.lease_until > now


def lease(run: Run, now: float) -> Object:
    """Who holds the run. A lease that ran out is nobody's."""
    if not held(run, now):
        return {"held": False, "holder": None, "until": None}
    return {"held": True, "holder": run.holder, "until": time(run.lease_until)}


def step_view(step: Step, parts: Sequence[Part]) -> Object:
    view: Object = {
        "index": step.index,
        "round": step.round,
        "attempt": step.attempt,
        "carrier": step.carrier,
        "claimId": step.claim_id,
        "requestId": step.request.id if step.request else None,
        "status": step.status,
        "stopReason": step.stop_reason,
        "usage": _usage(step.usage, parts),
        "bytes": sum(map(len, (*step.messages, *step.parts))),  # stored JSON is ASCII
        "parts": [part_view(p) for p in parts],
        "claimedAt": time(step.claimed_at),
        "committedAt": time(step.committed_at),
    }
    return view if step.state is None else {**view, "state": codec.loads(step.state)}


def live_view(live: Live) -> Object:
    """One part on its way, with the id that a reader gives back to go on from there."""
    return {
        "id": live.id, "step": live.step, "index": live.index, "attempt": live.attempt, "committed": live.committed,
        "part": part_view(live.part),
    }  # fmt: skip


def part_view(part: Part) -> Object:
    """A part: its type and what it says; fields that hold their defaults are left out."""
    return {"type": part.type, **{camel(k): v for k, v in codec.plain(part).items()}}


def interrupt(part: Interrupt) -> Object:
    return {"id": part.id, "kind": part.kind, "prompt": part.prompt, "payload": part.payload, "schema": part.schema}


def failure(error: ErrorInfo) -> Object:
    return {"code": error.code, "message": error.message, "retryable": error.retryable}


def spent(usage: Usage) -> Object:
    return {camel(f): v for f in usage.fields if (v := getattr(usage, f)) is not None}


def _usage(usage: Json | None, parts: Iterable[Part]) -> Object:
    """What a step used; its row leaves counting the tool calls to whoever reads the results."""
    return spent(codec.unpack(Usage, usage)) | {"toolCalls": sum(isinstance(p, Result) for p in parts)}


def limits_view(limits: Limits) -> Object:
    return {camel(f): getattr(limits, f) for f in limits.fields if f != "extra"} | limits.extra


@lru_cache(maxsize=256)
def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def time(at: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(value: Value) -> bytes:
    """JSON in the order of its fields. ASCII, so that what no UTF-8 can carry (a lone surrogate) still goes out."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
