"""Streams of every ending, recorded from a real app: what is heard now is what was recorded, and what was recorded conforms.

`STEPRELAY_RECORD=1 pytest tests/protocols` records anew. The recordings are read by the protocols' own clients too, in
web/packages/client.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ag_ui_validate.pytest_plugin import validate_agui
from reader import Event, Reader
from scenes import SCENES

from steprelay.stores import memory

RECORDINGS = Path(__file__).parent / "recordings"
PROTOCOLS = ("agui", "aisdk", "plain")


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts the store's clock forward."""
    ahead = [0.0]
    monkeypatch.setattr(memory, "_clock", lambda now: time.time() + ahead[0] if now is None else now)

    def put(seconds: float) -> None:
        ahead[0] += seconds

    return put


def line(event: Event) -> str:
    return json.dumps({k: steady(v) for k, v in event.items() if v is not None}, ensure_ascii=False)


def steady(value: Any) -> Any:
    """The same without what depends on the time of day."""
    match value:
        case dict():
            fixed = {"ms": None, "afterMs": 1000} if value.get("afterMs") != 0 else {"ms": None}
            return {k: steady(fixed.get(k, v)) for k, v in value.items() if k not in ("ms",)}
        case list():
            return [steady(v) for v in value]
        case _:
            return value


def recorded(name: str, protocol: str) -> list[Event]:
    text = (RECORDINGS / f"{name}.{protocol}.jsonl").read_text("utf-8")
    return [{"event": None, "id": None} | json.loads(row) for row in text.splitlines()]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", SCENES)
async def test_what_is_heard_is_what_was_recorded(name: str, protocol: str, forward: Any) -> None:
    reader = await SCENES[name](protocol, forward)
    heard = [line(e) for e in reader.heard]
    place = RECORDINGS / f"{name}.{protocol}.jsonl"
    if os.environ.get("STEPRELAY_RECORD"):
        place.write_text("".join(f"{row}\n" for row in heard), "utf-8")
    assert heard == place.read_text("utf-8").splitlines()


def test_nothing_else_is_recorded() -> None:
    assert {p.name for p in RECORDINGS.iterdir()} == {f"{n}.{p}.jsonl" for n in SCENES for p in PROTOCOLS}


# ---------------------------------------------------------------- AG-UI


def joined(events: list[Event]) -> list[Any]:
    """One AG-UI stream of many: a reader closes what a cut left open before it goes on."""
    out: list[Any] = []
    for event in events:
        data = event["data"]
        if event["id"] and event["id"].endswith(".0.0"):
            out += [closing for closing in _closing(out)]
        out.append(data)
    return out


def _closing(out: list[Any]) -> list[Any]:
    open: dict[str, Any] = {}
    for e in out:
        kind = e["type"]
        key = e.get("messageId") or e.get("stepName")
        if kind in _PAIRS:
            open[_PAIRS[kind] + str(key)] = {k: v for k, v in e.items() if k in ("messageId", "stepName")} | {
                "type": _PAIRS[kind]
            }
        open.pop(kind + str(key), None)
    return list(reversed(open.values()))


