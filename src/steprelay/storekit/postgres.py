"""Lines to a PostgreSQL server: opened late, kept, checked, replaced; and the driver's errors in our words.

Every statement goes out as Parse, Bind, Execute and Sync in one flush and is answered in one: one round trip, no name and
no setting left behind on the server. So it does not matter which server connection a pooler in transaction mode (PgBouncer
of any version, the poolers of serverless databases) picks for it. Why asyncpg, and why so: docs/decisions.

A statement once sent is never cancelled: what became of it would be unknown, and a cancel request can hit the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..core.errors import BadInput, ConfigError, StepRelayError, StoreError, StoreUnavailable

STALE = 1.0
"""Seconds of idleness after which a line is looked at before it is used: the other end may have hung up."""
WAKING = (0.1, 0.3, 1.0, 2.0)
"""Pauses between tries to connect: a sleeping database refuses the first ones."""
OURS = {"schema": "steprelay", "pool": "1", "timeout": "8"}
FOREIGN = ("channel_binding", "pgbouncer", "connect_timeout")
"""Parameters of other drivers that providers put into their URLs; asyncpg would send them to the server."""


def parse(url: str) -> tuple[str, dict[str, str]]:
    """The URL for asyncpg, and our own parameters taken out of it. Raises ConfigError."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    ours = {name: query.pop(name, default) for name, default in OURS.items()}
    for name in FOREIGN:
        query.pop(name, None)
    for name in ("pool", "timeout"):
        try:
            if float(ours[name]) <= 0:
                raise ValueError
        except ValueError:
            raise ConfigError(f"?{name}={ours[name]} in the store's URL is no positive number") from None
    return urlunsplit(parts._replace(scheme="postgresql", query=urlencode(query))), ours


