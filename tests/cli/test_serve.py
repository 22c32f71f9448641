"""`steprelay serve`: what it refuses, and with which remedy. That it serves is shown in tests/engines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from steprelay.testing.servers import free_port


@pytest.fixture
def quiet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TEMPORAL", "RESTATE", "INNGEST"):
        monkeypatch.delenv(f"STEPRELAY_{name}", raising=False)
    monkeypatch.delenv("RESTATE_ADMIN_URL", raising=False)
    return folder


@pytest.mark.parametrize("engine", ["temporal", "restate", "inngest"])
def test_an_engine_that_is_not_set_up_is_told_with_its_variable(quiet, steprelay, engine):
    said = steprelay("serve", engine, "agent.py")
    assert (said.code, f"STEPRELAY_{engine.upper()}" in said.err) == (2, True)


def test_an_engine_that_there_is_not_is_told_with_those_there_are(quiet, steprelay):
    said = steprelay("serve", "airflow")
    assert said.code == 2
    assert "temporal" in said.err


def test_outside_without_a_secret_it_does_not_start(quiet, steprelay, monkeypatch):
    monkeypatch.setenv("STEPRELAY_RESTATE", "http://localhost:8080")
    said = steprelay("serve", "restate", "agent.py", "--host", "0.0.0.0")
    assert (said.code, "STEPRELAY_SECRET" in said.err) == (2, True)


def test_a_port_that_is_taken_is_told(quiet, steprelay, monkeypatch):
    from steprelay.deploy.asgi import bind

    monkeypatch.setenv("STEPRELAY_RESTATE", "http://localhost:8080")
    with bind("127.0.0.1", 0) as taken:
        said = steprelay("serve", "restate", "agent.py", "--port", str(taken.getsockname()[1]))
    assert (said.code, "--port 0" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("engine", "remedy"), [("restate", "RESTATE_ADMIN_URL"), ("temporal", "STEPRELAY_TEMPORAL"), ("inngest", "STEPRELAY_INNGEST")]
)
@pytest.mark.slow
def test_a_server_that_does_not_answer_ends_it_with_one_line(quiet, monkeypatch, engine, remedy):
    gone = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv(f"STEPRELAY_{engine.upper()}", gone)
    monkeypatch.setenv("RESTATE_ADMIN_URL", gone)
    monkeypatch.setenv("INNGEST_DEV", "1")
    command = [sys.executable, "-c", "from steprelay.cli import main; main()", "serve", engine, "agent.py"]
    port = [] if engine == "temporal" else ["--port", "0"]
    ended = subprocess.run([*command, *port], cwd=quiet, capture_output=True, text=True, timeout=60, check=False)
    last = ended.stderr.splitlines()[-1]
    assert (ended.returncode, remedy in last, "Traceback" in ended.stderr) == (2, True, False), ended.stderr
