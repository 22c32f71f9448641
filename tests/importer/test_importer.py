"""Sessions of a home-made loop become runs: whole, once, and able to go on."""

import csv
import json
import sqlite3

import asyncpg
import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from steprelay.agents.function import FunctionAgent
from steprelay.agents.pydantic_ai import PydanticAIAgent
from steprelay.core import codec
from steprelay.core.errors import ConfigError, StoreUnavailable
from steprelay.core.model import Done, End, Reply, RunKey, Signal, State, Text
from steprelay.engine import Engine
from steprelay.http import api
from steprelay.importer import Columns, Row, Target, import_sessions, rows, sessions
from steprelay.stores.memory import MemoryStore
from steprelay.testing.servers import postgres

TALK = [{"role": "user", "content": "Find a hotel"}, {"role": "assistant", "content": "I found three."}]
SESSIONS = [
    ("s-asked", json.dumps({"messages": TALK[:1]}), "running"),
    ("s-done", json.dumps({"messages": TALK, "city": "Rome"}), "done"),
    ("s-error", json.dumps({"messages": TALK, "error": "the hotel site was down"}), "error"),
    ("s-midway", json.dumps(TALK), "running"),
]


@pytest.fixture
def table(tmp_path):
    """A real SQLite database with an `agent_sessions` table; answers its URL."""
    path = tmp_path / "old app.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "create table agent_sessions (session_id text primary key, context jsonb, status text, updated_at text)"
        )
        connection.executemany("insert into agent_sessions (session_id, context, status) values (?, ?, ?)", SESSIONS)
    connection.close()
    return f"sqlite:{path}"


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def engine(store):
    heard = []

    def agent(turn, ctx):
        heard.append(turn)
        return Reply(messages=({"role": "assistant", "content": "Booked."},), then="finish", output="Booked.")

    engine = Engine(store, {"travel": FunctionAgent(agent)}, lambda adapter: FunctionAgent.view)
    engine.heard = heard
    return engine


TARGET = Target(agent="travel", adapter="function", seed=FunctionAgent.seed, tenant="default")


def key(session):
    return RunKey("default", session)


async def parts_of(engine, session):
    steps = await engine.store.read(key(session), "steps")
    return [p for s in steps for p in engine.parts("function", s)]


async def test_every_row_of_a_table_becomes_a_run(table, store):
    report = await import_sessions(rows(table), store, TARGET)
    assert (report.created, report.there, report.changed, report.bad) == (4, 0, [], [])
    runs = {s: (await store.read(key(s), "run"))[0] for s, _, _ in SESSIONS}
    assert {s: (r.status, r.ended, r.stop_reason) for s, r in runs.items()} == {
        "s-asked": ("RUNNING", False, None),
        "s-done": ("COMPLETED", True, "finished"),
        "s-error": ("FAILED", True, "agent_error"),
        "s-midway": ("RUNNING", False, None),
    }
    assert all(r.fence == 0 and r.attempts == 0 for r in runs.values())


async def test_a_session_that_waits_for_its_answer_takes_its_next_step(table, engine):
    await import_sessions(rows(table), engine.store, TARGET)
    advanced = await engine.advance(key("s-asked"), carrier="client")
    assert advanced.outcome == Done(status="COMPLETED", stop_reason="finished")
    (turn,) = engine.heard
    assert (turn.prompt, turn.fresh, turn.messages) == ("Find a hotel", True, ())
    assert [p.text for p in await parts_of(engine, "s-asked") if isinstance(p, Text)] == ["Find a hotel", "Booked."]


async def test_a_session_in_the_middle_is_told_to_go_on(table, engine):
    await import_sessions(rows(table), engine.store, TARGET)
    await engine.advance(key("s-midway"), carrier="client", expect=1)
    (turn,) = engine.heard
    assert (turn.prompt, turn.messages) == ("Continue.", tuple(TALK))


async def test_nothing_starts_by_itself(table, store):
    await import_sessions(rows(table), store, TARGET)
    assert await store.due(["background"], 100) == []


async def test_an_ended_session_shows_its_end_and_takes_another_prompt(table, engine):
    await import_sessions(rows(table), engine.store, TARGET)
    parts = await parts_of(engine, "s-done")
    assert State(value={"city": "Rome"}) in parts
    assert parts[-1] == End(status="COMPLETED", stop_reason="finished", output="I found three.")
    await engine.store.signal(key("s-done"), Signal(kind="prompt", body=codec.dumps("Book the first"), reopens=True))
    advanced = await engine.advance(key("s-done"), carrier="client")
    assert advanced.run.round == 1
    (turn,) = engine.heard
    assert (turn.prompt, turn.messages, turn.state) == ("Book the first", tuple(TALK), {"city": "Rome"})


