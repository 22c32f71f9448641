"""Runs in PostgreSQL (13 or newer), one round trip a verb; straight or through a pooler in transaction mode.

The verbs are functions in a schema of their own (storekit/sql/postgres), the clock is the database's. Every connection
must be to the primary, with the default isolation READ COMMITTED. The schema is made by `steprelay migrate` (`steprelay
dev` does it by itself): a server's schema is never changed by a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import codec
from ..core.errors import BadInput, ConfigError
from ..core.model import (
    SCHEMA,
    Alive,
    Claim,
    Claimed,
    Commit,
    Committed,
    Due,
    Fenced,
    Filter,
    Json,
    New,
    Refused,
    Request,
    Run,
    RunKey,
    Signal,
    Signalled,
    Step,
)  # fmt: skip
from ..ports import Store
from ..storekit import rows
from ..storekit.migrations import pending
from ..storekit.postgres import Lines, parse, translated

FAMILY = "postgres"
_STEP = (
    "idx", "round", "attempt", "carrier", "claim_id", "status", "stop_reason", "request_id", "request_hash", "messages", "parts",
    "usage", "state", "floor", "claimed_at", "committed_at",
)  # fmt: skip
_RUNS = slice(3, 3 + len(rows.RUN))
_STEPS = slice(_RUNS.stop, _RUNS.stop + len(_STEP))
_LOCK = 7_382_915_046_183_520_479
"""Advisory lock of a transaction that migrates; any number nobody else uses."""


class PostgresStore(Store):
    """`postgresql://user:password@host/database` as a setting.

    Parameters of the URL: `schema` (default `steprelay`), `pool` (connections at most, default 1), `timeout` (seconds a verb
    may take, default 8); all others are the driver's. Close it in the event loop it was used in.
    """

    def __init__(self, url: str) -> None:
        dsn, ours = parse(url)
        self._schema = '"' + ours["schema"].replace('"', '""') + '"'
        self._lines = Lines(dsn, int(float(ours["pool"])), float(ours["timeout"]))
        self._sql: dict[str, str] = {}

    # ------------------------------------------------------------ the eight verbs

    async def claim(
        self, key: RunKey, *, claim_id: str, holder: str, lease: float, carrier: str | None,
        expect: int | None = None, request: Request | None = None, new: New | None = None, now: float | None = None,
    ) -> Claimed | Refused:  # fmt: skip
        asked = (request.id, request.hash) if request else (None, None)
        args = (key.tenant, key.id, claim_id, holder, lease, carrier, expect, *asked, now)
        if new is None:
            found = await self._call("claim", _CLAIM, *args, False)
        else:
            found = await self._call("start", _CLAIM, *args, *_new(new))
        head = found[0]
        reason, at, until, run = head[0], head[1], head[2], _run(head[_RUNS])
        if reason != "claimed":
            step = _step(head[_STEPS])
            who = run.carrier if run and reason == "busy" else None
            return Refused(reason=reason, run=run, step=step, now=at, until=until, carrier=who)
        assert run is not None, "a granted claim brings its run"
        return Claimed(
            claim=Claim(key=key, index=run.step, fence=run.fence, claim_id=claim_id, carrier=carrier or run.carrier),
            run=run,
            steps=tuple(_known_step(row[_STEPS]) for row in found[1:]),
            inbox=_signals(head[_STEPS.stop]),
            ledger=dict(head[_STEPS.stop + 1] or ()),
            now=at,
        )

    async def commit(
        self, claim: Claim, commit: Commit, *, renew: float | None = None, now: float | None = None
    ) -> Committed | Fenced:  # fmt: skip
        c = commit
        outbox = [[o.kind, o.target, o.body, o.request_id] for o in c.outbox] or None
        done, at, inbox = (
            await self._call(
                "commit", "*", *_claim(claim), renew, now,
                c.status, c.stop_reason, c.after, c.ended, c.wait, c.tally, c.inbox_read, c.scratchpad, c.state, c.floor,
                c.prompt, c.limits, c.round, c.attempts, c.keep_ledger, _pairs(c.ledger), outbox, _pairs(c.blobs),
                *_step_values(c.step), repeatable=False,
            )
        )[0]  # fmt: skip
        return Committed(now=at, inbox=_signals(inbox)) if done else Fenced(now=at)

    async def progress(
        self, claim: Claim, *, lease: float, tail: Json | None = None, ledger: Mapping[str, Json] | None = None,
        now: float | None = None,
    ) -> Alive | Fenced:  # fmt: skip
        found = await self._call("progress", "*", *_claim(claim), lease, tail, _pairs(ledger), now)
        alive, at, cancel = found[0]
        return Alive(now=at, cancel=cancel) if alive else Fenced(now=at)

    async def signal(self, key: RunKey, signal: Signal, *, now: float | None = None) -> Signalled | None:
        s = signal
        args = (key.tenant, key.id, s.kind, s.body, s.request_id, s.reopens, s.carrier, s.takeover_after, now)
        found = await self._call("signal", _SIGNAL, *args, repeatable=s.request_id is not None)
        if not found:
            return None
        first, at, body = found[0][:3]
        return Signalled(run=rows.run_from(found[0][_RUNS]), body=body, first=first, now=at)

    async def due(self, carriers: Sequence[str] | None, limit: int, *, now: float | None = None) -> list[Due]:
        asked = None if carriers is None else list(carriers)
        found = await self._call("due", "c.tenant, c.run, c.carrier, c.why", asked, limit, now)
        return [Due(key=RunKey(tenant, run), carrier=carrier, why=why) for tenant, run, carrier, why in found]

    async def ack(
        self, key: RunKey, delivered: Sequence[int], retry_after: float | None = None, *, now: float | None = None
    ) -> None:  # fmt: skip
        await self._call("ack", "1", key.tenant, key.id, list(delivered), retry_after, now, repeatable=retry_after is None)

    async def read(self, where: Any, view: Any, **options: Any) -> list[Any]:
        after, limit = options.get("after", -1), options.get("limit", 100)
        if view == "runs":
            found = await self._query(_LIST_RUNS, where.tenant, *_filter(where), limit)
            return [rows.run_from(row) for row in found]
        key = (where.tenant, where.id)
        match view:
            case "run":
                return [rows.run_from(row) for row in await self._query(_READ_RUN, *key)]
            case "steps":
                return [_known_step(row) for row in await self._query(_READ_STEPS, *key, after, limit)]
            case "inbox":
                return [rows.signal_from(row) for row in await self._query(_READ_INBOX, *key, after, limit)]
            case "outbox":
                return [rows.outgoing_from(row) for row in await self._query(_READ_OUTBOX, *key, after, limit)]
            case _:
                return [row[0] for row in await self._query(_READ_BLOB, *key, options["name"])]

    async def prune(self, before: float, filter: Filter, *, now: float | None = None) -> int:
        found = await self._call("prune", "*", before, filter.tenant, *_filter(filter), now)
        return int(found[0][0])

    # ------------------------------------------------------------ kv

    async def get(self, name: str, *, now: float | None = None) -> str | None:
        found = await self._query(_GET, name, now)
        return found[0][0] if found else None

    async def put_if(self, name: str, value: str, *, ttl: float, expect: str | None, now: float | None = None) -> bool:
        return bool((await self._call("put_if", "*", name, value, ttl, expect, now, repeatable=False))[0][0])

    async def incr(self, name: str, by: float, *, ttl: float, now: float | None = None) -> float:
        return float((await self._call("incr", "*", name, by, ttl, now, repeatable=False))[0][0])

    async def scan(self, prefix: str, *, now: float | None = None) -> dict[str, str]:
        return {row[0]: row[1] for row in await self._query(_SCAN, prefix, now)}

    # ------------------------------------------------------------ the schema

    async def migrate(self) -> list[str]:
        """The user needs the right to create the schema, or to own it when it is there already."""
        line = await self._lines.take()
        try:
            conn = await line.connection()
            async with conn.transaction():
                await conn.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
                if await conn.fetchval("SELECT to_regnamespace($1) IS NULL", self._schema):
                    await conn.execute(f"CREATE SCHEMA {self._schema}")
                await conn.execute(self._own(_VERSIONS))
                version = await conn.fetchval(self._own(_VERSION))
                applied = pending(FAMILY, version)
                for m in applied:
                    await conn.execute(self._own(m.sql))
                    await conn.execute(
                        self._own("INSERT INTO steprelay.migration (version, name) VALUES ($1, $2)"), m.version, m.name
                    )
            return [m.name for m in applied]
        except Exception as e:
            raise translated(e) from e
        finally:
            self._lines.give(line)

    async def check(self) -> str:
        server, read_only, isolation, there = (await self._query(_SERVER, f"{self._schema}.migration"))[0]
        version = (await self._query(_VERSION))[0][0] if there else 0
        behind = pending(FAMILY, version)
        if behind:
            raise ConfigError(
                f"PostgreSQL schema {self._schema} has version {version}, this steprelay needs {behind[-1].version}: "
                "run `steprelay migrate`"
            )
        if read_only == "on":
            raise ConfigError("this PostgreSQL server is read-only (a standby?); point the store's URL at the primary")
        if isolation != "read committed":
            raise ConfigError(
                f"transactions are {isolation!r} by default, the store needs 'read committed': "
                "ALTER ROLE … SET default_transaction_isolation TO 'read committed'"
            )
        return f"PostgreSQL {server}, schema {self._schema} version {version}"

    async def close(self) -> None:
        await self._lines.close()

    # ------------------------------------------------------------ calls

    async def _call(self, function: str, columns: str, *args: Any, repeatable: bool = True) -> list[Any]:
        marks = ", ".join(f"${i + 1}" for i in range(len(args)))
        return await self._query(f"SELECT {columns} FROM steprelay.{function}({marks}) c", *args, repeatable=repeatable)

    async def _query(self, sql: str, *args: Any, repeatable: bool = True) -> list[Any]:
        return await self._lines.fetch(self._own(sql), *args, repeatable=repeatable)

    def _own(self, sql: str) -> str:
        """The statement for this store's schema."""
        own = self._sql.get(sql)
        if own is None:
            own = self._sql[sql] = re.sub(r"\bsteprelay\.", lambda _: f"{self._schema}.", sql)
        return own


