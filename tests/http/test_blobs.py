"""What was cut is kept whole beside the history, for whoever may read the run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import http_world as w
import pytest
import pytest_asyncio

from steprelay.core.model import Filter, Reply, RunKey
from steprelay.ports import Store
from steprelay.stores.memory import MemoryStore
from steprelay.stores.sqlite import SQLiteStore

KEY = RunKey("default", "s1")
LONG = {"text": "ü\ud800" * 400, "n": [1.5, None]}
NAME = "0/a file/é?#1"


async def reads(turn, ctx):
    """Reads something long that is kept, something long that is not, and something short."""
    await ctx.call("a file/é?#1", lambda: LONG, effect="read", keep=True)
    await ctx.call("lost", lambda: LONG, effect="read")
    await ctx.call("short", lambda: "short", effect="read", keep=True)
    return Reply(then="finish", output="read", messages=({"said": "ü"},))


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[w.World]:
    store: Store = MemoryStore() if request.param == "memory" else SQLiteStore(f"sqlite:///{tmp_path}/runs.db")
    await store.migrate()
    world = w.World(reads, store=store)
    async with world.server() as c:
        await c.post("/api/runs", json={"userPrompt": "x", "sessionId": "s1", "limits": {"resultBytes": 100}})
        assert (await c.post("/api/runs/s1/step", json={})).json()["status"] == "COMPLETED"
    yield world
    await store.close()


def url(name: str) -> str:
    return "/api/runs/s1/blobs/" + "/".join(quote(part, safe="") for part in name.split("/"))


async def test_the_result_names_its_blob_and_the_blob_is_the_whole(world: w.World):
    async with world.server() as c:
        parts = (await c.get("/api/runs/s1/steps")).json()["steps"][0]["parts"]
        blobs = {p["id"]: p.get("blob") for p in parts if p["type"] == "result"}
        whole = await c.get(url(blobs["a file/é?#1"]))
    assert blobs == {"a file/é?#1": NAME, "lost": None, "short": None}
    assert (whole.status_code, whole.headers["content-type"], whole.json()) == (200, "application/json", LONG)


async def test_a_reader_keeps_it_and_asks_whether_it_still_may(world: w.World):
    async with world.server() as c:
        first = await c.get(url(NAME))
        again = await c.get(url(NAME), headers={"if-none-match": first.headers["etag"]})
        other = await c.get(url(NAME), headers={"if-none-match": '"another"'})
    assert first.headers["cache-control"] == "private, no-cache"
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (other.status_code, other.content) == (200, first.content)


async def test_only_who_may_read_the_run_gets_it(world: w.World):
    answers = {}
    tokens = {"read": (KEY, ["read"]), "step": (KEY, ["step"]), "other": (RunKey("default", "s2"), ["read"])}
    for name, (key, actions) in tokens.items():
        async with world.client({"authorization": f"Bearer {world.auth.run_token(key, actions, 60)}"}) as c:
            answers[name] = (await c.get(url(NAME))).status_code
    async with world.client() as c:
        answers["nobody"] = (await c.get(url(NAME))).status_code
    assert answers == {"read": 200, "step": 403, "other": 404, "nobody": 401}


@pytest.mark.parametrize("name", ["0/lost", "0/short", "0", "1/a file/é?#1"])
async def test_what_was_not_kept_is_not_there(world: w.World, name: str):
    async with world.server() as c:
        missing = await c.get(url(name))
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert missing.json()["code"] == "no_such_blob"
    assert repr(name) in missing.json()["detail"]


async def test_a_pruned_run_has_none_left(world: w.World):
    assert await world.store.prune(2.0**40, Filter(tenant="default")) == 1
    async with world.server() as c:
        gone = await c.get(url(NAME))
    assert (gone.status_code, gone.json()["code"]) == (410, "pruned")


async def test_a_step_says_how_many_bytes_it_holds(world: w.World):
    (row,) = await world.store.read(KEY, "steps")
    async with world.server() as c:
        (step,) = (await c.get("/api/runs/s1/steps")).json()["steps"]
    assert step["bytes"] == sum(len(text.encode()) for text in (*row.messages, *row.parts)) > 300