async def test_a_failed_session_can_be_resumed(table, engine):
    await import_sessions(rows(table), engine.store, TARGET)
    end = (await parts_of(engine, "s-error"))[-1]
    assert (end.status, end.error.message) == ("FAILED", "the hotel site was down")
    told = await engine.store.signal(key("s-error"), Signal(kind="resume", body="{}", reopens=True))
    assert told.run.due_at is not None
    advanced = await engine.advance(key("s-error"), carrier="client")
    assert advanced.outcome == Done(status="COMPLETED", stop_reason="finished")


async def test_importing_again_changes_nothing(table, engine):
    await import_sessions(rows(table), engine.store, TARGET)
    await engine.advance(key("s-asked"), carrier="client")
    before = await engine.store.read(key("s-asked"), "run")
    report = await import_sessions(rows(table), engine.store, TARGET)
    assert (report.created, report.there, report.changed, report.bad) == (0, 4, [], [])
    assert await engine.store.read(key("s-asked"), "run") == before


async def test_a_row_that_changed_since_is_reported_and_left_alone(table, store):
    await import_sessions(rows(table), store, TARGET)
    with sqlite3.connect(table.removeprefix("sqlite:")) as connection:
        connection.execute("update agent_sessions set status = 'done' where session_id = 's-midway'")
    connection.close()
    report = await import_sessions(rows(table), store, TARGET)
    assert [(n.row, n.session) for n in report.changed] == [(4, "s-midway")]
    assert (await store.read(key("s-midway"), "run"))[0].status == "RUNNING"


async def test_a_rehearsal_writes_nothing(table, store):
    assert (await import_sessions(rows(table), store, TARGET, dry_run=True)).created == 4
    assert await store.read(key("s-done"), "run") == []
    await import_sessions(rows(table), store, TARGET)
    assert (await import_sessions(rows(table), store, TARGET, dry_run=True)).there == 4


BAD = {
    "no JSON": Row(number=1, session="a", context='{"messages": [', status="done"),
    "no messages": Row(number=1, session="a", context='{"goal": "x"}', status="done"),
    "a message without a role": Row(number=1, session="a", context='[{"content": "x"}]', status="done"),
    "a message without words": Row(
        number=1, session="a", context='[{"role": "user"}, {"role": "user", "content": "x"}]', status="done"
    ),
    "NaN": Row(number=1, session="a", context='{"messages": [], "score": NaN}', status="done"),
    "an unknown status": Row(number=1, session="a", context="[]", status="sleeping"),
    "no status": Row(number=1, session="a", context="[]", status=None),
    "no id": Row(number=1, session=None, context="[]", status="done"),
    "an id of two lines": Row(number=1, session="a\nb", context="[]", status="done"),
    "an id no address can hold": Row(number=1, session="a/b c", context="[]", status="done"),
    "no context": Row(number=1, session="a", context=None, status="done"),
}


@pytest.mark.parametrize("row", BAD.values(), ids=BAD)
async def test_a_bad_row_is_named_and_kept_out_and_the_others_go_in(row, store):
    async def source():
        yield row
        yield Row(number=2, session="good", context=TALK, status="Done ")

    report = await import_sessions(source(), store, TARGET)
    assert [n.row for n in report.bad] == [1]
    assert report.bad[0].why
    assert report.created == 1
    assert await store.read(key("a"), "run") == []
    assert len(await store.read(key("good"), "run")) == 1


async def test_an_import_that_was_cut_off_goes_on(table):
    class Dies(MemoryStore):
        left = 2

        async def claim(self, *args, **kwargs):
            if self.left == 0:
                raise StoreUnavailable("gone")
            self.left -= 1
            return await super().claim(*args, **kwargs)

    store = Dies()
    with pytest.raises(StoreUnavailable):
        await import_sessions(rows(table), store, TARGET)
    store.left = 100
    report = await import_sessions(rows(table), store, TARGET)
    assert (report.created, report.there) == (2, 2)


async def test_words_of_a_status_column_can_be_named(store):
    async def source():
        yield Row(number=1, session="a", context=[], status="ASLEEP")

    target = Target(agent="travel", adapter="function", seed=FunctionAgent.seed, tenant="default", statuses={"asleep": "RUNNING"})
    assert (await import_sessions(source(), store, target)).created == 1


def test_what_names_a_run_here_names_it_over_http():
    assert sessions.NAME.pattern == api._NAME.pattern


# ---------------------------------------------------------------- sources


async def found(url, **options):
    return [r async for r in rows(url, **options)]


