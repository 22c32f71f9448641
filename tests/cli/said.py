"""What a command came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Said:
    """What a command printed, and how it ended."""

    out: str
    err: str
    code: int

    @property
    def last(self) -> str:
        return self.out.split()[-1]