# ---------------------------------------------------------------- statements


def _of(source: str, columns: Sequence[str]) -> str:
    return ", ".join(f'{source}."{c}"' for c in columns)


_RUN_OF = _of("(c.run)", rows.RUN)
_CLAIM = f"c.reason, c.at, c.until, {_RUN_OF}, {_of('(c.step)', _STEP)}, c.inbox, c.ledger"
_SIGNAL = f"c.first, c.at, c.body, {_RUN_OF}"
_READ_RUN = f"SELECT {_of('r', rows.RUN)} FROM steprelay.run r WHERE r.tenant = $1 AND r.id = $2"
_LIST_RUNS = f"""SELECT {_of("r", rows.RUN)} FROM steprelay.run r
 WHERE r.tenant = $1 AND ($2::text[] IS NULL OR r.status = ANY ($2)) AND ($3::text IS NULL OR r.agent = $3)
   AND ($4::text IS NULL OR r.owner = $4) AND ($5::text IS NULL OR $5 = ANY (r.tags))
   AND ($6::float8 IS NULL OR (r.created_at, r.id) < ($6, $7::text))
 ORDER BY r.created_at DESC, r.id DESC LIMIT $8"""
_ITS = "JOIN steprelay.run r ON r.tenant = $1 AND r.id = $2 AND r.no ="
_READ_STEPS = f"""SELECT {_of("s", _STEP)} FROM steprelay.step s {_ITS} s.run
 WHERE s.idx > $3 ORDER BY s.idx LIMIT $4"""
