"""The gate: at most so many at work under one key, in turn, and nobody behind them held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from steprelay.core import codec
from steprelay.core.errors import ConfigError, StoreUnavailable, Transient
from steprelay.core.model import Again, Busy, Done, Limits, New, Reply, Run, RunKey, Signal, Waiting
from steprelay.drivers.gate import Gate, rules
from steprelay.drivers.leg import Leg
from steprelay.drivers.loop import Loop
from steprelay.drivers.slots import Full, Slots
from steprelay.drivers.sweep import Sweep
from steprelay.engine import Advanced, Engine
from steprelay.ports import Store
from steprelay.testing.fakes import ScriptedAgent, virtual
from steprelay.testing.stage import WatchedStore

ONE = {"key": "agent", "limit": 1}


class Place:
    """An app's inside: one store on the loop's clock, a gate before it, agents that count who is at work."""

    def __init__(self, concurrency: Any, *, lease: float = 15.0, store: WatchedStore | None = None, **agents: Any) -> None:
        self.store = store or WatchedStore()
        self.at_work, self.most, self.order = set[str](), 0, list[str]()
        self.agents = {name: ScriptedAgent([self.watched(step)]) for name, step in agents.items()}
        for name, step in agents.items():
            self.agents[name].provider = getattr(step, "provider", None)  # type: ignore[attr-defined]
        self.told: list[dict[str, Any]] = []
        self.gate = Gate(cast(Store, self.store), rules(concurrency), self.agents, self.told.append)
        self.engine = Engine(cast(Store, self.gate), self.agents, lambda _: ScriptedAgent.view, lease=lease)
        self.loop = Loop(self.engine, takes_turns=self.gate.takes_turns)

    def watched(self, step: Callable[..., Any]) -> Callable[..., Any]:
        async def take(turn: Any, ctx: Any) -> Any:
            self.at_work.add(turn.key.id)
            self.order.append(turn.key.id)
            self.most = max(self.most, len(self.at_work))
            try:
                return await step(turn, ctx)
            finally:
                self.at_work.discard(turn.key.id)

        return take

    async def start(self, id: str, agent: str = "a", **fields: Any) -> RunKey:
        key = RunKey("t", id)
        new = New(agent=agent, adapter="function", prompt='"go"', carrier="background", **fields)
        await self.engine.store.claim(key, claim_id="new", holder="", lease=0, carrier=None, new=new)
        return key

    async def pulse(self, key: RunKey, **options: Any) -> Advanced:
        return await self.loop.pulse(key, **{"carrier": "background", **options})

    async def carry(self, key: RunKey, carrier: str = "background") -> Advanced:
        return await self.loop.carry(key, carrier=carrier)

    async def row(self, key: RunKey) -> Run:
        rows: list[Run] = await self.store.inner.read(key, "run")
        return rows[0]


def steps(count: int, seconds: float = 1.0) -> Callable[..., Any]:
    async def step(turn: Any, ctx: Any) -> Reply:
        await asyncio.sleep(seconds)
        return Reply(then="finish", output=turn.step) if turn.step + 1 == count else Reply()

    return step


async def held_for_ever(turn: Any, ctx: Any) -> Reply:
    await asyncio.sleep(1e9)
    raise AssertionError


async def none(key: RunKey) -> int:
    return 0


async def taken(place: Place) -> list[str]:
    """The slots that are held now."""
    entries = await place.store.inner.scan("slot/", now=asyncio.get_running_loop().time())
    return [e for e in entries if "/s/" in e]


async def blocked(place: Place, key: RunKey) -> dict[str, Any]:
    wait = codec.wait((await place.row(key)).wait)
    assert wait is not None
    return {"reason": wait.reason, **wait.extra}


@virtual
async def test_no_more_than_the_limit_work_at_once_and_all_of_them_finish() -> None:
    place = Place({"key": "agent", "limit": 3}, a=steps(4))
    keys = [await place.start(f"r{n}") for n in range(12)]
    ended = await asyncio.gather(*map(place.carry, keys))
    assert place.most == 3
    assert {type(e.outcome) for e in ended} == {Done}
    assert await taken(place) == []


@virtual
async def test_they_take_turns_in_the_order_in_which_they_came() -> None:
    place = Place(ONE, a=steps(3))
    keys = [await place.start(id) for id in ("one", "two", "three")]
    tasks = []
    for key in keys:
        tasks.append(asyncio.create_task(place.carry(key)))
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    assert place.order == ["one", "two", "three"] * 3


@virtual
async def test_a_slot_stands_empty_for_less_than_a_third_of_a_step() -> None:
    place, clock = Place(ONE, a=steps(2, 4.0)), asyncio.get_running_loop().time
    keys = [await place.start(f"r{n}") for n in range(10)]
    began = clock()
    await asyncio.gather(*map(place.carry, keys))
    assert clock() - began < 10 * 2 * 4.0 * 4 / 3


@virtual
async def test_who_finds_no_slot_is_told_when_to_come_again_and_why() -> None:
    place = Place(ONE, a=held_for_ever)
    first, second, third = [await place.start(id) for id in ("one", "two", "three")]
    working = asyncio.create_task(place.carry(first))
    await asyncio.sleep(4.0)
    advanced = await place.pulse(second)
    assert (advanced.outcome, advanced.refused, advanced.taken) == (Again(after=1.0), "later", ())
    where = {"tenant": "t", "run": "two", "agent": "a", "step": 0}
    assert place.told == [{"event": "put_off", **where, "why": "concurrency", "after": 1.0}]
    row = await place.row(second)
    assert (row.status, row.attempts, row.claim_id, row.due_at) == ("RUNNING", 0, None, advanced.now + 1.0)
    assert (await blocked(place, second)).items() >= {"reason": "concurrency", "key": "agent:a", "limit": 1, "ahead": 0}.items()
    await asyncio.sleep(0.1)
    await place.pulse(third)
    assert (await blocked(place, third))["ahead"] == 1
    again = await place.pulse(second)
    assert isinstance(again.outcome, Again), "asked too early: the same"
    working.cancel()


@virtual
async def test_a_wait_for_room_counts_against_no_brake() -> None:
    place = Place(ONE, a=steps(30, 2.0), b=steps(1))
    hog = await place.start("hog", limits=codec.pack(Limits(steps=40, repeats=None)))
    slow = Place(ONE, store=place.store, a=held_for_ever)
    task = asyncio.create_task(slow.carry(hog))
    await asyncio.sleep(0.1)
    waiter = await place.start("waiter", limits=codec.pack(Limits(steps=40, releases=3, attempts=1, repeats=None)))
    for _ in range(20):
        outcome = (await place.pulse(waiter)).outcome
        assert isinstance(outcome, Again)
        await asyncio.sleep(outcome.after)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.sleep(60)
    advanced = await place.pulse(waiter)
    assert [s.attempt for s in advanced.taken] == [1]


@virtual
async def test_a_dead_holders_slot_comes_back_with_its_lease() -> None:
    place = Place(ONE, a=held_for_ever)
    await place.start("dead")
    await place.engine.store.claim(RunKey("t", "dead"), claim_id="c", holder="gone", lease=15.0, carrier="background")
    clock = asyncio.get_running_loop().time
    began = clock()
    fresh = Place(ONE, store=place.store, a=steps(1))
    await fresh.carry(await fresh.start("next"))
    assert 15.0 <= clock() - began < 15.0 * 1.3 + 1.0


@virtual
async def test_signs_of_life_keep_the_slot_of_a_long_step() -> None:
    place = Place(ONE, a=steps(1, 300.0))
    long, next = await place.start("long"), await place.start("next")
    await asyncio.gather(place.carry(long), place.carry(next))
    assert place.most == 1


@virtual
async def test_who_has_lost_its_slot_stops_working() -> None:
    """A process that stood still for longer than a lease, whose run nobody has taken over meanwhile."""
    place = Place(ONE, a=held_for_ever)
    key = await place.start("frozen")
    task = asyncio.create_task(place.carry(key))
    await asyncio.sleep(1.0)
    (entry,) = await taken(place)
    place.store.inner._kv[entry] = ("1.0 somebody", 1e12)
    await asyncio.sleep(6.0)
    assert place.at_work == set()
    task.cancel()
    assert place.store.inner._kv[entry][0] == "1.0 somebody", "what is another's is not given back"


@virtual
async def test_signals_that_come_while_a_run_waits_for_room_are_heard_once_and_kept() -> None:
    heard: list[Any] = []

    async def waits(turn: Any, ctx: Any) -> Reply:
        heard.append([(m.kind, m.id) for m in turn.inbox])
        if turn.step == 0:
            return Reply(then="wait", needs=("e1",), reason="event")
        await asyncio.sleep(1.0)
        return Reply() if turn.step < 3 else Reply(then="finish")

    place = Place(ONE, a=waits, hog=steps(1))
    key = await place.start("waits")
    assert isinstance((await place.carry(key)).outcome, Waiting)
    busy = Place({"key": lambda run: "agent:a", "limit": 1}, store=place.store, hog=held_for_ever)
    task = asyncio.create_task(busy.carry(await busy.start("busy", "hog")))
    await asyncio.sleep(1.0)
    await place.engine.store.signal(key, Signal(kind="event", body='{"id":"e1","payload":1}', request_id="e1"))
    for _ in range(3):
        outcome = (await place.pulse(key)).outcome
        assert isinstance(outcome, Again), "not Waiting: nobody has to signal anything more"
        await asyncio.sleep(outcome.after)
    await place.engine.store.signal(key, Signal(kind="event", body='{"id":"e2","payload":2}', request_id="e2"))
    assert isinstance((await place.pulse(key)).outcome, Again)
    task.cancel()
    await asyncio.wait({task})
    await place.carry(key)
    assert heard == [[], [("event", "e1"), ("event", "e2")], [("event", "e2")], [("event", "e2")]]


@virtual
async def test_a_run_that_waits_for_room_can_be_cancelled_at_once() -> None:
    place = Place(ONE, a=held_for_ever)
    task = asyncio.create_task(place.carry(await place.start("busy")))
    await asyncio.sleep(1.0)
    key = await place.start("waits")
    await place.pulse(key)
    await place.engine.store.signal(key, Signal(kind="cancel", request_id="stop"))
    advanced = await place.engine.advance(key, carrier=None)
    assert advanced.outcome == Done(status="CANCELLED", stop_reason="cancelled")
    task.cancel()


@virtual
async def test_a_run_needs_a_slot_of_every_key_it_has_and_holds_none_while_it_waits() -> None:
    both = [{"key": "label:customer", "limit": 2}, {"key": "agent", "limit": 1}]
    place = Place(both, a=steps(2), b=steps(2))
    labels = '{"customer":"acme"}'
    keys = [await place.start(f"{agent}{n}", agent, labels=labels) for n in range(3) for agent in "ab"]
    free = [await place.start(f"free{agent}", agent) for agent in "ab"]
    await asyncio.gather(*map(place.carry, [*keys, *free]))
    assert place.most == 2
    assert len({*place.order}) == 8


@virtual
async def test_runs_of_another_key_pass() -> None:
    place = Place({"key": "label:customer", "limit": 1}, a=steps(1, 10.0))
    names = ("acme", "umbrella", None)
    keys = [await place.start(f"r{n}", labels=codec.dumps({"customer": n} if n else {})) for n in names]
    await asyncio.gather(*map(place.carry, keys))
    assert place.most == 3


@virtual
async def test_150_blocked_runs_do_not_hide_a_free_one_from_the_sweeper() -> None:
    place = Place({"key": "agent", "limit": 1}, hog=held_for_ever, free=steps(1))
    busy = asyncio.create_task(place.carry(await place.start("busy", "hog")))
    await asyncio.sleep(1.0)
    for n in range(150):
        await place.start(f"blocked{n:03}", "hog")
    await asyncio.sleep(1.0)
    free = await place.start("free", "free")
    oldest = await place.engine.store.due(("background",), 100)
    assert free not in [d.key for d in oldest], "it is not among the first hundred"
    looked: list[str] = []

    async def one_step(key: RunKey, carrier: str) -> None:
        looked.append(key.id)
        await place.pulse(key)

    await Sweep(place.engine, one_step, none).once()
    assert (await place.row(free)).status == "COMPLETED"
    assert len(looked) == len(set(looked)) == 151
    left = await place.engine.store.due(("background",), 1000)
    assert len(left) < 10, "who was looked at has moved out of the way, but for the head of the line"
    dues = [(await place.row(RunKey("t", f"blocked{n:03}"))).due_at for n in range(150)]
    assert max(dues) - min(dues) > 5.0, "and the end of the line is not asked as often as its head"
    busy.cancel()


@virtual
async def test_runs_that_nobody_takes_do_not_hide_one_behind_them_either() -> None:
    place = Place(None, a=steps(1))
    for n in range(250):
        await place.start(f"r{n:03}")
        await asyncio.sleep(0.001)
    woken: list[str] = []

    async def lost(key: RunKey, carrier: str) -> None:
        woken.append(key.id)

    swept = await Sweep(place.engine, lost, none).once()
    assert (swept.runs, woken) == (250, [f"r{n:03}" for n in range(250)])


# ---------------------------------------------------------------- when the store is away


@virtual
async def test_a_claim_whose_answer_was_lost_takes_no_second_slot() -> None:
    place = Place({"key": "agent", "limit": 2}, a=steps(1))
    key = await place.start("r")
    place.store.lost = {"put_if": 1}
    advanced = await place.pulse(key)
    assert isinstance(advanced.outcome, Done)
    assert await taken(place) == [], "all is given back"


@virtual
async def test_a_slot_that_cannot_be_given_back_costs_the_others_a_lease_and_the_step_nothing() -> None:
    place = Place(ONE, a=steps(1))
    key = await place.start("r")

    async def away() -> None:
        place.store.away = {"put_if": 1}

    place.store.before["commit"] = away
    assert isinstance((await place.pulse(key)).outcome, Done)
    next = await place.start("next")
    assert isinstance((await place.pulse(next)).outcome, Again)
    await asyncio.sleep(16.0)
    assert isinstance((await place.pulse(next)).outcome, Done)


@virtual
async def test_a_gate_that_cannot_be_asked_lets_nobody_pass() -> None:
    place = Place(ONE, a=steps(1))
    key = await place.start("r")
    place.store.away = {"scan": 1000}
    with pytest.raises(StoreUnavailable):
        await place.pulse(key)
    assert place.order == []


# ---------------------------------------------------------------- a provider's pause


def limited(provider: str | None, seconds: float) -> Callable[..., Any]:
    """Refused the first time, as by a provider with too much to do."""
    asked: list[str] = []

    async def step(turn: Any, ctx: Any) -> Reply:
        asked.append(turn.key.id)
        if len(asked) == 1:
            raise Transient("429", after=seconds, reason="rate_limited")
        return Reply(then="finish")

    step.provider = provider  # type: ignore[attr-defined]
    return step


@virtual
async def test_after_a_429_all_runs_of_that_provider_leave_it_alone_for_as_long_as_it_said() -> None:
    place, clock = Place(None, a=limited("openai:gpt-5", 20.0), b=limited("other", 0.0)), asyncio.get_running_loop().time
    first, second, foreign = await place.start("first"), await place.start("second"), await place.start("b", "b")
    assert place.gate.needed
    assert (await place.pulse(first)).outcome == Again(after=20.0)
    began = clock()
    advanced = await place.pulse(second)
    assert isinstance(advanced.outcome, Again)
    assert 20.0 <= advanced.outcome.after <= 30.0
    assert await blocked(place, second) == {"reason": "provider_pause", "provider": "openai:gpt-5"}
    elsewhere = Place(None, store=place.store, a=limited("openai:gpt-5", 0.0))
    assert isinstance((await elsewhere.pulse(second, carrier="background")).outcome, Again), "another process knows as well"
    third = await elsewhere.start("third")
    assert isinstance((await elsewhere.pulse(third)).outcome, Again)
    assert elsewhere.order == []
    await asyncio.gather(place.carry(first), place.carry(second))
    assert clock() - began >= 20.0
    assert place.order == ["first", "first", "second"]
    assert isinstance((await place.pulse(foreign)).outcome, Again | Done)
    assert place.order[-1] == "b"


@virtual
async def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    place = Place(None, a=limited("p", 60.0))
    await place.pulse(await place.start("first"))
    late = Place(None, store=place.store, a=limited("p", 1.0))
    await late.gate._pauses.begin("p", asyncio.get_running_loop().time(), 1.0)
    await asyncio.sleep(2.0)
    advanced = await late.pulse(await late.start("second"))
    assert isinstance(advanced.outcome, Again)
    assert advanced.outcome.after >= 58.0


@virtual
async def test_without_keys_and_providers_there_is_no_gate() -> None:
    assert not Place(None, a=steps(1)).gate.needed
    assert Place(ONE, a=steps(1)).gate.needed


# ---------------------------------------------------------------- what can be given


@pytest.mark.parametrize(("given", "why"), [
    ({"key": "agent"}, "give {\"key\""),
    ({"key": "agent", "limit": 0}, "whole number"),
    ({"key": "agent", "limit": True}, "whole number"),
    ({"key": "customer", "limit": 1}, "label:NAME"),
    ({"key": "label:", "limit": 1}, "label:NAME"),
    (["agent"], "give {\"key\""),
    ("agent", "'agent'; give {\"key\""),
])  # fmt: skip
def test_what_makes_no_sense_is_told_with_the_remedy(given: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        rules(given)


@virtual
async def test_keys_of_agents_tenants_and_labels_are_not_taken_for_one_another() -> None:
    place = Place(None, a=steps(1))
    run = await place.row(await place.start("r", labels='{"agent":"a","n":"1"}'))
    given = [{"key": k, "limit": 1} for k in ("agent", "tenant", "label:agent", "label:n", "label:none")]
    assert [rule.name(run) for rule in rules(given)] == ["agent:a", "tenant:t", "label:agent=a", "label:n=1", None]


@virtual
async def test_a_key_is_whatever_a_function_of_the_run_says() -> None:
    place = Place({"key": lambda run: run.owner, "limit": 1}, a=steps(1, 10.0))
    keys = [await place.start(f"r{n}", owner=owner) for n, owner in enumerate(("ada", "ada", "bob", None))]
    await asyncio.gather(*map(place.carry, keys))
    assert place.most == 3


@pytest.mark.parametrize("key", [lambda run: 1 / 0, lambda run: 7])
def test_a_function_that_fails_is_told_and_the_run_is_given_back(key: Any) -> None:
    @virtual
    async def tested() -> None:
        place = Place([ONE, {"key": key, "limit": 1}], a=steps(1))
        run = await place.start("r")
        with pytest.raises(ConfigError, match="concurrency key of run 'r'"):
            await place.pulse(run)
        row = await place.row(run)
        assert (row.claim_id, row.attempts, row.due_at) == (None, 0, asyncio.get_running_loop().time() + 30.0)
        assert await taken(place) == []

    tested()


@virtual
async def test_a_limit_that_was_lowered_is_kept_while_old_holders_are_at_work() -> None:
    store = WatchedStore()
    wide, narrow = Slots(cast(Store, store), "k", 4), Slots(cast(Store, store), "k", 2)
    now = asyncio.get_running_loop().time()
    for n in range(3):
        await wide.take(f"r{n}", f"c{n}", since=now, now=now, ttl=10.0)
    assert isinstance(await narrow.take("r9", "c9", since=now, now=now, ttl=10.0), Full)


@virtual
async def test_places_in_the_line_are_used_again_so_that_nothing_piles_up() -> None:
    store = WatchedStore()
    slots, now = Slots(cast(Store, store), "k", 1), asyncio.get_running_loop().time()
    await slots.take("busy", "c", since=now, now=now, ttl=1e6)
    for n in range(40):
        for run in ("a", "b", f"r{n}"):
            assert isinstance(await slots.take(run, "c0", since=now + n, now=now + n, ttl=10.0), Full)
        await asyncio.sleep(100.0)
    assert len(store.inner._kv) < 1 + 8 + 3


@virtual
async def test_engines_wait_for_room_as_for_a_timer() -> None:
    place = Place(ONE, a=steps(1, 5.0))
    one, two = await place.start("one"), await place.start("two")
    leg = Leg(place.loop, deliver=none, tenant="t")
    working = asyncio.create_task(leg.take(one.id, "background", "step-1"))
    await asyncio.sleep(1.0)
    told = await leg.take(two.id, "background", "step-1")
    assert (told.kind, told.after) == ("again", 0.25)
    assert (await working).kind == "done"
    assert (await leg.take(two.id, "background", "step-2")).kind == "done"


@virtual
async def test_a_held_run_is_busy_and_no_question_of_room() -> None:
    place = Place(ONE, a=held_for_ever)
    key = await place.start("r")
    task = asyncio.create_task(place.carry(key))
    await asyncio.sleep(1.0)
    assert isinstance((await place.pulse(key)).outcome, Busy)
    task.cancel()
