"""The server that is started again: one socket, one child, whatever happens to it. Real processes, real SIGKILL."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from steprelay.core.errors import ConfigError
from steprelay.deploy.asgi import Supervisor, bind, is_loopback

CHILD = """
import os, sys
from steprelay.deploy.asgi import serve

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        if os.environ.get("BROKEN"):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "the store is a teapot"})
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})

args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if os.environ.get("CRASH"):
    os.kill(os.getpid(), 9)
serve(app, fd=int(args["--fd"]), lifeline=int(args["--lifeline"]), killable=True)
"""


@pytest.fixture
def child(tmp_path: Path) -> list[str]:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    return [sys.executable, str(script)]


@pytest.fixture
def supervisor(child: list[str]) -> Iterator[Supervisor]:
    one = Supervisor(child)
    yield one
    one.close()


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Poll a fact about another process."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_clients_wait_for_the_next_process_instead_of_being_refused(supervisor: Supervisor) -> None:
    first = supervisor.start().pid
    assert httpx.get(supervisor.url, timeout=20).text == str(first)
    assert supervisor.kill() == first
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(httpx.get(supervisor.url, timeout=20).text))
    asking.start()  # nobody accepts at this moment
    second = supervisor.start().pid
    asking.join(20)
    assert answers == [str(second)]
    assert supervisor.deaths == 1


def test_the_page_can_kill_the_server_and_is_told_by_the_next_one(supervisor: Supervisor) -> None:
    said: list[str] = []
    supervisor.say = said.append
    first = supervisor.start().pid
    with running(supervisor):
        about = httpx.get(f"{supervisor.url}/api/demo", timeout=20).json()
        assert (about["pid"], about["deaths"]) == (first, 0)
        killed = httpx.post(f"{supervisor.url}/api/demo/kill", headers={"origin": supervisor.url}, timeout=20)
        assert (killed.status_code, killed.json()["pid"]) == (202, first)
        until(lambda: supervisor.child is not None and supervisor.child.pid != first)
        about = httpx.get(f"{supervisor.url}/api/demo", timeout=20).json()
        assert about["pid"] != first
        assert about["deaths"] == 1
    assert said == ["the server died (SIGKILL): started again, its runs go on where they were"]


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"host": "evil.example"}])
def test_another_site_cannot_kill_the_server(supervisor: Supervisor, headers: dict[str, str]) -> None:
    pid = supervisor.start().pid
    refused = httpx.post(f"{supervisor.url}/api/demo/kill", headers=headers, timeout=20)
    assert refused.status_code == 403
    assert httpx.get(supervisor.url, timeout=20).text == str(pid)


def test_killing_needs_a_post(supervisor: Supervisor) -> None:
    supervisor.start()
    assert httpx.get(f"{supervisor.url}/api/demo/kill", timeout=20).status_code == 405


def test_a_child_ends_when_its_supervisor_is_gone(child: list[str]) -> None:
    one = Supervisor(child)
    process = one.start()
    httpx.get(one.url, timeout=20)
    os.close(one._line)  # what the kernel does when the supervisor dies
    process.wait(20)
    one._line = os.open(os.devnull, os.O_RDONLY)
    one.close()


def test_a_server_that_cannot_start_is_not_started_again(child: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    one = Supervisor(child, env={"BROKEN": "1"})
    try:
        assert one.keep() != 0
    finally:
        one.close()
    assert one.deaths == 0
    assert "the store is a teapot" in capfd.readouterr().err


def test_a_server_that_dies_at_once_is_given_up(child: list[str]) -> None:
    said: list[str] = []
    one = Supervisor(child, env={"CRASH": "1"}, say=said.append)
    try:
        assert one.keep() == 1
    finally:
        one.close()
    assert one.deaths == 3
    assert "giving up" in said[-1]


def test_a_changed_file_starts_the_server_again(child: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    one = Supervisor(child, say=said.append)
    first = one.start().pid
    (tmp_path / "code").mkdir()
    code = tmp_path / "code" / "agent.py"
    code.write_text("a = 1")
    os.utime(code, (1, 1))
    with running(one, watch=tmp_path / "code"):
        httpx.get(one.url, timeout=20)
        code.write_text("a = 2")
        until(lambda: one.child is not None and one.child.pid != first)
        assert httpx.get(one.url, timeout=20).text != str(first)
    one.close()
    assert said == ["agent.py changed: starting again"]


def test_told_to_end_the_supervisor_ends_its_child(supervisor: Supervisor) -> None:
    pid = supervisor.start().pid
    with running(supervisor):
        httpx.get(supervisor.url, timeout=20)
    assert gone(pid)


def test_a_taken_port_is_told_with_the_remedy() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="--port"):
        bind("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("127.evil.example", False),
        ("192.168.0.4", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


class running:
    """Supervises in the background, and ends it as Ctrl-C would."""

    def __init__(self, supervisor: Supervisor, watch: Path | None = None) -> None:
        self._thread = threading.Thread(target=supervisor.keep, args=(watch,))
        self._supervisor = supervisor

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._supervisor.told.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
