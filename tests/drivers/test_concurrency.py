"""App(concurrency=…) as its users meet it: over HTTP, and with several processes that are killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import gate_worker
import httpx
import pytest

from steprelay import App
from steprelay.core.model import Filter
from steprelay.stores.memory import MemoryStore
from steprelay.testing.servers import fresh_url


class Scene:
    """An app whose agent works until it is told to go on."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Event()

        async def work(turn: Any, ctx: Any) -> Any:
            self.begun.put_nowait(turn.key.id)
            await self.go_on.wait()
            return f"done {turn.key.id}"

        self.app = App(
            work, store=MemoryStore(), auth=False, observer=None, concurrency={"key": "label:customer", "limit": 1}, ui=False
        )

    async def start(self, client: httpx.AsyncClient, id: str, **labels: str) -> None:
        body = {"userPrompt": "go", "sessionId": id, "labels": labels}
        assert (await client.post("/api/runs", json=body)).status_code == 201


@pytest.fixture
async def scene() -> AsyncIterator[tuple[Scene, httpx.AsyncClient, asyncio.Task[httpx.Response]]]:
    """One run of customer `acme` is at work, another waits to be asked for a step."""
    scene = Scene()
    transport = httpx.ASGITransport(scene.app.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for id in ("one", "two"):
            await scene.start(client, id, customer="acme")
        working = asyncio.create_task(client.post("/api/runs/one/step", json={}))
        assert await scene.begun.get() == "one"
        yield scene, client, working
        scene.go_on.set()
        await working
    await scene.app.shutdown()


async def test_who_finds_no_slot_is_answered_202_and_when_to_come_again(scene: Any) -> None:
    stage, client, working = scene
    answer = await client.post("/api/runs/two/step", json={})
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["status"]) == (202, "1", "CONTINUE")
    assert answer.json()["next"]["action"] == "wait"
    assert 0 < answer.json()["next"]["afterMs"] <= 1000
    told = (await client.get("/api/runs/two/explain")).json()
    assert told["why"] == "concurrency"
    assert told["words"].startswith("It waits for a slot of 'label:customer=acme': all 1 are taken. It is tried again in ")
    strict = await client.post("/api/runs/two/step", json={}, headers={"prefer": "strict"})
    assert (strict.status_code, strict.json()["code"]) == (409, "not_now")
    stage.go_on.set()
    assert (await working).json()["output"] == "done one"
    await asyncio.sleep(answer.json()["next"]["afterMs"] / 1000 * 2)
    assert (await client.post("/api/runs/two/step", json={})).json()["output"] == "done two"


async def test_runs_of_others_are_not_held_up(scene: Any) -> None:
    stage, client, _ = scene
    await stage.start(client, "three", customer="umbrella")
    await stage.start(client, "four")
    asked = [asyncio.create_task(client.post(f"/api/runs/{id}/step", json={})) for id in ("three", "four")]
    assert {await stage.begun.get() for _ in asked} == {"three", "four"}
    stage.go_on.set()
    assert [(await a).json()["status"] for a in asked] == ["COMPLETED"] * 2


async def test_the_founding_client_is_held_until_there_is_a_slot(scene: Any) -> None:
    stage, client, _ = scene
    asked = asyncio.create_task(client.post("/api/agent-step", json={"sessionId": "two"}))
    done, _ = await asyncio.wait({asked}, timeout=0.3)
    assert not done
    stage.go_on.set()
    answer = await asyncio.wait_for(asked, 20)
    assert (answer.status_code, answer.json()["status"], answer.json()["output"]) == (200, "COMPLETED", "done two")


# ---------------------------------------------------------------- several processes


def events(witness: Path) -> list[tuple[float, str, str, str]]:
    lines = [line.split() for line in witness.read_text().splitlines()] if witness.exists() else []
    return sorted((float(at), what, pid, run) for at, what, pid, run in lines)


def most_at_once(witness: Path) -> int:
    """The largest number of steps under way; what a process was at that was killed (`k`) has ended."""
    at_work, most = set[tuple[str, str]](), 0
    for _, what, pid, run in events(witness):
        match what:
            case "+":
                at_work.add((pid, run))
            case "-":
                at_work.discard((pid, run))
            case "k":
                at_work = {(p, r) for p, r in at_work if p != run}
        most = max(most, len(at_work))
    return most


def hanging(witness: Path) -> list[str]:
    """The processes whose steps hang."""
    return [pid for _, what, pid, _ in events(witness) if what == "h"]


def a_worker(url: str, witness: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen((sys.executable, gate_worker.__file__, url, str(witness)))


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Look until it is so."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{condition.__name__}: it never came to that")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_over_all_processes_no_more_than_the_limit_and_dead_holders_give_way(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db" if kind == "sqlite" else fresh_url("postgres")
    witness = tmp_path / "witness"
    app = gate_worker.an_app(url, str(witness))
    await app.store.migrate()
    names = [*(f"hangs{n}" for n in range(gate_worker.LIMIT)), *(f"r{n}" for n in range(10))]
    app.waker.wake = _nobody  # type: ignore[method-assign]
    for name in names:
        await app.start("go", id=name, carrier="background")
    workers = [a_worker(url, witness) for _ in range(4)]

    async def all_slots_are_lost() -> bool:
        return len(hanging(witness)) == gate_worker.LIMIT

    async def all_have_ended() -> bool:
        return all(r.ended for r in await app.store.read(Filter(tenant=app.tenant), "runs"))

    try:
        await until(all_slots_are_lost)
        for worker in [w for w in workers if str(w.pid) in hanging(witness)]:
            worker.kill()
            worker.wait()
            gate_worker.tell(str(witness), "k", str(worker.pid))
        workers.append(a_worker(url, witness))
        await until(all_have_ended)
        ended = await app.store.read(Filter(tenant=app.tenant), "runs")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        await app.shutdown()
    assert {(r.status, r.step) for r in ended} == {("COMPLETED", gate_worker.STEPS)}
    assert len(ended) == len(names)
    assert most_at_once(witness) == gate_worker.LIMIT


async def _nobody(*args: Any, **options: Any) -> None:
    """The workers find the runs by themselves."""
