"""What only a person or the outside can answer: deferred tool calls <-> interrupts and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_ai import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.exceptions import ToolFailed

from ...core.model import Interrupt, Turn, Value
from .children import SPAWN, outcome

NOBODY = "Nobody answered; the task went on without it."


def spawning(requests: DeferredToolRequests) -> dict[str, Value]:
    """The open calls that wait for other runs, and what they start."""
    return {id: metadata[SPAWN] for id, metadata in requests.metadata.items() if SPAWN in metadata}


def questions(requests: DeferredToolRequests, turn: Turn) -> tuple[tuple[Interrupt, ...], dict[str, Value]]:
    """Interrupts for all other open calls, and what `answers` must know of them: `{interrupt id: {call, kind, metadata}}`."""
    asks: list[Interrupt] = []
    asked: dict[str, Value] = {}
    for call in (*requests.approvals, *requests.calls):
        kind, metadata = requests.kind(call.tool_call_id), requests.metadata.get(call.tool_call_id)
        if metadata and SPAWN in metadata:
            continue
        args = call.args_as_dict(raise_if_invalid=False)
        payload = {"tool": call.tool_name, "args": args, "call": call.tool_call_id}
        if metadata:
            payload["metadata"] = metadata
        id = _interrupt_id(call.tool_call_id, turn)
        asks.append(Interrupt(id=id, kind=kind, prompt=_prompt(kind, call.tool_name, args), payload=payload))
        asked[id] = {"call": call.tool_call_id, "kind": kind} | ({"metadata": metadata} if metadata else {})
    return tuple(asks), asked


def _interrupt_id(call_id: str, turn: Turn) -> str:
    """The call's id. A model that reuses ids (or a call that asks twice) gets the step before it: a question is answered
    once in the life of a run."""
    made = [p for m in turn.messages if m.get("kind") == "response" for p in m.get("parts", ())]
    again = sum(p.get("tool_call_id") == call_id for p in made) > 1 or call_id in (turn.state or {}).get("asked", {})
    return f"{turn.step}/{call_id}" if again else call_id


def _prompt(kind: str, tool: str, args: dict[str, Value]) -> str:
    match kind:
        case "approval":
            return f"May {tool} run?"
        case "question":
            return str(args.get("question") or args.get("prompt") or f"{tool} asks you")
        case _:
            return f"{tool} waits for its result from outside"


def answers(
    asked: dict[str, Any], said: Mapping[str, Value], children: dict[str, Any], ends: Mapping[str | None, Value]
) -> DeferredToolResults | None:  # fmt: skip
    """What open calls have come to, in the framework's words; an unanswered question counts as refused. None if there are none.

    `said`: answers of people, by interrupt; `children`: calls that wait for other runs, see children.starts; `ends`: of those."""
    if not (asked or children):
        return None
    results = DeferredToolResults(metadata={a["call"]: a["metadata"] for a in asked.values() if a.get("metadata")})
    for id, a in asked.items():
        body = said.get(id) or {"status": "cancelled", "payload": {"reason": NOBODY}}
        if a["kind"] == "approval":
            results.approvals[a["call"]] = _approval(body)
        else:
            results.calls[a["call"]] = _result(body)
    for call, started in children.items():
        worked, value = outcome(started, ends)
        results.calls[call] = value if worked else ToolFailed(value)
    return results


def _approval(body: dict[str, Value]) -> ToolApproved | ToolDenied:
    payload = body.get("payload")
    told = payload if isinstance(payload, dict) else {"approved": payload}
    yes = told.get("approved", told.get("approve", False)) is True
    if body.get("status", "resolved") == "resolved" and yes:
        return ToolApproved(override_args=told.get("args"))
    return ToolDenied(str(told.get("reason") or "A person refused this call."))


def _result(body: dict[str, Value]) -> Any:
    payload = body.get("payload")
    if body.get("status", "resolved") == "resolved":
        return payload
    reason = payload.get("reason") if isinstance(payload, dict) else payload
    return ToolFailed(str(reason or "Nobody answered this call; it was cancelled."))
