"""Schedules: by the clock, once a time, whoever looks, whatever was slept through."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from steprelay import App, ConfigError, Schedule
from steprelay.agents.function import FunctionAgent
from steprelay.core import codec
from steprelay.core.errors import StoreUnavailable
from steprelay.core.model import Filter, Outgoing, Run, RunKey, Signal
from steprelay.engine import Engine
from steprelay.ports import Waker
from steprelay.schedules import FOREVER, LOST, Clockwork
from steprelay.stores import memory
from steprelay.testing.fakes import EPOCH, virtual
from steprelay.testing.stage import Stage

HOURLY = {"hourly": Schedule("0 * * * *", prompt="look around", agent="a")}
NIGHTLY = Schedule("0 3 * * *", prompt="go")
HOUR = 3600.0


def on_stage(schedules: dict[str, Schedule] = HOURLY, **options: Any) -> Stage:
    """A stage whose run is that of the first schedule."""
    clockwork = Clockwork(schedules, clock=lambda: asyncio.get_running_loop().time() - options.get("behind", 0.0))
    stage = Stage(agent=FunctionAgent(clockwork.step), limits=codec.plain(FOREVER))
    stage.key = RunKey("t", next(iter(clockwork.runs)))
    return stage


async def started(stage: Stage) -> list[Outgoing]:
    return [o for o in await stage.store.inner.read(stage.key, "outbox", limit=1000) if o.kind == "start"]


def scheduled_for(out: Outgoing) -> str:
    return str(codec.loads(out.body)["labels"]["scheduled_for"])


async def sleep_until(at: float) -> None:
    await asyncio.sleep(at - asyncio.get_running_loop().time())


@virtual
async def test_every_time_starts_one_run_and_nothing_is_started_before_the_first() -> None:
    stage = on_stage()
    await stage.advance()
    assert await started(stage) == []
    for hour in range(3):
        due = (await stage.run()).due_at
        assert due == (EPOCH // HOUR + 1 + hour) * HOUR
        await sleep_until(due)
        await stage.advance()
    begun = await started(stage)
    assert [scheduled_for(o) for o in begun] == [f"1970-01-12T{h}:00:00+00:00" for h in (14, 15, 16)]
    assert len({o.request_id for o in begun}) == 3
    body = codec.loads(begun[0].body)
    assert (body["prompt"], body["agent"], body["report"]) == ("look around", "a", False)


@virtual
async def test_what_was_slept_through_is_made_up_for_once() -> None:
    stage = on_stage()
    await stage.advance()
    await asyncio.sleep(10.5 * HOUR)
    await stage.advance()
    assert len(await started(stage)) == 1
    now = asyncio.get_running_loop().time()
    assert (await stage.run()).due_at == (now // HOUR + 1) * HOUR


@virtual
async def test_two_processes_start_one_run_a_time() -> None:
    stage = on_stage()
    await stage.advance()
    others = [Engine(stage.store, {"a": stage.agent}, lambda _: FunctionAgent.view) for _ in range(4)]  # type: ignore[arg-type]
    for _ in range(5):
        await sleep_until((await stage.run()).due_at or 0.0)
        await asyncio.gather(*(e.advance(stage.key, carrier="client") for e in others))
    assert len(await started(stage)) == 5


@virtual
async def test_a_schedule_lives_on_for_thousands_of_times_and_stays_small() -> None:
    stage = on_stage()
    await stage.advance()
    sizes = []
    for _ in range(1500):
        await sleep_until((await stage.run()).due_at or 0.0)
        advanced = await stage.advance()
        assert advanced.run is not None
        sizes.append(len(advanced.run.tally) + len(advanced.run.state or "") + len(advanced.run.wait or ""))
    run = await stage.run()
    assert (run.status, run.step - run.floor) == ("WAITING", 1)
    assert max(sizes[10:]) - min(sizes[10:]) < 20
    await stage.store.inner.prune(asyncio.get_running_loop().time(), Filter(tenant="t"))
    assert len(await stage.steps()) == 1


@virtual
async def test_a_host_whose_clock_is_behind_looks_again_instead_of_starting_early() -> None:
    stage = on_stage(behind=2.0)
    await stage.advance()
    await sleep_until((EPOCH // HOUR + 1) * HOUR)
    await stage.advance()
    assert await started(stage) == []
    await asyncio.sleep(2.0)
    await stage.advance()
    assert len(await started(stage)) == 1


@virtual
async def test_a_process_that_does_not_know_it_leaves_the_time_to_one_that_does() -> None:
    stage, stranger = on_stage(), on_stage({"other": Schedule("* * * * *", prompt=1)})
    strange = Engine(stage.store, {"a": stranger.agent}, lambda _: FunctionAgent.view)  # type: ignore[arg-type]
    await stage.advance()
    await sleep_until((await stage.run()).due_at or 0.0)
    await strange.advance(stage.key, carrier="client")
    assert await started(stage) == []
    await sleep_until((await stage.run()).due_at or 0.0)
    await stage.advance()
    assert [scheduled_for(o) for o in await started(stage)] == ["1970-01-12T14:00:00+00:00"]


@virtual
async def test_a_schedule_that_nobody_knows_any_more_ends() -> None:
    stage = Stage(agent=FunctionAgent(Clockwork({}).step), limits=codec.plain(FOREVER))
    began = asyncio.get_running_loop().time()
    await stage.until_quiet(most=2 * LOST + 10)
    assert ((await stage.run()).status, (await stage.end()).output) == ("COMPLETED", "no process knows this schedule any more")
    assert 12 * HOUR < asyncio.get_running_loop().time() - began < 48 * HOUR


@pytest.mark.parametrize(
    ("cron", "tz", "at", "then"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00"),  # 02:30 is left out
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"),  # and comes twice
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"),  # but counts once
        ("0 9 * * MON-FRI", "America/New_York", "2026-01-02T10:00:00-05:00", "2026-01-05T09:00:00-05:00"),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00+00:00", "2028-02-29T00:00:00+00:00"),
    ],
)
def test_the_next_time_is_that_of_the_zone(cron: str, tz: str, at: str, then: str) -> None:
    following = Schedule(cron, prompt=None, tz=tz).after(datetime.fromisoformat(at).timestamp())
    assert following == datetime.fromisoformat(then).timestamp()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"cron": "0 3 * *"}, "'0 3 \\* \\*' is no time"),
        ({"cron": "0 0 30 2 *"}, "is no time that ever comes"),
        ({"cron": "0 3 * * *", "tz": "Mars/Olympus"}, "time zone 'Mars/Olympus'"),
        ({"cron": "0 3 * * *", "limits": {"stepps": 3}}, "no limit 'stepps'"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_when_it_is_written(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Schedule(**given, prompt="go")


def test_names_and_agents_are_checked_when_the_app_is_made() -> None:
    made = {"store": memory.MemoryStore(), "auth": False}
    with pytest.raises(ConfigError, match="cannot name a schedule"):
        App(lambda turn, ctx: 1, schedules={"every night": Schedule("0 3 * * *", prompt="go")}, **made)
    with pytest.raises(ConfigError, match="a schedule starts 'nobody'"):
        App(lambda turn, ctx: 1, schedules={"x": Schedule("0 3 * * *", prompt="go", agent="nobody")}, **made)


# ---------------------------------------------------------------- in an app


class Silent(Waker):
    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None: ...


class Scene:
    """Apps over one store with one clock that can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        monkeypatch.setattr(memory, "_clock", lambda now: self.now if now is None else now)
        self.store = memory.MemoryStore()

    def app(self, schedules: dict[str, Schedule] | None) -> App:
        app = App(
            {"a": lambda turn, ctx: turn.prompt}, store=self.store, auth=False, observer=None, waker=Silent(), schedules=schedules
        )
        app.clockwork.clock = lambda: self.now
        return app

    async def carry_all(self, app: App) -> None:
        """One step of every run that is due."""
        for run in await self.runs():
            if (await app.engine.advance(run.key, carrier="background")).outgoing:
                await app.outbox.deliver(run.key)

    async def runs(self, label: tuple[str, str] | None = None) -> list[Run]:
        return await self.store.read(Filter(tenant="default", label=label), "runs")


