"""`steprelay runs stats` over a store whose every figure is known."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from said import Said

from steprelay.core import codec
from steprelay.core.model import Claimed, Commit, New, RunKey, Step, Tally, Usage
from steprelay.stores.sqlite import SQLiteStore

DAY = 86_400.0
Call = Callable[..., Said]


class Past:
    """Runs that are told to have been, at times of our choosing."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store

    async def run(self, id: str, days_ago: float, steps: list[float], **row: Any) -> None:
        """A run that took its steps one after another, each so many seconds long; the second one after a death."""
        key, now = RunKey("default", id), time.time() - days_ago * DAY
        status, reason, usd = row.pop("status", "COMPLETED"), row.pop("reason", "finished"), row.pop("usd", None)
        new = New(adapter="function", prompt='"x"', labels=codec.dumps(row.pop("labels", {})), **row)
        for index, seconds in enumerate(steps):
            if index == 1:
                now += 60
                await self.store.claim(key, claim_id="dead", holder="", lease=1, carrier="client", now=now)
                now += 60
            claimed = await self.store.claim(key, claim_id=f"c{index}", holder="", lease=900, carrier="client", new=new, now=now)
            assert isinstance(claimed, Claimed)
            now += seconds
            await self.store.commit(claimed.claim, self.commit(claimed, index, len(steps), status, reason, usd), now=now)

    @staticmethod
    def commit(claimed: Claimed, index: int, of: int, status: str, reason: str, usd: float | None) -> Commit:
        last = index == of - 1
        spent = Usage(requests=index + 1, input_tokens=100 * (index + 1), output_tokens=index + 1, usd=usd)
        step = Step(
            index=index, round=0, attempt=claimed.run.attempts, carrier="client", claim_id=claimed.claim.claim_id,
            status=status if last else "RUNNING", stop_reason=reason if last else None, claimed_at=claimed.now,
        )  # fmt: skip
        return Commit(
            status=step.status, stop_reason=step.stop_reason, after=None if last else 0.0, ended=last, step=step,
            tally=codec.pack(Tally(total=spent)), inbox_read=0,
        )  # fmt: skip


@pytest.fixture
def store(folder: Any) -> None:
    async def fill() -> None:
        store = SQLiteStore("sqlite:.steprelay/steprelay.db")
        past = Past(store)
        await past.run("a", 0.5, [1, 2, 3, 4], agent="scout", labels={"team": "growth", "traceparent": "00-…"}, usd=0.5)
        await past.run("b", 1.5, [10, 20], agent="scout", labels={"team": "growth"}, usd=0.25)
        await past.run("c", 3.0, [100], agent="writer", labels={"team": "docs"}, status="FAILED", reason="max_steps")
        await past.run("d", 40.0, [7], agent="writer", status="FAILED", reason="agent_error")
        await store.close()

    asyncio.run(fill())


def told(steprelay: Call, *options: str) -> Any:
    said = steprelay("runs", "stats", "--json", *options)
    assert said.code == 0, said.err
    return json.loads(said.out)


@pytest.mark.usefixtures("store")
def test_everything_is_counted(steprelay: Call) -> None:
    got = told(steprelay)
    groups = {name: got.pop(name) for name in ("agents", "labels")}
    assert got == {
        "runs": 4, "more": False, "status": {"COMPLETED": 2, "FAILED": 2},
        "stopReason": {"finished": 2, "max_steps": 1, "agent_error": 1}, "steps": 8, "attemptsLost": 2,
        "inputTokens": 800, "outputTokens": 8, "usd": 0.75, "stepSeconds": {"p50": pytest.approx(4, abs=0.01), "p95": pytest.approx(100, abs=0.01)},
    }  # fmt: skip
    scout = groups["agents"]["scout"]
    assert (scout["runs"], scout["steps"], scout["attemptsLost"]) == (2, 6, 2)
    assert scout["stepSeconds"] == {"p50": pytest.approx(3, abs=0.01), "p95": pytest.approx(20, abs=0.01)}
    assert groups["agents"]["writer"]["usd"] is None
    assert {name: g["runs"] for name, g in groups["labels"].items()} == {"team:growth": 2, "team:docs": 1}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("options", "runs"),
    [
        (["--since", "1d"], 1),
        (["--since", "7d"], 3),
        (["--agent", "writer"], 2),
        (["--label", "team:growth"], 2),
        (["--agent", "writer", "--since", "7d"], 1),
        (["--label", "team:nobody"], 0),
    ],
)
def test_a_window_an_agent_and_a_label_narrow_it(steprelay: Call, options: list[str], runs: int) -> None:
    assert told(steprelay, *options)["runs"] == runs


@pytest.mark.usefixtures("store")
def test_a_limit_counts_the_newest_and_says_that_there_are_more(steprelay: Call) -> None:
    got = told(steprelay, "--limit", "2")
    assert (got["runs"], got["more"], list(got["agents"])) == (2, True, ["scout"])
    assert told(steprelay, "--limit", "4")["more"] is False


@pytest.mark.usefixtures("store")
def test_people_get_a_table(steprelay: Call) -> None:
    lines = steprelay("runs", "stats").out.splitlines()
    assert lines[0] == "4 runs · 8 steps · 2 attempts lost · 808 tokens · $0.7500"
    assert lines[1:4] == ["      2 completed", "      1 failed: max steps", "      1 failed: agent error"]
    rows = [line.split() for line in lines if line.startswith(("scout", "team:docs"))]
    assert rows[0][:6] == ["scout", "2", "6", "2", "606", "$0.7500"]
    assert rows[1][:7] == ["team:docs", "1", "1", "0", "101", "no", "price"]


@pytest.mark.usefixtures("store")
def test_emptied_runs_still_count(steprelay: Call) -> None:
    assert steprelay("prune", "--older-than", "30d").out == "1 runs emptied.\n"
    got = told(steprelay)
    assert (got["runs"], got["steps"]) == (4, 8)
    assert got["agents"]["writer"]["stepSeconds"]["p50"] == pytest.approx(100, abs=0.01)  # the emptied one's 7 are gone


def test_an_empty_store_has_figures_too(steprelay: Call) -> None:
    got = told(steprelay)
    assert (got["runs"], got["usd"], got["stepSeconds"]) == (0, None, {"p50": None, "p95": None})
    assert steprelay("runs", "stats").out == "0 runs · 0 steps · 0 attempts lost · 0 tokens · no price known\n"


@pytest.mark.parametrize("wrong", [["--since", "soon"], ["--label", "team"], ["--limit", "0"]])
def test_a_wrong_option_is_told_so(steprelay: Call, wrong: list[str]) -> None:
    assert steprelay("runs", "stats", *wrong).code == 2
