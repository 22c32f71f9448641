"""Rows <-> tuples: the columns of each table, in the order every SQL store selects and inserts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.model import Json, Outgoing, Request, Run, RunKey, Signal, Step

Row = Sequence[Any]


def _names(cls: type[Any], *leave_out: str) -> tuple[str, ...]:
    return tuple(name for name in cls.fields if name not in leave_out)


_SIGNAL = _names(Signal)
_OUTGOING = _names(Outgoing)
_STEP_HEAD = ("round", "attempt", "carrier", "claim_id", "status", "stop_reason")
_STEP_TAIL = ("usage", "state", "floor", "claimed_at", "committed_at")

RUN_FIELDS = _names(Run, "key")
"""The columns of a run that are fields of the same name."""
RUN = ("tenant", "id", *RUN_FIELDS)
STEP = ("tenant", "run", "idx", *_STEP_HEAD, "request_id", "request_hash", "messages", "parts", *_STEP_TAIL)
INBOX = ("tenant", "run", *_SIGNAL)
OUTBOX = ("tenant", "run", *_OUTGOING)


def run_values(run: Run) -> tuple[Any, ...]:
    return (run.key.tenant, run.key.id, *(getattr(run, name) for name in RUN_FIELDS))


def run_from(row: Row) -> Run:
    values = dict(zip(RUN_FIELDS, row[2:], strict=True))
    values["key"] = RunKey(row[0], row[1])
    values["ended"], values["pruned"] = bool(values["ended"]), bool(values["pruned"])  # SQLite has no booleans
    return Run.of(values)


def lines(texts: Sequence[Json]) -> str:
    """Messages and parts become one text each: canonical JSON has no line breaks, so a line is one of them."""
    return "\n".join(texts)


def texts(lines: str | None) -> tuple[Json, ...]:
    return tuple(lines.split("\n")) if lines else ()


def step_values(key: RunKey, step: Step) -> tuple[Any, ...]:
    request = (None, None) if step.request is None else (step.request.id, step.request.hash)
    history = lines(step.messages), lines(step.parts)
    head, tail = (tuple(getattr(step, name) for name in names) for names in (_STEP_HEAD, _STEP_TAIL))
    return (key.tenant, key.id, step.index, *head, *request, *history, *tail)


def step_from(row: Row) -> Step:
    """Of its columns after tenant and run. The hot spot of a long run: every step since the floor, at every claim."""
    (
        index, round, attempt, carrier, claim_id, status, stop_reason, request, hash, messages, parts, usage, state, floor,
        claimed_at, committed_at,
    ) = row  # fmt: skip
    return Step.of(
        {
            "index": index, "round": round, "attempt": attempt, "carrier": carrier, "claim_id": claim_id, "status": status,
            "stop_reason": stop_reason, "request": None if request is None else Request(id=request, hash=hash),
            "messages": texts(messages), "parts": texts(parts), "usage": usage, "state": state, "floor": floor,
            "claimed_at": claimed_at, "committed_at": committed_at,
        }
    )  # fmt: skip


def signal_values(key: RunKey, signal: Signal) -> tuple[Any, ...]:
    return (key.tenant, key.id, *(getattr(signal, name) for name in _SIGNAL))


def signal_from(row: Row) -> Signal:
    values = dict(zip(_SIGNAL, row[2:], strict=True))
    return Signal(**{**values, "reopens": bool(values["reopens"])})


def outgoing_values(key: RunKey, out: Outgoing) -> tuple[Any, ...]:
    return (key.tenant, key.id, *(getattr(out, name) for name in _OUTGOING))


def outgoing_from(row: Row) -> Outgoing:
    return Outgoing(**dict(zip(_OUTGOING, row[2:], strict=True)))
