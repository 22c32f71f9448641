"""Brings a table of agent sessions (`session_id, context, status`) into a store, one run for one row.

    rows(url, table)  ->  plan(row, …): one New, or why not  ->  store.claim(lease=0, new=…)

A run is created whole or not at all, under the session's own id, so an import can be repeated: what is there already is
left alone. A row that cannot be taken is reported and kept out; the others go in. Nothing is written to the source.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from ..core import codec
from ..core.errors import BadInput, StateInvalid
from ..core.model import End, ErrorInfo, Limits, New, Part, Refused, RunKey, State, Status, Step, StopReason, Tally, Value
from ..ports import Store
from .tables import Row

Seed = Callable[[Sequence[Value]], list[Value]]

STATUSES: Final[Mapping[str, Status]] = MappingProxyType(
    {
        **dict.fromkeys(("running", "active", "in_progress", "pending", "waiting", "continue"), "RUNNING"),
        **dict.fromkeys(("done", "completed", "complete", "finished", "success"), "COMPLETED"),
        **dict.fromkeys(("error", "failed", "failure"), "FAILED"),
        **dict.fromkeys(("cancelled", "canceled", "stopped"), "CANCELLED"),
    }
)
"""What the words of a status column mean; compared in lower case."""
REASONS: Final[Mapping[Status, StopReason]] = MappingProxyType(
    {"COMPLETED": "finished", "FAILED": "agent_error", "CANCELLED": "cancelled"}
)
NAME: Final = re.compile(r"[A-Za-z0-9._~:@=+-]{1,200}\Z")
"""Ids that a run can be asked for by, over HTTP."""
GO_ON: Final = "Continue."
"""The prompt of an unfinished session whose last word was the agent's: what its person would have pressed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Which agent the imported runs belong to. `seed` is that of its adapter."""

    agent: str
    adapter: str
    seed: Seed
    tenant: str
    carrier: str = "client"  # nothing starts by itself: the next step is taken when its person comes back
    limits: Limits = field(default_factory=Limits)
    statuses: Mapping[str, Status] = field(default_factory=lambda: STATUSES)
    messages: str = "messages"  # the key of the list of messages, where a context is an object


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """Something to tell about one row of the source."""

    row: int
    session: str
    why: str


@dataclass(kw_only=True, slots=True)
class Report:
    """What became of the rows: `created` now, `there` already, `changed` since they were imported, or `bad`."""

    created: int = 0
    there: int = 0
    changed: list[Note] = field(default_factory=list)
    bad: list[Note] = field(default_factory=list)


async def import_sessions(rows: AsyncIterable[Row], store: Store, target: Target, *, dry_run: bool = False) -> Report:
    """Create a run for every row that can be taken. Raises StoreUnavailable: run it again, it goes on where it stopped."""
    report = Report()
    async for row in rows:
        session = "" if row.session is None else str(row.session)
        try:
            new = plan(row, target)
        except (BadInput, StateInvalid) as e:
            report.bad.append(Note(row=row.number, session=session, why=str(e)))
            continue
        there, create_hash = await _create(store, RunKey(target.tenant, session), new, dry_run=dry_run)
        if not there:
            report.created += 1
        elif create_hash == new.create_hash:
            report.there += 1
        else:
            why = "a run of this id is there already and was not made from this row; it was left alone"
            report.changed.append(Note(row=row.number, session=session, why=why))
    return report


async def _create(store: Store, key: RunKey, new: New, *, dry_run: bool) -> tuple[bool, str | None]:
    """Whether a run was there already, and the hash of what it was made from."""
    if dry_run:
        found = await store.read(key, "run")
        return bool(found), found[0].create_hash if found else None
    answer = await store.claim(key, claim_id="import", holder="", lease=0, carrier=None, new=new)
    assert isinstance(answer, Refused), "a claim without a lease is never granted"
    return answer.reason == "exists", answer.run.create_hash if answer.run else None


