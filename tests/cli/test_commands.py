"""What the commands say and how they end, with a real agent and a real store in a folder."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from said import Said

Call = Callable[..., Said]


def run_id(said: Said) -> str:
    return re.findall(r"[0-9a-f]{32}", said.out)[-1]


def test_run_shows_each_step_the_answer_and_the_track(steprelay: Call) -> None:
    said = steprelay("run", "agent.py", "count")
    assert said.code == 0
    lines = [line.rstrip() for line in said.out.splitlines()]
    assert lines[0].startswith("  0  I counted 0.")
    assert lines[1].strip() == '✓ len [""] · 0'
    assert "It is 42." in lines
    assert any(re.match(r"This process +━+0━+ ━+1━+ ━+2━+", line) for line in lines)
    assert re.search(r"3 steps · 0 deaths · 0 tokens · [0-9a-f]{32}$", said.out.strip())


def test_a_run_that_fails_says_why_and_ends_with_1(steprelay: Call) -> None:
    said = steprelay("run", "agent.py", "fail")
    assert said.code == 1
    assert "no tea left" in said.out


def test_a_run_is_kept_and_can_be_looked_at(steprelay: Call) -> None:
    run = run_id(steprelay("run", "agent.py", "count"))
    listed = steprelay("runs", "list").out
    assert re.search(rf"{run}\s+agent\s+completed\s+\w+\s+3\s", listed)
    shown = steprelay("runs", "show", run).out
    assert shown.startswith(f"{run} · agent · completed\n")
    assert "I counted 1." in shown
    assert "It is 42." in shown
    assert steprelay("runs", "tail", run).out.count("I counted") == 2
    assert steprelay("runs", "stats").out.startswith("1 runs · 3 steps · 0 attempts lost · 0 tokens · ")


def test_show_says_how_much_a_run_holds_and_where_the_whole_of_a_cut_result_is(steprelay: Call) -> None:
    shown = steprelay("runs", "show", run_id(steprelay("run", "agent.py", "long"))).out
    assert re.search(r"1 step · 0 deaths · 0 tokens · \d\d\.\d kB of history · step 0 carried by", shown)
    assert "cut; the whole is at /blobs/0/log of the run" in shown


def test_without_runs_the_list_says_how_to_start_one(steprelay: Call) -> None:
    assert "steprelay run agent.py" in steprelay("runs", "list").out


def test_an_approval_is_answered_and_the_run_goes_on(steprelay: Call) -> None:
    asked = steprelay("run", "agent.py", "ask")
    run = run_id(asked)
    assert asked.code == 1
    assert f"steprelay runs answer {run} yes" in asked.out
    assert steprelay("runs", "answer", run, "yes").out == f"Answered. The next step of {run} is due.\n"
    done = steprelay("run", "agent.py", "--go-on", run)
    assert done.code == 0
    assert "ordered" in done.out
    again = steprelay("runs", "answer", run, "yes")
    assert again.code == 2
    assert "does not wait for an answer" in again.err


def test_a_refused_approval_is_not_carried_out(steprelay: Call) -> None:
    run = run_id(steprelay("run", "agent.py", "ask"))
    steprelay("runs", "answer", run, "no")
    assert steprelay("run", "agent.py", "--go-on", run).code == 1


def test_a_waiting_run_is_stopped_for_good(steprelay: Call) -> None:
    run = run_id(steprelay("run", "agent.py", "ask"))
    assert steprelay("runs", "cancel", run).out == "Stopped by you.\n"
    assert re.search(rf"{run}.*cancelled", steprelay("runs", "list").out)
    assert steprelay("runs", "list", "--status", "COMPLETED").out.count(run) == 0


def test_a_fork_keeps_the_history_up_to_its_step(steprelay: Call) -> None:
    run = run_id(steprelay("run", "agent.py", "count"))
    fork = steprelay("runs", "fork", run, "--step", "0").out.strip()
    assert fork != run
    assert steprelay("run", "agent.py", "--go-on", fork).code == 0
    assert steprelay("runs", "show", fork).out.count("I counted") == 2


def test_hand_over_and_sweep_carry_a_run_to_its_end(steprelay: Call) -> None:
    run = steprelay("runs", "fork", run_id(steprelay("run", "agent.py", "count")), "--step", "0").out.strip()
    assert steprelay("runs", "hand-over", run, "background").out == "Handed over to background, from step 1.\n"
    assert steprelay("sweep", "agent.py").out == "1 runs carried on, 0 messages delivered\n"
    shown = steprelay("runs", "show", run).out
    assert "completed" in shown
    assert "Background carries on from step 1." in shown


def test_resume_goes_on_after_a_failure(steprelay: Call) -> None:
    run = run_id(steprelay("run", "agent.py", "fail"))
    said = steprelay("runs", "resume", run, "--steps", "5")
    assert said.code == 0
    assert re.search(rf"{run}\s+agent\s+goes on", steprelay("runs", "list").out)


def test_prune_empties_what_is_old_and_keeps_what_is_new(steprelay: Call) -> None:
    run = run_id(steprelay("run", "agent.py", "count"))
    assert steprelay("prune", "--older-than", "1d").out == "0 runs emptied.\n"
    assert steprelay("prune", "--older-than", "0s", "--tenant", "somebody else").out == "0 runs emptied.\n"
    assert steprelay("prune", "--older-than", "0s").out == "1 runs emptied.\n"
    assert run in steprelay("runs", "list").out


def test_migrate_is_safe_twice(steprelay: Call) -> None:
    steprelay("migrate")
    assert steprelay("migrate").out == "Nothing to do: the schema is up to date.\n"


@pytest.mark.slow
def test_ctrl_c_hands_the_run_back(steprelay: Call, folder: Path) -> None:
    """The process is interrupted in the middle of a step; the run is unheld at once and says how to go on."""
    (folder / "slow.py").write_text(
        "import asyncio, pathlib\n"
        "async def agent(turn, ctx):\n"
        "    pathlib.Path('under-way').touch()\n"
        "    await asyncio.sleep(60)\n"
    )
    command = [sys.executable, "-c", "from steprelay.cli import main; main()", "run", "slow.py", "x"]
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, and so would its child
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, preexec_fn=heeds)
    end = time.monotonic() + 30
    while not (folder / "under-way").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    run = re.search(r"--go-on ([0-9a-f]{32})", out)
    assert run, out
    explained = steprelay("runs", "show", run[1]).out
    assert "running" in explained.splitlines()[0]
    assert "holds" not in explained


# ---------------------------------------------------------------- errors: one line, and what to do


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["fly"], 2, "No such command 'fly'. See steprelay --help."),
        (["run", "agent.py"], 2, "give a task, or --go-on RUN"),
        (["run", "nowhere.py", "x"], 2, "there is no file 'nowhere.py'"),
        (["run", "nowhere", "x"], 2, "there is no file or module 'nowhere'"),
        (["run", "agent.py:nobody", "x"], 2, "has no 'nobody'"),
        (["run", "agent.py", "--go-on", "nobody"], 2, "steprelay runs list"),
        (["runs", "show", "nobody"], 2, "steprelay runs list"),
        (["runs", "--url", "http://127.0.0.1:9", "list"], 1, "is the server running?"),
        (["prune", "--older-than", "soon"], 2, "give 10s, 5m, 12h or 30d"),
        (["dev", "--host", "0.0.0.0"], 2, "STEPRELAY_SECRET"),
    ],
)
def test_errors_are_one_line_with_a_remedy(steprelay: Call, arguments: list[str], code: int, says: str) -> None:
    said = steprelay(*arguments)
    assert said.code == code
    assert says in said.err
    assert said.err.startswith("steprelay: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


def test_a_store_that_cannot_be_opened_is_one_line(steprelay: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPRELAY_STORE", "cassandra://somewhere")
    said = steprelay("runs", "list")
    assert said.code == 2
    assert "no store is called 'cassandra'" in said.err


def test_what_nobody_expected_is_one_line_too(steprelay: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steprelay.cli.target.find", lambda *_: 1 / 0)
    said = steprelay("run", "agent.py", "x")
    assert said.code == 1
    assert said.err.startswith("steprelay: ZeroDivisionError: division by zero")
    assert "--debug" in said.err


def test_debug_shows_the_traceback(steprelay: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPRELAY_DEBUG", "")
    said = steprelay("--debug", "run", "nowhere.py", "x")
    assert "Traceback" in said.err


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from steprelay.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "import json; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})), file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "Usage: steprelay" in said.stdout
    heavy = {"httpx", "rich", "starlette", "uvicorn", "asyncio", "sqlite3", "msgspec", "pydantic"}
    assert heavy.isdisjoint(json.loads(said.stderr.splitlines()[-1]))


# ---------------------------------------------------------------- doctor


def test_doctor_is_content_with_a_fresh_folder(steprelay: Call) -> None:
    said = steprelay("doctor")
    assert said.code == 0
    assert "✓ steprelay 0.1.0 on Python 3." in said.out
    assert "✓ sqlite:" in said.out
    assert "· STEPRELAY_SECRET is not set" in said.out


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("STEPRELAY_STORE", "cassandra://x", "no store is called 'cassandra'"),
        ("STEPRELAY_STORE", "sqlite:/proc/nowhere/x.db", "/proc/nowhere"),
        ("STEPRELAY_SECRET", "short", "shorter than 16"),
        ("STEPRELAY_LEASE", "soon", "give seconds"),
        ("STEPRELAY_DEADLINE", "10", "STEPRELAY_PUBLIC_URL"),
    ],
)
def test_doctor_names_the_remedy_of_each_finding(
    steprelay: Call, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    said = steprelay("doctor")
    assert said.code == 1
    bad = [line for line in said.out.splitlines() if line.startswith("✗")]
    assert len(bad) == 1
    assert says in bad[0]


# ---------------------------------------------------------------- watching what another carries


@pytest.mark.slow
def test_tail_follows_a_run_that_another_process_carries(steprelay: Call, folder: Path) -> None:
    run = steprelay("runs", "fork", run_id(steprelay("run", "agent.py", "count")), "--step", "0").out.strip()
    command = [sys.executable, "-c", "from steprelay.cli import main; main()", "runs", "tail", run]
    tail = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert tail.stdout is not None
    assert "I counted 0." in tail.stdout.readline()  # it looks on, and the run stands still
    steprelay("run", "agent.py", "--go-on", run)
    out, _ = tail.communicate(timeout=30)
    assert tail.returncode == 0
    assert "I counted 1." in out
    assert "It is 42." in out
