"""claim: creating, refusing in order, granting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ...core.model import Claimed, Refused, Run, RunKey, Signal, Step
from ...core.noun import replace
from ...ports import Store
from ...storekit import rows
from .common import KEY, LEASE, T, ask, create, end, finish, forward, go, new, no, release, request, row, take


class Claims:
    async def test_a_run_that_is_not_there_is_absent(self, store: Store) -> None:
        refused = await no(store)
        assert refused == Refused(reason="absent", run=None, step=None, now=T)
        assert (await no(store, lease=0)).reason == "absent"
        assert await store.read(KEY, "run") == []

    async def test_a_claim_with_new_creates_and_takes_in_one_act(self, store: Store) -> None:
        claimed = await take(store, new=new(carrier="client"), expect=0, request=request("q"))
        assert (claimed.claim.index, claimed.claim.fence, claimed.claim.claim_id, claimed.claim.carrier) == (0, 1, "c1", "client")
        assert (claimed.run.attempts, claimed.run.holder, claimed.run.lease_until) == (1, "host-c1", T + LEASE)
        assert (claimed.steps, claimed.inbox, claimed.ledger, claimed.now) == ((), (), {}, T)
        assert await row(store) == claimed.run

    async def test_every_field_of_a_new_run_is_kept(self, store: Store) -> None:
        made = new(
            prompt='{"p":1}', limits='{"steps":3}', carrier="background", takeover_after=15.0, owner="o", parent='{"run":"p"}',
            labels='{"l":"v"}', notify_url="https://example.org", create_hash="ch", state='{"s":1}', scratchpad='{"x":1}',
            round=2, tally='{"t":1}', status="WAITING", stop_reason="timer",
        )  # fmt: skip
        assert isinstance(await ask(store, lease=0, new=made), Refused)
        same = {name: getattr(made, name) for name in rows.RUN if hasattr(made, name)}
        assert await row(store) == Run(key=KEY, due_at=T, created_at=T, updated_at=T, **same)

    async def test_lease_zero_creates_only(self, store: Store) -> None:
        created = await no(store, lease=0, new=new())
        assert created.reason == "created"
        exists = await no(store, lease=0, new=new(agent="other"), now=T + 1)
        assert exists.reason == "exists"
        assert exists.run == created.run == await row(store)
        assert created.run is not None
        assert (created.run.fence, created.run.attempts, created.run.claim_id, created.run.agent) == (0, 0, None, "a")
        await go(store)
        assert (await no(store, lease=0)).step == (await store.read(KEY, "steps"))[0]

    async def test_a_run_is_created_once(self, store: Store) -> None:
        await take(store, new=new(agent="first"))
        assert (await no(store, id="c2", new=new(agent="second"))).reason == "busy"
        assert (await row(store)).agent == "first"

    async def test_a_run_may_begin_with_a_history(self, store: Store) -> None:
        old = [
            Step(index=i, round=0, attempt=1, carrier="import", claim_id="", status="RUNNING", messages=(f'{{"i":{i}}}',))
            for i in range(3)
        ]
        await create(store, steps=(old[0], replace(old[1], committed_at=5.0), old[2]), floor=1)
        claimed = await take(store, expect=3)
        assert [s.index for s in claimed.steps] == [1, 2]
        assert [s.committed_at for s in await store.read(KEY, "steps")] == [T, 5.0, T]
        assert claimed.run.step == claimed.claim.index == 3

    async def test_an_import_waits_for_a_prompt(self, store: Store) -> None:
        run = await create(store, due=False, status="COMPLETED", stop_reason="finished")
        assert (run.ended, run.due_at) == (True, None)
        assert (await no(store)).reason == "ended"

    async def test_the_holders_own_claim_is_granted_again_unchanged(self, store: Store) -> None:
        first = await take(store, new=new(), request=request("q"), expect=0)
        await store.progress(first.claim, lease=LEASE, ledger={"k": "1"}, now=T + 3)
        again = await take(store, now=T + 4, new=new(), request=request("q"), expect=0)
        assert again.claim == first.claim
        assert (again.run.fence, again.run.attempts, again.run.lease_until) == (1, 1, T + 3 + LEASE)
        assert again.ledger == {"k": "1"}
        late = await take(store, now=T + 100)
        assert late.claim == first.claim, "nobody else has claimed it: still the holder's"

    async def test_a_lost_claim_id_is_an_ordinary_claim(self, store: Store) -> None:
        await take(store, id="c1", new=new())
        await take(store, id="c2", now=T + LEASE)
        assert (await no(store, id="c1", now=T + LEASE)).reason == "busy"

    async def test_a_granted_claim_adds_one_to_fence_and_attempts(self, store: Store) -> None:
        await create(store)
        for n in range(1, 4):
            claimed = await take(store, id=f"c{n}", now=T + n * LEASE)
            assert (claimed.claim.fence, claimed.run.fence, claimed.run.attempts) == (n, n, n)
            assert (claimed.run.claim_id, claimed.run.holder, claimed.run.lease_until) == (
                f"c{n}",
                f"host-c{n}",
                T + n * LEASE + LEASE,
            )
        await store.commit(claimed.claim, forward(claimed), now=T + 50)
        run = await row(store)
        assert (run.fence, run.attempts, run.claim_id, run.holder, run.lease_until) == (3, 0, None, None, 0.0)

    async def test_refusals_come_in_their_order(self, store: Store) -> None:
        """Each claim below runs into everything that comes after its own reason, too."""
        await create(store, carrier="background")
        await go(store, request=request("q"))
        held = await take(store, id="held", carrier=None)
        wrong: dict[str, Any] = {"expect": 7, "carrier": "client"}
        assert (await no(store, id="x", lease=0, request=request("q"), **wrong)).reason == "exists"
        assert (await take(store, id="held", request=request("q"), **wrong)).claim.fence == held.claim.fence
        assert (await no(store, id="x", request=request("q"), **wrong)).reason == "replay"
        assert (await no(store, id="x", request=request("q", "other"), **wrong)).reason == "conflict"
        assert (await no(store, id="x", request=request("new"), **wrong)).reason == "index"
        assert (await no(store, id="x", carrier="client")).reason == "busy"
        await store.commit(held.claim, release(held, after=None), now=T)
        assert (await no(store, id="x", carrier="client")).reason == "waiting"
        await store.signal(KEY, Signal(kind="event"), now=T)
        held = await take(store, id="held", carrier=None)
        await store.commit(held.claim, release(held, after=60.0), now=T)
        assert (await no(store, id="x", carrier="client")).reason == "later"
        assert (await no(store, id="x", carrier="client", now=T + 60)).reason == "busy"
        held = await take(store, id="held", carrier=None, now=T + 60)
        await store.commit(held.claim, end(held), now=T + 60)
        assert (await no(store, id="x", now=T + 60)).reason == "ended"
        assert (await no(store, id="x", now=T + 60, expect=0)).reason == "index"

    async def test_a_refusal_changes_nothing_and_shows_run_and_newest_step(self, store: Store) -> None:
        await create(store)
        await go(store)
        claimed = await take(store)
        refused = await no(store, id="x", now=T + 1)
        assert (refused.run, refused.now) == (claimed.run, T + 1)
        assert refused.step == (await store.read(KEY, "steps"))[-1]
        assert await row(store) == claimed.run

    async def test_busy_says_until_when_and_by_whom(self, store: Store) -> None:
        await take(store, new=new(carrier="background"), carrier="background")
        refused = await no(store, id="x", now=T + LEASE - 0.5)
        assert (refused.reason, refused.until, refused.carrier) == ("busy", T + LEASE, "background")

    async def test_the_lease_over_is_the_lease_over(self, store: Store) -> None:
        await take(store, new=new())
        assert (await no(store, id="x", now=T + LEASE - 0.001)).reason == "busy"
        assert (await take(store, id="x", now=T + LEASE)).claim.fence == 2

    async def test_a_request_is_replayed_with_its_step(self, store: Store) -> None:
        await create(store)
        await go(store, request=request("q0"))
        await go(store, request=request("q1"))
        replay = await no(store, request=request("q0"), expect=0)
        assert replay.reason == "replay"
        assert replay.step is not None
        assert (replay.step.index, replay.step.request) == (0, request("q0"))
        conflict = await no(store, request=request("q1", "other"))
        assert conflict.reason == "conflict"
        assert conflict.step is not None
        assert conflict.step.index == 1
        assert (await take(store, request=request("q2"))).claim.index == 2

    async def test_a_request_is_replayed_while_the_run_is_held_and_after_it_ended(self, store: Store) -> None:
        await create(store)
        await go(store, request=request("q"))
        held = await take(store, id="held")
        assert (await no(store, request=request("q"))).reason == "replay"
        await store.commit(held.claim, end(held), now=T)
        assert (await no(store, request=request("q"))).reason == "replay"

    async def test_a_release_records_no_request(self, store: Store) -> None:
        claimed = await take(store, new=new(), request=request("q"))
        await store.commit(claimed.claim, release(claimed), now=T)
        assert (await take(store, id="c2", request=request("q"))).claim.index == 0

    @pytest.mark.parametrize("expect", [0, 2, 99])
    async def test_expect_must_be_the_next_index(self, store: Store, expect: int) -> None:
        await create(store)
        await go(store)
        assert (await no(store, expect=expect)).reason == "index"
        assert (await take(store, expect=1)).claim.index == 1

    async def test_a_claim_brings_what_one_step_needs(self, store: Store) -> None:
        await create(store)
        for i in range(5):
            await go(store, now=T + i, state=f'{{"i":{i}}}', floor=i - 1 if i > 1 else None)
        first = await take(store, now=T + 9)
        await store.progress(first.claim, lease=LEASE, tail='{"text":"so far"}', ledger={"5/a": "1", "5/b": "2"}, now=T + 10)
        await store.signal(KEY, Signal(kind="event", body='{"id":"e"}'), now=T + 11)
        claimed = await take(store, id="c2", now=T + 60)
        assert [s.index for s in claimed.steps] == [3, 4]
        assert claimed.run.state == '{"i":4}'
        assert claimed.run.tail == '{"text":"so far"}', "the tail of the dead attempt"
        assert claimed.ledger == {"5/a": "1", "5/b": "2"}
        assert [(s.kind, s.body, s.at) for s in claimed.inbox] == [("event", '{"id":"e"}', T + 11)]

    # ------------------------------------------------------------ carriage

    async def test_another_carrier_is_told_busy_and_never_when_there_is_no_takeover(self, store: Store) -> None:
        await create(store, carrier="client")
        refused = await no(store, carrier="background", now=T + 1e6)
        assert (refused.reason, refused.until, refused.carrier) == ("busy", None, "client")
        assert (await take(store, carrier="client")).run.carrier == "client"

    async def test_a_takeover_counts_from_the_time_due_and_sets_the_carrier(self, store: Store) -> None:
        await create(store, carrier="client", takeover_after=30.0)
        refused = await no(store, carrier="background", now=T + 29)
        assert (refused.reason, refused.until, refused.carrier) == ("busy", T + 30, "client")
        claimed = await take(store, carrier="background", now=T + 30)
        assert (claimed.run.carrier, claimed.claim.carrier) == ("background", "background")
        await store.commit(claimed.claim, forward(claimed), now=T + 31)
        assert (await no(store, carrier="client", now=T + 60)).until == T + 61

    async def test_a_takeover_counts_from_the_end_of_a_dead_lease(self, store: Store) -> None:
        await take(store, new=new(takeover_after=30.0))
        assert (await no(store, id="x", carrier="background", now=T + LEASE)).until == T + LEASE + 30
        assert (await take(store, id="x", carrier="background", now=T + LEASE + 30)).run.carrier == "background"

    async def test_a_run_of_any_carrier_is_everybodys_and_stays_so(self, store: Store) -> None:
        claimed = await take(store, new=new(carrier="any"), carrier="temporal")
        assert (claimed.claim.carrier, claimed.run.carrier) == ("temporal", "any")
        await store.commit(claimed.claim, forward(claimed), now=T)
        assert (await take(store, id="c2", carrier="client")).claim.carrier == "client"

    async def test_no_carrier_passes_the_guard_and_leaves_the_carrier(self, store: Store) -> None:
        claimed = await take(store, new=new(carrier="temporal"), carrier=None)
        assert (claimed.claim.carrier, claimed.run.carrier) == ("temporal", "temporal")

    async def test_no_carrier_passes_nothing_else(self, store: Store) -> None:
        await take(store, new=new())
        assert (await no(store, id="x", carrier=None)).reason == "busy"
        await finish(store, id="c1")
        assert (await no(store, id="x", carrier=None)).reason == "ended"

    # ------------------------------------------------------------ tenants

    async def test_tenants_never_meet(self, store: Store) -> None:
        other = RunKey("evil", KEY.id)
        await create(store)
        await go(store, request=request("q"), blobs={"b": "secret"}, outbox=())
        assert (await no(store, other)).reason == "absent"
        for view in ("run", "steps", "inbox", "outbox"):
            assert await store.read(other, view) == []
        assert await store.read(other, "blob", name="b") == []
        assert await store.signal(other, Signal(kind="cancel"), now=T) is None
        await create(store, other, agent="theirs")
        claimed = await take(store, other, request=request("q"))
        assert (claimed.claim.index, claimed.steps, claimed.ledger) == (0, (), {})
        assert (await row(store)).agent == "a"

    async def test_one_of_many_claims_at_once_wins(self, store: Store) -> None:
        await create(store)
        answers = await asyncio.gather(*(ask(store, id=f"c{i}") for i in range(20)))
        assert sum(isinstance(a, Claimed) for a in answers) == 1
        assert {a.reason for a in answers if isinstance(a, Refused)} == {"busy"}
        run = await row(store)
        assert (run.fence, run.attempts) == (1, 1)
