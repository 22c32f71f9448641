"""The demo as a person sees it, and the honesty of its last line."""

from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from click.testing import CliRunner
from rich.console import Console

from steprelay.cli.demo import demo as demo_command
from steprelay.cli.relay import Count, Relay
from steprelay.cli.show import Feed
from steprelay.cli.witness import Evidence, Witness, read
from steprelay.testing.servers import PostgresServer

LINE = re.compile(r"^(\d+) steps, 1 death, 1 lost answer: 0 lost, 0 doubled, 0 second model calls$", re.M)


def shop(folder: Path) -> Path:
    """A folder with something to read in it."""
    notes = {
        "tea.md": "# Tea\nThe kettle is never filled twice: a full kettle is marked before it is put on.\n" * 4,
        "coffee.md": "# Coffee\nThe grinder stops by itself. Beans are kept in the blue tin.\n" * 4,
        "rules.py": "KETTLE_LIMIT = 2\n\ndef fill(kettle):\n    '''Fill the kettle once.'''\n    return kettle\n" * 4,
        "opening.md": "# Opening\nOpen at eight. Fill the kettle, wipe the tables, count the till twice.\n" * 4,
    }
    for name, text in notes.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.slow
def test_the_demo_survives_a_death_and_a_lost_answer_and_counts_them(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    root.mkdir()
    command = [sys.executable, "-c", "from steprelay.cli import main; main()"]
    question = "How is it made sure that the kettle is never filled twice, who counts the till, and where are the beans?"
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")} | {"STEPRELAY_MODEL": "offline"}
    said = subprocess.run(
        [*command, "demo", str(shop(root)), question], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=110
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert re.search(r"✗  kill -9: server process \d+ died in the middle of step \d+\.", said.stdout)
    assert "Idempotent-Replayed: true" in said.stdout
    assert re.search(r"\b(tea|opening|rules)\.(md|py):\d+", said.stdout), "it quotes path:line"
    counted = LINE.search(said.stdout)
    assert counted, said.stdout
    assert said.stderr == ""
    drawn = re.search(r"^This terminal  (.*)$", said.stdout, re.M)
    assert drawn, said.stdout
    assert "╳░░" in drawn[1]
    assert f"━{int(counted[1]) - 1}━" in drawn[1]

    run = re.search(r"STEPRELAY_STORE=(\S+) \S+ runs show (\S+)", said.stdout)
    assert run, said.stdout
    again = subprocess.run(
        [*command, "runs", "show", run[2]], cwd=tmp_path, env={**clean, "STEPRELAY_STORE": run[1]},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert f"{counted[1]} steps · 1 death" in again.stdout
    assert list((tmp_path / ".steprelay").glob("*.log")) == []


@pytest.mark.slow
def test_a_server_that_cannot_start_ends_the_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from steprelay.cli import main; main()", "demo", "--no-open"]
    broken = {**os.environ, "STEPRELAY_MODEL": "nobody:knows-this"}
    said = subprocess.run(command, cwd=tmp_path, env=broken, capture_output=True, text=True, timeout=100)
    assert said.returncode == 1
    assert "the demo's server did not start; what it said is above" in said.stderr
    assert "Traceback" not in said.stderr


# ---------------------------------------------------------------- another store


@pytest.mark.all
def test_the_demo_survives_a_restart_of_its_database(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    root.mkdir()
    command = [sys.executable, "-c", "from steprelay.cli import main; main()"]
    question = "How is it made sure that the kettle is never filled twice, who counts the till, and where are the beans?"
    server = PostgresServer().start()
    given = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    given |= {"STEPRELAY_MODEL": "offline", "STEPRELAY_STORE": server.url()}
    try:
        subprocess.run([*command, "migrate"], cwd=tmp_path, env=given, capture_output=True, timeout=60, check=True)
        with subprocess.Popen(
            [*command, "demo", str(shop(root)), question, "--no-open"], cwd=tmp_path, env=given, stdout=subprocess.PIPE, text=True
        ) as demo:
            late = threading.Timer(100, demo.kill)
            late.start()
            assert demo.stdout is not None
            said = "".join(itertools.takewhile(lambda line: not line.startswith("   1  "), demo.stdout))
            server.crash(hard=False)
            server.start()
            said += demo.stdout.read()
            late.cancel()
        assert demo.returncode == 0, said
        counted = LINE.search(said)
        assert counted, said
        rows = server.sql("SELECT status, step FROM steprelay.run")
        assert rows == f"COMPLETED|{counted[1]}", "the run is in the store that was given"
        assert "STEPRELAY_STORE" not in said, "a URL may hold a password"
    finally:
        server.stop()


def test_a_store_that_dies_with_the_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPRELAY_STORE", "memory:")
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(demo_command, ["--no-open"])
    assert said.exit_code == 2
    assert "would die with the server that the demo kills; unset it" in said.output


async def test_a_request_is_repeated_until_the_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("steprelay.cli.relay.PAUSE", 0)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        if len(asked) in (1, 2, 4):
            return httpx.Response(503, json={"code": "store_unavailable"})
        return httpx.Response(200, json={"isTerminal": True, "steps": []})

    out = Console(file=io.StringIO())
    relay = Relay(out, cast("Any", None), Path("none"), Path("none"), id="r", told=told(*range(8)), killed=1, replays=1)
    relay._feed = Feed(out, deaths=False)
    async with httpx.AsyncClient(base_url="http://server/", transport=httpx.MockTransport(answer)) as relay._http:
        assert (await relay._drive())["isTerminal"]
    step, rows = "POST /runs/r/step", "GET /runs/r/steps"
    assert asked == [step, rows, rows, step, rows, step, rows]
    assert cast("io.StringIO", out.file).getvalue().count("The database does not answer.") == 2


# ---------------------------------------------------------------- the last line


def rows(*attempts: int) -> list[dict[str, Any]]:
    return [{"index": i, "attempt": a, "claimId": f"c{i}", "usage": {"requests": 1}} for i, a in enumerate(attempts)]


def told(*indexes: int) -> dict[int, str]:
    return {i: f"c{i}" for i in indexes}


def count(steps: list[dict[str, Any]], heard: dict[int, str], commits: dict[int, int], answers: int, replays: int = 1) -> Count:
    return Count.of(steps, heard, Evidence(commits=Counter(commits), answers=answers), replays)


def test_what_went_well_is_counted_as_such() -> None:
    one = count(rows(1, 2, 1), told(0, 1, 2), {0: 1, 1: 1, 2: 1}, 3)
    assert str(one) == "3 steps, 1 death, 1 lost answer: 0 lost, 0 doubled, 0 second model calls"
    assert one.clean


@pytest.mark.parametrize(
    ("case", "what"),
    [
        (count(rows(1, 2), told(0, 1, 2), {0: 1, 1: 1}, 2), "lost"),
        (count(rows(1, 2), {0: "other", 1: "c1"}, {0: 1, 1: 1}, 2), "lost"),
        (count(rows(1, 2), told(0, 1), {0: 1, 1: 1, 2: 1}, 2), "lost"),
        (count([rows(1, 2, 1)[i] for i in (0, 2)], told(0), {}, 2), "lost"),
        (count(rows(1, 2), told(0, 1), {0: 1, 1: 2}, 2), "doubled"),
        (count([*rows(1, 2), *rows(1)], told(0, 1), {0: 1, 1: 1}, 3), "doubled"),
        (count(rows(1, 2), told(0, 1), {0: 1, 1: 1}, 3), "again"),
    ],
)
def test_what_went_wrong_is_counted_as_such(case: Count, what: str) -> None:
    assert {name for name in ("lost", "doubled", "again") if getattr(case, name)} == {what}
    assert not case.clean


def test_a_demo_that_put_nothing_to_the_test_is_not_clean() -> None:
    assert not count(rows(1, 1), told(0, 1), {0: 1, 1: 1}, 2).clean
    assert not count(rows(1, 2), told(0, 1), {0: 1, 1: 1}, 2, replays=0).clean


def test_a_witness_survives_being_cut_off_in_the_middle_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "seen.log"
    for _ in range(2):  # one after the other, as servers are
        witness = Witness(file)
        witness({"event": "step", "run": "a", "step": 0})
        witness({"event": "answered"})
        witness({"event": "step", "run": "b", "step": 7})
    with file.open("a") as f:
        f.write('{"event": "st')
    assert read(file, "a") == Evidence(commits=Counter({0: 2}), answers=2)