_READ_INBOX = f"""SELECT r.tenant, r.id, {_of("s", rows.INBOX[2:])} FROM steprelay.inbox s {_ITS} s.run
 WHERE s.seq > $3 ORDER BY s.seq LIMIT $4"""
_READ_OUTBOX = f"""SELECT r.tenant, r.id, {_of("o", rows.OUTBOX[2:])} FROM steprelay.outbox o {_ITS} o.run
 WHERE o.due_at IS NOT NULL AND o.seq > $3 ORDER BY o.seq LIMIT $4"""
_READ_BLOB = f"SELECT b.value FROM steprelay.blob b {_ITS} b.run WHERE b.name = $3"
_GET = "SELECT k.value FROM steprelay.kv k WHERE k.name = $1 AND k.until > steprelay.clock($2)"
_SCAN = """SELECT k.name, k.value FROM steprelay.kv k
 WHERE k.name >= $1 AND k.name < $1 || chr(1114111) AND k.until > steprelay.clock($2)"""
_VERSIONS = """CREATE TABLE IF NOT EXISTS steprelay.migration (
  version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"""
_VERSION = "SELECT coalesce(max(version), 0) FROM steprelay.migration"
_SERVER = """SELECT current_setting('server_version'), current_setting('transaction_read_only'),
 current_setting('transaction_isolation'), to_regclass($1) IS NOT NULL"""


