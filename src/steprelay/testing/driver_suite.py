"""The contract suite of durable engines as carriers: what a driver must stand to be one.

A driver of your own is held to it by one test module; it needs pytest, pytest-asyncio and the engine's real server:

    from steprelay.testing.driver_suite import DriverSuite

    class TestMyEngine(DriverSuite):
        engine = "my_engine"

        async def pending(self, stage, run):        # what the engine still holds for a run: workflows, invocations, timers
            ...

The class' processes are its own: an engine with durable data, a store (PostgreSQL), and `steprelay serve` in a process that
is killed (-9) in the middle of a step. After each act the store's rows and a file outside that notes every call of the agent
both say: steps 0 to n, none lost, none doubled, taken by whom they should be.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar

import pytest
import pytest_asyncio

pytest.register_assert_rewrite("steprelay.testing.driver_site")

from .. import registry  # noqa: E402
from ..core.errors import StoreUnavailable  # noqa: E402
from ..core.model import RunKey  # noqa: E402
from ..drivers.leg import Leg  # noqa: E402
from .driver_site import LEASE, Site, Stage  # noqa: E402
from .engines import engine  # noqa: E402
from .servers import free_port, fresh_url, postgres  # noqa: E402

__all__ = ["DriverSuite", "Site", "Stage"]


@pytest.mark.asyncio
@pytest.mark.engines
@pytest.mark.slow
class DriverSuite:
    """Give it `engine` and `pending`."""

    engine: ClassVar[str]

    async def pending(self, stage: Stage, run: str) -> int:
        """How much the engine still holds for a run: what is waiting, queued or under way."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
        site = Site(engine(cls.engine), fresh_url("postgres"), tmp_path_factory.mktemp(cls.engine))
        asyncio.run(site.migrate())
        site.served.start()
        yield site
        site.close()

    @pytest_asyncio.fixture
    async def stage(self, site: Site) -> AsyncIterator[Stage]:
        async with site.stage() as stage:
            yield stage

    async def over(self, stage: Stage, run: str) -> None:
        """The engine has let go of the run."""

        async def nothing() -> bool:
            return await self.pending(stage, run) == 0

        await stage.until(nothing, f"{self.engine} has let go of {run}")

    # ------------------------------------------------------------ to the end, and waiting

    async def test_a_run_is_carried_to_its_end(self, stage: Stage) -> None:
        await stage.start("end", steps=8)
        await stage.until_status("end", "COMPLETED")
        await stage.whole("end", 8, self.engine)
        await self.over(stage, "end")

    async def test_an_id_of_any_letters_is_carried(self, stage: Stage) -> None:
        await stage.start("a/b?c=ü%20&d", steps=2)
        await stage.until_status("a/b?c=ü%20&d", "COMPLETED")
        await stage.whole("a/b?c=ü%20&d", 2, self.engine)

    async def test_a_run_of_300_steps(self, stage: Stage) -> None:
        await stage.start("long", steps=300)
        await stage.until_status("long", "COMPLETED", seconds=90)
        await stage.whole("long", 300, self.engine)
        await self.over(stage, "long")

    async def test_a_timer_is_kept(self, stage: Stage) -> None:
        await stage.start("timer", steps=4, waits={"1": 1.0})
        await stage.until_status("timer", "COMPLETED")
        await stage.whole("timer", 4, self.engine)
        rows = await stage.steps("timer")
        assert rows[2].claimed_at >= rows[1].committed_at + 1.0

    async def test_a_person_is_waited_for_and_the_answer_goes_on(self, stage: Stage) -> None:
        await stage.start("ask", steps=4, asks=[1])
        await stage.until_status("ask", "AWAITING_INPUT")
        await stage.post("ask", "input", [{"interruptId": "q1", "status": "resolved", "payload": "Yes"}])
        await stage.until_status("ask", "COMPLETED")
        await stage.whole("ask", 4, self.engine)
        await self.over(stage, "ask")

    # ------------------------------------------------------------ cancelled

    async def test_cancelled_in_the_middle_of_a_step(self, stage: Stage) -> None:
        await stage.start("stop", steps=9, hangs=[2])
        await stage.until_begun("stop", 2)
        await stage.post("stop", "cancel")
        await stage.until_status("stop", "CANCELLED")
        await self.over(stage, "stop")
        assert {c.step for c in stage.site.called("stop")} == {0, 1, 2}

    async def test_cancelled_while_it_waits_for_a_timer(self, stage: Stage) -> None:
        await stage.start("stop-timer", steps=9, waits={"1": 3600})
        await stage.until_status("stop-timer", "WAITING")
        await stage.post("stop-timer", "cancel")
        await stage.until_status("stop-timer", "CANCELLED")
        await self.over(stage, "stop-timer")

    async def test_cancelled_while_it_waits_for_a_person(self, stage: Stage) -> None:
        await stage.start("stop-person", steps=9, asks=[1])
        await stage.until_status("stop-person", "AWAITING_INPUT")
        await stage.post("stop-person", "cancel")
        await stage.until_status("stop-person", "CANCELLED")
        await self.over(stage, "stop-person")
        assert {c.step for c in stage.site.called("stop-person")} == {0, 1}

    async def test_cancelled_before_the_engine_took_a_step(self, stage: Stage) -> None:
        await stage.start("stop-idle", carrier="client", steps=9)
        await stage.post("stop-idle", "cancel")
        await stage.app.wakers.wake(RunKey("default", "stop-idle"), self.engine)
        await stage.until_status("stop-idle", "CANCELLED")
        await self.over(stage, "stop-idle")
        assert stage.site.called("stop-idle") == []

    # ------------------------------------------------------------ killed, and delivered twice

    async def test_our_process_is_killed_in_the_middle_of_a_step(self, stage: Stage) -> None:
        await stage.start("kill", steps=8, hangs=[3])
        await stage.until_begun("kill", 3)
        stage.site.served.kill(signal.SIGKILL)
        stage.site.served.start()
        await stage.until_status("kill", "COMPLETED")
        await stage.whole("kill", 8, self.engine)
        tries = {(c.attempt, c.pid) for c in stage.site.called("kill") if c.step == 3}
        assert {a for a, _ in tries} == {1, 2}
        assert len({p for _, p in tries}) == 2, "the process that was killed took the step"

    async def test_our_process_is_told_to_end_in_the_middle_of_a_step(self, stage: Stage) -> None:
        """A deployment: the step goes back whole and costs no lease."""
        await stage.start("term", steps=8, hangs=[3])
        await stage.until_begun("term", 3)
        stage.site.served.kill(signal.SIGTERM)
        run = await stage.run("term")
        assert (run.step, run.claim_id) == (3, None)
        stage.site.served.start()
        await stage.until_status("term", "COMPLETED")
        await stage.whole("term", 8, self.engine)

    async def test_the_engine_is_killed_and_comes_back(self, stage: Stage) -> None:
        await stage.start("engine", steps=60, slow=0.05)
        await stage.until_begun("engine", 5)
        stage.site.engine.crash()
        stage.site.engine.start()
        await stage.until_status("engine", "COMPLETED", seconds=90)
        await stage.whole("engine", 60, self.engine)

    async def test_the_engine_is_killed_while_a_run_waits(self, stage: Stage) -> None:
        await stage.start("engine-timer", steps=4, waits={"1": 2.0})
        await stage.until_status("engine-timer", "WAITING")
        stage.site.engine.crash()
        stage.site.engine.start()
        await stage.until_status("engine-timer", "COMPLETED", seconds=60)
        await stage.whole("engine-timer", 4, self.engine)

    async def test_the_store_is_killed_and_comes_back(self, stage: Stage) -> None:
        """For longer than a step insists: the engine has to try again."""
        await stage.start("store", steps=30, slow=0.05)
        await stage.until_begun("store", 5)
        postgres().crash()
        away = time.monotonic() + LEASE
        await stage.until(lambda: time.monotonic() > away, "a lease goes by")
        postgres().start()
        await stage.until_status("store", "COMPLETED", seconds=60)
        rows = await stage.steps("store")
        assert [s.index for s in rows] == list(range(30))

    async def test_a_wake_that_is_delivered_many_times_does_no_harm(self, stage: Stage) -> None:
        await stage.start("twice", steps=40, slow=0.01)
        key = RunKey("default", "twice")
        for step in (1, 5, 9):
            await stage.until_step("twice", step)
            await asyncio.gather(*(stage.app.wakers.wake(key, self.engine) for _ in range(5)))
        await stage.until_status("twice", "COMPLETED")
        await stage.whole("twice", 40, self.engine)
        await asyncio.gather(*(stage.app.wakers.wake(key, self.engine) for _ in range(3)))
        await self.over(stage, "twice")
        await stage.whole("twice", 40, self.engine)

    # ------------------------------------------------------------ handed over

    async def test_taken_over_from_a_client(self, stage: Stage) -> None:
        await stage.start("from-client", carrier="client", steps=8)
        for _ in range(3):
            await stage.pulse("from-client")
        await stage.hand_over("from-client", self.engine)
        await stage.until_status("from-client", "COMPLETED")
        await stage.whole("from-client", 8, "client", self.engine)

    async def test_taken_over_from_the_background(self, stage: Stage) -> None:
        await stage.start("from-background", carrier="background", steps=12, slow=0.1)
        await stage.until_step("from-background", 2)
        await stage.hand_over("from-background", self.engine)
        await stage.until_status("from-background", "COMPLETED")
        await stage.whole("from-background", 12, "background", self.engine)

    async def test_given_to_a_client_and_back(self, stage: Stage) -> None:
        await stage.start("there", steps=30, slow=0.1)
        await stage.until_step("there", 3)
        await stage.hand_over("there", "client")
        await self.over(stage, "there")
        taken = (await stage.run("there")).step
        for _ in range(3):
            await stage.pulse("there")
        assert (await stage.run("there")).step == taken + 3, "two carried it"
        await stage.hand_over("there", self.engine)
        await stage.until_status("there", "COMPLETED")
        await stage.whole("there", 30, self.engine, "client", self.engine)

    async def test_given_away_while_it_waits_the_engine_keeps_nothing(self, stage: Stage) -> None:
        for wait in ({"waits": {"1": 3600}}, {"asks": [1]}):
            run = f"away-{next(iter(wait))}"
            await stage.start(run, steps=4, **wait)
            await stage.until_step(run, 2)
            await stage.hand_over(run, "client")
            await self.over(stage, run)
            assert (await stage.run(run)).carrier == "client"

    async def test_without_the_engine_a_wake_says_so(self, stage: Stage) -> None:
        leg = Leg(stage.app.loop, stage.app.outbox.deliver)
        driver = registry.load("drivers", self.engine)(f"http://127.0.0.1:{free_port()}", leg)
        with pytest.raises(StoreUnavailable, match="answers"):
            await driver.wake(RunKey("default", "nowhere"), self.engine)
        await driver.close()