class Line:
    """One connection, opened when first used and opened anew when it is lost."""

    def __init__(self, dsn: str, timeout: float) -> None:
        self._dsn, self._timeout = dsn, timeout
        self._conn: Any = None
        self._statements: dict[str, Any] = {}
        self._used = 0.0

    async def fetch(self, sql: str, args: Sequence[Any], *, repeatable: bool) -> list[Any]:
        """The rows of one statement. A repeatable one is sent again, once, when a line that had been idle breaks."""
        idle = time.time() - self._used > STALE
        if idle and self._conn is not None:
            for _ in range(2):  # let the event loop notice a hang-up that came while nobody looked
                await asyncio.sleep(0)
        kept = self._conn is not None and not self._conn.is_closed()
        try:
            return await self._send(sql, args)
        except StoreUnavailable:
            if not (kept and idle and repeatable):
                raise
            return await self._send(sql, args)

    async def _send(self, sql: str, args: Sequence[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()
        try:
            conn = await self.connection()
            watch = loop.call_later(self._timeout, conn.terminate)
            try:
                statement = self._statements.get(sql)
                if statement is None:
                    statement = self._statements[sql] = await conn.prepare(sql)
                rows: list[Any] = await statement.fetch(*args)
                return rows
            finally:
                watch.cancel()
                self._used = time.time()
        except Exception as e:
            raise translated(e) from e

    async def connection(self) -> Any:
        """The asyncpg connection, opened if need be; a database that is just waking up is waited for."""
        if self._conn is None or self._conn.is_closed():
            self._statements.clear()
            for pause in (*WAKING, None):
                try:
                    self._conn = await self._open()
                    break
                except Exception as e:
                    error = translated(e)
                    if pause is None or not isinstance(error, StoreUnavailable):
                        raise error from e
                await asyncio.sleep(pause)
        return self._conn

    async def _open(self) -> Any:
        import asyncpg

        return await asyncpg.connect(self._dsn, timeout=self._timeout, statement_cache_size=0)

    async def close(self) -> None:
        """Say goodbye."""
        if self._conn is not None:
            with suppress(OSError, TimeoutError):
                await self._conn.close(timeout=1)
            self._conn = None

    def drop(self) -> None:
        """Hang up at once."""
        if self._conn is not None:
            with suppress(RuntimeError):  # its event loop is gone, and the socket with it
                self._conn.terminate()
            self._conn = None


class Lines:
    """A store's connections: one by default, at most `size`. They belong to one event loop; a new loop gets new ones."""

    def __init__(self, dsn: str, size: int, timeout: float) -> None:
        self._dsn, self._size, self._timeout = dsn, size, timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all: list[Line] = []
        self._free: asyncio.LifoQueue[Line] = asyncio.LifoQueue()

    async def fetch(self, sql: str, *args: Any, repeatable: bool = True) -> list[Any]:
        """Run one statement to its end, even when the caller is cancelled meanwhile.

        Raises BadInput for what PostgreSQL's text cannot hold, StoreUnavailable when the answer is not known.
        """
        _check(args)
        line = await self.take()
        task = asyncio.ensure_future(line.fetch(sql, args, repeatable=repeatable))
        task.add_done_callback(lambda done: self._back(line, done))
        return await asyncio.shield(task)

    async def take(self) -> Line:
        """A line of one's own, to be given back."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.drop()
            self._loop, self._free = loop, asyncio.LifoQueue()
            self._all = [Line(self._dsn, self._timeout) for _ in range(self._size)]
            for line in self._all:
                self._free.put_nowait(line)
        return await self._free.get()

    def give(self, line: Line) -> None:
        if line in self._all:
            self._free.put_nowait(line)

    def _back(self, line: Line, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # seen: whoever still waits gets it, too
        self.give(line)

    async def close(self) -> None:
        """Hang up, each line when it has done what it was asked."""
        if asyncio.get_running_loop() is self._loop:
            for _ in self._all:
                await (await self._free.get()).close()
        self.drop()

    def drop(self) -> None:
        for line in self._all:
            line.drop()
        self._all, self._loop = [], None


def _check(args: Sequence[Any]) -> None:
    for value in args:
        if isinstance(value, str):
            if "\0" in value:
                raise BadInput(f"{value[:60]!r} cannot be stored: PostgreSQL's text holds no NUL character")
            if not value.isascii():
                _check_unicode(value)
        elif isinstance(value, list):
            _check(value)


def _check_unicode(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as e:
        raise BadInput(f"{value[:60]!r} cannot be stored: it is not valid Unicode") from e


def translated(e: BaseException) -> StepRelayError:
    """The one place where asyncpg's errors become ours."""
    import asyncpg

    if isinstance(e, StepRelayError):
        return e
    if isinstance(e, asyncpg.ClientConfigurationError):
        return ConfigError(f"PostgreSQL URL: {e}")
    if isinstance(e, asyncpg.DataError | OverflowError):
        return BadInput(f"PostgreSQL cannot store a value: {e}")
    if isinstance(e, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return StoreUnavailable(f"PostgreSQL does not answer: {str(e) or type(e).__name__}")
    code = getattr(e, "sqlstate", None) or ""
    for prefix, kind, remedy in _STATES:
        if code.startswith(prefix):
            return kind(f"PostgreSQL: {e} [{code}]; {remedy}" if remedy else f"PostgreSQL: {e} [{code}]")
    return StoreError(f"PostgreSQL: {e} [{code or type(e).__name__}]")


_AWAY = "try again"
_SCHEMA = "run `steprelay migrate` with the release that is deployed"
_STATES: tuple[tuple[str, type[StepRelayError], str], ...] = (
    ("28", ConfigError, "check user and password in the store's URL"),
    ("3D000", ConfigError, "create the database, or correct the store's URL"),
    ("3F000", ConfigError, f"the store's tables are missing: {_SCHEMA}"),
    ("42P01", ConfigError, f"the store's tables are missing or of another version: {_SCHEMA}"),
    ("42883", ConfigError, f"the store's functions are missing or of another version: {_SCHEMA}"),
    ("42703", ConfigError, f"the store's tables are of another version: {_SCHEMA}"),
    ("42501", ConfigError, "give this user the right to use the schema"),
    ("25006", StoreUnavailable, "this server is read-only (a standby?); point the URL at the primary"),
    ("53100", StoreUnavailable, "the server's disk is full; free some space"),
    ("53", StoreUnavailable, _AWAY),
    ("08", StoreUnavailable, _AWAY),
    ("57", StoreUnavailable, _AWAY),
    ("40", StoreUnavailable, _AWAY),
    ("55P03", StoreUnavailable, _AWAY),
    ("58", StoreUnavailable, "the server cannot read or write its files; look at its log"),
    ("XX", StoreError, "look at the server's log"),
)