async def test_csv_with_contexts_longer_than_csv_allows_by_itself(tmp_path):
    path = tmp_path / "sessions.csv"
    long = json.dumps([{"role": "user", "content": "é" * 200_000}], ensure_ascii=False)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "ctx", "state"), ("a", long, "done"), ("b", "[]", "running")])
    got = await found(str(path), columns=Columns(session="id", context="ctx", status="state"))
    assert [(r.session, r.context, r.status) for r in got] == [("a", long, "done"), ("b", "[]", "running")]


async def test_json_lines_name_the_line_that_is_broken(tmp_path):
    path = tmp_path / "sessions.jsonl"
    good = json.dumps({"session_id": "a", "context": [], "status": "done"}).encode()
    path.write_bytes(b"\n".join([good, b"{oops", b"", b'{"session_id": "b"}', b'"\xff"', good]))
    got = await found(str(path))
    assert [(r.number, r.error is None) for r in got] == [(1, True), (2, False), (4, False), (5, False), (6, True)]


async def test_bytes_that_are_no_text_spoil_their_row_alone(tmp_path, store):
    path = tmp_path / "sessions.csv"
    path.write_bytes(b'session_id,context,status\na,"[{""role"": ""user"", ""content"": ""\xff""}]",done\nb,[],done\n')
    report = await import_sessions(rows(str(path)), store, TARGET)
    assert [(n.row, n.session) for n in report.bad] == [(2, "")]
    assert report.created == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: f"sqlite:{p}/none.db", "no file"),
        (lambda p: str(p / "sessions.csv"), "no column 'context' (it has: session_id, status)"),
        (lambda p: f"sqlite:{p}/empty.db", "no table 'agent_sessions'"),
        (lambda p: str(p / "noise.db"), "cannot be read as an SQLite database"),
    ],
)
async def test_a_source_that_cannot_be_read_says_what_is_wrong(tmp_path, make, says):
    (tmp_path / "sessions.csv").write_text("session_id,status\na,done\n")
    (tmp_path / "noise.db").write_bytes(b"no database" * 1000)
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    with pytest.raises(ConfigError, match=r".") as e:
        await found(make(tmp_path))
    assert says in str(e.value)


async def test_a_table_name_is_never_sql(table):
    with pytest.raises(ConfigError, match="no table"):
        await found(table, table='agent_sessions"; drop table agent_sessions; --')
    assert len(await found(table)) == 4


@pytest.mark.slow
async def test_a_postgres_table_with_jsonb_and_uuids(store):
    url = postgres().url()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "create schema old; create table old.sessions (session_id uuid primary key, context jsonb, status text)"
        )
        ids = [f"00000000-0000-0000-0000-{n:012}" for n in range(250)]
        await connection.executemany(
            "insert into old.sessions values ($1, $2, 'done')", [(i, json.dumps({"messages": TALK})) for i in ids]
        )
        await connection.execute("update old.sessions set context = null where session_id = $1", ids[100])
    finally:
        await connection.close()
    report = await import_sessions(rows(url, "old.sessions"), store, TARGET)
    assert (report.created, [(n.row, n.session) for n in report.bad]) == (249, [(101, ids[100])])
    assert (await store.read(key(ids[0]), "run"))[0].status == "COMPLETED"
    with pytest.raises(ConfigError, match="no column 'state'"):
        await found(url, table="old.sessions", columns=Columns(status="state"))
    with pytest.raises(ConfigError, match="no table"):
        await found(url, table="sessions")


async def test_a_pydantic_ai_agent_goes_on_with_an_imported_conversation(table):
    heard = []

    def model(messages, info):
        heard.append([p.content for m in messages for p in m.parts])
        return ModelResponse(parts=[TextPart("Booked.")])

    agent = PydanticAIAgent(Agent(FunctionModel(model)), stream=False)
    engine = Engine(MemoryStore(), {"travel": agent}, lambda adapter: PydanticAIAgent.view)
    target = Target(agent="travel", adapter="pydantic_ai", seed=PydanticAIAgent.seed, tenant="default")
    assert (await import_sessions(rows(table), engine.store, target)).created == 4
    await engine.store.signal(key("s-done"), Signal(kind="prompt", body=codec.dumps("Book the first"), reopens=True))
    await engine.store.signal(key("s-error"), Signal(kind="resume", body="{}", reopens=True))
    for session in ("s-asked", "s-midway", "s-done", "s-error"):
        advanced = await engine.advance(key(session), carrier="client")
        assert advanced.outcome == Done(status="COMPLETED", stop_reason="finished"), session
    said = [m["content"] for m in TALK]
    assert heard == [said[:1], [*said, "Continue."], [*said, "Book the first"], [*said, "Continue."]]
