"""Rows <-> tuples: the columns of each table, in the order every SQL store selects and inserts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core import codec
from ..core.model import Outgoing, Request, Run, RunKey, Signal, Step

Row = Sequence[Any]


def _names(cls: type[Any], *leave_out: str) -> tuple[str, ...]:
    return tuple(name for name in cls.fields if name not in leave_out)


_RUN = _names(Run, "key")
_SIGNAL = _names(Signal)
_OUTGOING = _names(Outgoing)
_STEP_HEAD = ("round", "attempt", "carrier", "claim_id", "status", "stop_reason")
_STEP_TAIL = ("usage", "state", "floor", "claimed_at", "committed_at")

RUN = ("tenant", "id", *_RUN)
STEP = ("tenant", "run", "idx", *_STEP_HEAD, "request_id", "request_hash", "messages", "parts", *_STEP_TAIL)
INBOX = ("tenant", "run", *_SIGNAL)
OUTBOX = ("tenant", "run", *_OUTGOING)


def run_values(run: Run) -> tuple[Any, ...]:
    return (run.key.tenant, run.key.id, *(getattr(run, name) for name in _RUN))


def run_from(row: Row) -> Run:
    values = dict(zip(_RUN, row[2:], strict=True))
    values |= {name: bool(values[name]) for name in ("ended", "pruned")}  # SQLite has no booleans
    return Run(key=RunKey(row[0], row[1]), **values)


def step_values(key: RunKey, step: Step) -> tuple[Any, ...]:
    """Messages and parts become one text each: a JSON array of strings that only `step_from` reads."""
    request = (None, None) if step.request is None else (step.request.id, step.request.hash)
    history = codec.dumps(step.messages), codec.dumps(step.parts)
    head, tail = (tuple(getattr(step, name) for name in names) for names in (_STEP_HEAD, _STEP_TAIL))
    return (key.tenant, key.id, step.index, *head, *request, *history, *tail)


def step_from(row: Row) -> Step:
    values = dict(zip(STEP, row, strict=True))
    request = None if values["request_id"] is None else Request(id=values["request_id"], hash=values["request_hash"])
    return Step(
        index=values["idx"],
        request=request,
        messages=tuple(codec.loads(values["messages"])),
        parts=tuple(codec.loads(values["parts"])),
        **{name: values[name] for name in (*_STEP_HEAD, *_STEP_TAIL)},
    )


def signal_values(key: RunKey, signal: Signal) -> tuple[Any, ...]:
    return (key.tenant, key.id, *(getattr(signal, name) for name in _SIGNAL))


def signal_from(row: Row) -> Signal:
    values = dict(zip(_SIGNAL, row[2:], strict=True))
    return Signal(**{**values, "reopens": bool(values["reopens"])})


def outgoing_values(key: RunKey, out: Outgoing) -> tuple[Any, ...]:
    return (key.tenant, key.id, *(getattr(out, name) for name in _OUTGOING))


def outgoing_from(row: Row) -> Outgoing:
    return Outgoing(**dict(zip(_OUTGOING, row[2:], strict=True)))
