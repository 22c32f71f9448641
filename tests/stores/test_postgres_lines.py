"""What PostgreSQL adds to the contract: round trips, lost lines, odd characters, schemas, indexes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from steprelay.core.errors import BadInput, ConfigError, StoreUnavailable
from steprelay.core.model import Claimed, Commit, Committed, Fenced, Filter, New, Request, RunKey, Signal, Step
from steprelay.stores.postgres import PostgresStore
from steprelay.testing.servers import PostgresServer, fresh_url, postgres
from steprelay.testing.wire import SYNC, Cut, Wire

pytestmark = pytest.mark.slow  # they need the servers

KEY = RunKey("t", "r")
NEW = New(agent="a", adapter="function", prompt='"go"', carrier="any")


async def claim(store: PostgresStore, id: str = "c", key: RunKey = KEY, request: Request | None = None) -> Claimed:
    claimed = await store.claim(key, claim_id=id, holder="h", lease=15, carrier="any", new=NEW, request=request)
    assert isinstance(claimed, Claimed)
    return claimed


def forward(claimed: Claimed) -> Commit:
    step = Step(
        index=claimed.run.step, round=0, attempt=1, carrier="any", claim_id=claimed.claim.claim_id, status="RUNNING",
        messages=('{"m":1}',),
    )  # fmt: skip
    return Commit(status="RUNNING", after=0.0, step=step, tally="{}", inbox_read=0)


def schema_of(url: str) -> str:
    return url.partition("schema=")[2]


class Wired:
    """A store behind a proxy that counts, and cuts the next statement that names `cut_at`."""

    def __init__(self, url: str) -> None:
        self.wire = Wire.before(url)
        self.wire.cut = self._cut
        self.cut_at: bytes | None = None
        self.place: Cut = "answer"
        self.url = url

    async def start(self) -> Wired:
        await self.wire.start()
        self.store = PostgresStore(self.wire.url(self.url))
        await self.store.migrate()
        return self

    def _cut(self, data: bytes) -> Cut | None:
        if self.cut_at is None or self.cut_at not in data or not data.endswith(SYNC):
            return None
        self.cut_at = None
        return self.place


@pytest.fixture(params=["postgres", "pgbouncer"])
async def wired(request: pytest.FixtureRequest) -> AsyncIterator[Wired]:
    wired = await Wired(fresh_url(request.param)).start()
    yield wired
    await wired.store.close()
    await wired.wire.stop()


async def test_every_verb_is_one_round_trip_once_prepared(wired: Wired) -> None:
    store, costs = wired.store, {}
    for turn in range(2):  # the first turn prepares
        key = RunKey("t", f"r{turn}")

        async def cost(name: str, verb: object) -> object:
            before = wired.wire.trips
            answer = await verb  # type: ignore[misc]
            costs[name] = wired.wire.trips - before
            return answer

        claimed = await cost("start", claim(store, key=key, request=Request(id="q", hash="h")))
        assert isinstance(claimed, Claimed)
        await cost("progress", store.progress(claimed.claim, lease=15, tail='"t"', ledger={"k": "1"}))
        await cost("signal", store.signal(key, Signal(kind="prompt", body='"x"', request_id="s", reopens=True)))
        assert isinstance(await cost("renew", store.commit(claimed.claim, forward(claimed), renew=15)), Committed)
        await cost("claim", store.claim(key, claim_id="c", holder="h", lease=15, carrier="any"))
        await cost("due", store.due(["any"], 10))
        await cost("ack", store.ack(key, [1]))
        await cost("steps", store.read(key, "steps"))
        await cost("runs", store.read(Filter(tenant="t"), "runs"))
        await cost("get", store.get("n"))
        await cost("put_if", store.put_if("n", "v", ttl=5, expect=None))
        await cost("incr", store.incr("m", 1, ttl=5))
        await cost("scan", store.scan("n"))
        await cost("prune", store.prune(0.0, Filter(tenant="t")))
    assert costs == dict.fromkeys(costs, 1)


async def test_a_commit_whose_answer_is_lost_is_true_and_told_unknown(wired: Wired) -> None:
    claimed = await claim(wired.store)
    wired.cut_at, wired.place = b".commit(", "answer"
    with pytest.raises(StoreUnavailable):
        await wired.store.commit(claimed.claim, forward(claimed))
    assert isinstance(await wired.store.commit(claimed.claim, forward(claimed)), Fenced)
    assert [s.claim_id for s in await wired.store.read(KEY, "steps")] == ["c"]


@pytest.mark.parametrize("place", ["request", "half"])
async def test_a_commit_that_never_arrived_can_be_repeated(wired: Wired, place: Cut) -> None:
    claimed = await claim(wired.store)
    wired.cut_at, wired.place = b".commit(", place
    with pytest.raises(StoreUnavailable):
        await wired.store.commit(claimed.claim, forward(claimed))
    assert isinstance(await wired.store.commit(claimed.claim, forward(claimed)), Committed)


async def test_a_line_that_was_hung_up_while_idle_is_opened_anew(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steprelay.storekit.postgres.STALE", 0.0)
    await wired.store.get("x")
    postgres().sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%kv%'")
    assert await wired.store.get("x") is None


async def test_a_cancelled_caller_leaves_the_line_usable(wired: Wired) -> None:
    await claim(wired.store)
    caller = asyncio.create_task(wired.store.signal(KEY, Signal(kind="event", body='{"id":"e"}')))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(await wired.store.read(KEY, "inbox")) == 1
    assert wired.wire.lines == 1


async def test_closing_lets_what_was_asked_come_to_its_end() -> None:
    store = PostgresStore(fresh_url("postgres"))
    await store.migrate()
    told = asyncio.create_task(store.put_if("k", "v", ttl=9, expect=None))
    await asyncio.sleep(0)
    await store.close()
    assert await told
    assert await store.get("k") == "v"  # a closed store that is used again opens again
    await store.close()


async def test_a_store_may_be_used_in_one_event_loop_after_another() -> None:
    store = PostgresStore(fresh_url("postgres"))

    def use() -> list[str]:
        return asyncio.run(store.migrate())

    assert await asyncio.to_thread(use) != []
    assert await asyncio.to_thread(use) == []


async def test_a_pool_runs_verbs_side_by_side() -> None:
    wired = await Wired(fresh_url("postgres") + "&pool=3").start()
    await asyncio.gather(*(wired.store.put_if(f"k{i}", "v", ttl=9, expect=None) for i in range(12)))
    assert len(await wired.store.scan("k")) == 12
    assert wired.wire.lines == 3
    await wired.store.close()
    await wired.wire.stop()


async def test_what_text_cannot_hold_is_refused_by_name(wired: Wired) -> None:
    for key in (RunKey("t", "a\0b"), RunKey("t", "a\ud800b")):
        with pytest.raises(BadInput, match="cannot be stored"):
            await claim(wired.store, key=key)
    claimed = await claim(wired.store)
    step = Step(index=0, round=0, attempt=1, carrier="any", claim_id="c", status="RUNNING", messages=("{\n}",))
    with pytest.raises(BadInput, match="line break"):
        await wired.store.commit(claimed.claim, Commit(status="RUNNING", after=0.0, step=step, tally="{}", inbox_read=0))


async def test_a_schema_that_is_missing_older_or_newer_is_told(wired: Wired) -> None:
    url = fresh_url("postgres")
    store = PostgresStore(url)
    for verb in (store.get("x"), store.check(), claim(store)):
        with pytest.raises(ConfigError, match="steprelay migrate"):
            await verb
    assert await store.migrate() != []
    assert await store.migrate() == []
    table = f"{schema_of(url)}.migration"
    postgres().sql(f"DELETE FROM {table} WHERE version > 1")
    with pytest.raises(ConfigError, match="steprelay migrate"):
        await store.check()
    postgres().sql(f"INSERT INTO {table} (version, name) VALUES (999, 'later')")
    with pytest.raises(ConfigError, match="999"):
        await store.check()
    with pytest.raises(ConfigError, match="999"):
        await store.migrate()
    await store.close()


async def test_two_that_migrate_at_once_apply_it_once() -> None:
    url = fresh_url("postgres")
    stores = [PostgresStore(url) for _ in range(4)]
    applied = await asyncio.gather(*(s.migrate() for s in stores))
    assert sorted(map(len, applied))[:-1] == [0, 0, 0]
    for store in stores:
        await store.close()


async def test_a_user_who_owns_nothing_but_the_schema_is_enough() -> None:
    url = fresh_url("postgres")
    name = schema_of(url)
    postgres().sql(f"CREATE ROLE {name}_user LOGIN; CREATE SCHEMA {name} AUTHORIZATION {name}_user")
    store = PostgresStore(url.replace("steprelay@", f"{name}_user@"))
    await store.migrate()
    assert isinstance(await claim(store), Claimed)
    await store.close()


async def test_steps_touch_no_index_but_their_own() -> None:
    """Claims and commits of a run under way are heap-only updates of its row."""
    url = fresh_url("postgres")
    store = PostgresStore(url)
    await store.migrate()
    claimed = await claim(store)
    for n in range(20):
        assert isinstance(await store.commit(claimed.claim, forward(claimed), now=1000.0 + n), Committed)
        again = await store.claim(KEY, claim_id=f"c{n}", holder="h", lease=15, carrier="any", now=1000.0 + n)
        assert isinstance(again, Claimed)
        claimed = again
    await store.close()
    name = schema_of(url)
    hot = f"SELECT n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = '{name}' AND relname = 'run'"
    for _ in range(100):
        postgres().sql("SELECT pg_stat_force_next_flush()")
        updated = int(
            postgres().sql(f"SELECT n_tup_upd FROM pg_stat_user_tables WHERE schemaname = '{name}' AND relname = 'run'")
        )
        if updated == 41:
            break
        await asyncio.sleep(0.05)
    assert updated == 41
    assert int(postgres().sql(hot)) <= 2  # one when `due_at` reached the clock of this test, one more if a page was full


@pytest.mark.parametrize("query", ["due", "steps", "takeover"])
async def test_what_is_asked_often_is_answered_from_an_index(query: str) -> None:
    url = fresh_url("postgres")
    store = PostgresStore(url)
    await store.migrate()
    await store.close()
    name = schema_of(url)
    sql = {
        "due": f"SELECT 1 FROM {name}.run r WHERE r.carrier = 'x' AND r.due_minute <= 5 ORDER BY r.due_minute, r.due_at LIMIT 5",
        "takeover": f"SELECT 1 FROM (VALUES (false), (true)) n(never) CROSS JOIN LATERAL (SELECT r.id FROM {name}.run r"
        " WHERE (r.takeover_after IS NULL) = n.never AND r.due_minute <= 5 ORDER BY r.due_minute, r.due_at LIMIT 5) r",
        "steps": f"SELECT 1 FROM {name}.step s WHERE s.run = 5 AND s.idx >= 7 ORDER BY s.idx",
    }[query]
    plan = postgres().sql(f"SET enable_seqscan = off; SET enable_bitmapscan = off; EXPLAIN {sql}")
    index = {"due": "run_due", "takeover": "run_takeover", "steps": "step_pkey"}[query]
    assert f"using {index} " in plan, plan


async def test_a_server_that_comes_back_from_a_crash_is_found_again() -> None:
    server = PostgresServer().start()
    try:
        store = PostgresStore(server.url())
        await store.migrate()
        claimed = await claim(store)
        server.crash()
        back = asyncio.create_task(asyncio.to_thread(server.start))
        while True:
            try:
                done = await store.commit(claimed.claim, forward(claimed))
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
        await back
        assert isinstance(done, Committed)
        await store.close()
    finally:
        server.stop()


@pytest.mark.parametrize("url", ["postgresql://h/db?pool=0", "postgresql://h/db?timeout=soon"])
def test_a_wrong_parameter_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="no positive number"):
        PostgresStore(url)


async def test_a_wrong_database_is_told() -> None:
    store = PostgresStore(postgres().url("nowhere"))
    with pytest.raises(ConfigError, match="create the database"):
        await store.get("x")
