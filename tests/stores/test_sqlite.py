"""What is SQLite's own: its settings, its schema, its errors and its cost."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from steprelay.core import codec
from steprelay.core.errors import BadInput, ConfigError, StoreError, StoreUnavailable
from steprelay.core.model import Claimed, Filter, Reply, RunKey, Signal
from steprelay.core.noun import replace
from steprelay.engine import Engine
from steprelay.storekit.sqlite import path_of
from steprelay.stores.sqlite import SQLiteStore
from steprelay.testing.store_checks.common import KEY, T, create, forward, go, new, row, take


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(str(path))
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("sqlite:///srv/runs.db", "/srv/runs.db"),
        ("sqlite:////srv/runs.db", "/srv/runs.db"),
        ("file:///srv/runs.db", "/srv/runs.db"),
        ("sqlite:.steprelay/runs.db", ".steprelay/runs.db"),
        ("runs.db", "runs.db"),
        ("/srv/runs.db", "/srv/runs.db"),
        ("sqlite::memory:", ":memory:"),
    ],
)
def test_a_setting_names_a_path(url: str, wanted: str) -> None:
    assert path_of(url) == wanted


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://runs.db", ""])
def test_a_setting_without_a_path_says_what_to_write(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///absolute/path"):
        SQLiteStore(url)


async def test_nothing_is_touched_before_the_first_verb(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "new" / "runs.db"))
    assert os.listdir(tmp_path) == []
    await create(store)
    assert "runs.db" in os.listdir(tmp_path / "new")
    await store.close()


async def test_what_was_answered_survives_a_power_cut(store: SQLiteStore, path: Path) -> None:
    await create(store)
    settings = await store._file.read(
        lambda db, now: [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "busy_timeout")]
    )
    assert settings == ["wal", 2, 5000]


async def test_closing_leaves_one_file_and_ends_the_store(store: SQLiteStore, path: Path) -> None:
    await create(store)
    await store.close()
    assert [p.name for p in path.parent.iterdir()] == ["runs.db"]
    with pytest.raises(StoreError, match="closed"):
        await store.read(KEY, "run")


async def test_a_check_names_file_version_and_schema(store: SQLiteStore, path: Path) -> None:
    assert await store.check() == f"sqlite: {path}, SQLite {sqlite3.sqlite_version}, schema 2"


async def test_migrating_tells_what_was_applied(store: SQLiteStore) -> None:
    assert await store.migrate() == ["001_runs", "002_lines"]
    assert await store.migrate() == []


async def test_a_schema_newer_than_the_code_is_refused_and_left_alone(store: SQLiteStore, path: Path) -> None:
    await create(store)
    await store.close()
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO migration VALUES (99, '099_future', 0)")
    db.close()
    late = SQLiteStore(str(path))
    with pytest.raises(ConfigError, match="schema version 99"):
        await late.read(KEY, "run")
    await late.close()


# ---------------------------------------------------------------- errors


@contextmanager
def locked(path: Path) -> Iterator[None]:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    yield
    db.close()


async def _hurry(store: SQLiteStore, pragma: str = "busy_timeout = 20") -> None:
    await store._file.read(lambda db, now: db.execute(f"PRAGMA {pragma}"))


async def test_a_lock_held_too_long_is_unavailable(store: SQLiteStore, path: Path) -> None:
    await create(store)
    await _hurry(store)
    with locked(path), pytest.raises(StoreUnavailable, match="another process"):
        await take(store)
    assert (await take(store)).claim.fence == 1


async def test_readers_do_not_wait_for_a_writer(store: SQLiteStore, path: Path) -> None:
    await create(store)
    await _hurry(store)
    with locked(path):
        assert (await row(store)).key == KEY


async def test_a_read_only_database_is_told_before_an_agent_is_asked(store: SQLiteStore) -> None:
    await create(store)
    await _hurry(store, "query_only = 1")
    asked: list[int] = []
    with pytest.raises(StoreError, match="right to write") as caught:
        await _engine(store, asked).advance(KEY, carrier="client")
    assert not isinstance(caught.value, StoreUnavailable), "waiting does not help"
    assert asked == []
    assert (await row(store)).fence == 0


async def test_a_full_disk_is_told_before_an_agent_is_asked_and_harms_nothing(store: SQLiteStore, path: Path) -> None:
    await go_once(store)
    before = await row(store)
    asked: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    wal = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal, hard))  # the log cannot grow by one page
    try:
        with pytest.raises(StoreUnavailable, match="free space"):
            await _engine(store, asked).advance(KEY, carrier="client")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert asked == []
    assert await row(store) == before
    await _engine(store, asked).advance(KEY, carrier="client")
    assert asked == [1], "with space again it goes on"


async def test_a_commit_that_finds_the_disk_full_changes_nothing(store: SQLiteStore) -> None:
    await create(store)
    claimed = await take(store)
    before = await row(store)
    pages = await store._file.read(lambda db, now: db.execute("PRAGMA page_count").fetchone()[0])
    await _hurry(store, f"max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await store.commit(claimed.claim, forward(claimed, blobs={"b": "x" * 1_000_000}), now=T)
    assert await row(store) == before
    assert await store.read(KEY, "steps") == []


async def test_what_is_no_database_is_named() -> None:
    store = SQLiteStore(__file__)
    with pytest.raises(StoreError, match="not a SQLite database"):
        await store.check()
    await store.close()


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path))
    with pytest.raises(StoreError, match="cannot be opened"):
        await store.check()
    await store.close()


async def test_a_folder_that_cannot_be_made_is_a_setting_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SQLiteStore(str(tmp_path / "file" / "runs.db"))
    with pytest.raises(ConfigError, match="STEPRELAY_STORE"):
        await store.check()
    await store.close()


async def test_text_that_is_no_unicode_and_huge_numbers_are_bad_input(store: SQLiteStore) -> None:
    await create(store)
    with pytest.raises(BadInput, match="Unicode"):
        await store.signal(KEY, Signal(kind="event", request_id="\ud800"), now=T)
    with pytest.raises(BadInput, match="too large"):
        await store.read(KEY, "steps", after=2**64)
    assert await store.read(KEY, "inbox") == []


async def test_a_verb_whose_caller_went_away_is_finished(store: SQLiteStore) -> None:
    await create(store)
    task = asyncio.ensure_future(take(store))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert (await row(store)).fence in (0, 1)
    assert (await take(store, id="c1")).claim.fence == 1


# ---------------------------------------------------------------- cost


async def test_a_step_inserts_one_row_and_updates_one(store: SQLiteStore) -> None:
    await create(store)
    await go(store)
    statements: list[str] = []
    await store._file.read(lambda db, now: db.set_trace_callback(statements.append))
    await go(store, id="c2")
    writes = [s.split()[0] for s in statements if s.split()[0] in ("INSERT", "UPDATE", "DELETE")]
    assert sorted(writes) == ["DELETE", "INSERT", "UPDATE", "UPDATE"], "a claim, a commit, and the ledger's end"


async def test_claim_commit_and_due_stay_flat_beside_many_runs(store: SQLiteStore) -> None:
    """200,000 runs that ended, wait, or belong to a carrier nobody asks for cost nothing."""
    await create(store, KEY, carrier="background")
    alone = await _cost(store)
    await store._file.write(_crowd)
    crowded = await _cost(store)
    assert crowded < max(5 * alone, 0.010), f"{alone * 1000:.2f} ms alone, {crowded * 1000:.2f} ms beside 200,000"
    plans = await store._file.read(_plans)
    assert not [plan for plan in plans if plan.startswith("SCAN run") and "USING INDEX" not in plan], plans


def _crowd(db: sqlite3.Connection, now: float) -> None:
    db.execute("CREATE TEMP TABLE one AS SELECT * FROM run LIMIT 1")
    columns = [c[1] for c in db.execute("PRAGMA table_info(run)")]
    changed = {
        "id": "printf('x%d', value)", "due_at": "CASE value % 3 WHEN 0 THEN NULL WHEN 1 THEN 9e9 + value ELSE value END",
        "ended": "value % 3 = 0", "carrier": "'client'", "created_at": "value",
    }  # fmt: skip
    picked = ", ".join(changed.get(c, f'"{c}"') for c in columns)
    numbers = "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 200000)"
    db.execute(f"{numbers} INSERT INTO run SELECT {picked} FROM n, one")


def _plans(db: sqlite3.Connection, now: float) -> list[str]:
    from steprelay.stores import sqlite

    named = {"now": 0, "limit": 1, "carrier": "x"}
    return [r[3] for sql in (sqlite._ANY, sqlite._OURS, sqlite._TAKEOVER) for r in db.execute("EXPLAIN QUERY PLAN " + sql, named)]


async def _cost(store: SQLiteStore) -> float:
    """Seconds of due, claim and commit together, best of ten."""
    best = 9.0
    for n in range(10):
        began = time.perf_counter()
        assert [d.key for d in await store.due(["background"], 10)] == [KEY]
        await go(store, id=f"{began}-{n}", now=time.time())
        best = min(best, time.perf_counter() - began)
    return best


async def test_runs_are_listed_from_an_index(store: SQLiteStore) -> None:
    for n in range(3):
        await create(store, RunKey("acme", str(n)), now=T + n)
    plan = await store._file.read(
        lambda db, now: [
            r[3] for r in db.execute("EXPLAIN QUERY PLAN SELECT * FROM run WHERE tenant = 'a' ORDER BY created_at DESC, id DESC")
        ]
    )
    assert plan == ["SEARCH run USING INDEX run_list (tenant=?)"]
    assert len(await store.read(Filter(tenant="acme"), "runs")) == 3


# ---------------------------------------------------------------- helpers


class Asked:
    granularity = "step"

    def __init__(self, asked: list[int]) -> None:
        self._asked = asked

    async def step(self, turn: Any, ctx: Any) -> Reply:
        self._asked.append(turn.step)
        return Reply()

    @staticmethod
    def view(message: Any) -> list[Any]:
        return []

    @staticmethod
    def seed(messages: Any) -> list[Any]:
        return []


def _engine(store: SQLiteStore, asked: list[int]) -> Engine:
    return Engine(store, {"a": Asked(asked)}, lambda adapter: Asked.view, lease=0.2)


async def go_once(store: SQLiteStore) -> None:
    claimed = await store.claim(KEY, claim_id="first", holder="", lease=15, carrier=None, new=new())
    assert isinstance(claimed, Claimed)
    await store.commit(claimed.claim, forward(claimed))


async def test_a_history_kept_as_arrays_becomes_lines(path: Path) -> None:
    store = SQLiteStore(str(path))
    first = await take(store, new=new(), now=T)
    messages = ('{"content":"a\\nb","role":"user"}', '["x"]', '"\\u00e9"')
    commit = forward(first)
    assert commit.step is not None
    step = replace(commit.step, messages=messages, parts=())
    await store.commit(first.claim, replace(commit, step=step), now=T)
    await store.close()
    with sqlite3.connect(path) as db:  # as the first release of the schema wrote it
        db.execute("UPDATE step SET messages = ?, parts = '[]'", (codec.dumps(messages),))
        db.execute("DELETE FROM migration WHERE version > 1")
    db.close()
    again = SQLiteStore(str(path))
    assert await again.migrate() == ["002_lines"]
    (kept,) = await again.read(KEY, "steps")
    assert (kept.messages, kept.parts) == (messages, ())
    await again.close()


async def test_a_verb_given_up_before_its_turn_is_not_done(store: SQLiteStore) -> None:
    await store.migrate()
    began, may_end = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection, now: float) -> None:
        began.set()
        assert may_end.wait(10)

    first = asyncio.ensure_future(store._file.read(slow))
    await asyncio.to_thread(began.wait, 10)
    second = asyncio.ensure_future(create(store))
    await asyncio.wait({second}, timeout=0)
    second.cancel()
    await asyncio.wait({second})
    may_end.set()
    await first
    assert await store.read(KEY, "run") == []
