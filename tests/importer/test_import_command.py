"""`steprelay import`, as it is typed."""

import asyncio
import json
import sqlite3

import pytest
from click.testing import CliRunner

from steprelay.app import App
from steprelay.cli.imports import imports
from steprelay.core.model import Done, RunKey

AGENT = "def agent(turn, ctx):\n    return f'heard {turn.prompt}'\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with an agent, its old table of sessions, and a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPRELAY_STORE", "sqlite:new.db")
    (tmp_path / "agent.py").write_text(AGENT)
    with sqlite3.connect("old.db") as connection:
        connection.execute("create table sessions (id text, ctx text, state text)")
        rows = [("a", json.dumps([{"role": "user", "content": "hello"}]), "asleep"), ("b", "[]", "done"), ("c", "{", "done")]
        connection.executemany("insert into sessions values (?, ?, ?)", rows)
    connection.close()
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(imports, arguments)


WELL = ("--from", "sqlite:old.db", "--table", "sessions", "--columns", "id,ctx,state", "--status", "asleep=RUNNING")


async def drive(session):
    app = App({"agent": lambda turn, ctx: f"heard {turn.prompt}"}, store="sqlite:new.db", auth=False)
    try:
        return await app.engine.advance(RunKey(app.tenant, session), carrier="client")
    finally:
        await app.store.close()


def test_it_counts_what_it_did_and_names_the_bad_row(folder):
    done = run(*WELL)
    assert done.exit_code == 1, done.output
    assert "2 created, 0 there already, 0 changed, 1 bad" in done.output
    assert "bad: row 3 'c'" in done.output
    assert "0 created, 2 there already" in run(*WELL).output


async def test_an_imported_session_goes_on(folder):
    await asyncio.to_thread(run, *WELL)
    advanced = await drive("a")
    assert advanced.outcome == Done(status="COMPLETED", stop_reason="finished")
    assert json.loads(advanced.step.messages[0]) == {"role": "user", "content": "hello"}


async def test_a_dry_run_creates_nothing(folder):
    done = await asyncio.to_thread(run, *WELL, "--dry-run")
    assert "2 would be created" in done.output
    assert (await drive("a")).refused == "absent"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--status", "asleep=SLEEPING"), "WORD=STATUS"),
        (("--columns", "id,ctx"), "three names"),
        (("--agent", "nobody"), "no agent 'nobody'"),
    ],
)
def test_a_wrong_option_says_what_it_takes(folder, arguments, says):
    done = run(*WELL, *arguments)
    assert done.exit_code != 0
    assert says in str(done.exception)
