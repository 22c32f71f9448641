"""`steprelay dev` as a real process: served, killed, gone on with, ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

COMMAND = [sys.executable, "-c", "from steprelay.cli import main; main()", "dev", "--port", "0"]


class Client(httpx.Client):
    """Asks again when the server dies under a request, as every client of a relay does."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        end = time.monotonic() + 30
        while True:
            try:
                return super().send(request, **options)
            except httpx.TransportError:
                assert time.monotonic() < end, "the server did not come back"


@contextmanager
def serving(folder: Path, *arguments: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A `dev` in a folder, and where it serves; ended as Ctrl-C would."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = "".join(process.stdout.readline() for _ in range(4))
        url = re.search(r"page +(http://\S+)/", said)
        assert url, said
        yield process, url[1]
        process.send_signal(signal.SIGINT)
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def kill(http: httpx.Client) -> None:
    """Press the page's button, and wait until another process answers."""
    assert http.post("/api/demo/kill").status_code == 202
    deaths = http.get("/api/demo").json()["deaths"]
    while not deaths:
        deaths = http.get("/api/demo").json()["deaths"]


@pytest.mark.slow
def test_a_killed_server_is_started_again_and_its_runs_go_on(folder: Path) -> None:
    with serving(folder) as (process, url), Client(base_url=url, timeout=30) as http:
        first = http.post("/api/agent-step", json={"sessionId": "one", "userPrompt": "count"}).json()
        assert (first["status"], first["step"]) == ("CONTINUE", 0)
        assert "<html" in http.get("/").text
        pid = http.get("/api/demo").json()["pid"]
        kill(http)
        second = http.post("/api/agent-step", json={"sessionId": "one", "expectedStep": 1}).json()
        assert second["step"] == 1
        assert http.get("/api/demo").json()["pid"] != pid
        assert http.post("/api/agent-step", json={"sessionId": "one"}).json()["output"] == "It is 42."
    assert process.returncode == 0
    assert (folder / ".steprelay" / "steprelay.db").is_file()


@pytest.mark.slow
def test_background_runs_of_a_dead_server_are_picked_up_by_the_next(folder: Path) -> None:
    """Nobody asks for the run again: the successor finds it when it starts."""
    (folder / "agent.py").write_text(
        "import asyncio, os, pathlib\n"
        "async def agent(turn, ctx):\n"
        "    if turn.attempt == 1:\n"
        "        pathlib.Path('under-way').touch()\n"
        "        await asyncio.sleep(60)\n"
        "    return 'survived'\n"
    )
    with serving(folder, STEPRELAY_LEASE="1") as (_, url), Client(base_url=url, timeout=30) as http:
        started = http.post("/api/start-job", json={"userPrompt": "x", "sessionId": "job"})
        assert started.status_code == 202
        seen = http.get("/api/runs/job").json()
        while not (folder / "under-way").exists():
            seen = http.get("/api/runs/job").json()
        assert not seen["isTerminal"]
        kill(http)
        for _ in range(30):
            seen = http.get("/api/runs/job", params={"wait": 5}).json()
            if seen["isTerminal"]:
                break
        assert (seen["status"], seen["output"]) == ("COMPLETED", "survived")


@pytest.mark.slow
def test_changed_code_is_served_after_a_reload(folder: Path) -> None:
    with serving(folder, "agent.py", "--reload") as (_, url), Client(base_url=url, timeout=30) as http:
        pid = http.get("/api/demo").json()["pid"]
        (folder / "agent.py").write_text("async def agent(turn, ctx):\n    return 'new'\n")
        while http.get("/api/demo").json()["pid"] == pid:  # pytest's own timeout bounds this
            pass
        assert http.post("/api/agent-step", json={"sessionId": "two", "userPrompt": "x"}).json()["output"] == "new"


def test_a_target_that_does_not_exist_ends_dev(folder: Path) -> None:
    said = subprocess.run([*COMMAND, "nowhere.py"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert said.returncode == 2
    assert "steprelay: there is no file 'nowhere.py'" in said.stderr
    assert "Traceback" not in said.stderr