async def test_two_apps_create_one_run_a_schedule_and_its_runs_are_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    apps = [scene.app(HOURLY), scene.app(HOURLY)]
    for app in apps:
        await app.plan()
        await scene.carry_all(app)
    (schedule,) = await scene.runs()
    for _ in range(2):
        scene.now += HOUR + 1
        for app in (*apps, *apps):
            await scene.carry_all(app)
    made = [r for r in await scene.runs(("schedule", "hourly")) if r.key != schedule.key]
    assert [r.status for r in made] == ["COMPLETED"] * 2
    assert codec.tally((await scene.runs(("schedule", "hourly")))[-1].tally).heard == {}, "their ends are told to nobody"
    assert len(await scene.store.read(schedule.key, "inbox")) == 0


async def test_a_changed_time_is_another_run_and_a_changed_prompt_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    for schedule in (HOURLY["hourly"], Schedule("0 * * * *", prompt="look twice"), Schedule("0 5 * * *", prompt="look twice")):
        app = scene.app({"hourly": schedule})
        await app.plan()
        await scene.carry_all(app)
    assert len(await scene.runs()) == 2
    scene.now += HOUR + 1
    await scene.carry_all(app)
    assert len(await scene.runs()) == 2, "the old time is none any more"


async def test_a_cancelled_schedule_stays_cancelled_and_one_that_ended_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    app = scene.app(HOURLY)
    await app.plan()
    await scene.carry_all(app)
    (run,) = await scene.runs()
    await scene.store.signal(run.key, Signal(kind="cancel"))
    await scene.carry_all(app)
    await app.plan()
    await scene.carry_all(app)
    assert (await scene.runs())[0].status == "CANCELLED"
    await scene.store.signal(run.key, Signal(kind="resume", reopens=True))
    await scene.carry_all(app)
    assert (await scene.runs())[0].status == "WAITING"
    gone = scene.app(None)
    for _ in range(LOST + 1):
        scene.now += 2 * HOUR
        await scene.carry_all(gone)
    assert [r.status for r in await scene.runs()] == ["COMPLETED"]
    await app.plan()
    await scene.carry_all(app)
    assert [r.status for r in await scene.runs()] == ["WAITING"], "back in the code, it sleeps until its next time"


async def test_nobody_outside_can_start_the_clockwork_or_guess_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    assert "steprelay:schedule" not in scene.app(HOURLY).agents
    salted = [Clockwork(HOURLY, salt=salt) for salt in ("one", "two")]
    assert set(salted[0].runs).isdisjoint(salted[1].runs)


async def test_an_app_plans_when_it_starts_and_again_when_the_store_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    woken, seen = asyncio.Event(), []

    class Bell(Waker):
        async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
            woken.set()

    monkeypatch.setattr("steprelay.app.SWEEP_EVERY", 0.0)
    store = memory.MemoryStore()
    app = App(lambda turn, ctx: 1, store=store, auth=False, observer=seen.append, waker=Bell(), schedules={"x": NIGHTLY})
    claim = store.claim

    async def away(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(store, "claim", claim)
        raise StoreUnavailable("not yet")

    monkeypatch.setattr(store, "claim", away)
    await app.startup()
    await asyncio.wait_for(woken.wait(), 10)
    (run,) = await store.read(Filter(tenant="default", label=("schedule", "x")), "runs")
    assert (run.carrier, run.status) == ("background", "RUNNING")
    assert [e["event"] for e in seen] == ["plan_failed"]
    await app.shutdown()
