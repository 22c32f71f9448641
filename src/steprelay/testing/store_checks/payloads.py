"""Payloads are opaque: every text comes back byte for byte; and a long history costs no more than a short one."""

from __future__ import annotations

import time

import pytest

from ...core import codec
from ...core.model import Claimed, New, Outgoing, Request, RunKey, Signal, Step
from ...ports import Store
from .common import KEY, LEASE, T, create, forward, new, no, row, step, take

ODD = {
    "NUL": codec.dumps("a\0b"),
    "lone surrogate": codec.dumps("\ud800x\udfff"),
    "emoji": codec.dumps("😀🏳️‍🌈"),
    "beyond 64 bits": codec.dumps([2**63, -(2**63) - 1, 10**40]),
    "duplicate keys": '{"a":1,"a":2}',
    "number spelling": "[1.0,1e5,1E+2,-0.0,100000000000000000000.5]",
    "white space": '{ "a" : 1 ,  "b":  [ ] }',
    "quotes": codec.dumps({"'": '"', "\\": "\\\\", "$1": "%s", ":now": "{}"}),
    "deep": "[" * 500 + "]" * 500,
    "long": codec.dumps("x" * 1_000_000),
    "null": "null",
    "empty string": '""',
}


class Payloads:
    @pytest.mark.parametrize("name", ODD)
    async def test_payloads_come_back_byte_for_byte(self, store: Store, name: str) -> None:
        odd = ODD[name]
        made = new(prompt=odd, limits=odd, parent=odd, state=odd, scratchpad=odd, tally=odd)
        claimed = await take(store, new=made)
        run = claimed.run
        assert [run.prompt, run.limits, run.parent, run.state, run.scratchpad, run.tally] == [odd] * 6
        await store.progress(claimed.claim, lease=LEASE, tail=odd, ledger={"k": odd}, now=T)
        assert (await row(store)).tail == odd
        await store.signal(KEY, Signal(kind="event", body=odd, request_id="e"), now=T)
        again = await store.signal(KEY, Signal(kind="event", body="0", request_id="e"), now=T)
        assert again is not None
        assert again.body == odd
        whole = step(claimed, messages=(odd, "{}", odd), parts=(odd,), usage=odd, state=odd)
        made_true = forward(
            claimed, step=whole, keep_ledger=True, state=odd, scratchpad=odd, tally=odd, wait=odd, prompt=odd, limits=odd,
            outbox=(Outgoing(kind="signal", target="t", body=odd),), blobs={"b": odd}, ledger={"l": odd},
        )  # fmt: skip
        await store.commit(claimed.claim, made_true, now=T)
        claimed = await take(store, id="c2")
        run, kept = claimed.run, claimed.steps[0]
        assert [run.prompt, run.limits, run.state, run.scratchpad, run.tally, run.wait] == [odd] * 6
        assert (kept.messages, kept.parts, kept.usage, kept.state) == ((odd, "{}", odd), (odd,), odd, odd)
        assert claimed.ledger == {"k": odd, "l": odd}
        assert [s.body for s in claimed.inbox] == [odd]
        assert [o.body for o in await store.read(KEY, "outbox")] == [odd]
        assert await store.read(KEY, "blob", name="b") == [odd]

    @pytest.mark.parametrize("name", ["ünïcode", "emoji 😀", "quote ' and \" and \\", "sp ace/slash%_", "x" * 500, "-", "NULL"])
    async def test_names_come_back_as_they_were(self, store: Store, name: str) -> None:
        key = RunKey(name, name)
        asked = Request(id=name, hash=name)
        made = new(agent=name, adapter=name, owner=name, labels=codec.dumps({name: name}), create_hash=name)
        claimed = await store.claim(
            key, claim_id=name, holder=name, lease=LEASE, carrier="client", request=asked, new=made, now=T
        )
        assert isinstance(claimed, Claimed)
        assert (claimed.run.key, claimed.run.agent, claimed.run.owner, claimed.run.holder) == (key, name, name, name)
        done = forward(claimed, request=asked, blobs={name: "1"}, outbox=(Outgoing(kind="wake", target=name, request_id=name),))
        await store.commit(claimed.claim, done, now=T)
        replay = await no(store, key, request=asked)
        assert replay.reason == "replay"
        assert replay.step is not None
        assert (replay.step.request, replay.step.claim_id) == (asked, name)
        assert await store.read(key, "blob", name=name) == ["1"]
        assert [o.target for o in await store.read(key, "outbox")] == [name]
        assert await store.put_if(name, name, ttl=9, expect=None, now=T)
        assert await store.scan(name, now=T) == {name: name}

    async def test_messages_of_a_step_keep_their_number_and_order(self, store: Store) -> None:
        await create(store)
        for n, messages in enumerate(((), ("1",), tuple(str(i) for i in range(100)))):
            claimed = await take(store, id=f"c{n}")
            await store.commit(claimed.claim, forward(claimed, step=step(claimed, messages=messages)), now=T)
            assert (await store.read(KEY, "steps", after=n - 1))[0].messages == messages

    async def test_100_000_messages_below_the_floor_cost_nothing(self, store: Store) -> None:
        """Claim and commit stay under 10 ms each (best of ten: the machine may be busy, the store may not be slow)."""
        message = codec.dumps({"role": "user", "content": "x" * 100})
        old = tuple(
            Step(index=i, round=0, attempt=1, carrier="import", claim_id="", status="RUNNING", messages=(message,) * 100)
            for i in range(1000)
        )
        made = New(agent="a", adapter="function", prompt="0", steps=old, floor=999, status="RUNNING")
        await store.claim(KEY, claim_id="create", holder="", lease=0, carrier=None, new=made)
        spent = []
        for n in range(10):
            began = time.perf_counter()
            claimed = await store.claim(KEY, claim_id=f"c{n}", holder="", lease=LEASE, carrier=None)
            between = time.perf_counter()
            assert isinstance(claimed, Claimed)
            assert len(claimed.steps) == 1 + n
            await store.commit(claimed.claim, forward(claimed))
            spent.append((between - began, time.perf_counter() - between))
        assert min(claim for claim, _ in spent) < 0.010
        assert min(commit for _, commit in spent) < 0.010