_PAIRS = {
    "STEP_STARTED": "STEP_FINISHED", "TEXT_MESSAGE_START": "TEXT_MESSAGE_END", "REASONING_START": "REASONING_END",
    "REASONING_MESSAGE_START": "REASONING_MESSAGE_END",
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_agui_conforms(name: str) -> None:
    report = validate_agui(joined(recorded(name, "agui")))
    assert [d.message for d in report.diagnostics if d.severity != "info"] == []
    assert report.internal_errors == []


ENDINGS = {
    "finish": ["success"], "question": ["interrupt", "success"], "approved": ["interrupt", "success"],
    "denied": ["interrupt", "success"], "parallel_tools": ["interrupt", "success"], "cancelled": ["cancelled"], "error": ["error"],
    "brake": ["success"], "retried": ["success"], "died": ["success"], "lost": ["success"], "replay": ["success"],
    "reopened": ["interrupt", "success"], "second_round": ["success", "success"], "page_opened": ["success"], "state_and_output": ["success"],
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_an_agui_run_is_everything_up_to_a_question_or_an_end(name: str) -> None:
    events = joined(recorded(name, "agui"))
    ends = [e.get("outcome", {}).get("type", "error") for e in events if e["type"] in ("RUN_FINISHED", "RUN_ERROR")]
    assert ends == ENDINGS[name]
    assert sum(e["type"] == "RUN_STARTED" for e in events) == len(ends)
    assert all(a["type"] != "STEP_STARTED" or b["type"] != "STEP_STARTED" for a, b in pairwise(events))


@pytest.mark.parametrize("name", ["question", "approved", "second_round", "retried", "died", "lost", "replay"])
def test_an_agui_reader_begins_anew_with_all_that_was_said(name: str) -> None:
    snapshots = [e["messages"] for e in joined(recorded(name, "agui")) if e["type"] == "MESSAGES_SNAPSHOT"]
    assert snapshots
    assert snapshots[-1][0]["role"] == "user"
    for messages in snapshots:
        ids = Counter(m["id"] for m in messages)
        assert max(ids.values()) == 1


def test_the_next_prompt_is_in_the_snapshot_before_any_step_has_taken_it_in() -> None:
    snapshot = next(e["data"]["messages"] for e in recorded("second_round", "agui") if e["data"]["type"] == "MESSAGES_SNAPSHOT")
    assert [(m["role"], m["content"]) for m in snapshot] == [("user", "one"), ("assistant", "You said one."), ("user", "two")]


# ---------------------------------------------------------------- AI SDK


def message(chunks: list[Any]) -> list[list[Any]]:
    """What a page shows: steps of `[kind, text]`, built as the AI SDK builds them."""
    steps: list[list[Any]] = [[]]
    for c in chunks:
        match c:
            case {"type": "start-step"}:
                steps.append([])
            case {"type": "reset-step"}:
                steps[-1] = []
            case {"type": "text-start" | "reasoning-start" as kind, "id": id}:
                steps[-1].append([kind.partition("-")[0], "", id])
            case {"type": "text-delta" | "reasoning-delta", "id": id, "delta": delta}:
                next(p for p in steps[-1] if p[2] == id)[1] += delta
            case {"type": "tool-input-available", "toolName": name, "toolCallId": id}:
                steps[-1] = [p for p in steps[-1] if p[2] != id] + [[name, "called", id]]
            case {
                "type": "tool-output-available" | "tool-output-error" | "tool-output-denied" | "tool-approval-request" as kind,
                "toolCallId": id,
            }:
                next(p for s in steps for p in s if p[2] == id)[1] = kind.removeprefix("tool-")
    return [[(kind, text.strip()) for kind, text, _ in s] for s in steps if s]


@pytest.mark.parametrize("name", SCENES)
def test_every_aisdk_stream_ends_with_done_unless_it_is_cut(name: str) -> None:
    events = [e["data"] for e in recorded(name, "aisdk")]
    assert events[-1] == "[DONE]"
    assert events[0]["type"] == "start"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("retried", [[("text", "First this.")], [("reasoning", "Attempt 2."), ("text", "Now the rest.")]]),
        ("died", [[("text", "First this.")], [("reasoning", "Hm"), ("text", "Half of it.")]]),
        ("lost", [[("text", "First this.")], [("reasoning", "Hm"), ("text", "Half of it.")]]),
        ("approved", [[("delete", "output-available")], [("text", "14 gone")]]),
        ("reopened", [[("delete", "output-available")], [("text", "14 gone")]]),
        ("denied", [[("delete", "output-denied")], [("text", "Nothing was deleted: too many.")]]),
    ],
)  # fmt: skip
def test_an_aisdk_page_shows_everything_once(name: str, shown: Any) -> None:
    chunks = [e["data"] for e in recorded(name, "aisdk")]
    assert message(chunks)[: len(shown)] == shown


async def test_an_aisdk_stream_says_what_it_is(forward: Any) -> None:
    reader: Reader = await SCENES["finish"]("aisdk", forward)
    assert {h["x-vercel-ai-ui-message-stream"] for h in reader.headers} == {"v1"}
    assert all(h["content-type"].startswith("text/event-stream") for h in reader.headers)


def test_a_round_is_one_message() -> None:
    def ids(name: str) -> list[str]:
        return [e["data"]["messageId"] for e in recorded(name, "aisdk") if e["data"] != "[DONE]" and e["data"]["type"] == "start"]

    assert ids("approved") == ["r:0", "r:0"]
    assert ids("second_round") == ["r:0", "r:1"]
    assert ids("died") == ["r:0"]
