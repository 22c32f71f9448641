"""The loop against the wall: what fits is begun, what does not is handed on, and a relay has one runner."""

from __future__ import annotations

import asyncio

import pytest

from steprelay.core.errors import StoreUnavailable
from steprelay.core.model import Again, Busy, Done, Reply, Signal
from steprelay.drivers import hosts
from steprelay.drivers.loop import Loop, Pace
from steprelay.testing.fakes import virtual
from steprelay.testing.stage import Stage


class Relay:
    """A waker that writes down who was to be woken, and when."""

    def __init__(self) -> None:
        self.woken: list[float] = []

    async def wake(self, key, carrier, after=0.0) -> None:
        self.woken.append(after)


def stage(*seconds: float, **options) -> Stage:
    """Steps that take these times, the last one for ever."""
    taken: list[float] = []

    async def step(turn, ctx):
        taken.append(0)
        await asyncio.sleep(seconds[min(turn.step, len(seconds) - 1)])
        return Reply()

    made = Stage(step, limits={"steps": None, "repeats": None}, **options)
    made.new = made.new.__class__(**{**made.new.__dict__, "carrier": "background", "takeover_after": 15.0})
    return made


async def host(made: Stage, wall: float, relay: Relay | None = None):
    """One background function from its start to its end."""
    return await Loop(made.engine).carry(made.key, carrier="background", wall=wall, waker=relay, new=made.new)


@virtual
async def test_steps_that_fit_are_taken_under_one_claim_and_then_the_successor_is_woken() -> None:
    made, relay = stage(0.5), Relay()
    began = asyncio.get_running_loop().time()
    advanced = await host(made, 3.0, relay)
    assert (len(advanced.taken), relay.woken) == (4, [0.0])
    assert made.store.calls.count("claim") == 1
    assert asyncio.get_running_loop().time() - began <= 3.0 - 0.6, "the margin of a short life is a fifth"
    assert (await made.run()).claim_id is None, "the baton is free before the successor is called"


@virtual
async def test_a_host_of_three_seconds_takes_a_step_of_two() -> None:
    made, relay = stage(2.0), Relay()
    for n in range(3):
        assert [s.index for s in (await host(made, 3.0, relay)).taken] == [n]
    assert relay.woken == [0.0, 0.0, 0.0]


@virtual
async def test_a_step_that_never_fits_ends_the_run_and_not_in_an_endless_relay() -> None:
    made, relay = stage(0.1, 60.0), Relay()
    hosts_used = 0
    while not (await host(made, 3.0, relay)).run.ended:
        hosts_used += 1
        assert hosts_used < 10
    run = await made.run()
    assert (run.status, run.stop_reason) == ("FAILED", "step_exceeds_deadline")
    assert len(relay.woken) == hosts_used == 2, "three attempts, each in a host of its own"
    assert len(made.agent.turns) == 1 + 3


@virtual
async def test_a_step_that_overran_an_old_host_gets_a_whole_new_one() -> None:
    made, relay = stage(1.0, 3.0, 0.1), Relay()
    first = await host(made, 4.0, relay)
    assert [s.index for s in first.taken] == [0], "the second was begun, and did not fit what was left"
    second = await host(made, 4.0, relay)
    assert [s.index for s in second.taken] == [1]
    assert [s.attempt for s in await made.steps()] == [1, 2]


@virtual
async def test_after_a_long_wait_an_unknown_step_is_left_to_the_successor() -> None:
    made = Stage(Reply(then="wait", after=16.0), Reply(then="finish", output=1))
    relay, loop = Relay(), Loop(made.engine)
    await loop.pulse(made.key, carrier="client", new=made.new)
    advanced = await loop.carry(made.key, carrier="client", wall=30.0, waker=relay)
    assert isinstance(advanced.outcome, Again)
    assert relay.woken == [pytest.approx(16.0)]
    advanced = await loop.carry(made.key, carrier="client", wall=60.0, waker=relay)
    assert isinstance(advanced.outcome, Done), "here half of a life is left after the wait"


