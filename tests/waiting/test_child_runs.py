"""Runs that start runs, in one process: through App, the outbox and the wakers as users have them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from steprelay import AgentError, App, Limits, Reply, Usage
from steprelay.core import codec
from steprelay.core.errors import StoreUnavailable
from steprelay.core.model import Interrupt, Outgoing, Run, RunKey, Signal
from steprelay.core.noun import replace
from steprelay.ports import Waker
from steprelay.stores.memory import MemoryStore

NAMES = ("one", "two", "three")


async def lead(turn: Any, ctx: Any) -> Any:
    """Gives every name to a worker and puts together what they answer."""
    if turn.fresh:
        needs = tuple(ctx.spawn(n, n, agent="work", limits={"steps": 3}) for n in NAMES)
        return Reply(then="wait", needs=needs, reason="child", state=list(needs))
    got = {m.id: m.body for m in turn.inbox if m.kind == "child"}
    return [got[id]["output"] for id in turn.state]


async def work(turn: Any, ctx: Any) -> Any:
    if turn.fresh:
        return Reply(usage=Usage(requests=1, input_tokens=10, usd=0.01))
    return Reply(then="finish", output=turn.prompt.upper(), usage=Usage(requests=1, output_tokens=5, usd=0.01))


async def asks(turn: Any, ctx: Any) -> Any:
    return Reply(then="ask", interrupts=(Interrupt(id="q", kind="question"),))


class Silent(Waker):
    """Wakes nobody, and writes down who should have been woken."""

    def __init__(self) -> None:
        self.woken: list[str] = []

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        self.woken.append(key.id)


def an_app(**agents: Any) -> App:
    return App({"lead": lead, "work": work, **agents}, store=MemoryStore(), auth=False, observer=None)


def quiet_app(**agents: Any) -> App:
    return App({"lead": lead, "work": work, **agents}, store=MemoryStore(), auth=False, observer=None, waker=Silent())


async def row(app: App, run: str) -> Run:
    (found,) = await app.store.read(RunKey(app.tenant, run), "run")
    return found


async def children(app: App, run: str) -> list[Run]:
    ids = codec.wait((await row(app, run)).wait).needs  # type: ignore[union-attr]
    return [await row(app, id) for id in ids]


async def carried(app: App, run: str) -> None:
    await app.carry(RunKey(app.tenant, run), "background")


async def test_children_work_in_parallel_and_the_parent_goes_on_with_all_their_results() -> None:
    app = an_app()
    run = await app.start("go")
    assert await asyncio.wait_for(app.result(run), 20) == ["ONE", "TWO", "THREE"]
    tally = codec.tally((await row(app, run)).tally)
    assert (tally.total.tokens, tally.total.requests, tally.total.usd) == (45, 6, pytest.approx(0.06))
    assert (tally.children, tally.heard, tally.steps) == ({}, {}, 1 + 3), "a child's end is no counted step, like a parent's"
    await app.shutdown()


async def test_a_child_belongs_to_whom_its_parent_belongs_and_names_it() -> None:
    app = quiet_app()
    run = await app.start("go", carrier="background")
    key = RunKey(app.tenant, run)
    app.store._runs[key].run = replace(app.store._runs[key].run, owner="ada")  # type: ignore[attr-defined]
    await carried(app, run)
    assert {c.owner for c in await children(app, run)} == {"ada"}
    assert [codec.loads(c.parent) for c in await children(app, run)] == [
        {"run": run, "id": c.key.id} for c in await children(app, run)
    ]
    assert {c.carrier for c in await children(app, run)} == {"background"}


async def test_messages_that_go_out_twice_start_and_settle_once() -> None:
    app = quiet_app()
    run = await app.start("go", carrier="background")
    ack, lost = app.store.ack, []

    async def forgetful(key: RunKey, delivered: list[int], retry_after: float | None = None, **at: Any) -> None:
        """Every delivery is forgotten once."""
        if retry_after is None and (key, tuple(delivered)) not in lost:
            lost.append((key, tuple(delivered)))
            raise StoreUnavailable("the ack was lost")
        await ack(key, delivered, retry_after, **at)

    app.store.ack = forgetful  # type: ignore[method-assign]
    for _ in range(12):
        for key in list(app.store._runs):  # type: ignore[attr-defined]
            try:
                await app.carry(key, "background")
                await app.outbox.deliver(key)
            except StoreUnavailable:
                continue
    assert len(app.store._runs) == 4  # type: ignore[attr-defined]
    assert len(lost) == 6
    assert (await row(app, run)).status == "COMPLETED"
    assert codec.tally((await row(app, run)).tally).total.requests == 6


async def test_an_attempt_that_repeats_the_step_starts_the_same_children() -> None:
    ids = []

    async def stumbles(turn: Any, ctx: Any) -> Any:
        ids.append(ctx.spawn("one", 1, agent="work"))
        if turn.attempt == 1:
            raise OSError("once")
        return Reply(then="wait", needs=(ids[-1],), reason="child")

    app = quiet_app(stumbles=stumbles)
    run = await app.start("go", agent="stumbles", carrier="background")
    await carried(app, run)
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert len(await app.store.read(RunKey(app.tenant, run), "outbox")) == 0
    assert [c.key.id for c in await children(app, run)] == [ids[0]]


async def test_a_later_step_may_use_the_name_again_for_another_child() -> None:
    ids = []

    async def twice(turn: Any, ctx: Any) -> Any:
        ids.append(ctx.spawn("again", turn.step, agent="work", limits={"steps": 2}))
        return Reply(then="wait", needs=(ids[-1],), reason="child") if turn.step < 1 else Reply(then="finish")

    app = an_app(twice=twice)
    await asyncio.wait_for(app.result(await app.start("go", agent="twice")), 20)
    assert len(set(ids)) == 2
    await app.shutdown()


async def test_a_child_that_fails_tells_why() -> None:
    async def breaks(turn: Any, ctx: Any) -> Any:
        raise AgentError("no luck", final=True)

    async def hopes(turn: Any, ctx: Any) -> Any:
        if turn.fresh:
            ids = tuple(ctx.spawn(a, None, agent=a, limits={"steps": 2}) for a in ("breaks", "nobody"))
            return Reply(then="wait", needs=ids, reason="child")
        return sorted([m.body["status"], m.body["error"]["message"][:22]] for m in turn.inbox)

    app = an_app(breaks=breaks, hopes=hopes)
    told = await asyncio.wait_for(app.result(await app.start("go", agent="hopes")), 20)
    assert told == [["FAILED", "no luck"], ["FAILED", "this app has no agent "]]
    await app.shutdown()


async def test_a_stranger_under_the_childs_id_is_no_child() -> None:
    app = quiet_app()
    run = await app.start("go", carrier="background")
    twin = quiet_app()
    await twin.start("go", id=run, carrier="background")
    await carried(twin, run)
    squatted = (await children(twin, run))[0].key.id
    await app.start("mine", id=squatted, agent="work")
    await carried(app, run)
    inbox = await app.store.read(RunKey(app.tenant, run), "inbox")
    assert [(s.kind, codec.loads(s.body)["error"]["code"]) for s in inbox] == [("child", "id_taken")]
    assert (await row(app, squatted)).prompt == '"mine"'


async def test_cancelling_a_run_cancels_its_children_and_theirs() -> None:
    async def boss(turn: Any, ctx: Any) -> Any:
        if turn.fresh:
            return Reply(then="wait", needs=(ctx.spawn("m", 1, agent="middle"),), reason="child")
        return "done"

    async def middle(turn: Any, ctx: Any) -> Any:
        if turn.fresh:
            return Reply(then="wait", needs=(ctx.spawn("a", 1, agent="asks"),), reason="child")
        return "done"

    app = quiet_app(boss=boss, middle=middle, asks=asks)
    run = await app.start("go", agent="boss", carrier="background")
    await carried(app, run)
    (mid,) = await children(app, run)
    await carried(app, mid.key.id)
    (low,) = await children(app, mid.key.id)
    await carried(app, low.key.id)
    await app.store.signal(RunKey(app.tenant, run), Signal(kind="cancel", request_id="stop"))
    await carried(app, run)
    rows = [await row(app, id) for id in (run, mid.key.id, low.key.id)]
    assert [(r.status, r.stop_reason, r.ended) for r in rows] == [("CANCELLED", "cancelled", True)] * 3


async def test_a_cancel_that_overtakes_the_start_waits_for_it() -> None:
    app = quiet_app()
    key = RunKey(app.tenant, await app.start("go", agent="work"))
    cancel = Outgoing(kind="signal", target="later", body='{"body":null,"kind":"cancel"}', request_id="c")
    with pytest.raises(OSError, match="no run 'later' yet"):
        await app.outbox._send(key, cancel)
    await app.start("x", id="later", agent="work")
    await app.outbox._send(key, cancel)
    assert (await row(app, "later")).status == "CANCELLED"


async def test_children_without_limits_share_what_is_left_with_their_parent() -> None:
    async def shares(turn: Any, ctx: Any) -> Any:
        ids = (ctx.spawn("rich", 1, limits={"steps": 4}), *(ctx.spawn(n, 1) for n in ("a", "b")))
        return Reply(then="wait", needs=ids, reason="child")

    app = quiet_app(shares=shares)
    limits = Limits(steps=20, tokens=900, usd=3.0, repeats=7)
    run = await app.start("go", agent="shares", limits=limits, carrier="background")
    await carried(app, run)
    lent = [codec.limits(c.limits) for c in await children(app, run)]
    assert [(c.steps, c.tokens, c.usd) for c in lent] == [(4, 225, 0.75), (5, 225, 0.75), (5, 225, 0.75)]
    tally = codec.tally((await row(app, run)).tally)
    assert 20 - tally.steps - sum(c["steps"] for c in tally.children.values()) == 5


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ([{"steps": 5}, {"steps": 5}], "steps: 10 left is too little for 2 children"),
        ([{}] * 10, "steps: 10 left is too little for 10 children"),
        ([{"stepps": 5}], "no limit 'stepps'"),
    ],
)
async def test_nobody_can_lend_what_is_not_there(wanted: Any, why: str) -> None:
    async def generous(turn: Any, ctx: Any) -> Any:
        ids = tuple(ctx.spawn(str(n), n, limits=w) for n, w in enumerate(wanted))
        return Reply(then="wait", needs=ids, reason="child")

    app = quiet_app(generous=generous)
    with pytest.raises(AgentError, match=why):
        await app.result(await app.start("go", agent="generous", limits=Limits(steps=10)))
    assert len(app.store._runs) == 1  # type: ignore[attr-defined]


async def test_one_name_is_one_child_within_a_step() -> None:
    async def confused(turn: Any, ctx: Any) -> Any:
        return ctx.spawn("a", 1) + ctx.spawn("a", 2)

    app = quiet_app(confused=confused)
    with pytest.raises(AgentError, match="spawns 'a' twice"):
        await app.result(await app.start("go", agent="confused"))


async def test_a_step_that_asks_a_person_first_spawns_when_it_goes_on() -> None:
    async def careful(turn: Any, ctx: Any) -> Any:
        id = ctx.spawn("one", 1, agent="work")
        await ctx.call("sure", lambda: "yes", effect="needs_approval")
        return Reply(then="wait", needs=(id,), reason="child")

    app = quiet_app(careful=careful)
    run = await app.start("go", agent="careful", carrier="background")
    key = RunKey(app.tenant, run)
    await carried(app, run)
    assert len(app.store._runs) == 1  # type: ignore[attr-defined]
    (asked,) = codec.wait((await row(app, run)).wait).needs  # type: ignore[union-attr]
    body = codec.dumps({"id": asked, "status": "resolved", "payload": {"approved": True}})
    await app.store.signal(key, Signal(kind="answer", body=body, request_id="a"))
    await carried(app, run)
    assert [c.status for c in await children(app, run)] == ["RUNNING"]


async def test_a_step_may_start_more_children_than_a_page_of_the_outbox_holds() -> None:
    async def many(turn: Any, ctx: Any) -> Any:
        ids = tuple(ctx.spawn(str(n), n, agent="work", limits={"steps": 1}) for n in range(230))
        return Reply(then="wait", needs=ids, reason="child")

    app = quiet_app(many=many)
    run = await app.start("go", agent="many", limits=Limits(steps=1000), carrier="background")
    await carried(app, run)
    assert len(await children(app, run)) == 230


async def test_a_page_drives_a_parent_whose_children_are_carried_by_the_server() -> None:
    """The client's steps over HTTP; nobody sweeps: what a step leaves in the outbox is delivered after it."""
    app = App({"lead": lead, "work": work}, store=MemoryStore(), secret="a secret that only these tests know", observer=None)
    key = {"authorization": f"Bearer {app.rights.server_key}"}
    ended: asyncio.Queue[str] = asyncio.Queue()
    carry = app.carry

    async def watched(key: RunKey, *args: Any, **options: Any) -> Any:
        advanced = await carry(key, *args, **options)
        if advanced.run is not None and advanced.run.ended:
            ended.put_nowait(key.id)
        return advanced

    app.waker._carry = watched  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost", headers=key) as page:
        run = (await page.post("/api/runs", json={"userPrompt": "go", "carrier": "client"})).json()["sessionId"]
        first = (await page.post(f"/api/runs/{run}/step", json={})).json()
        assert (first["status"], first["stopReason"], first["next"]["action"]) == ("WAITING", "child", "wait")
        words = (await page.get(f"/api/runs/{run}/explain")).json()["words"]
        assert "It waits for child" in words
        async with asyncio.timeout(20):
            assert len({await ended.get() for _ in NAMES}) == len(NAMES)
        last = (await page.post(f"/api/runs/{run}/step", json={})).json()
    assert (last["status"], last["output"]) == ("COMPLETED", ["ONE", "TWO", "THREE"])
    await app.shutdown()


async def test_a_person_who_cancels_the_parent_cancels_all_of_it() -> None:
    async def hires(turn: Any, ctx: Any) -> Any:
        return Reply(then="wait", needs=tuple(ctx.spawn(n, n, agent="asks", limits={"steps": 2}) for n in NAMES), reason="child")

    app = quiet_app(hires=hires, asks=asks)
    run = await app.start("go", agent="hires", carrier="client")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost") as page:
        await page.post(f"/api/runs/{run}/step", json={})
        began = await children(app, run)
        for child in began[:2]:  # two have asked something, the third was never looked at
            await carried(app, child.key.id)
        assert (await page.post(f"/api/runs/{run}/cancel")).json()["status"] == "CANCELLED"
        await app.sweeper.once()
    assert [(await row(app, c.key.id)).status for c in began] == ["CANCELLED"] * 3
