"""The store as plain dictionaries: the protocol with nothing in the way. One process, gone with it.

Read this to learn what a store owes. Every verb runs without an `await` inside, so it is atomic by itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core import machine
from ..core.errors import StoreError
from ..core.model import (
    Alive, Claim, Claimed, Commit, Committed, Due, Fenced, Filter, Json, New, Outgoing, Refused, Request, Run, RunKey,
    Signal, Signalled, Step,
)  # fmt: skip
from ..core.noun import replace
from ..ports import Store
from ..storekit import guard


@dataclass
class _Rows:
    """One run and all that hangs on it."""

    run: Run
    steps: list[Step] = field(default_factory=list)
    inbox: list[Signal] = field(default_factory=list)
    ledger: dict[str, Json] = field(default_factory=dict)
    outbox: list[Outgoing] = field(default_factory=list)
    blobs: dict[str, str] = field(default_factory=dict)
    heard: int = 0  # signals and outbox rows ever: their numbers are never used twice
    sent: int = 0

    def unread(self, after: int) -> tuple[Signal, ...]:
        return tuple(s for s in self.inbox if s.seq > after)

    def asked(self, request: Request | None) -> Step | None:
        """The step that has this request's id."""
        return next((s for s in self.steps if request and s.request and s.request.id == request.id), None)


