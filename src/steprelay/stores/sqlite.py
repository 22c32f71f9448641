"""Runs in one SQLite file: a laptop, a single host, any number of processes on it.

Every verb is one hop to the store's own thread and, if it writes, one `BEGIN IMMEDIATE` transaction: the row is read,
judged and written while nobody else can write. What was answered survives a power cut. The clock is this host's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import islice
from typing import Any

from ..core import machine
from ..core.model import (
    Alive, Claim, Claimed, Commit, Committed, Due, Fenced, Filter, Json, New, Outgoing, Refused, Request, Run, RunKey, Signal,
    Signalled, Step,
)  # fmt: skip
from ..core.noun import replace
from ..ports import Store
from ..storekit import guard, rows
from ..storekit.sqlite import DB, File, path_of, version_of

PAGE = 100
"""Runs that one transaction of `prune` looks at, so that nobody waits long for it."""


class SQLiteStore(Store):
    """`sqlite:///absolute/path.db`, `sqlite:relative/path.db` or a plain path as a setting; the folder is made."""

    def __init__(self, url: str) -> None:
        self._file = File(path_of(url))

    # ------------------------------------------------------------ the eight verbs

    async def claim(
        self, key: RunKey, *, claim_id: str, holder: str, lease: float, carrier: str | None,
        expect: int | None = None, request: Request | None = None, new: New | None = None, now: float | None = None,
    ) -> Claimed | Refused:  # fmt: skip
        def verb(db: DB, now: float) -> Claimed | Refused:
            run, heard = _run(db, key)
            created = run is None and new is not None
            if run is None and new is not None:
                run = _create(db, key, new, now)
            if run is None:
                return Refused(reason="absent", run=None, step=None, now=now)
            if lease == 0:
                return Refused(reason="created" if created else "exists", run=run, step=_newest(db, key), now=now)
            if run.claim_id != claim_id:
                known = None if request is None else _step(db, key, "request_id = ?", request.id)
                if refused := guard.refusal(run, known, carrier=carrier, expect=expect, request=request, now=now):
                    return refused if refused.step else replace(refused, step=_newest(db, key))
                old = run
                run = guard.granted(run, claim_id=claim_id, holder=holder, lease=lease, carrier=carrier, now=now)
                _save(db, old, run)
            return Claimed(
                claim=Claim(key=key, index=run.step, fence=run.fence, claim_id=claim_id, carrier=carrier or run.carrier),
                run=run,
                steps=tuple(_steps(db, key, run.floor, -1)),
                inbox=_inbox(db, key, run.inbox_read) if heard > run.inbox_read else (),
                ledger=dict(db.execute("SELECT key, entry FROM ledger WHERE tenant = ? AND run = ?", _key(key))),
                now=now,
            )

        return await self._file.write(verb, now)

    async def commit(
        self, claim: Claim, commit: Commit, *, renew: float | None = None, now: float | None = None
    ) -> Committed | Fenced:  # fmt: skip
        def verb(db: DB, now: float) -> Committed | Fenced:
            run, heard = _held(db, claim)
            if run is None:
                return Fenced(now=now)
            unread = _inbox(db, claim.key, commit.inbox_read) if heard > commit.inbox_read else ()
            _save(db, run, machine.apply(run, commit, now=now, unread=unread, renew=renew))
            if commit.step is not None:
                _insert(db, "step", rows.STEP, [rows.step_values(claim.key, replace(commit.step, committed_at=now))])
                if not commit.keep_ledger:
                    db.execute("DELETE FROM ledger WHERE tenant = ? AND run = ?", _key(claim.key))
            if commit.step is None or commit.keep_ledger:
                _note(db, claim.key, commit.ledger)
            _send(db, claim.key, commit.outbox, now)
            if commit.blobs:
                blobs = [(*_key(claim.key), name, value) for name, value in commit.blobs.items()]
                db.executemany("INSERT OR REPLACE INTO blob (tenant, run, name, value) VALUES (?, ?, ?, ?)", blobs)
            return Committed(now=now, inbox=unread)

        return await self._file.write(verb, now)

    async def progress(
        self, claim: Claim, *, lease: float, tail: Json | None = None, ledger: Mapping[str, Json] | None = None,
        now: float | None = None,
    ) -> Alive | Fenced:  # fmt: skip
        def verb(db: DB, now: float) -> Alive | Fenced:
            run, heard = _held(db, claim)
            if run is None:
                return Fenced(now=now)
            _save(db, run, replace(run, lease_until=now + lease, tail=run.tail if tail is None else tail))
            _note(db, claim.key, ledger or {})
            unread = _inbox(db, claim.key, run.inbox_read) if heard > run.inbox_read else ()
            return Alive(now=now, cancel=any(s.kind == "cancel" for s in unread))

        return await self._file.write(verb, now)

    async def signal(self, key: RunKey, signal: Signal, *, now: float | None = None) -> Signalled | None:
        def verb(db: DB, now: float) -> Signalled | None:
            run, _ = _run(db, key)
            if run is None:
                return None
            sql = "SELECT body FROM inbox WHERE tenant = ? AND run = ? AND request_id = ?"
            if signal.request_id is not None and (first := db.execute(sql, (*_key(key), signal.request_id)).fetchone()):
                return Signalled(run=run, body=first[0], first=False, now=now)
            sent = replace(signal, seq=_number(db, key, "inbox_seq", 1), at=now)
            _insert(db, "inbox", rows.INBOX, [rows.signal_values(key, sent)])
            heard = guard.heard(run, signal, now)
            _save(db, run, heard)
            return Signalled(run=heard, body=signal.body, first=True, now=now)

        return await self._file.write(verb, now)

    async def due(self, carriers: Sequence[str] | None, limit: int, *, now: float | None = None) -> list[Due]:
        def view(db: DB, now: float) -> list[Due]:
            found = [(at, Due(key=RunKey(*key), carrier=who, why="step")) for at, *key, who in _due(db, carriers, limit, now)]
            outboxes = db.execute(_OUTBOXES, (now, limit))
            found += [(at, Due(key=RunKey(*key), carrier=who, why="outbox")) for at, *key, who in outboxes]
            return [d for _, d in sorted(found, key=lambda f: f[0])[:limit]]

        return await self._file.read(view, now)

    async def ack(
        self, key: RunKey, delivered: Sequence[int], retry_after: float | None = None, *, now: float | None = None
    ) -> None:  # fmt: skip
        def verb(db: DB, now: float) -> None:
            due = None if retry_after is None else now + retry_after
            sql = (
                "UPDATE outbox SET due_at = ?, tries = tries + ? WHERE tenant = ? AND run = ? AND seq = ? AND due_at IS NOT NULL"
            )
            db.executemany(sql, [(due, retry_after is not None, *_key(key), seq) for seq in delivered])

        await self._file.write(verb, now)

    async def read(self, where: Any, view: Any, **options: Any) -> list[Any]:
        return await self._file.read(lambda db, now: _view(db, where, view, **options))

    async def prune(self, before: float, filter: Filter, *, now: float | None = None) -> int:
        emptied, rest = 0, filter
        while page := await self._file.read(partial(_page, rest)):
            emptied += await self._file.write(partial(_prune_page, page, before, filter), now)
            rest = replace(rest, before=(page[-1].created_at, page[-1].key.id))
        await self._file.write(_forget, now)
        return emptied

    # ------------------------------------------------------------ kv

    async def get(self, name: str, *, now: float | None = None) -> str | None:
        return await self._file.read(lambda db, now: _value(db, name, now), now)

    async def put_if(self, name: str, value: str, *, ttl: float, expect: str | None, now: float | None = None) -> bool:
        def verb(db: DB, now: float) -> bool:
            if _value(db, name, now) != expect:
                return False
            _put(db, name, value, now + ttl, now)
            return True

        return await self._file.write(verb, now)

    async def incr(self, name: str, by: float, *, ttl: float, now: float | None = None) -> float:
        def verb(db: DB, now: float) -> float:
            old = db.execute("SELECT value, until FROM kv WHERE name = ? AND until > ?", (name, now)).fetchone()
            value, until = old or ("0", now + ttl)
            total = float(value) + by
            _put(db, name, repr(total), until, now)
            return total

        return await self._file.write(verb, now)

    async def scan(self, prefix: str, *, now: float | None = None) -> dict[str, str]:
        sql = "SELECT name, value FROM kv WHERE name >= ? AND substr(name, 1, ?) = ? AND until > ?"
        return await self._file.read(lambda db, now: dict(db.execute(sql, (prefix, len(prefix), prefix, now))), now)

    # ------------------------------------------------------------ the file

    async def migrate(self) -> list[str]:
        """Every verb does it first; this one answers what it came to."""
        return await self._file.read(lambda db, now: self._file.migrated())

    async def check(self) -> str:
        line = await self._file.read(lambda db, now: f"schema {version_of(db)}")
        return f"sqlite: {self._file.path}, SQLite {sqlite3.sqlite_version}, {line}"

    async def close(self) -> None:
        await self._file.close()


# ---------------------------------------------------------------- rows

_OUTBOXES = """
SELECT min(o.due_at) AS at, o.tenant, o.run, r.carrier FROM outbox o JOIN run r ON r.tenant = o.tenant AND r.id = o.run
 WHERE o.due_at <= ? GROUP BY o.tenant, o.run ORDER BY at LIMIT ?"""
_FREE = "SELECT due_at, tenant, id, carrier FROM run INDEXED BY"  # without statistics the planner would guess
_UNHELD = "due_at IS NOT NULL AND (claim_id IS NULL OR lease_until <= :now)"
_ANY = f"{_FREE} run_due WHERE {_UNHELD} AND due_at <= :now ORDER BY due_at LIMIT :limit"
_OURS = f"{_FREE} run_due_carrier WHERE {_UNHELD} AND carrier = :carrier AND due_at <= :now ORDER BY due_at LIMIT :limit"
_TAKEOVER = f"""{_FREE} run_takeover WHERE {_UNHELD} AND takeover_after IS NOT NULL
   AND max(due_at, lease_until) + takeover_after <= :now AND due_at <= :now ORDER BY due_at LIMIT :limit"""


def _due(db: DB, carriers: Sequence[str] | None, limit: int, now: float) -> list[tuple[float, str, str, str]]:
    if carriers is None:
        return db.execute(_ANY, {"now": now, "limit": limit}).fetchall()
    found = set(db.execute(_TAKEOVER, {"now": now, "limit": limit}).fetchall()) if carriers else set()
    for carrier in {*carriers, "any"} if carriers else ():
        found |= set(db.execute(_OURS, {"carrier": carrier, "now": now, "limit": limit}).fetchall())
    return sorted(found)[:limit]


def _key(key: RunKey) -> tuple[str, str]:
    return key.tenant, key.id


def _select(table: str, columns: Sequence[str]) -> str:
    return f"SELECT {', '.join(columns)} FROM {table} "


_SELECT_RUN = _select("run", rows.RUN)
_SELECT_ONE = _select("run", (*rows.RUN, "inbox_seq")) + "WHERE tenant = ? AND id = ?"
_SELECT_STEP = _select("step", rows.STEP[2:]) + "WHERE tenant = ? AND run = ? AND "
_SELECT_INBOX = _select("inbox", rows.INBOX) + "WHERE tenant = ? AND run = ? AND seq > ? ORDER BY seq LIMIT ?"
_SELECT_OUTBOX = (
    _select("outbox", rows.OUTBOX) + "WHERE tenant = ? AND run = ? AND due_at IS NOT NULL AND seq > ? ORDER BY seq LIMIT ?"
)


def _run(db: DB, key: RunKey) -> tuple[Run | None, int]:
    """The run, and the number of the newest signal it was ever sent: whether its inbox is worth a look."""
    row = db.execute(_SELECT_ONE, _key(key)).fetchone()
    return (None, 0) if row is None else (rows.run_from(row[:-1]), row[-1])


def _held(db: DB, claim: Claim) -> tuple[Run | None, int]:
    """The run, if this claim still is its holder's."""
    run, heard = _run(db, claim.key)
    ours = run and (run.step, run.fence, run.claim_id) == (claim.index, claim.fence, claim.claim_id)
    return (run, heard) if ours else (None, 0)


