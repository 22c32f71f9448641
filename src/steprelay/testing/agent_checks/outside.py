"""The world outside a run: effects that are counted where no store can tidy them up."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outside:
    """One file, a line for each effect. `fatal`: an effect whose process is killed right after it."""

    path: Path
    fatal: str | None = None

    def effect(self, name: str) -> str:
        """Do it, once for every call."""
        with self.path.open("a", encoding="utf-8") as f:
            f.write(name + "\n")
        if name == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{name} is done"

    def count(self, name: str) -> int:
        return self.path.read_text("utf-8").split("\n").count(name) if self.path.exists() else 0
