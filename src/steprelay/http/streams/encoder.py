"""What an encoder is, what it is told of the past, and the plainest one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol

from ...core.model import Call, Result, Value
from .. import wire
from ...watch import Live


Memory = Literal["none", "round", "thread"]


class Sse(NamedTuple):
    """One event: its name and id (None: without), and its data, JSON or words that are none."""

    event: str | None
    id: str | None
    data: wire.Object | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """Where a stream begins, and what has been before."""

    thread: str
    step: int = 0
    """The first step it will tell of."""
    round: int = 0
    """Of that step."""
    first: bool = True
    """The reader has heard nothing since the round began or a question was asked."""
    heard: bool = False
    """The reader has heard part of that step, from an attempt that died or an answer that was lost."""
    history: Sequence[Live] | None = None
    """Everything committed that the reader is to begin with; None: it has that already."""
    missed: Sequence[Live] = ()
    """Committed steps that the reader has not got, or not whole."""
    prompt: Value = None
    """A prompt that no committed step has taken in yet."""
    open: Mapping[str, str] = field(default_factory=dict)
    """Calls of earlier steps that have no result yet: id -> name on the wire."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Calls a person was asked about right before: id -> name on the wire."""

    @property
    def cursor(self) -> str:
        """The id of what comes before that step: attempts count from 1."""
        return f"{self.step}.0.0"


class Encoder(Protocol):
    """What a protocol makes of a run. Stateful: one encoder for one stream, fed `begin`, then `live` for each part in order,
    then `end` or `broken`."""

    memory: ClassVar[Memory]
    """What a reader who follows a run from the start is told of: every part of it, those of this round, or (`thread`) all
    that was said in one piece, by `begin`."""
    headers: ClassVar[Mapping[str, str]]

    def begin(self, past: Past) -> list[Sse]: ...

    def live(self, live: Live) -> list[Sse]: ...

    def tail(self, step: int, attempt: int, text: str) -> list[Sse]:
        """What an attempt that somebody else makes has said so far."""
        ...

    def end(self, envelope: wire.Object | None) -> list[Sse]:
        """The last events; None: the stream ends here, the run does not."""
        ...

    def broken(self, problem: wire.Object) -> list[Sse]:
        """The last events when this server cannot go on. The run is as it was."""
        ...


class Plain:
    """Each part as it is, under its id; at the end the envelope."""

    memory: ClassVar[Memory] = "none"
    headers: ClassVar[Mapping[str, str]] = {}

    def begin(self, past: Past) -> list[Sse]:
        return []

    def live(self, live: Live) -> list[Sse]:
        return [Sse("part", live.id, wire.live_view(live))]

    def tail(self, step: int, attempt: int, text: str) -> list[Sse]:
        return [Sse("tail", None, {"step": step, "attempt": attempt, "text": text})]

    def end(self, envelope: wire.Object | None) -> list[Sse]:
        return [] if envelope is None else [Sse("envelope", None, envelope)]

    def broken(self, problem: wire.Object) -> list[Sse]:
        return [Sse("error", None, problem)]


def call_name(run: str, live: Live, id: str) -> str:
    """What a call is called on the wire. Ids repeat: a function agent's from step to step, all of them from one attempt to
    the next."""
    return f"{run}:{live.step}.{live.attempt}:{id}"


def open_calls(run: str, lives: Sequence[Live]) -> dict[str, str]:
    """The calls among these that have no result yet: id -> name on the wire."""
    found: dict[str, str] = {}
    for live in lives:
        match live.part:
            case Call(id=id):
                found[id] = call_name(run, live, id)
            case Result(id=id):
                found.pop(id, None)
            case _:
                pass
    return found


def asked_about(interrupt: wire.Object) -> str:
    """The id of the call that an interrupt is about: named in its payload, or the end of its id, which is a ledger key."""
    payload, id = interrupt["payload"], str(interrupt["id"])
    if isinstance(payload, dict) and isinstance(payload.get("call"), str):
        return str(payload["call"])
    return id.partition("/")[2] or id