@virtual
async def test_of_three_deliveries_one_carries_and_two_end_without_successors() -> None:
    made, relays = stage(0.5, lease=1.0), [Relay(), Relay(), Relay()]
    await made.advance(carrier="background")
    ended = await asyncio.gather(*(host(made, 10.0, relay) for relay in relays))
    assert sorted(len(relay.woken) for relay in relays) == [0, 0, 1]
    carriers = [advanced for advanced in ended if advanced.taken]
    assert len(carriers) == 1
    assert sum(isinstance(advanced.outcome, Busy) for advanced in ended) == 2
    assert [s.attempt for s in await made.steps()] == [1] * (await made.run()).step


@virtual
async def test_of_two_who_wait_for_the_same_timer_one_goes_on_and_the_other_ends() -> None:
    made = Stage(Reply(then="wait", after=5.0), lambda turn, ctx: asyncio.sleep(8.0, Reply(then="finish")))
    loop, began = Loop(made.engine), asyncio.get_running_loop().time()
    await loop.pulse(made.key, carrier="client", new=made.new)
    carrying = {asyncio.create_task(loop.carry(made.key, carrier="client")) for _ in range(2)}
    (overtaken,), (going_on,) = await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
    assert isinstance((await overtaken).outcome, Busy)
    assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
    assert isinstance((await going_on).outcome, Done)


@virtual
async def test_who_finds_the_run_busy_takes_over_when_its_holder_has_died() -> None:
    made = stage(0.5, lease=1.0)
    dead = asyncio.create_task(made.advance(carrier="background"))
    await asyncio.sleep(0.2)
    made.store.away = {"progress": 1000, "commit": 1000}
    dead.cancel()
    await asyncio.wait({dead})
    made.store.away = {}
    advanced = await host(made, 10.0)
    assert (advanced.taken[0].index, advanced.taken[0].attempt) == (0, 2)


@virtual
async def test_a_run_handed_to_the_client_is_put_down_and_nobody_is_woken() -> None:
    made, relay = stage(0.5), Relay()
    carrying = asyncio.create_task(host(made, 100.0, relay))
    await asyncio.sleep(1.2)
    await made.engine.store.signal(made.key, Signal(kind="carry", carrier="client"))
    await carrying
    run = await made.run()
    assert (run.step, run.carrier, run.claim_id, relay.woken) == (3, "client", None, [])


@virtual
async def test_a_relay_that_fails_or_hangs_is_reported_and_ends_before_the_wall() -> None:
    class Dead:
        async def wake(self, key, carrier, after=0.0) -> None:
            raise StoreUnavailable("nobody there")

    class Deaf:
        async def wake(self, key, carrier, after=0.0) -> None:
            await asyncio.sleep(1_000)

    for waker in (Dead(), Deaf()):
        seen: list = []
        made = stage(0.5, observer=seen.append)
        began = asyncio.get_running_loop().time()
        await host(made, 3.0, waker)
        assert asyncio.get_running_loop().time() - began <= 3.0
        assert [e["run"] for e in seen if e["event"] == "relay_failed"] == ["r"]


@virtual
async def test_the_first_step_is_begun_and_what_follows_is_judged_by_the_longest_seen() -> None:
    pace = Pace(10.0)
    assert pace.fits(2.0), "3 s wanted, 9 s there"
    await asyncio.sleep(5.5)
    assert pace.fits(0.1), "3 s of 3.5"
    await asyncio.sleep(1.0)
    assert not pace.fits(0.1)
    assert not Pace(10.0).fits(after=4.5)


@pytest.mark.parametrize(
    ("environ", "cap", "wall"),
    [
        ({}, None, None),
        ({}, 7.0, 7.0),
        ({"NETLIFY": "true", "AWS_LAMBDA_FUNCTION_NAME": "f"}, None, 60.0),
        ({"NETLIFY": "true"}, 900.0, 60.0),
        ({"NETLIFY": "true"}, 26.0, 26.0),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f"}, None, None),
        ({"VERCEL": "1"}, None, 300.0),
    ],
)
def test_the_table_of_hosts_and_the_cap(environ, cap, wall) -> None:
    assert hosts.wall(environ, cap) == wall
