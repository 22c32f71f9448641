"""commit and progress: the compare-and-set, what it makes true, and signs of life."""

from __future__ import annotations

from itertools import product

import pytest

from ...core import machine
from ...core.errors import StoreError
from ...core.model import Alive, Claim, Committed, Fenced, RunKey, Signal
from ...core.noun import replace
from ...ports import Store
from .common import KEY, LEASE, T, create, end, finish, forward, go, new, no, prompt, release, request, row, step, take, webhook


class Commits:
    async def test_a_commit_does_what_the_machine_says(self, store: Store) -> None:
        """Every status the table knows, due or not, ended or not, renewed or not, with and without unread signals."""
        unread: tuple[tuple[Signal, ...], ...] = ((), (Signal(kind="event"),), (Signal(kind="event"), prompt()))
        cases = product(sorted(set(machine.TABLE.values())), (None, 0.0, 5.0), (False, True), (None, 30.0), unread, (False, True))
        for n, (status, after, ended, renew, signals, stepped) in enumerate(cases):
            key = RunKey("acme", f"case-{n}")
            claimed = await take(store, key, new=new())
            for signal in signals:
                await store.signal(key, signal, now=T + 1)
            inbox = tuple(replace(s, seq=i + 1, at=T + 1) for i, s in enumerate(signals))
            made = forward(
                claimed, status=status, after=after, ended=ended, step=step(claimed, status=status) if stepped else None
            )
            assert await store.commit(claimed.claim, made, renew=renew, now=T + 2) == Committed(now=T + 2, inbox=inbox)
            assert await row(store, key) == machine.apply(claimed.run, made, now=T + 2, unread=inbox, renew=renew)

    async def test_every_field_of_a_commit_arrives(self, store: Store) -> None:
        claimed = await take(store, new=new())
        full = forward(
            claimed, status="WAITING", stop_reason="timer", after=7.0, wait='{"w":1}', scratchpad='{"s":1}', tally='{"t":1}',
            state='{"st":1}', floor=1, prompt='"next"', limits='{"steps":9}', round=3,
        )  # fmt: skip
        await store.commit(claimed.claim, full, now=T + 1)
        run = await row(store)
        assert (run.status, run.stop_reason, run.due_at, run.wait, run.scratchpad) == (
            "WAITING",
            "timer",
            T + 8,
            '{"w":1}',
            '{"s":1}',
        )
        assert (run.tally, run.state, run.floor, run.prompt, run.limits, run.round) == (
            '{"t":1}', '{"st":1}', 1, '"next"', '{"steps":9}', 3,
        )  # fmt: skip
        again = await take(store, id="c2", now=T + 8)
        await store.commit(again.claim, forward(again), now=T + 9)
        kept = await row(store)
        assert (kept.stop_reason, kept.wait) == (None, None), "always written"
        assert (kept.scratchpad, kept.state, kept.floor, kept.prompt, kept.limits, kept.round) == (
            '{"s":1}', '{"st":1}', 1, '"next"', '{"steps":9}', 3,
        ), "left as they were"  # fmt: skip

    async def test_a_step_row_is_kept_whole(self, store: Store) -> None:
        claimed = await take(store, new=new())
        whole = step(
            claimed, request=request("q", "hash"), messages=("1", "[2]", '{"3":3}'), parts=('{"type":"x"}',), usage='{"u":1}',
            state="{}", floor=0, stop_reason="timer", status="WAITING",
        )  # fmt: skip
        await store.commit(claimed.claim, forward(claimed, step=whole), now=T + 4)
        assert await store.read(KEY, "steps") == [replace(whole, committed_at=T + 4)]

    async def test_the_index_moves_by_one_and_a_release_moves_nothing(self, store: Store) -> None:
        claimed = await take(store, new=new())
        await store.commit(claimed.claim, release(claimed), now=T)
        run = await row(store)
        assert (run.step, run.attempts, run.claim_id) == (0, 1, None)
        assert await store.read(KEY, "steps") == []
        assert (await go(store)).step == 1

    async def test_a_release_may_reset_attempts(self, store: Store) -> None:
        await create(store)
        for n, attempts in enumerate((None, None, 0)):
            claimed = await take(store, id=f"c{n}")
            assert claimed.run.attempts == n + 1
            await store.commit(claimed.claim, release(claimed, attempts=attempts), now=T)
        assert (await take(store)).run.attempts == 1

    async def test_index_fence_and_claim_id_each_fence(self, store: Store) -> None:
        claimed = await take(store, new=new())
        before = await row(store)
        c = claimed.claim
        for wrong in (replace(c, index=1), replace(c, fence=2), replace(c, fence=0), replace(c, claim_id="x")):
            everything = forward(claimed, outbox=(webhook("w"),), blobs={"b": "1"}, state="1")
            assert await store.commit(wrong, everything, now=T + 1) == Fenced(now=T + 1)
            assert await store.progress(wrong, lease=99, tail="1", ledger={"k": "1"}, now=T + 1) == Fenced(now=T + 1)
        assert await store.commit(replace(c, key=RunKey("other", KEY.id)), forward(claimed), now=T) == Fenced(now=T)
        assert await row(store) == before
        assert await store.read(KEY, "steps") == await store.read(KEY, "outbox") == await store.read(KEY, "blob", name="b") == []
        assert (await take(store)).ledger == {}

    async def test_a_commit_is_made_once(self, store: Store) -> None:
        claimed = await take(store, new=new())
        made = forward(claimed, outbox=(webhook("w"),))
        assert isinstance(await store.commit(claimed.claim, made, now=T), Committed)
        assert isinstance(await store.commit(claimed.claim, made, now=T), Fenced)
        assert len(await store.read(KEY, "steps")) == len(await store.read(KEY, "outbox")) == 1
        assert (await store.read(KEY, "steps"))[0].claim_id == claimed.claim.claim_id, "how a lost answer is resolved"

    async def test_a_zombie_is_refused_and_the_next_attempt_stands(self, store: Store) -> None:
        zombie = await take(store, new=new(), id="zombie")
        heir = await take(store, id="heir", now=T + LEASE)
        assert isinstance(await store.commit(zombie.claim, forward(zombie), now=T + LEASE), Fenced)
        assert isinstance(await store.progress(zombie.claim, lease=LEASE, now=T + LEASE), Fenced)
        assert isinstance(await store.commit(heir.claim, forward(heir), now=T + LEASE), Committed)
        assert isinstance(await store.commit(zombie.claim, forward(zombie), now=T + LEASE), Fenced)
        assert [s.claim_id for s in await store.read(KEY, "steps")] == ["heir"]

    async def test_a_commit_after_the_lease_is_taken_if_nobody_has_claimed(self, store: Store) -> None:
        claimed = await take(store, new=new())
        assert isinstance(await store.commit(claimed.claim, forward(claimed), now=T + 1000), Committed)
        assert (await row(store)).step == 1

    async def test_a_request_id_belongs_to_one_step(self, store: Store) -> None:
        await create(store)
        await go(store, request=request("q"))
        claimed = await take(store)
        before = await row(store)
        with pytest.raises(StoreError):
            await store.commit(claimed.claim, forward(claimed, request=request("q"), outbox=(webhook("w"),)), now=T)
        assert await row(store) == before
        assert await store.read(KEY, "outbox") == []
        assert isinstance(await store.commit(claimed.claim, forward(claimed, request=request("q2")), now=T), Committed)

    # ------------------------------------------------------------ renewal

    async def test_a_renewal_keeps_the_claim_for_the_next_index(self, store: Store) -> None:
        claimed = await take(store, new=new())
        await store.commit(claimed.claim, forward(claimed), renew=20.0, now=T + 10)
        run = await row(store)
        assert (run.claim_id, run.holder, run.fence, run.lease_until, run.attempts) == ("c1", "host-c1", 1, T + 30, 1)
        assert (await no(store, id="x", now=T + 29)).reason == "busy"
        assert isinstance(await store.commit(claimed.claim, forward(claimed), now=T + 11), Fenced), "the old index is taken"
        ahead = replace(claimed, claim=replace(claimed.claim, index=1), run=run)
        await store.signal(KEY, Signal(kind="event"), now=T + 12)
        committed = await store.commit(ahead.claim, forward(ahead), renew=20.0, now=T + 13)
        assert isinstance(committed, Committed)
        assert [s.kind for s in committed.inbox] == ["event"], "what arrived meanwhile"
        assert [s.index for s in await store.read(KEY, "steps")] == [0, 1]

    async def test_a_run_that_ended_is_not_renewed(self, store: Store) -> None:
        claimed = await take(store, new=new())
        await store.commit(claimed.claim, end(claimed), renew=20.0, now=T)
        run = await row(store)
        assert (run.claim_id, run.holder, run.lease_until, run.ended, run.due_at) == (None, None, 0.0, True, None)

    # ------------------------------------------------------------ the inbox

    async def test_what_was_not_read_makes_the_run_due_again(self, store: Store) -> None:
        claimed = await take(store, new=new())
        await store.signal(KEY, Signal(kind="answer", body='{"id":"i"}'), now=T + 1)
        await store.commit(claimed.claim, forward(claimed, status="AWAITING_INPUT", after=None), now=T + 2)
        assert (await row(store)).due_at == T + 2
        again = await take(store, id="c2", now=T + 2)
        assert [s.body for s in again.inbox] == ['{"id":"i"}']
        await store.commit(again.claim, forward(again, status="AWAITING_INPUT", after=None), now=T + 3)
        assert (await row(store)).due_at is None, "all was read"
        assert (await row(store)).inbox_read == 1

    async def test_an_end_with_an_unread_plain_signal_is_the_end(self, store: Store) -> None:
        claimed = await take(store, new=new())
        await store.signal(KEY, Signal(kind="cancel"), now=T)
        await store.commit(claimed.claim, end(claimed), now=T + 1)
        run = await row(store)
        assert (run.ended, run.due_at) == (True, None)

    async def test_an_end_with_an_unread_reopening_signal_is_not_the_end(self, store: Store) -> None:
        claimed = await take(store, new=new())
        await store.signal(KEY, prompt(), now=T)
        await store.commit(claimed.claim, end(claimed), now=T + 1)
        run = await row(store)
        assert (run.ended, run.due_at, run.status) == (False, T + 1, "COMPLETED")
        assert [s.kind for s in (await take(store, id="c2", now=T + 1)).inbox] == ["prompt"]

    # ------------------------------------------------------------ ledger

    async def test_a_step_clears_the_ledger_and_a_kept_one_adds(self, store: Store) -> None:
        await create(store)
        claimed = await take(store, id="c1")
        await store.progress(claimed.claim, lease=LEASE, ledger={"a": "1", "b": "1"}, now=T)
        await store.commit(claimed.claim, release(claimed, ledger={"b": "2", "c": "2"}), now=T)
        claimed = await take(store, id="c2")
        assert claimed.ledger == {"a": "1", "b": "2", "c": "2"}, "a release keeps and adds"
        await store.commit(claimed.claim, forward(claimed, keep_ledger=True, ledger={"d": "3"}), now=T)
        claimed = await take(store, id="c3")
        assert claimed.ledger == {"a": "1", "b": "2", "c": "2", "d": "3"}
        await store.commit(claimed.claim, forward(claimed, ledger={"e": "4"}), now=T)
        assert (await take(store, id="c4")).ledger == {}

    # ------------------------------------------------------------ progress

    async def test_a_sign_of_life_extends_the_lease(self, store: Store) -> None:
        claimed = await take(store, new=new())
        assert await store.progress(claimed.claim, lease=20.0, now=T + 14) == Alive(now=T + 14, cancel=False)
        assert (await row(store)).lease_until == T + 34
        assert (await no(store, id="x", now=T + 33)).until == T + 34
        assert isinstance(await store.progress(claimed.claim, lease=20.0, now=T + 500), Alive), "late, but nobody has claimed"

    async def test_the_tail_is_overwritten_kept_and_dropped_with_the_step(self, store: Store) -> None:
        claimed = await take(store, new=new())
        for tail, shown in (('"one"', '"one"'), ('"two"', '"two"'), (None, '"two"')):
            await store.progress(claimed.claim, lease=LEASE, tail=tail, now=T)
            assert (await row(store)).tail == shown
        await store.commit(claimed.claim, release(claimed), now=T)
        assert (await row(store)).tail == '"two"'
        await go(store)
        assert (await row(store)).tail is None

    async def test_ledger_entries_are_added_and_replaced(self, store: Store) -> None:
        claimed = await take(store, new=new())
        await store.progress(claimed.claim, lease=LEASE, ledger={"k": '{"started":1}'}, now=T)
        await store.progress(claimed.claim, lease=LEASE, ledger={"k": '{"value":2}', "l": "3"}, now=T)
        assert (await take(store)).ledger == {"k": '{"value":2}', "l": "3"}

    async def test_a_cancel_is_seen_by_progress_until_it_is_read(self, store: Store) -> None:
        claimed = await take(store, new=new())
        await store.signal(KEY, Signal(kind="event"), now=T)
        assert await store.progress(claimed.claim, lease=LEASE, now=T) == Alive(now=T, cancel=False)
        await store.signal(KEY, Signal(kind="cancel"), now=T)
        assert await store.progress(claimed.claim, lease=LEASE, now=T) == Alive(now=T, cancel=True)
        await store.commit(claimed.claim, forward(claimed, inbox_read=2), now=T)
        claimed = await take(store, id="c2")
        assert await store.progress(claimed.claim, lease=LEASE, now=T) == Alive(now=T, cancel=False)

    # ------------------------------------------------------------ outbox and blobs

    async def test_outbox_and_blobs_go_with_a_step_and_with_a_release(self, store: Store) -> None:
        await create(store)
        claimed = await take(store)
        await store.commit(claimed.claim, release(claimed, outbox=(webhook("w1"),), blobs={"a": "1", "b": "1"}), now=T)
        claimed = await take(store, id="c2", now=T + 1)
        made = forward(claimed, outbox=(webhook("w2"), webhook("w3")), blobs={"b": "2"})
        await store.commit(claimed.claim, made, now=T + 1)
        sent = await store.read(KEY, "outbox")
        assert sent == [replace(webhook(f"w{n}"), seq=n, due_at=T + (n > 1)) for n in (1, 2, 3)]
        assert [await store.read(KEY, "blob", name=n) for n in "abc"] == [["1"], ["2"], []]

    async def test_a_claim_of_nobody_commits_nothing(self, store: Store) -> None:
        await create(store)
        forged = Claim(key=KEY, index=0, fence=0, claim_id="", carrier="client")
        claimed = await take(store, id="c1")
        await store.commit(claimed.claim, release(claimed), now=T)
        for claim in (forged, replace(claimed.claim)):
            assert isinstance(await store.commit(claim, forward(claimed), now=T), Fenced)
        assert (await finish(store)).ended
