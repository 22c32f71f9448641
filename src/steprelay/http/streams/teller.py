"""What the protocols with open and closed things share: every text, call and result is told once.

Words come up to three times: in pieces while they are said, whole when the agent has them, and whole again once they are
committed. Calls and results come live and committed. Which of these is new is decided here; how it is said, below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...core.model import Call, End, Result, State, Text, Thought, Usage, Value
from .. import wire
from .encoder import Sse, call_name
from ...watch import Live

Kind = Literal["text", "thought"]


@dataclass(slots=True)
class _Said:
    """Words of this attempt: `whole` once the agent has given them whole, `kept` once they came committed."""

    kind: Kind
    id: str
    pieces: list[str] = field(default_factory=list)
    whole: bool = False
    kept: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces).strip()


class Teller(ABC):
    """An encoder's `live`. A protocol says how things begin, grow and end."""

    def __init__(self) -> None:
        self._run = ""
        self._last: str | None = None  # the id of the newest part
        self._at: tuple[int, int] | None = None  # step and attempt
        self._said: list[_Said] = []  # of this attempt
        self._speaking: tuple[_Said, str | None] | None = None  # what is open, and the agent's id for it
        self._open: dict[str, str] = {}  # calls without a result
        self._called: set[str] = set()  # of this attempt, as the next
        self._answered: set[str] = set()

    def live(self, live: Live) -> list[Sse]:
        at, self._last = (live.step, live.attempt), live.id
        events = [] if at == self._at else self._enter(at)
        return [e._replace(id=live.id) for e in (*events, *self._part(live))]

    def end(self, envelope: wire.Object | None) -> list[Sse]:
        """The last events, under the id of the last part: not every part is told by an event of its own."""
        return [e._replace(id=self._last) for e in self.ending(envelope)]

    def _part(self, live: Live) -> list[Sse]:
        match live.part:
            case Text(role="user"):
                return []  # the reader said it
            case Text(text=text, delta=True, id=id):
                return self._piece("text", id, text)
            case Thought(text=text, delta=True, id=id):
                return self._piece("thought", id, text)
            case Text(text=text):
                return self._whole("text", text, live.committed)
            case Thought(text=text):
                return self._whole("thought", text, live.committed)
            case Call(id=id, name=name, args=args):
                return self._call(live, id, name, args)
            case Result() as result:
                return self._result(live, result)
            case State(value=value):
                return self.state(value)
            case Usage() as usage if live.committed:
                return self.spent(wire.spent(usage))
            case End(status="COMPLETED", output=output) if output is not None:
                return self._answer(wire.shown(output))
            case _:
                return []  # told by the end of the stream

    # ------------------------------------------------------------ attempts

    def _enter(self, at: tuple[int, int]) -> list[Sse]:
        events = self._leave()
        self._at, self._said, self._called, self._answered = at, [], set(), set()
        return [*events, *self.entered(at[0])]

    def _leave(self) -> list[Sse]:
        if self._at is None:
            return []
        step, self._at = self._at[0], None
        return [*self._close(), *self.left(step)]

    # ------------------------------------------------------------ words

    def _piece(self, kind: Kind, id: str | None, text: str) -> list[Sse]:
        if not text:
            return []
        events: list[Sse] = []
        said, known = self._speaking or (None, None)
        if said is None or (said.kind, known) != (kind, id):
            said = self._next(kind)
            events = [*self._close(), *self.needs_step(), *self.starts(kind, said.id)]
            self._speaking = (said, id)
        said.pieces.append(text)
        return [*events, self.grows(kind, said.id, text)]

    def _whole(self, kind: Kind, text: str, kept: bool) -> list[Sse]:
        if not text.strip():
            return []
        for said in self._said:
            if said.kind == kind and said.text == text.strip() and not (said.kept if kept else said.whole):
                said.whole, said.kept = True, said.kept or kept
                return self._close()
        said = self._next(kind)
        said.pieces, said.whole, said.kept = [text], True, kept
        opening = [*self._close(), *self.needs_step(), *self.starts(kind, said.id)]
        return [*opening, self.grows(kind, said.id, text), *self.ends(kind, said.id)]

    def _answer(self, output: str) -> list[Sse]:
        """An output is words for the reader too, unless the step that gave it has used others."""
        return self._whole("text", output, True) if not any(s.kind == "text" for s in self._said) else []

    def _next(self, kind: Kind) -> _Said:
        step, attempt = self._at or (0, 0)
        said = _Said(kind, f"{self._run}:{step}.{attempt}:{kind}{len(self._said)}")
        self._said.append(said)
        return said

    def _close(self) -> list[Sse]:
        if self._speaking is None:
            return []
        (said, _), self._speaking = self._speaking, None
        return self.ends(said.kind, said.id)

    # ------------------------------------------------------------ tools

    def _call(self, live: Live, id: str, name: str, args: Value) -> list[Sse]:
        if id in self._called:
            return []
        self._called.add(id)
        if id in self._open:  # shown by an earlier step
            return []
        self._open[id] = call_name(self._run, live, id)
        return [*self._close(), *self.needs_step(), *self.calls(self._open[id], name, args)]

    def _result(self, live: Live, result: Result) -> list[Sse]:
        if result.id in self._answered:
            return []
        events = self._call(live, result.id, result.name, None)  # none is without its call
        self._answered.add(result.id)
        return [*self._close(), *events, *self.answers(self._open.pop(result.id), result)]

    # ------------------------------------------------------------ how a protocol says it

    def needs_step(self) -> list[Sse]:
        """Something new is about to be told."""
        return []

    @abstractmethod
    def ending(self, envelope: wire.Object | None) -> list[Sse]: ...
    @abstractmethod
    def entered(self, step: int) -> list[Sse]: ...
    @abstractmethod
    def left(self, step: int) -> list[Sse]: ...
    @abstractmethod
    def starts(self, kind: Kind, id: str) -> list[Sse]: ...
    @abstractmethod
    def grows(self, kind: Kind, id: str, text: str) -> Sse: ...
    @abstractmethod
    def ends(self, kind: Kind, id: str) -> list[Sse]: ...
    @abstractmethod
    def calls(self, call: str, name: str, args: Value) -> list[Sse]: ...
    @abstractmethod
    def answers(self, call: str, result: Result) -> list[Sse]: ...
    @abstractmethod
    def state(self, value: Value) -> list[Sse]: ...
    @abstractmethod
    def spent(self, usage: Mapping[str, Value]) -> list[Sse]: ...