def plan(row: Row, target: Target) -> New:
    """The run that a row becomes. Raises BadInput with what is wrong with the row."""
    if row.error is not None:
        raise BadInput(row.error)
    _check_id(row.session)
    status = _status(row.status, target.statuses)
    context = _decoded(row.context)
    messages, rest = _messages(context, target.messages)
    ended = status != "RUNNING"
    prompt, fresh, history = _prompt(messages, ended=status == "COMPLETED")
    thought = _last(messages, "assistant")
    parts = _parts(status, rest, thought)
    steps = (_step(status, target.seed(history), parts),) if history or parts else ()
    tally = Tally(fresh=fresh, base=len(steps), thought=thought[:2000] if isinstance(thought, str) else None)
    return New(
        agent=target.agent,
        adapter=target.adapter,
        prompt=codec.dumps(prompt),
        limits=codec.pack(target.limits),
        carrier=target.carrier,
        labels=codec.dumps({"imported": "true"}),
        create_hash="import:" + sha256(codec.dumps([context, status]).encode()).hexdigest(),
        steps=steps,
        state=codec.dumps(rest) if rest and target.adapter == "function" else None,
        tally=codec.pack(tally),
        status=status,
        stop_reason=REASONS.get(status),
        due=not ended,
    )


def _check_id(session: Value) -> None:
    text = "" if session is None else str(session)
    if not NAME.match(text):
        raise BadInput(
            f"session id {text[:80]!r} cannot name a run: 1 to 200 letters, digits or any of . _ ~ : @ = + - are needed"
        )


def _status(word: Value, statuses: Mapping[str, Status]) -> Status:
    status = statuses.get(str(word).strip().lower())
    if status is None:
        raise BadInput(f"status {word!r} is not known; known are {', '.join(sorted(statuses))}")
    return status


def _decoded(context: Value) -> Value:
    """The context as a JSON value; a column may hold it as text."""
    if not isinstance(context, str | bytes):
        return context
    try:
        return codec.loads(context.decode() if isinstance(context, bytes) else context)
    except (StateInvalid, UnicodeDecodeError) as e:
        raise BadInput(f"the context is not JSON: {e}") from e


def _messages(context: Value, key: str) -> tuple[list[Value], dict[str, Value]]:
    """The messages in a context, and whatever else it holds."""
    if isinstance(context, dict):
        rest = {k: v for k, v in context.items() if k != key}
        context = context.get(key)
    else:
        rest = {}
    if not isinstance(context, list):
        raise BadInput(f"the context holds no list of messages: give a list, or an object with a list under {key!r}")
    for i, m in enumerate(context):
        if not isinstance(m, dict) or not m.get("role"):
            raise BadInput(f"message {i} of the context is {m!r:.80}: an object with role and content is needed")
    return context, rest


def _prompt(messages: list[Value], *, ended: bool) -> tuple[Value, bool, list[Value]]:
    """What the round is about, whether the agent has still to hear it, and the messages before that."""
    if ended:
        return _last(messages, "user"), False, messages
    if messages and messages[-1]["role"] == "user":
        return messages[-1].get("content"), True, messages[:-1]
    return GO_ON, True, messages


def _last(messages: list[Value], role: str) -> Value:
    return next((m.get("content") for m in reversed(messages) if m["role"] == role), None)


def _parts(status: Status, rest: dict[str, Value], thought: Value) -> tuple[Part, ...]:
    """What the imported step shows beside its messages: the rest of the context, and how the session ended."""
    shown: tuple[Part, ...] = (State(value=rest),) if rest else ()
    match status:
        case "COMPLETED":
            return (*shown, End(status=status, stop_reason="finished", output=thought))
        case "FAILED":
            why = rest.get("error")
            message = why if isinstance(why, str) and why else "the session had failed before it was imported"
            error = ErrorInfo(code="agent_error", message=message[:2000])
            return (*shown, End(status=status, stop_reason="agent_error", error=error))
        case "CANCELLED":
            return (*shown, End(status=status, stop_reason="cancelled"))
        case _:
            return shown


def _step(status: Status, messages: Sequence[Value], parts: Sequence[Part]) -> Step:
    return Step(
        index=0,
        round=0,
        attempt=0,  # nobody here took it
        carrier="import",
        claim_id="import",
        status=status,
        stop_reason=REASONS.get(status),
        messages=tuple(codec.dumps(m) for m in messages),
        parts=tuple(codec.dumps(codec.part_to(p)) for p in parts),
    )
