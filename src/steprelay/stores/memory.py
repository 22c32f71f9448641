"""The store as plain dictionaries: the protocol with nothing in the way. One process, gone with it.

Read this to learn what a store owes. Every verb runs without an `await` inside, so it is atomic by itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..core import codec, machine
from ..core.model import (
    Alive, Claim, Claimed, Commit, Committed, Due, Fenced, Filter, Json, New, Outgoing, Refused, Request, Run, RunKey,
    Signal, Signalled, Step,
)  # fmt: skip
from ..ports import Store


@dataclass
class _Rows:
    """One run and all that hangs on it."""

    run: Run
    steps: list[Step] = field(default_factory=list)
    inbox: list[Signal] = field(default_factory=list)
    ledger: dict[str, Json] = field(default_factory=dict)
    outbox: list[Outgoing] = field(default_factory=list)
    blobs: dict[str, str] = field(default_factory=dict)
    sent: int = 0  # outbox rows ever: their numbers are never used twice

    def unread(self, after: int) -> tuple[Signal, ...]:
        return tuple(s for s in self.inbox if s.seq > after)


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
            rows, created = _created(key, new, now), True
            self._runs[key] = rows
        if rows is None:
            return Refused(reason="absent", run=None, step=None, now=now)
        run = rows.run
        newest = rows.steps[-1] if rows.steps else None
        if lease == 0:
            return Refused(reason="created" if created else "exists", run=run, step=newest, now=now)
        if run.claim_id != claim_id:
            if refused := _refusal(rows, newest, carrier, expect, request, now):
                return refused
            run = replace(
                run,
                fence=run.fence + 1,
                attempts=run.attempts + 1,
                claim_id=claim_id,
                holder=holder,
                lease_until=now + lease,
                carrier=run.carrier if carrier is None or run.carrier == "any" else carrier,
            )
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
        run = rows.run
        newest = rows.inbox[-1].seq if rows.inbox else run.inbox_read
        rows.inbox.append(replace(signal, seq=newest + 1, at=now))
        if signal.carrier is not None:
            run = replace(run, carrier=signal.carrier, takeover_after=signal.takeover_after)
        if signal.reopens:
            run = replace(run, ended=False)
        if not run.ended and (run.claim_id is None or run.lease_until <= now):
            run = replace(run, due_at=now)
        rows.run = run
        return Signalled(run=run, body=signal.body, first=True, now=now)

    async def due(self, carriers: Sequence[str] | None, limit: int, *, now: float | None = None) -> list[Due]:
        now = _clock(now)
        found: list[tuple[float, Due]] = []
        for key, rows in self._runs.items():
            run = rows.run
            allowed = carriers is None or any(_carried(run, c, now) is None for c in carriers)
            if run.due_at is not None and run.due_at <= now and not _is_held(run, now) and allowed:
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
            return [r for r in found if _matches(r, where)][: options.get("limit", 100)]
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
            if not _matches(run, filter):
                continue
            if run.ended and not run.pruned and run.updated_at < before and not any(o.due_at is not None for o in rows.outbox):
                rows.run = replace(run, pruned=True, prompt=None, state=None, scratchpad=None, tail=None, floor=run.step)
                rows.steps, rows.inbox, rows.ledger, rows.outbox, rows.blobs = [], [], {}, [], {}
                emptied += 1
            elif not run.ended:
                rows.steps = [s for s in rows.steps if s.index >= run.floor or s.committed_at >= before]
                rows.outbox = [o for o in rows.outbox if o.due_at is not None]
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


def _created(key: RunKey, new: New, now: float) -> _Rows:
    run = Run(
        key=key, agent=new.agent, adapter=new.adapter, prompt=new.prompt, status=new.status, stop_reason=new.stop_reason,
        due_at=now if new.due else None, ended=not new.due, step=len(new.steps), round=new.round, carrier=new.carrier,
        takeover_after=new.takeover_after, owner=new.owner, floor=new.floor, state=new.state, scratchpad=new.scratchpad,
        limits=new.limits, tally=new.tally, create_hash=new.create_hash, parent=new.parent, labels=new.labels,
        notify_url=new.notify_url, created_at=now, updated_at=now,
    )  # fmt: skip
    return _Rows(run=run, steps=[replace(s, committed_at=s.committed_at or now) for s in new.steps])


def _refusal(
    rows: _Rows, newest: Step | None, carrier: str | None, expect: int | None, request: Request | None, now: float
) -> Refused | None:  # fmt: skip
    run = rows.run

    def refused(reason: Any, step: Step | None = newest, until: float | None = None, who: str | None = None) -> Refused:
        return Refused(reason=reason, run=run, step=step, now=now, until=until, carrier=who)

    if request is not None:
        for s in rows.steps:
            if s.request is not None and s.request.id == request.id:
                return refused("replay" if s.request.hash == request.hash else "conflict", s)
    if expect is not None and expect != run.step:
        return refused("index")
    if run.ended:
        return refused("ended")
    if _is_held(run, now):
        return refused("busy", until=run.lease_until, who=run.carrier)
    if run.due_at is None:
        return refused("waiting")
    if run.due_at > now:
        return refused("later")
    if carrier is not None and (until := _carried(run, carrier, now)) is not None:
        return refused("busy", until=None if until == _NEVER else until, who=run.carrier)
    return None


_NEVER = float("inf")


def _carried(run: Run, carrier: str, now: float) -> float | None:
    """None: this carrier may have the run now. Else when it may."""
    if run.carrier in (carrier, "any"):
        return None
    if run.takeover_after is None:
        return _NEVER
    until = max(run.due_at or 0.0, run.lease_until) + run.takeover_after
    return None if until <= now else until


def _is_held(run: Run, now: float) -> bool:
    return run.claim_id is not None and run.lease_until > now


def _matches(run: Run, f: Filter) -> bool:
    return (
        run.key.tenant == f.tenant
        and (not f.status or run.status in f.status)
        and f.agent in (None, run.agent)
        and f.owner in (None, run.owner)
        and (f.label is None or codec.loads(run.labels).get(f.label[0]) == f.label[1])
        and (f.before is None or (run.created_at, run.key.id) < f.before)
    )
