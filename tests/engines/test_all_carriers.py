"""One run, carried by everybody who can carry one, and killed under each of them; and by all of them at once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from itertools import cycle, groupby
from pathlib import Path

import httpx
import pytest

from steprelay.core.model import RunKey
from steprelay.testing.driver_site import TARGET, Process, Site, Stage
from steprelay.testing.driver_subject import gate
from steprelay.testing.engines import VERSIONS, engine
from steprelay.testing.servers import fresh_url

ENGINES = sorted(VERSIONS)
pytestmark = [pytest.mark.all, pytest.mark.engines(*ENGINES), pytest.mark.timeout(600)]
LEASE = 5.0
LEG = 18
"""Steps of a leg, of which there are seven. The tenth is killed; in the last the run is handed over."""


class Land:
    """All three engines with a process of ours each, on one store; and the hands on it."""

    def __init__(self, folder: Path) -> None:
        store = fresh_url("postgres")
        self.sites = {name: Site(engine(name), store, folder, lease=LEASE) for name in ENGINES}
        self.home = self.sites["restate"]
        for site in self.sites.values():
            self.home.env.update(site.engine.env)

    async def start(self) -> None:
        await self.home.migrate()
        for site in self.sites.values():
            site.served.start()

    def revive(self, pid: int) -> None:
        """Start again who was killed. In the background everybody may carry who lives on, so it is not known before who it was."""
        for site in self.sites.values():
            if site.served.pid == pid:
                site.served.kill(signal.SIGKILL)  # and wait for its end
                site.served.start()

    def close(self) -> None:
        for site in self.sites.values():
            print(f"{site.name}:\n{site.served.log()}")  # shown when a test fails
            site.close()


@pytest.fixture
def land(tmp_path: Path) -> Iterator[Land]:
    land = Land(tmp_path)
    yield land
    land.close()


async def pulses(stage: Stage, url: str, run: str, until: int) -> None:
    """A client that asks for step after step over HTTP, and asks again when its server is gone."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        while (await stage.run(run)).step < until and not (await stage.run(run)).ended:
            try:
                answer = await http.post("/api/agent-step", json={"sessionId": run})
            except httpx.TransportError:
                continue
            assert answer.status_code in (200, 202, 502), answer.text


