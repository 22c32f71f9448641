"""The platform in bad weather: functions are real processes, and what they do to a run is told by its rows and an outside file."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from steprelay.cli.dev import time as seconds
from steprelay.cli.show import carried, from_step
from steprelay.core.model import RunKey, Step
from steprelay.deploy.asgi import Supervisor, python
from steprelay.deploy.chaos import Weather
from steprelay.stores.sqlite import SQLiteStore

AGENT = """
import asyncio, os
from steprelay import App, Limits, Reply, Text

PAID = os.open("paid", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

async def agent(turn, ctx):
    n, (pause, last) = turn.step, map(float, turn.prompt.split())
    await asyncio.sleep(pause)
    if n % 100 == 50 and turn.attempt == 1:
        os.kill(os.getpid(), 9)
    try:
        await ctx.call("pay", os.write, PAID, f"{turn.key.id} {n}\\n".encode(), effect="once")
    except Exception as e:
        ctx.emit(Text(text=str(e)))
    return "done" if n == last else Reply(parts=(Text(text=f"step {n}, process {os.getpid()}"),))

app = App(agent, limits=Limits(steps=None, repeats=None, attempts=20), lease=1.0)
"""


class Platform:
    """A front over `agent.py` in a folder; `ask` insists, as clients do."""

    def __init__(self, folder: Path, supervisor: Supervisor) -> None:
        self.folder, self.supervisor = folder, supervisor
        self.http = httpx.Client(base_url=supervisor.url, timeout=30)

    def ask(self, method: str, path: str, body: Any = None, most: float = 60.0) -> Any:
        """The answer, however often it takes."""
        end = time.monotonic() + most
        while time.monotonic() < end:
            try:
                answer = self.http.request(method, path, json=body)
            except httpx.TransportError:
                continue
            if answer.status_code != 502:
                return answer.json()
        raise AssertionError(f"{path} was not answered in {most} s")

    def until(self, run: str, true: Callable[[dict[str, Any]], bool], most: float) -> dict[str, Any]:
        """Look at a run until this is true of it."""
        end = time.monotonic() + most
        while not true(row := self.ask("GET", f"/api/runs/{run}")):
            assert time.monotonic() < end, row
            time.sleep(1.0)  # each look is a process, too
        return row

    async def steps(self, run: str) -> list[Step]:
        store = SQLiteStore(f"sqlite:///{self.folder}/runs.db")
        try:
            return await store.read(RunKey("default", run), "steps", limit=10_000)
        finally:
            await store.close()

    def paid(self, run: str) -> Counter[int]:
        """How often each step had its effect."""
        lines = (self.folder / "paid").read_text().splitlines()
        return Counter(int(line.split()[1]) for line in lines if line.startswith(f"{run} "))


@contextmanager
def platform(folder: Path, monkeypatch: pytest.MonkeyPatch, weather: Weather) -> Iterator[Platform]:
    """Up when it answers, and with everything in it gone at the end."""
    (folder / "agent.py").write_text(AGENT)
    monkeypatch.chdir(folder)
    command = python("steprelay.cli.server", "agent.py", "--loopback", "--weather", json.dumps(asdict(weather)))
    supervisor = Supervisor(command)
    supervisor.env = {
        "STEPRELAY_STORE": f"sqlite:///{folder}/runs.db", "STEPRELAY_DEADLINE": str(weather.deadline),
        "STEPRELAY_PUBLIC_URL": supervisor.url, "STEPRELAY_SECRET": "a secret of these tests only",
    }  # fmt: skip
    supervisor.start()
    try:
        one = Platform(folder, supervisor)
        one.ask("GET", "/api/health")
        yield one
        one.http.close()
    finally:
        supervisor.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def numbers(out: str) -> dict[str, int]:
    """The counted lines of the summary, by word."""
    return {word: int(n) for n, word in re.findall(r"(\d+) (requests|killed|lost|repeated|runs|steps|doubled)\b", out)}


async def test_a_calm_platform_takes_each_step_in_a_process_of_its_own(tmp_path, monkeypatch, capfd) -> None:
    with platform(tmp_path, monkeypatch, Weather(deadline=20.0)) as one:
        answers = [one.ask("POST", "/api/agent-step", {"sessionId": "s", "userPrompt": "0 2"}) for _ in range(3)]
        assert [a["status"] for a in answers] == ["CONTINUE", "CONTINUE", "COMPLETED"]
        assert one.http.get("/").text.startswith("<!")
        assert one.http.get("/nothing").status_code == 404
        steps = await one.steps("s")
    processes = re.findall(r"process (\d+)", " ".join(p for s in steps for p in s.parts))
    assert len(set(processes)) == len(processes) == 2
    assert not any(alive(int(pid)) for pid in processes), "a function dies with its answer"
    told = numbers(capfd.readouterr().out)
    assert (told["steps"], told["killed"], told["lost"], told["doubled"]) == (3, 0, 0, 0)


@pytest.mark.slow
async def test_a_client_who_insists_loses_nothing_in_bad_weather(tmp_path, monkeypatch, capfd) -> None:
    weather = Weather(deadline=20.0, kill=0.35, lose=0.2, duplicate=0.3, latency=0.01, seed=7)
    with platform(tmp_path, monkeypatch, weather) as one:
        expected = 0
        while expected <= 12:
            answer = one.ask("POST", "/api/agent-step", {"sessionId": "s", "userPrompt": "0 12", "expectedStep": expected})
            expected = answer["step"] + 1
        steps = await one.steps("s")
    assert [s.index for s in steps] == list(range(13))
    assert max(one.paid("s").values()) == 1
    told = numbers(capfd.readouterr().out)
    assert told["steps"] == 13
    assert told["lost"] == told["doubled"] == 0
    assert told["killed"] > 0


@pytest.mark.all
@pytest.mark.timeout(300)
async def test_a_job_of_300_steps_through_functions_of_3_seconds(tmp_path, monkeypatch, capfd) -> None:
    """kill -9 in one of ten, and in three fixed steps of the carrier; each dispatch delivered three times; a sweeper."""
    weather = Weather(deadline=3.0, kill=0.1, duplicate=1.0, copies=3, sweep=2.0, seed=1)
    with platform(tmp_path, monkeypatch, weather) as one:
        one.ask("POST", "/api/start-job", {"sessionId": "job", "userPrompt": "0.03 300"})
        row = one.until("job", lambda row: row["isTerminal"], 240)
        steps = await one.steps("job")
    assert (row["status"], row["step"]) == ("COMPLETED", 300)
    assert [s.index for s in steps] == list(range(301))
    assert carried(from_step(s, ()) for s in steps) == "steps 0-300 carried by background"
    assert all(steps[n].attempt > 1 for n in (50, 150, 250)), "the process that carried it died there"
    assert max(one.paid("job").values()) == 1
    hosts = set(re.findall(r"process (\d+)", " ".join(p for s in steps for p in s.parts)))
    assert len(hosts) >= 5, "300 steps of 0.03 s and more do not fit into five functions"
    spans = [(s.claimed_at, s.committed_at) for s in steps]
    assert all(before[1] <= after[0] for before, after in pairwise(spans)), "one carrier at a time"
    told = numbers(capfd.readouterr().out)
    assert told["doubled"] == told["lost"] == 0
    assert told["killed"] > 0


@pytest.mark.slow
async def test_a_founding_client_that_stops_is_revived_by_nobody(tmp_path, monkeypatch, capfd) -> None:
    with platform(tmp_path, monkeypatch, Weather(deadline=20.0, sweep=0.2)) as one:
        one.ask("POST", "/api/agent-step", {"sessionId": "s", "userPrompt": "0 30"})
        with pytest.raises(httpx.ReadTimeout):  # the tab is closed in the middle of a step
            one.http.post("/api/agent-step", json={"sessionId": "slow", "userPrompt": "1 30"}, timeout=0.5)
        row = one.until("slow", lambda row: row["step"] == 0, 60)
        assert (row["carrier"], row["takeoverAfter"]) == ("client", None)
        swept = [one.ask("POST", "/api/sweep") for _ in range(5)]
        assert [s["runs"] for s in swept] == [0] * 5
        assert one.ask("GET", "/api/runs/s")["step"] == one.ask("GET", "/api/runs/slow")["step"] == 0
        assert "nobody else may take it" in one.ask("GET", "/api/runs/slow/explain")["words"]


def test_a_store_in_one_process_is_refused(tmp_path, monkeypatch, capfd) -> None:
    (tmp_path / "agent.py").write_text("agent = lambda turn, ctx: 'done'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPRELAY_STORE", "memory:")
    weather = json.dumps(asdict(Weather(deadline=1.0)))
    supervisor = Supervisor(python("steprelay.cli.server", "agent.py", "--loopback", "--weather", weather))
    try:
        assert supervisor.start().wait(60) == 2
    finally:
        supervisor.close()
    assert "functions share nothing but their store" in capfd.readouterr().err


@pytest.mark.parametrize(("text", "value"), [("10s", 10.0), ("200ms", 0.2), ("2m", 120.0), ("1.5", 1.5)])
def test_times_are_read_as_people_write_them(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1h", "1.2.3s"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        seconds(text)
