"""signal, due, ack: what reaches a run from outside, and what it sends."""

from __future__ import annotations


from ...core.model import Due, RunKey, Signal, Signalled
from ...core.noun import replace
from ...ports import Store
from .common import KEY, LEASE, T, create, end, finish, forward, go, new, prompt, release, row, take, webhook


class Signals:
    async def test_a_signal_to_nobody_is_none(self, store: Store) -> None:
        assert await store.signal(KEY, Signal(kind="cancel"), now=T) is None

    async def test_a_signal_is_appended_and_makes_a_waiting_run_due(self, store: Store) -> None:
        claimed = await take(store, new=new())
        await store.commit(claimed.claim, forward(claimed, status="AWAITING_INPUT", after=None), now=T)
        answer = Signal(kind="answer", body='{"id":"i"}', request_id="answer:i")
        signalled = await store.signal(KEY, answer, now=T + 5)
        run = await row(store)
        assert signalled == Signalled(run=run, body=answer.body, first=True, now=T + 5)
        assert run.due_at == T + 5
        assert await store.read(KEY, "inbox") == [replace(answer, seq=1, at=T + 5)]
        assert [s.seq for s in (await take(store, id="c2", now=T + 5)).inbox] == [1]

    async def test_the_first_resolver_wins(self, store: Store) -> None:
        await create(store)
        await store.signal(KEY, Signal(kind="answer", body='"yes"', request_id="answer:i"), now=T + 1)
        before = await row(store)
        late = Signal(kind="answer", body='"no"', request_id="answer:i", carrier="background", reopens=True)
        second = await store.signal(KEY, late, now=T + 2)
        assert second == Signalled(run=before, body='"yes"', first=False, now=T + 2)
        assert await row(store) == before
        assert [s.body for s in await store.read(KEY, "inbox")] == ['"yes"']
        other = await store.signal(KEY, Signal(kind="answer", request_id="answer:j"), now=T + 3)
        assert other is not None
        assert other.first

    async def test_the_first_resolver_wins_after_it_was_read_too(self, store: Store) -> None:
        await create(store)
        await store.signal(KEY, Signal(kind="event", body="1", request_id="e"), now=T)
        await go(store)
        again = await store.signal(KEY, Signal(kind="event", body="2", request_id="e"), now=T + 1)
        assert again is not None
        assert (again.first, again.body) == (False, "1")

    async def test_signals_without_a_request_id_are_all_kept(self, store: Store) -> None:
        await create(store)
        for n in range(3):
            signalled = await store.signal(KEY, Signal(kind="event", body=str(n)), now=T + n)
            assert signalled is not None
            assert signalled.first
        assert [(s.seq, s.body, s.at) for s in await store.read(KEY, "inbox")] == [(n + 1, str(n), T + n) for n in range(3)]

    async def test_a_held_run_is_not_made_due_but_one_whose_holder_died_is(self, store: Store) -> None:
        await take(store, new=new())
        await store.signal(KEY, Signal(kind="event"), now=T + 1)
        assert (await row(store)).due_at == T
        await store.signal(KEY, Signal(kind="event"), now=T + LEASE)
        assert (await row(store)).due_at == T + LEASE

    async def test_an_ended_run_stays_ended(self, store: Store) -> None:
        await create(store)
        await finish(store)
        await store.signal(KEY, Signal(kind="cancel"), now=T + 1)
        run = await row(store)
        assert (run.ended, run.due_at) == (True, None)

    async def test_a_reopening_signal_opens_an_ended_run(self, store: Store) -> None:
        await create(store)
        await finish(store)
        signalled = await store.signal(KEY, prompt('"again"', request_id="p2"), now=T + 1)
        run = await row(store)
        assert (run.ended, run.due_at, run.status) == (False, T + 1, "COMPLETED")
        assert signalled is not None
        assert signalled.run == run
        claimed = await take(store, id="c2", now=T + 1)
        assert [(s.body, s.reopens) for s in claimed.inbox] == [('"again"', True)]
        assert claimed.claim.index == 1, "step numbers go on"

    async def test_carriage_takes_effect_at_once(self, store: Store) -> None:
        await take(store, new=new(carrier="client"))
        await store.signal(KEY, Signal(kind="carry", carrier="background", takeover_after=30.0), now=T + 1)
        run = await row(store)
        assert (run.carrier, run.takeover_after, run.claim_id) == ("background", 30.0, "c1"), "held as before"
        await store.signal(KEY, Signal(kind="carry", takeover_after=99.0), now=T + 2)
        assert (await row(store)).takeover_after == 30.0, "taken only together with a carrier"
        await store.signal(KEY, Signal(kind="carry", carrier="client"), now=T + 3)
        run = await row(store)
        assert (run.carrier, run.takeover_after) == ("client", None)

    # ------------------------------------------------------------ due

    async def test_due_lists_what_could_be_claimed_longest_due_first(self, store: Store) -> None:
        for n, name in enumerate(("c", "a", "b")):
            await create(store, RunKey("acme", name), now=T + n)
        await create(store, RunKey("zeta", "d"), now=T + 3)
        await create(store, RunKey("acme", "later"), now=T + 1000)
        await create(store, RunKey("acme", "ended"), now=T, due=False)
        assert await _due(store, None, now=T + 10) == ["c", "a", "b", "d"]
        assert await _due(store, None, 2, now=T + 10) == ["c", "a"]
        assert await store.due(None, 1, now=T + 10) == [Due(key=RunKey("acme", "c"), carrier="client", why="step")]

    async def test_due_leaves_out_what_is_held_waits_or_ended(self, store: Store) -> None:
        held, waits, timer, done = (RunKey("acme", n) for n in ("held", "waits", "timer", "done"))
        await take(store, held, new=new())
        for key, after in ((waits, None), (timer, 60.0)):
            claimed = await take(store, key, new=new())
            await store.commit(claimed.claim, release(claimed, after=after), now=T)
        claimed = await take(store, done, new=new())
        await store.commit(claimed.claim, end(claimed), now=T)
        assert await _due(store, None, now=T + LEASE - 1) == []
        assert await _due(store, None, now=T + LEASE) == ["held"], "its holder is dead"
        assert await _due(store, None, now=T + 60) == ["held", "timer"]

    async def test_due_knows_carriers_and_takeovers(self, store: Store) -> None:
        for carrier, takeover in (("client", None), ("client", 30.0), ("background", 30.0), ("any", None)):
            await create(store, RunKey("acme", f"{carrier}-{takeover}"), carrier=carrier, takeover_after=takeover)
        assert await _names(store, None, T) == {"client-None", "client-30.0", "background-30.0", "any-None"}
        assert await _names(store, ["client"], T) == {"client-None", "client-30.0", "any-None"}
        assert await _names(store, ["background"], T + 29) == {"background-30.0", "any-None"}
        assert await _names(store, ["background"], T + 30) == {"background-30.0", "any-None", "client-30.0"}
        assert await _names(store, ["client", "background"], T) == {"client-None", "client-30.0", "background-30.0", "any-None"}
        assert await _names(store, [], T + 100) == set()

    async def test_due_counts_a_takeover_from_the_dead_lease(self, store: Store) -> None:
        await take(store, new=new(takeover_after=30.0))
        assert await _due(store, ["background"], now=T + LEASE + 29) == []
        assert await _due(store, ["background"], now=T + LEASE + 30) == [KEY.id]

    async def test_what_due_lists_can_be_claimed_by_that_carrier(self, store: Store) -> None:
        for n in range(12):
            await create(
                store, RunKey("acme", str(n)), carrier="client" if n % 2 else "background", takeover_after=n * 5.0 or None
            )
        for at in (T, T + 20, T + 45):
            for hint in await store.due(["background"], 100, now=at):
                claimed = await take(store, hint.key, id=f"at-{at}", carrier="background", now=at)
                await store.commit(claimed.claim, release(claimed, after=None), now=at)
            assert await store.due(["background"], 100, now=at) == []

    # ------------------------------------------------------------ outbox

    async def test_an_undelivered_outbox_is_due_even_of_an_ended_run(self, store: Store) -> None:
        await create(store)
        await finish(store, outbox=(webhook("w1"), webhook("w2")))
        assert await store.due(["background"], 10, now=T) == [Due(key=KEY, carrier="client", why="outbox")]
        await store.ack(KEY, [1], now=T + 1)
        assert [o.seq for o in await store.read(KEY, "outbox")] == [2]
        assert [d.why for d in await store.due(None, 10, now=T + 1)] == ["outbox"]
        await store.ack(KEY, [2], now=T + 1)
        assert await store.due(None, 10, now=T + 1) == []

    async def test_a_failed_delivery_comes_back_later(self, store: Store) -> None:
        await create(store)
        await finish(store, outbox=(webhook("w1"), webhook("w2")))
        await store.ack(KEY, [1], retry_after=30.0, now=T + 1)
        await store.ack(KEY, [2], now=T + 1)
        assert await store.read(KEY, "outbox") == [replace(webhook("w1"), seq=1, due_at=T + 31, tries=1)]
        assert await store.due(None, 10, now=T + 30) == []
        assert [d.why for d in await store.due(None, 10, now=T + 31)] == ["outbox"]
        await store.ack(KEY, [1], retry_after=60.0, now=T + 31)
        assert [(o.tries, o.due_at) for o in await store.read(KEY, "outbox")] == [(2, T + 91)]

    async def test_what_was_delivered_stays_delivered(self, store: Store) -> None:
        await create(store)
        await finish(store, outbox=(webhook("w1"),))
        await store.ack(KEY, [1], now=T)
        await store.ack(KEY, [1, 7], retry_after=5.0, now=T)
        await store.ack(RunKey("acme", "nobody"), [1], now=T)
        assert await store.read(KEY, "outbox") == []

    async def test_a_run_may_be_due_for_both(self, store: Store) -> None:
        await create(store)
        await go(store, now=T + 1, outbox=(webhook("w"),))
        assert sorted(d.why for d in await store.due(None, 10, now=T + 1)) == ["outbox", "step"]


async def _due(store: Store, carriers: list[str] | None, limit: int = 100, *, now: float) -> list[str]:
    return [d.key.id for d in await store.due(carriers, limit, now=now)]


async def _names(store: Store, carriers: list[str] | None, now: float) -> set[str]:
    return set(await _due(store, carriers, now=now))