# ---------------------------------------------------------------- values


def _claim(claim: Claim) -> tuple[Any, ...]:
    return claim.key.tenant, claim.key.id, claim.index, claim.fence, claim.claim_id


def _new(n: New) -> tuple[Any, ...]:
    steps = [_texts((s.index, *_step_values(s), s.committed_at)) for s in n.steps] or None
    tags = [_tag(item) for item in codec.loads(n.labels).items()]
    return (
        n.agent, n.adapter, n.owner, n.parent, n.labels, tags, n.notify_url, n.create_hash, SCHEMA, n.carrier, n.takeover_after,
        n.limits, n.prompt, n.state, n.scratchpad, n.round, n.floor, n.status, n.stop_reason, n.due, n.tally, steps,
    )  # fmt: skip


def _tag(label: tuple[str, Any]) -> str:
    """A label as one text that no other label has."""
    return codec.dumps(label)


def _filter(f: Filter) -> tuple[Any, ...]:
    tag = None if f.label is None else _tag(f.label)
    return list(f.status) or None, f.agent, f.owner, tag, *(f.before or (None, None))


def _step_values(s: Step | None) -> tuple[Any, ...]:
    if s is None:
        return (None,) * 14
    asked = (s.request.id, s.request.hash) if s.request else (None, None)
    return (
        s.round, s.attempt, s.carrier, s.claim_id, s.status, s.stop_reason, *asked, _lines(s.messages), _lines(s.parts), s.usage,
        s.state, s.floor, s.claimed_at,
    )  # fmt: skip


def _texts(values: Sequence[Any]) -> list[str | None]:
    return [None if v is None else str(v) for v in values]


def _lines(texts: tuple[Json, ...]) -> str | None:
    """Canonical JSON holds no line break, so one line a text keeps them apart."""
    joined = "\n".join(texts)
    if texts and joined.count("\n") != len(texts) - 1:
        raise BadInput("a message or part is no canonical JSON text: it has a line break; make it with codec.dumps")
    return joined or None


def _pairs(entries: Mapping[str, str] | None) -> list[list[str]] | None:
    return [[name, value] for name, value in entries.items()] if entries else None


# ---------------------------------------------------------------- rows


def _run(row: Sequence[Any]) -> Run | None:
    return None if row[0] is None else rows.run_from(row)


def _step(row: Sequence[Any]) -> Step | None:
    return None if row[0] is None else _known_step(row)


def _known_step(row: Sequence[Any]) -> Step:
    """The hot spot of a long run: every step since the floor, at every claim."""
    (
        index, round, attempt, carrier, claim_id, status, stop_reason, request, hash, messages, parts, usage, state, floor,
        claimed_at, committed_at,
    ) = row  # fmt: skip
    return Step.of(
        {
            "index": index, "round": round, "attempt": attempt, "carrier": carrier, "claim_id": claim_id, "status": status,
            "stop_reason": stop_reason, "request": None if request is None else Request(id=request, hash=hash),
            "messages": tuple(messages.split("\n")) if messages else (), "parts": tuple(parts.split("\n")) if parts else (),
            "usage": usage, "state": state, "floor": floor, "claimed_at": claimed_at, "committed_at": committed_at,
        }
    )  # fmt: skip


def _signals(found: list[list[Any]] | None) -> tuple[Signal, ...]:
    return tuple(
        Signal(
            kind=kind, body=body, request_id=request, reopens=reopens == "1", carrier=carrier,
            takeover_after=None if takeover is None else float(takeover), seq=int(seq), at=float(at),
        )
        for kind, body, request, reopens, carrier, takeover, seq, at in found or ()
    )  # fmt: skip
