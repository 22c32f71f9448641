"""One SQLite file: its thread, its transactions, its schema, and its errors in our words.

The connection lives in one thread and is opened, and migrated, at its first use. WAL with `synchronous=FULL`. Runs on
SQLite 3.35 and later (RETURNING).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from ..core.errors import BadInput, ConfigError, StoreError, StoreUnavailable
from .migrations import pending

T = TypeVar("T")
DB = sqlite3.Connection
BUSY = 5.0
"""Seconds a transaction waits for those of other processes."""


class File:
    """A database file that verbs run on, one after the other."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._worker = Worker()
        self._db: DB | None = None  # this and the next are touched by that thread only
        self._applied: list[str] = []
        self._closed = False

    async def write(self, verb: Callable[[DB, float], T], now: float | None = None) -> T:
        """Run `verb(connection, now)` in one transaction. Raises StoreUnavailable, StoreError, ConfigError, BadInput."""
        return await self._hop(lambda db: transaction(db, verb, now))

    async def read(self, view: Callable[[DB, float], T], now: float | None = None) -> T:
        """Run `view(connection, now)` without one."""
        return await self._hop(lambda db: view(db, _clock(now)))

    def migrated(self) -> list[str]:
        """What opening the file has applied, told once. For the store's thread."""
        applied, self._applied = self._applied, []
        return applied

    async def close(self) -> None:
        """Idempotent. What is under way is finished first."""
        if not self._closed:
            self._closed = True
            await self._worker.do(self._hang_up)
            self._worker.end()

    async def _hop(self, act: Callable[[DB], T]) -> T:
        if self._closed:
            raise StoreError(f"the SQLite store {self.path!r} is closed; make another one")
        return await self._worker.do(lambda: self._act(act))

    def _act(self, act: Callable[[DB], T]) -> T:
        with _translated(self.path):
            if self._db is None:
                self._db, self._applied = _open(self.path)
            return act(self._db)

    def _hang_up(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


class Worker:
    """A thread that does one thing after the other. An executor of one costs twice as much a call: it locks more, and keeps a
    second future for what nobody asks."""

    def __init__(self) -> None:
        self._todo: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def do(self, act: Callable[[], T]) -> asyncio.Future[T]:
        """What `act` answers in the thread. Given up before its turn comes, it is not done."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="steprelay-sqlite", daemon=True)
            self._thread.start()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._todo.put((answer, act))
        return answer

    def end(self) -> None:
        """Let the thread end when it has done what it was given."""
        self._todo.put(None)

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            _do(*job)
            del job


def _do(answer: asyncio.Future[Any], act: Callable[[], Any]) -> None:
    if answer.cancelled():
        return
    try:
        told, value = answer.set_result, act()
    except BaseException as e:
        told, value = answer.set_exception, e
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        answer.get_loop().call_soon_threadsafe(lambda: answer.done() or told(value))


def path_of(url: str) -> str:
    """The path that a setting names. Raises ConfigError."""
    path = url.removeprefix("file:").removeprefix("sqlite:")
    if path.startswith("///"):
        path = "/" + path.lstrip("/")
    if not path or path.startswith("//"):
        raise ConfigError(f"{url!r} names no file; use sqlite:///absolute/path.db or sqlite:relative/path.db")
    return path


def _clock(now: float | None) -> float:
    return time.time() if now is None else now


def _open(path: str) -> tuple[DB, list[str]]:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"the folder of {path!r} cannot be made: {e}; set STEPRELAY_STORE to a path that can be written") from e
    db = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        _patiently(lambda: db.execute("PRAGMA journal_mode = WAL").fetchone())
        db.execute("PRAGMA synchronous = FULL")
        return db, _migrate(db)
    except BaseException:
        db.close()
        raise


def _patiently(act: Callable[[], T]) -> T:
    """Changing the journal mode does not wait for other processes by itself."""
    until = time.monotonic() + BUSY
    while True:
        try:
            return act()
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)


def version_of(db: DB) -> int:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'migration'").fetchone():
        return 0
    return int(db.execute("SELECT coalesce(max(version), 0) FROM migration").fetchone()[0])


def _migrate(db: DB) -> list[str]:
    if not pending("sqlite", version_of(db)):
        return []

    def verb(db: DB, now: float) -> list[str]:
        db.execute("CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL, at REAL NOT NULL)")
        missing = pending("sqlite", version_of(db))  # looked up again: another process may have been faster
        for migration in missing:
            for statement in _statements(migration.sql):
                db.execute(statement)
            db.execute("INSERT INTO migration VALUES (?, ?, ?)", (migration.version, migration.name, now))
        return [m.name for m in missing]

    return transaction(db, verb, None)


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def transaction(db: DB, verb: Callable[[DB, float], T], now: float | None) -> T:
    """The clock is read once the lock is ours: time spent waiting for it has passed."""
    db.execute("BEGIN IMMEDIATE")
    try:
        answer = verb(db, _clock(now))
        db.execute("COMMIT")
        return answer
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "another process kept it locked for {busy:g} s; try again, and look for a long transaction",
    sqlite3.SQLITE_LOCKED: "it is locked; try again",
    sqlite3.SQLITE_FULL: "the disk is full; free some space on its volume, then try again",
    sqlite3.SQLITE_IOERR: "reading or writing it failed; check the disk, its free space and its quota, then try again",
}
_REFUSED = {
    sqlite3.SQLITE_READONLY: "it is read-only; give this user the right to write the file and its folder",
    sqlite3.SQLITE_PERM: "access was denied; give this user the right to write the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that it is a file in a folder this user may write",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; point STEPRELAY_STORE at another path",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup",
    sqlite3.SQLITE_TOOBIG: "a value is longer than SQLite takes (1 GB)",
}


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """The one place where SQLite's errors become ours."""
    try:
        yield
    except sqlite3.Error as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        if remedy := _UNAVAILABLE.get(code):
            raise StoreUnavailable(f"SQLite store {path!r}: {remedy.format(busy=BUSY)} ({e})") from e
        remedy = _REFUSED.get(code, "the statement was refused")
        raise StoreError(f"SQLite store {path!r}: {remedy} ({e})") from e
    except UnicodeEncodeError as e:
        raise BadInput(f"{e.object!r:.80} cannot be stored: it is not valid Unicode") from e
    except OverflowError as e:
        raise BadInput(f"a number is too large to be stored: {e}") from e
