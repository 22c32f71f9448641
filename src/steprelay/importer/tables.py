"""Reads session tables, from SQLite, Postgres, CSV or JSON Lines, a few rows at a time and never writing."""

from __future__ import annotations

import asyncio
import csv
import json
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..core.errors import ConfigError, StoreUnavailable
from ..core.model import Value

BATCH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The names of the three columns (or of the three fields of a JSON line)."""

    session: str = "session_id"
    context: str = "context"
    status: str = "status"

    @property
    def all(self) -> tuple[str, str, str]:
        return self.session, self.context, self.status


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One session as it was found. `number`: the line of a file, or the place in the table, ordered by session id; from 1."""

    number: int
    session: Value = None
    context: Value = None
    status: Value = None
    error: str | None = None  # the row could not even be read


async def rows(url: str, table: str = "agent_sessions", columns: Columns | None = None) -> AsyncGenerator[Row, None]:
    """The rows of `sqlite:PATH`, `postgres://…`, a `.csv` or a `.jsonl` file, one by one.

    Raises ConfigError when the source, its table or a column is not there, StoreUnavailable when its server is not.
    """
    columns = columns or Columns()
    if url.startswith(("postgres://", "postgresql://")):
        source = _postgres(url, table, columns)
    else:
        source = _threaded(_reader(url, table, columns))
    async with aclosing(source):
        async for row in source:
            yield row


def _reader(url: str, table: str, columns: Columns) -> Callable[[], Iterator[Row]]:
    scheme, _, rest = url.partition(":")
    path = Path("/" + rest.lstrip("/") if rest.startswith("//") else rest) if scheme in ("sqlite", "file") and rest else Path(url)
    if not path.is_file():
        raise ConfigError(f"no file {str(path)!r}; give sqlite:PATH, postgres://…, or the path of a .csv or .jsonl file")
    match path.suffix.lower():
        case ".csv":
            return lambda: _csv(path, columns)
        case ".jsonl" | ".ndjson":
            return lambda: _jsonl(path, columns)
        case _:
            return lambda: _sqlite(path, table, columns)


async def _threaded(make: Callable[[], Iterator[Row]]) -> AsyncGenerator[Row, None]:
    """A blocking reader, a batch at a time in a thread."""
    reader = make()
    while batch := await asyncio.to_thread(lambda: list(islice(reader, BATCH))):
        for row in batch:
            yield row


def _csv(path: Path, columns: Columns) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a context is longer than the 128 kB that csv allows by itself
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        _check_columns(str(path), reader.fieldnames or (), columns)
        for found in reader:
            yield _row(reader.line_num, found, columns)


def _jsonl(path: Path, columns: Columns) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as e:
                yield Row(number=number, error=f"the line is not JSON: {e}")
                continue
            if isinstance(found, dict) and set(columns.all) <= set(found):
                yield _row(number, found, columns)
            else:
                yield Row(number=number, error=f"an object with {', '.join(columns.all)} is needed")


def _sqlite(path: Path, table: str, columns: Columns) -> Iterator[Row]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False)) as connection:
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        try:
            names = [r["name"] for r in connection.execute(f"PRAGMA table_info({_quoted(table)})")]
            _check_table(path.name, table, names, columns)
            cursor = connection.execute(_select(table, columns))
        except sqlite3.DatabaseError as e:
            raise ConfigError(f"{str(path)!r} cannot be read as an SQLite database: {e}") from e
        for number, found in enumerate(cursor, start=1):
            yield _row(number, dict(found), columns)


async def _postgres(url: str, table: str, columns: Columns) -> AsyncGenerator[Row, None]:
    try:
        asyncpg: Any = import_module("asyncpg")
    except ModuleNotFoundError as e:
        raise ConfigError("postgres:// needs 'asyncpg': pip install 'steprelay[postgres]'") from e
    try:
        connection = await asyncpg.connect(url)
    except (OSError, asyncpg.PostgresError) as e:
        raise StoreUnavailable(f"the source database cannot be reached: {e}") from e
    try:
        async with connection.transaction(readonly=True):
            try:
                found = await connection.prepare(f"select * from {_quoted(table)} limit 0")
            except asyncpg.UndefinedTableError as e:
                raise ConfigError(f"the source database has no table {table!r}") from e
            _check_columns(f"table {table!r}", [a.name for a in found.get_attributes()], columns)
            number = 0
            async for record in connection.cursor(_select(table, columns), prefetch=BATCH):
                number += 1
                yield _row(number, dict(record), columns)
    finally:
        await connection.close()


def _row(number: int, found: Mapping[str, Any], columns: Columns) -> Row:
    session, context, status = values = [found[name] for name in columns.all]
    if any(isinstance(v, str) and not v.isascii() and _undecoded(v) for v in values):
        return Row(number=number, error="the row is not valid UTF-8")
    return Row(number=number, session=session, context=context, status=status)


def _undecoded(text: str) -> bool:
    """Whether bytes that are no UTF-8 were smuggled through as lone surrogates."""
    return any("\udc80" <= c <= "\udcff" for c in text)


def _select(table: str, columns: Columns) -> str:
    names = ", ".join(map(_quoted, columns.all))
    return f"select {names} from {_quoted(table)} order by {_quoted(columns.session)}"


def _quoted(name: str) -> str:
    """A name, perhaps with its schema, as SQL reads it."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def _check_table(where: str, table: str, names: Iterable[str], columns: Columns) -> None:
    if not (names := list(names)):
        raise ConfigError(f"{where} has no table {table!r}: name it with --table")
    _check_columns(f"table {table!r}", names, columns)


def _check_columns(where: str, names: Iterable[str], columns: Columns) -> None:
    names = list(names)
    if missing := [c for c in columns.all if c not in names]:
        raise ConfigError(f"{where} has no column {missing[0]!r} (it has: {', '.join(names) or 'none'})")