def _save(db: DB, old: Run, new: Run) -> None:
    """Write what differs: an index is touched only when its columns change."""
    was, now = old.__dict__, new.__dict__
    changed = tuple(c for c in rows.RUN_FIELDS if was[c] is not now[c] and was[c] != now[c])
    if changed:
        db.execute(_update(changed), (*(now[c] for c in changed), *_key(new.key)))


@cache
def _update(columns: tuple[str, ...]) -> str:
    changes = ", ".join(f'"{c}" = ?' for c in columns)
    return f"UPDATE run SET {changes} WHERE tenant = ? AND id = ?"


def _insert(db: DB, table: str, columns: Sequence[str], values: Iterable[Sequence[Any]]) -> None:
    db.executemany(_insertion(table, columns), values)


@cache
def _insertion(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _create(db: DB, key: RunKey, new: New, now: float) -> Run:
    run, steps = guard.created(key, new, now)
    _insert(db, "run", rows.RUN, [rows.run_values(run)])
    _insert(db, "step", rows.STEP, [rows.step_values(key, s) for s in steps])
    return run


def _number(db: DB, key: RunKey, counter: str, by: int) -> int:
    """The newest of `by` numbers that nobody had before."""
    sql = f"UPDATE run SET {counter} = {counter} + ? WHERE tenant = ? AND id = ? RETURNING {counter}"
    return int(db.execute(sql, (by, *_key(key))).fetchall()[0][0])


def _send(db: DB, key: RunKey, outbox: Sequence[Outgoing], now: float) -> None:
    if outbox:
        first = _number(db, key, "outbox_seq", len(outbox)) - len(outbox) + 1
        sent = [replace(out, seq=first + i, due_at=now) for i, out in enumerate(outbox)]
        _insert(db, "outbox", rows.OUTBOX, [rows.outgoing_values(key, out) for out in sent])


def _note(db: DB, key: RunKey, entries: Mapping[str, Json]) -> None:
    if entries:
        sql = "INSERT OR REPLACE INTO ledger (tenant, run, key, entry) VALUES (?, ?, ?, ?)"
        db.executemany(sql, [(*_key(key), name, entry) for name, entry in entries.items()])


def _step(db: DB, key: RunKey, condition: str, *values: Any) -> Step | None:
    row = db.execute(_SELECT_STEP + condition, (*_key(key), *values)).fetchone()
    return None if row is None else rows.step_from(row)


def _newest(db: DB, key: RunKey) -> Step | None:
    return _step(db, key, "TRUE ORDER BY idx DESC LIMIT 1")


def _steps(db: DB, key: RunKey, first: int, limit: int) -> list[Step]:
    found = db.execute(_SELECT_STEP + "idx >= ? ORDER BY idx LIMIT ?", (*_key(key), first, limit))
    return [rows.step_from(row) for row in found]


def _inbox(db: DB, key: RunKey, after: int, limit: int = -1) -> tuple[Signal, ...]:
    return tuple(rows.signal_from(row) for row in db.execute(_SELECT_INBOX, (*_key(key), after, limit)))


def _runs(db: DB, f: Filter) -> Iterator[Run]:
    """Newest first. Labels are payload: matched here, not in SQL."""
    sql = "WHERE tenant = ?"
    values: list[Any] = [f.tenant]
    if f.status:
        sql += f" AND status IN ({', '.join('?' * len(f.status))})"
        values += f.status
    for column, value in (("agent", f.agent), ("owner", f.owner)):
        if value is not None:
            sql += f" AND {column} = ?"
            values.append(value)
    if f.before is not None:
        sql += " AND (created_at, id) < (?, ?)"
        values += f.before
    found = map(rows.run_from, db.execute(_SELECT_RUN + sql + " ORDER BY created_at DESC, id DESC", values))
    return (run for run in found if guard.matches(run, f))


def _view(db: DB, where: Any, view: str, *, after: int = -1, limit: int = 100, name: str = "") -> list[Any]:
    match view:
        case "run":
            run, _ = _run(db, where)
            return [] if run is None else [run]
        case "runs":
            return list(islice(_runs(db, where), limit))
        case "steps":
            return _steps(db, where, after + 1, limit)
        case "inbox":
            return list(_inbox(db, where, after, limit))
        case "outbox":
            return [rows.outgoing_from(row) for row in db.execute(_SELECT_OUTBOX, (*_key(where), after, limit))]
        case _:
            sql = "SELECT value FROM blob WHERE tenant = ? AND run = ? AND name = ?"
            return [row[0] for row in db.execute(sql, (*_key(where), name))]


def _page(f: Filter, db: DB, now: float) -> list[Run]:
    return list(islice(_runs(db, f), PAGE))


def _prune_page(page: Sequence[Run], before: float, f: Filter, db: DB, now: float) -> int:
    return sum(_prune(db, run.key, before, f) for run in page)


def _prune(db: DB, key: RunKey, before: float, f: Filter) -> bool:
    run, _ = _run(db, key)
    if run is None or run.pruned or not guard.matches(run, f):  # it may have changed since it was listed
        return False
    delivered = (
        db.execute("SELECT 1 FROM outbox WHERE tenant = ? AND run = ? AND due_at IS NOT NULL", _key(key)).fetchone() is None
    )
    if run.ended and run.updated_at < before and delivered:
        _save(db, run, guard.emptied(run))
        for table in ("step", "inbox", "ledger", "outbox", "blob"):
            db.execute(f"DELETE FROM {table} WHERE tenant = ? AND run = ?", _key(key))
        return True
    below = min(run.floor, run.step - 1)  # the newest step stays: it is what the run answers
    db.execute("DELETE FROM step WHERE tenant = ? AND run = ? AND idx < ? AND committed_at < ?", (*_key(key), below, before))
    db.execute("DELETE FROM outbox WHERE tenant = ? AND run = ? AND due_at IS NULL", _key(key))
    return False


def _value(db: DB, name: str, now: float) -> str | None:
    row = db.execute("SELECT value FROM kv WHERE name = ? AND until > ?", (name, now)).fetchone()
    return None if row is None else str(row[0])


def _put(db: DB, name: str, value: str, until: float, now: float) -> None:
    _forget(db, now)
    db.execute("INSERT OR REPLACE INTO kv (name, value, until) VALUES (?, ?, ?)", (name, value, until))


def _forget(db: DB, now: float) -> None:
    db.execute("DELETE FROM kv WHERE until <= ?", (now,))
