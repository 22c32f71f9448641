"""The calls of docs/http.md, made to a real server: what comes back is what the page shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def calls():
    """Every command of the page with what it is said to answer, in order."""
    found = []
    for block in BLOCK.findall((ROOT / "docs/http.md").read_text(encoding="utf-8")):
        for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, answer = call.partition("\n")
            found.append((command, answer))
    return found


def alike(shown, got):
    """Whether an answer is the one shown, white space aside; `…` stands for anything."""
    pieces = [re.escape(re.sub(r"\s+", "", p)) for p in shown.split("…")]
    return re.fullmatch(".*".join(pieces), re.sub(r"\s+", "", got), re.DOTALL) is not None


@pytest.fixture
def server(tmp_path):
    """`steprelay dev examples/approval.py` in a folder with one cache folder; answers its address."""
    (tmp_path / "old/__pycache__").mkdir(parents=True)
    command = [str(Path(sys.executable).parent / "steprelay"), "dev", str(ROOT / "examples/approval.py"), "--port", "0"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("STEPRELAY_")} | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        page = next(line for line in process.stdout if "page" in line)
        yield re.search(r"127\.0\.0\.1:\d+", page)[0]
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_what_is_shown_is_what_comes_back(server):
    for command, shown in calls():
        address = command.replace("localhost:8000", server)
        done = subprocess.run(["bash", "-c", address], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert alike(shown, done.stdout), f"{command}\nshown:\n{shown}\ncame:\n{done.stdout}"


def test_an_answer_that_differs_is_noticed():
    assert alike('{"a": 1, "b": …}', '{"a":1,"b":[2,3]}')
    assert not alike('{"a": 1, "b": …}', '{"a":2,"b":[2,3]}')
    assert not alike('{"a": 1}', '{"a":1,"c":2}')
