"""Memory stores with one guard taken out. A simulator that does not notice proves nothing."""

from __future__ import annotations

from typing import Any

from ..core import codec
from ..core.model import Claim, Claimed
from ..core.noun import replace
from ..stores.memory import MemoryStore


class NoFence(MemoryStore):
    """Writes are checked against the index alone."""

    def _held(self, claim: Claim) -> Any:
        rows = self._runs[claim.key]
        return rows if rows.run.step == claim.index else None


class NoCompare(MemoryStore):
    """Writes are not checked at all."""

    def _held(self, claim: Claim) -> Any:
        return self._runs[claim.key]


class NoLedger(MemoryStore):
    """The marker of a tool that is about to run is not kept."""

    async def progress(self, claim: Claim, **options: Any) -> Any:
        entries = {k: v for k, v in (options.pop("ledger", None) or {}).items() if "started" not in codec.loads(v)}
        return await super().progress(claim, ledger=entries, **options)


class LateAttempts(MemoryStore):
    """An attempt is counted when it commits, not when it claims."""

    async def claim(self, key: Any, **options: Any) -> Any:
        before = self._runs[key].run.fence if key in self._runs else 0
        answer = await super().claim(key, **options)
        if isinstance(answer, Claimed) and answer.run.fence > before:
            rows = self._runs[key]
            rows.run = replace(rows.run, attempts=rows.run.attempts - 1)
            return replace(answer, run=replace(answer.run, attempts=answer.run.attempts - 1))
        return answer

    async def commit(self, claim: Claim, commit: Any, **options: Any) -> Any:
        if commit.step is None and commit.attempts is None and (rows := self._held(claim)):
            rows.run = replace(rows.run, attempts=rows.run.attempts + 1)
        return await super().commit(claim, commit, **options)


class NoReplay(MemoryStore):
    """A repeated request is a new one."""

    async def claim(self, key: Any, **options: Any) -> Any:
        return await super().claim(key, **{**options, "request": None})


MUTANTS: dict[str | None, type[MemoryStore]] = {
    None: MemoryStore, "fence": NoFence, "cas": NoCompare, "ledger": NoLedger, "attempts": LateAttempts, "replay": NoReplay,
}  # fmt: skip