class MemoryStore(Store):
    """`memory:` as a setting."""

    def __init__(self, url: str = "memory:") -> None:
        self._runs: dict[RunKey, _Rows] = {}
        self._kv: dict[str, tuple[str, float]] = {}

    async def claim(
        self, key: RunKey, *, claim_id: str, holder: str, lease: float, carrier: str | None,
        expect: int | None = None, request: Request | None = None, new: New | None = None, now: float | None = None,
    ) -> Claimed | Refused:  # fmt: skip
        now = _clock(now)
        rows, created = self._runs.get(key), False
        if rows is None and new is not None:
            run, steps = guard.created(key, new, now)
            rows, created = _Rows(run=run, steps=steps), True
            self._runs[key] = rows
        if rows is None:
            return Refused(reason="absent", run=None, step=None, now=now)
        run = rows.run
        newest = rows.steps[-1] if rows.steps else None
        if lease == 0:
            return Refused(reason="created" if created else "exists", run=run, step=newest, now=now)
        if run.claim_id != claim_id:
            known = rows.asked(request)
            if refused := guard.refusal(run, known, carrier=carrier, expect=expect, request=request, now=now):
                return refused if refused.step else replace(refused, step=newest)
            run = guard.granted(run, claim_id=claim_id, holder=holder, lease=lease, carrier=carrier, now=now)
            rows.run = run
        return Claimed(
            claim=Claim(key=key, index=run.step, fence=run.fence, claim_id=claim_id, carrier=carrier or run.carrier),
            run=run,
            steps=tuple(s for s in rows.steps if s.index >= run.floor),
            inbox=rows.unread(run.inbox_read),
            ledger=dict(rows.ledger),
            now=now,
        )

    async def commit(
        self, claim: Claim, commit: Commit, *, renew: float | None = None, now: float | None = None
    ) -> Committed | Fenced:  # fmt: skip
        now = _clock(now)
        rows = self._held(claim)
        if rows is None:
            return Fenced(now=now)
        if commit.step is not None and rows.asked(commit.step.request):
            raise StoreError(f"{commit.step.request!r} is that of another step of {claim.key}")
        unread = rows.unread(commit.inbox_read)
        rows.run = machine.apply(rows.run, commit, now=now, unread=unread, renew=renew)
        if commit.step is not None:
            rows.steps.append(replace(commit.step, committed_at=now))
            if not commit.keep_ledger:
                rows.ledger.clear()
        if commit.step is None or commit.keep_ledger:
            rows.ledger |= commit.ledger
        for out in commit.outbox:
            rows.sent += 1
            rows.outbox.append(replace(out, seq=rows.sent, due_at=now))
        rows.blobs |= commit.blobs
        return Committed(now=now, inbox=unread)

    async def progress(
        self, claim: Claim, *, lease: float, tail: Json | None = None, ledger: Mapping[str, Json] | None = None,
        now: float | None = None,
    ) -> Alive | Fenced:  # fmt: skip
        now = _clock(now)
        rows = self._held(claim)
        if rows is None:
            return Fenced(now=now)
        rows.run = replace(rows.run, lease_until=now + lease, tail=rows.run.tail if tail is None else tail)
        rows.ledger |= ledger or {}
        return Alive(now=now, cancel=any(s.kind == "cancel" for s in rows.unread(rows.run.inbox_read)))

    async def signal(self, key: RunKey, signal: Signal, *, now: float | None = None) -> Signalled | None:
        now = _clock(now)
        rows = self._runs.get(key)
        if rows is None:
            return None
        if signal.request_id is not None:
            for s in rows.inbox:
                if s.request_id == signal.request_id:
                    return Signalled(run=rows.run, body=s.body, first=False, now=now)
        rows.heard += 1
        rows.inbox.append(replace(signal, seq=rows.heard, at=now))
        rows.run = guard.heard(rows.run, signal, now)
        return Signalled(run=rows.run, body=signal.body, first=True, now=now)

    async def due(self, carriers: Sequence[str] | None, limit: int, *, now: float | None = None) -> list[Due]:
        now = _clock(now)
        found: list[tuple[float, Due]] = []
        for key, rows in self._runs.items():
            run = rows.run
            allowed = carriers is None or any(guard.free_for(run, c, now) is None for c in carriers)
            if run.due_at is not None and run.due_at <= now and not guard.held(run, now) and allowed:
                found.append((run.due_at, Due(key=key, carrier=run.carrier, why="step")))
            waiting = [o.due_at for o in rows.outbox if o.due_at is not None and o.due_at <= now]
            if waiting:
                found.append((min(waiting), Due(key=key, carrier=run.carrier, why="outbox")))
        return [d for _, d in sorted(found, key=lambda f: f[0])[:limit]]

    async def ack(
        self, key: RunKey, delivered: Sequence[int], retry_after: float | None = None, *, now: float | None = None
    ) -> None:  # fmt: skip
        now = _clock(now)
        if rows := self._runs.get(key):
            for i, out in enumerate(rows.outbox):
                if out.seq in delivered and out.due_at is not None:
                    due = None if retry_after is None else now + retry_after
                    rows.outbox[i] = replace(out, due_at=due, tries=out.tries + (retry_after is not None))

    async def read(self, where: Any, view: Any, **options: Any) -> list[Any]:
        if view == "runs":
            found = sorted((r.run for r in self._runs.values()), key=lambda r: (r.created_at, r.key.id), reverse=True)
            return [r for r in found if guard.matches(r, where)][: options.get("limit", 100)]
        rows = self._runs.get(where)
        if rows is None:
            return []
        after, limit = options.get("after", -1), options.get("limit", 100)
        match view:
            case "run":
                return [rows.run]
            case "steps":
                return [s for s in rows.steps if s.index > after][:limit]
            case "inbox":
                return [s for s in rows.inbox if s.seq > after][:limit]
            case "outbox":
                return [o for o in rows.outbox if o.due_at is not None and o.seq > after][:limit]
            case _:
                return [rows.blobs[options["name"]]] if options["name"] in rows.blobs else []

    async def prune(self, before: float, filter: Filter, *, now: float | None = None) -> int:
        emptied = 0
        for rows in self._runs.values():
            run = rows.run
            if not guard.matches(run, filter):
                continue
            if run.ended and not run.pruned and run.updated_at < before and not any(o.due_at is not None for o in rows.outbox):
                rows.run = guard.emptied(run)
                rows.steps, rows.inbox, rows.ledger, rows.outbox, rows.blobs = [], [], {}, [], {}
                emptied += 1
            elif not run.pruned:
                below = min(run.floor, run.step - 1)  # the newest step stays: it is what the run answers
                rows.steps = [s for s in rows.steps if s.index >= below or s.committed_at >= before]
                rows.outbox = [o for o in rows.outbox if o.due_at is not None]
        self._kv = {name: kept for name, kept in self._kv.items() if kept[1] > _clock(now)}
        return emptied

    async def get(self, name: str, *, now: float | None = None) -> str | None:
        value, until = self._kv.get(name, ("", 0.0))
        return value if until > _clock(now) else None

    async def put_if(self, name: str, value: str, *, ttl: float, expect: str | None, now: float | None = None) -> bool:
        if await self.get(name, now=now) != expect:
            return False
        self._kv[name] = (value, _clock(now) + ttl)
        return True

    async def incr(self, name: str, by: float, *, ttl: float, now: float | None = None) -> float:
        old = await self.get(name, now=now)
        until = self._kv[name][1] if old is not None else _clock(now) + ttl
        self._kv[name] = (repr(float(old or 0) + by), until)
        return float(self._kv[name][0])

    async def scan(self, prefix: str, *, now: float | None = None) -> dict[str, str]:
        return {k: v for k, (v, until) in self._kv.items() if k.startswith(prefix) and until > _clock(now)}

    async def migrate(self) -> list[str]:
        return []

    async def check(self) -> str:
        return "memory: this process only, nothing survives it"

    async def close(self) -> None:
        pass

    def _held(self, claim: Claim) -> _Rows | None:
        rows = self._runs.get(claim.key)
        if rows is None:
            return None
        run = rows.run
        return rows if (run.step, run.fence, run.claim_id) == (claim.index, claim.fence, claim.claim_id) else None


def _clock(now: float | None) -> float:
    return time.time() if now is None else now
