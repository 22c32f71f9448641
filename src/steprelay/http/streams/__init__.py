"""Parts on their way to a reader: one pure encoder for each protocol, `Live` in, Server-Sent Events out.

Another protocol is another file, with a class that has `Encoder`'s methods, and a line in `ENCODERS`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..problem import Problem
from .agui import AgUi
from .aisdk import AiSdk
from .encoder import Encoder, Past, Plain, Sse

ENCODERS: dict[str, Callable[[str | None], Encoder]] = {"plain": lambda _: Plain(), "agui": AgUi, "aisdk": lambda _: AiSdk()}

__all__ = ["ENCODERS", "AgUi", "AiSdk", "Encoder", "Past", "Plain", "Sse", "encoder"]


def encoder(protocol: str, run_id: str | None) -> Encoder:
    """The encoder a reader asked for; `run_id`: what that protocol's run is to be called. Raises Problem 400."""
    if protocol not in ENCODERS:
        raise Problem(
            400, "bad_input", f"There is no protocol {protocol[:40]!r}; there are {', '.join(ENCODERS)}.", path="?protocol"
        )
    return ENCODERS[protocol](run_id)
