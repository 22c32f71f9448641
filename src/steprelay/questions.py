"""What a step asks a person, and what the answer means: only a plain yes to this call is a yes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .core.errors import Paused
from .core.model import Interrupt, Message, Value


class Questions:
    """The answers that one step has got, and what it has to ask."""

    def __init__(self, inbox: Iterable[Message]) -> None:
        self._answers = {m.id: m.body for m in inbox if m.id is not None}
        self.asked: tuple[Interrupt, ...] = ()

    def answer(self, id: str, kind: Literal["question", "approval"], prompt: str, payload: Value = None) -> Value:
        """What a person said to this; asks and raises Paused if nobody has said anything."""
        if id in self._answers:
            return self._answers[id]
        self.asked += (Interrupt(id=id, kind=kind, prompt=prompt, payload=payload),)
        raise Paused(f"a person is asked: {prompt}")

    def denial(self, id: str, call: str, ask: Value) -> str | None:
        """Why a person refused this call; None when they approved it. Asks and raises Paused like `answer`."""
        body = self.answer(id, "approval", ask if isinstance(ask, str) else f"May {call} run?", ask)
        payload = body.get("payload")
        said = payload if isinstance(payload, dict) else {"approved": payload}
        approved = said.get("approved", said.get("approve", False)) is True
        if approved and body.get("status", "resolved") == "resolved":
            return None
        return str(said.get("reason") or "a person refused this call")