async def insisted(url: str, path: str, body: object) -> None:
    """Ask a platform whose functions are cut off at three seconds until one of them answers."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        while (answer := await http.post(path, json=body)).status_code == 502:
            continue
    answer.raise_for_status()


class Leg:
    """The steps of one carrier, one of whose processes is killed in the tenth of them."""

    def __init__(self, stage: Stage, run: str, number: int) -> None:
        self.stage, self.run, self.first = stage, run, number * LEG

    async def killed(self) -> int:
        """`kill -9` of whoever takes the tenth step; answers its pid."""
        at = self.first + 9
        await self.stage.until_begun(self.run, at, seconds=120)
        pid = next(c for c in self.stage.site.called(self.run) if c.step == at).pid
        with suppress(ProcessLookupError):  # a platform that was quicker, at the end of its three seconds
            os.kill(pid, signal.SIGKILL)
        return pid

    async def handed(self, carrier: str, *, after: float = 3600, url: str | None = None) -> None:
        """Hand the run over in the last step, through the server at `url` or from here, and let that step go on."""
        at = self.first + LEG - 1
        await self.stage.until_begun(self.run, at, seconds=120)
        body = {"carrier": carrier, "takeoverAfter": after}
        if url is None:
            await self.stage.post(self.run, "hand-over", body)
        else:
            await insisted(url, f"/api/runs/{self.run}/hand-over", body)
        gate(str(self.stage.site.witness), self.run, at).touch()


async def test_one_run_is_carried_by_everybody_and_killed_under_each_of_them(land: Land):
    run, legs = "baton", 7
    await land.start()
    functions = Process(land.home.env, "dev", TARGET, "--port", "0", "--deadline", "3s", ready="stop   Ctrl-C")
    async with AsyncExitStack() as after, land.home.stage() as stage:
        leg = [Leg(stage, run, n) for n in range(legs)]
        functions.start()
        after.callback(functions.stop)
        url = functions.log().partition("page   ")[2].split()[0].rstrip("/")
        kills = [n * LEG + 9 for n in range(legs)]
        gates = [n * LEG + LEG - 1 for n in range(legs - 1)]
        await stage.start(run, carrier="client", steps=legs * LEG, slow=0.2, hangs=kills, gates=gates)

        client = asyncio.create_task(pulses(stage, url, run, LEG))
        await leg[0].killed()  # a function; the platform has others
        await leg[0].handed("background", url=url)
        await client
        land.revive(await leg[1].killed())  # the platform's scheduler sweeps
        await leg[1].handed("restate")

        for number, successor in ((2, "temporal"), (3, "inngest"), (4, "client")):
            land.revive(await leg[number].killed())
            await leg[number].handed(successor, after=3600 if successor in ENGINES else 0.5)  # a client who never comes

        for site in land.sites.values():
            site.served.kill(signal.SIGKILL)
        functions.stop()
        sweepers = [Process(land.home.env, "sweep", TARGET, "--every", "1s", ready="runs carried on") for _ in range(2)]
        for sweeper in sweepers:
            after.callback(sweeper.stop)
            sweeper.start()
        await leg[5].killed()
        await leg[5].handed("client")

        land.home.served.start()
        client = asyncio.create_task(pulses(stage, land.home.served.url, run, legs * LEG))
        land.revive(await leg[6].killed())
        await client
        await stage.until_status(run, "COMPLETED")
        await stage.whole(run, legs * LEG, "client", "background", "restate", "temporal", "inngest", "background", "client")
        stretches = [len(list(steps)) for _, steps in groupby(s.carrier for s in await stage.steps(run))]
        assert min(stretches) > LEG // 2, stretches  # the last step of a leg may be its successor's, when nobody could finish it
        deaths = Counter(c.step for c in land.home.called(run) if c.what == "begun")
        assert all(deaths[step] >= 2 for step in kills), "a leg in which nobody was killed"


async def test_carriers_of_every_kind_torn_at_it_for_half_a_minute(land: Land):
    """Each engine is woken all the time, a client asks all the time, and the run is given to one after the other of them."""
    await land.start()
    async with land.home.stage() as stage:
        key, until = RunKey("default", "torn"), time.monotonic() + 30
        await stage.start("torn", carrier="client", steps=100_000, slow=0.02)

        async def waking(name: str) -> None:
            while time.monotonic() < until:
                await stage.app.wakers.wake(key, name)
                await asyncio.sleep(0.5)

        async def giving() -> None:
            for carrier in cycle(["client", *ENGINES]):
                if time.monotonic() > until:
                    return
                await stage.hand_over("torn", carrier)
                await asyncio.sleep(1.0)

        async def pulsing() -> None:
            async with httpx.AsyncClient(base_url=land.home.served.url, timeout=60) as http:
                while time.monotonic() < until:
                    answer = await http.post("/api/agent-step", json={"sessionId": "torn"})
                    assert answer.status_code == 200, answer.text

        await asyncio.gather(pulsing(), giving(), *(waking(name) for name in ENGINES))
        await stage.post("torn", "cancel")
        await stage.until_status("torn", "CANCELLED")
        rows = await stage.steps("torn")
        assert [s.index for s in rows] == list(range(len(rows)))
        done = Counter(c.step for c in land.home.called("torn") if c.what == "done")
        assert done.most_common(1)[0][1] == 1, "a step was done twice"
        assert set(range(len(rows) - 1)) <= set(done), "a step is there that nobody has done"
        assert len({s.carrier for s in rows}) >= 3, "they did not change hands"
