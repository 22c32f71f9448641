"""A witness of what a server really did: what its engine committed and what its model answered, in a file of its own.

The demo counts with it. It survives the server, and knows nothing of the store it is compared with.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.model import Value

if TYPE_CHECKING:
    from ..app import App


class Witness:
    """Appends to a file, one JSON line for one event, each in a single write: nothing of it is lost by `kill -9`."""

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, event: dict[str, Value]) -> None:
        """An observer of the engine."""
        os.write(self._fd, (json.dumps(event) + "\n").encode())

    def watch(self, app: App) -> None:
        """Note every answer of the models behind an app's Pydantic AI agents, when it is complete."""
        for agent in app.agents.values():
            user: Any = getattr(agent, "agent", None)
            if hasattr(user, "model"):
                user.model = _counted(user.model, lambda: self({"event": "answered"}))


def _counted(model: Any, answered: Any) -> Any:
    from pydantic_ai.models.wrapper import WrapperModel

    class Counted(WrapperModel):
        async def request(self, *args: Any, **kwargs: Any) -> Any:
            response = await super().request(*args, **kwargs)
            answered()
            return response

        @asynccontextmanager
        async def request_stream(self, *args: Any, **kwargs: Any) -> Any:
            async with super().request_stream(*args, **kwargs) as stream:
                yield stream
            answered()

    return Counted(model)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a witness's file says of one run: how often each step was committed, and how many answers the model gave."""

    commits: Counter[int]
    answers: int


def read(file: Path, run: str) -> Evidence:
    """The file of a witness, as far as it got."""
    events = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    commits = Counter(e["step"] for e in events if e["event"] == "step" and e.get("run") == run)
    return Evidence(commits=commits, answers=sum(e["event"] == "answered" for e in events))
