"""docs/from-continue-to-autonomous.md, followed step by step in an empty folder."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from test_curl import alike

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/from-continue-to-autonomous.md").read_text(encoding="utf-8")


def prepare(folder):
    """The starting point of the page: its table with four sessions, and its agent."""
    said = [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "Thought 1"}]
    rows = [
        ("s-1", json.dumps({"messages": said[:1]}), "running"),
        ("s-2", json.dumps({"messages": said}), "running"),
        ("s-3", json.dumps({"messages": said}), "done"),
        ("s-4", '{"messages": [', "running"),
    ]
    with sqlite3.connect(folder / "old.db") as connection:
        connection.execute(re.search(r"```sql\n(.*?)```", PAGE, re.DOTALL)[1])
        connection.executemany("insert into agent_sessions values (?, ?, ?)", rows)
    connection.close()
    (folder / "agent.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])


@pytest.mark.slow
def test_the_page_can_be_followed(tmp_path):
    prepare(tmp_path)
    env = {k: v for k, v in os.environ.items() if not k.startswith("STEPRELAY_")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    ran = 0
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = call.partition("\n")
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            )
            assert alike(shown, done.stdout), f"{command}\nshown:\n{shown}\ncame:\n{done.stdout}"
            ran += 1
    assert ran == 3


def test_the_new_lines_of_the_diff_are_the_agent_of_the_page():
    new = [line[1:] for line in re.search(r"```diff\n(.*?)```", PAGE, re.DOTALL)[1].splitlines() if line.startswith("+")]
    agent = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    assert "\n".join(new) in agent
