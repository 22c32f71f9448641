"""read, prune, kv, and the store as a whole."""

from __future__ import annotations

import asyncio
import time

from ...core.model import Claimed, Filter, Run, RunKey, Signal
from ...core.noun import replace
from ...ports import Store
from .common import KEY, T, ask, create, finish, forward, go, new, no, prompt, row, take, webhook

MINE = Filter(tenant="acme")


class Views:
    async def test_nothing_is_the_empty_list(self, store: Store) -> None:
        assert await store.read(KEY, "run") == await store.read(MINE, "runs") == []
        await _empty(store)
        await create(store)
        await _empty(store)

    async def test_lists_are_in_order_and_paged(self, store: Store) -> None:
        await create(store)
        for i in range(7):
            await go(store, now=T + i, id=f"c{i}", outbox=(webhook(f"w{i}"),))
            await store.signal(KEY, Signal(kind="event", body=str(i)), now=T + i)
        assert [s.index for s in await store.read(KEY, "steps")] == list(range(7))
        assert [s.index for s in await store.read(KEY, "steps", after=2, limit=3)] == [3, 4, 5]
        assert [s.seq for s in await store.read(KEY, "inbox", after=2, limit=3)] == [3, 4, 5]
        assert [s.seq for s in await store.read(KEY, "inbox")] == list(range(1, 8))
        assert [o.seq for o in await store.read(KEY, "outbox", after=2, limit=3)] == [3, 4, 5]
        await store.ack(KEY, [4, 5], now=T)
        assert [o.seq for o in await store.read(KEY, "outbox", after=2, limit=3)] == [3, 6, 7]
        assert await store.read(KEY, "steps", after=6) == []

    async def test_runs_are_listed_newest_first(self, store: Store) -> None:
        for n, name in ((0, "b"), (0, "a"), (1, "c"), (2, "d")):
            await create(store, RunKey("acme", name), now=T + n)
        await create(store, RunKey("zeta", "z"), now=T)
        assert [r.key.id for r in await store.read(MINE, "runs")] == ["d", "c", "b", "a"]
        assert [r.key.id for r in await store.read(MINE, "runs", limit=2)] == ["d", "c"]
        assert (await store.read(MINE, "runs", limit=1)) == [await row(store, RunKey("acme", "d"))]

    async def test_runs_are_filtered_by_every_given_field(self, store: Store) -> None:
        for n in range(12):
            made = {"agent": f"a{n % 2}", "owner": f"o{n % 3}" if n % 4 else None, "labels": f'{{"k":"v{n % 5}","n":"{n}"}}'}
            await create(store, RunKey("acme", f"{n:02}"), now=T + n, status="RUNNING" if n % 2 else "WAITING", **made)
        every = await store.read(MINE, "runs")
        filters = [
            MINE,
            replace(MINE, status=("RUNNING",)),
            replace(MINE, status=("RUNNING", "WAITING")),
            replace(MINE, status=("FAILED",)),
            replace(MINE, agent="a1"),
            replace(MINE, owner="o2"),
            replace(MINE, label=("k", "v3")),
            replace(MINE, label=("k", "nothing")),
            replace(MINE, label=("missing", "v3")),
            replace(MINE, status=("RUNNING",), agent="a1", owner="o1", label=("k", "v2")),
        ]
        for f in filters:
            wanted = [r for r in every if _wanted(r, f)]
            assert await store.read(f, "runs") == wanted
            assert await self._paged(store, f, 2) == wanted
        assert await store.read(Filter(tenant="zeta"), "runs") == []

    async def _paged(self, store: Store, f: Filter, size: int) -> list[Run]:
        found: list[Run] = []
        while page := await store.read(f, "runs", limit=size):
            assert len(page) <= size
            found += page
            f = replace(f, before=(page[-1].created_at, page[-1].key.id))
        return found

    async def test_paging_passes_runs_of_the_same_instant(self, store: Store) -> None:
        for n in range(7):
            await create(store, RunKey("acme", str(n)), now=T)
        assert [r.key.id for r in await self._paged(store, MINE, 3)] == list("6543210")

    # ------------------------------------------------------------ prune

    async def test_prune_empties_runs_that_ended_and_were_not_touched(self, store: Store) -> None:
        await create(store, labels='{"k":"v"}')
        await store.signal(KEY, Signal(kind="event"), now=T)
        await finish(store, state="1", scratchpad="1", blobs={"b": "1"}, now=T + 1)
        before = await row(store)
        assert await store.prune(T + 1, MINE, now=T + 9) == 0, "touched at that very time"
        assert await store.prune(T + 2, MINE, now=T + 9) == 1
        assert await row(store) == replace(before, pruned=True, prompt=None, state=None, scratchpad=None, tail=None, floor=1)
        await _empty(store)
        assert await store.prune(T + 2, MINE, now=T + 9) == 0, "once is enough"
        assert (await no(store, id="x", new=new())).reason == "ended"

    async def test_prune_spares_what_is_not_over(self, store: Store) -> None:
        open_, unsent, foreign = RunKey("acme", "open"), RunKey("acme", "unsent"), RunKey("zeta", "r")
        await create(store, open_)
        await create(store, unsent)
        await finish(store, unsent, outbox=(webhook("w"),))
        await create(store, foreign)
        await finish(store, foreign)
        assert await store.prune(T + 100, MINE, now=T + 100) == 0
        assert await store.prune(T + 100, replace(MINE, status=("FAILED",)), now=T + 100) == 0
        await store.ack(unsent, [1], now=T + 1)
        assert await store.prune(T + 100, MINE, now=T + 100) == 1
        assert [r.key.id for r in await store.read(MINE, "runs") if r.pruned] == ["unsent"]
        assert not (await row(store, foreign)).pruned

    async def test_prune_drops_old_steps_below_the_floor_and_delivered_rows(self, store: Store) -> None:
        await create(store)
        for i in range(6):
            await go(store, now=T + i, id=f"c{i}", floor=4 if i == 5 else None, outbox=(webhook(f"w{i}"),))
        await store.ack(KEY, [1, 2], now=T + 6)
        assert await store.prune(T + 2, MINE, now=T + 9) == 0
        assert [s.index for s in await store.read(KEY, "steps")] == [2, 3, 4, 5]
        await store.prune(T + 100, MINE, now=T + 100)
        assert [s.index for s in await store.read(KEY, "steps")] == [4, 5]
        claimed = await take(store, now=T + 100)
        assert [s.index for s in claimed.steps] == [4, 5]
        await store.commit(claimed.claim, forward(claimed, outbox=(webhook("next"),)), now=T + 100)
        assert [o.seq for o in await store.read(KEY, "outbox")] == [3, 4, 5, 6, 7], "numbers are never used twice"

    async def test_prune_keeps_the_newest_step_even_below_the_floor(self, store: Store) -> None:
        await create(store)
        for i in range(3):
            await go(store, id=f"c{i}", floor=i + 1)
        await store.prune(T + 100, MINE, now=T + 100)
        assert [s.index for s in await store.read(KEY, "steps")] == [2]
        assert (await take(store)).steps == ()

    async def test_a_pruned_run_hears_a_new_prompt(self, store: Store) -> None:
        await create(store)
        await store.signal(KEY, Signal(kind="event"), now=T)
        await finish(store)
        await store.signal(KEY, Signal(kind="event"), now=T)  # never read
        await store.prune(T + 1, MINE, now=T + 9)
        await store.signal(KEY, prompt('"back"'), now=T + 10)
        claimed = await ask(store, id="c2", now=T + 10)
        assert isinstance(claimed, Claimed)
        assert [(s.body, s.seq) for s in claimed.inbox] == [('"back"', 3)]
        assert claimed.steps == ()
        assert claimed.claim.index == 1

    # ------------------------------------------------------------ kv

    async def test_a_value_lives_as_long_as_it_was_given(self, store: Store) -> None:
        assert await store.get("a", now=T) is None
        assert await store.put_if("a", "1", ttl=10, expect=None, now=T)
        assert await store.get("a", now=T + 9.9) == "1"
        assert await store.get("a", now=T + 10) is None
        assert await store.put_if("a", "2", ttl=10, expect=None, now=T + 10), "an expired value is absent"
        assert await store.get("a", now=T + 11) == "2"

    async def test_put_if_compares(self, store: Store) -> None:
        assert not await store.put_if("a", "1", ttl=10, expect="0", now=T)
        assert await store.put_if("a", "1", ttl=10, expect=None, now=T)
        assert not await store.put_if("a", "2", ttl=10, expect=None, now=T)
        assert not await store.put_if("a", "2", ttl=10, expect="0", now=T)
        assert await store.get("a", now=T) == "1"
        assert await store.put_if("a", "2", ttl=10, expect="1", now=T + 5)
        assert await store.get("a", now=T + 14) == "2", "the time to live is the new one"

    async def test_one_of_many_puts_at_once_wins(self, store: Store) -> None:
        won = await asyncio.gather(*(store.put_if("slot", str(n), ttl=60, expect=None) for n in range(20)))
        assert sum(won) == 1
        assert await store.get("slot") == str(won.index(True))

    async def test_a_number_counts_from_its_first_use(self, store: Store) -> None:
        assert await store.incr("n", 1, ttl=10, now=T) == 1
        assert await store.incr("n", 2.5, ttl=10, now=T + 9) == 3.5
        assert await store.incr("n", 1, ttl=10, now=T + 10) == 1
        assert float(await store.get("n", now=T + 19) or 0) == 1
        assert await store.incr("n", -1, ttl=10, now=T + 19) == 0

    async def test_scan_lists_live_values_under_a_prefix(self, store: Store) -> None:
        for name, ttl in (("a:1", 10), ("a:2", 99), ("a%", 99), ("a_b", 99), ("b:1", 99), ("A:3", 99)):
            await store.put_if(name, "v" + name, ttl=ttl, expect=None, now=T)
        assert await store.scan("a:", now=T + 1) == {"a:1": "va:1", "a:2": "va:2"}
        assert await store.scan("a:", now=T + 10) == {"a:2": "va:2"}
        assert await store.scan("a%", now=T) == {"a%": "va%"}
        assert await store.scan("a_", now=T) == {"a_b": "va_b"}
        assert len(await store.scan("", now=T)) == 6

    # ------------------------------------------------------------ the store

    async def test_migrating_twice_does_nothing(self, store: Store) -> None:
        await create(store)
        assert await store.migrate() == []
        assert (await row(store)).key == KEY

    async def test_a_check_is_one_line(self, store: Store) -> None:
        line = await store.check()
        assert line
        assert "\n" not in line

    async def test_the_clock_is_the_stores_own(self, store: Store) -> None:
        """Without `now` answers carry one steadily advancing clock, near enough to the true time."""
        began = time.time()
        claimed = await store.claim(KEY, claim_id="c", holder="", lease=15, carrier=None, new=new())
        assert isinstance(claimed, Claimed)
        alive = await store.progress(claimed.claim, lease=15)
        assert began - 60 <= claimed.now <= alive.now <= time.time() + 60
        assert claimed.run.lease_until == claimed.now + 15

    async def test_closing_twice_is_closing_once(self, store: Store) -> None:
        await create(store)
        await store.close()
        await store.close()


async def _empty(store: Store) -> None:
    assert await store.read(KEY, "steps") == []
    assert await store.read(KEY, "inbox") == []
    assert await store.read(KEY, "outbox") == []
    assert await store.read(KEY, "blob", name="b") == []


def _wanted(run: Run, f: Filter) -> bool:
    label = f.label is None or f'"{f.label[0]}":"{f.label[1]}"' in run.labels
    return (not f.status or run.status in f.status) and f.agent in (None, run.agent) and f.owner in (None, run.owner) and label
