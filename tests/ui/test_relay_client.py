"""The relay client and the rules of the picture, in the browser they run in, against answers written here."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from desk import Desk

pytestmark = pytest.mark.asyncio(loop_scope="session")

DRIVE = """
async ({script, next, drops}) => {
  const {Api} = await import('/api.js'), {relay} = await import('/relay.js');
  const asked = [], told = [], waits = [], life = new AbortController();
  const fetch = async (url, init) => {
    asked.push([JSON.parse(init.body).expectedStep, init.headers.accept]);
    const a = script.shift();
    if (!a) { life.abort(); throw new TypeError('no more answers'); }
    if (a.network) throw new TypeError('Failed to fetch');
    const cut = a.cut ? a.body.slice(0, a.cut) : a.body;
    return new Response(cut, {status: a.status ?? 200, headers: {'content-type': 'text/event-stream', ...a.headers}});
  };
  const wait = async (s) => { waits.push(s); };
  let ended;
  try {
    ended = await relay({api: new Api('/api/', fetch), id: 'r', next, signal: life.signal, wait,
      drop: () => drops-- > 0, tell: (e) => told.push(e.type)});
  } catch (e) { ended = `${e.constructor.name} ${e.status}`; }
  return {ended, asked: asked.map((a) => a[0]), accept: asked[0][1], told, waits};
}
"""


def envelope(step: int, status: str = "CONTINUE", action: str = "pulse", after: int = 0) -> str:
    done = "true" if status in ("COMPLETED", "ERROR", "CANCELLED") else "false"
    data = (
        f'{{"sessionId":"r","status":"{status}","isTerminal":{done},"step":{step},'
        f'"next":{{"action":"{action}","afterMs":{after}}}}}'
    )
    return f': hello\n\nevent: part\nid: {step}.1.0\ndata: {{"part":{{"type":"text",\ndata: "text":"é"}}}}\n\nevent: envelope\ndata: {data}\n\n'


def ok(step: int, **more: Any) -> dict[str, Any]:
    return {"body": envelope(step, **more)}


END = {"body": envelope(9, "COMPLETED", "none")}


async def drive(desk: Desk, *script: dict[str, Any], next: int = 0, drops: int = 0) -> Any:
    await desk.home()
    return await desk.page.evaluate(DRIVE, {"script": list(script), "next": next, "drops": drops})


async def test_one_request_after_another_without_a_wait(desk: Desk) -> None:
    seen = await drive(desk, ok(0), ok(1), END)
    assert seen["ended"] == "done"
    assert seen["asked"] == [0, 1, 2]
    assert seen["waits"] == []
    assert seen["accept"] == "text/event-stream"
    assert seen["told"] == ["asked", "part", "answered"] * 3


async def test_a_broken_connection_repeats_the_same_step(desk: Desk) -> None:
    cut = {**ok(1), "cut": len(envelope(1)) - 1}  # all but the last byte: not an answer
    seen = await drive(
        desk,
        ok(0),
        {"network": True},
        cut,
        {"status": 503, "body": "{}"},
        {**ok(1), "headers": {"Idempotent-Replayed": "true"}},
        END,
    )
    assert seen["asked"] == [0, 1, 1, 1, 1, 2]
    assert seen["told"].count("lost") == 3
    assert "replayed" in seen["told"]
    assert all(0 < s <= 3.3 for s in seen["waits"])


async def test_retry_after_is_obeyed_and_busy_asks_again_for_the_same_step(desk: Desk) -> None:
    busy = {"status": 202, "body": envelope(0, action="wait", after=7000), "headers": {"Retry-After": "7"}}
    seen = await drive(desk, ok(0), busy, {"status": 429, "body": "{}", "headers": {"Retry-After": "3"}}, END)
    assert seen["asked"] == [0, 1, 1, 1]
    assert seen["waits"] == [7, 3]
    assert "busy" in seen["told"]


async def test_a_wait_is_waited_for(desk: Desk) -> None:
    seen = await drive(desk, ok(0, status="WAITING", action="wait", after=1500), END)
    assert (seen["waits"], seen["asked"]) == ([1.5], [0, 1])


async def test_input_and_moved_runs_end_the_drive(desk: Desk) -> None:
    assert (await drive(desk, ok(0, status="AWAITING_INPUT", action="input")))["ended"] == "input"
    assert (await drive(desk, ok(0, action="none")))["ended"] == "moved"


async def test_what_cannot_be_retried_is_not(desk: Desk) -> None:
    seen = await drive(desk, {"status": 404, "body": "{}"})
    assert (seen["ended"], seen["asked"]) == ("Problem 404", [0])


async def test_another_step_than_expected_is_followed(desk: Desk) -> None:
    body = (
        '{"status":409,"runStatus":"CONTINUE","sessionId":"r","isTerminal":false,"step":4,"next":{"action":"pulse","afterMs":0}}'
    )
    seen = await drive(desk, {"status": 409, "body": body}, END, next=2)
    assert seen["asked"] == [2, 5]


async def test_a_dropped_answer_is_asked_for_again(desk: Desk) -> None:
    seen = await drive(desk, ok(0), {**ok(0), "headers": {"Idempotent-Replayed": "true"}}, END, drops=1)
    assert seen["asked"] == [0, 0, 1]
    assert seen["told"][2:6] == ["dropped", "asked", "part", "replayed"]


async def test_events_survive_any_cut_of_the_stream(desk: Desk) -> None:
    await desk.home()
    cuts = await desk.page.evaluate(
        """async (text) => {
          const {events} = await import('/sse.js'), bytes = new TextEncoder().encode(text), seen = [];
          for (let cut = 1; cut < bytes.length; cut++) {
            const body = new ReadableStream({start(c) { c.enqueue(bytes.slice(0, cut)); c.enqueue(bytes.slice(cut)); c.close(); }});
            const all = [];
            for await (const e of events(body)) all.push([e.event, e.id, e.data]);
            seen.push(JSON.stringify(all));
          }
          return [...new Set(seen)];
        }""",
        "id: 1\r\ndata: a\r\ndata:b\r\n\r\n: ping\n\nevent: é\nid: 2\ndata:  c\n\nevent: cut\ndata: off",
    )
    assert cuts == ['[["message","1","a\\nb"],["é","2"," c"]]']


# ---------------------------------------------------------------- what is counted


COUNT = """
async ({rows, run, facts}) => {
  const {counted} = await import('/history.js');
  const steps = rows.map(([index, attempt, requests]) => ({index, attempt, usage: {requests}}));
  return counted({usage: {}, step: rows.length, ...run}, steps, {replays: [], again: 0, changed: 0, ...facts});
}
"""
FINE = {"lost": 0, "doubled": 0, "again": 0}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"rows": [[0, 1, 1], [1, 2, 1]]}, {"steps": 2, "deaths": 1, "answers": 0, **FINE}),
        ({"rows": [[0, 1, 1], [2, 1, 1]]}, {"steps": 2, "deaths": 0, "answers": 0, **FINE, "lost": 1}),
        ({"rows": [[0, 1, 1], [0, 1, 1]]}, {"steps": 1, "deaths": 0, "answers": 0, **FINE, "doubled": 1}),
        ({"rows": [[0, 1, 1]], "facts": {"changed": 1}}, {"steps": 1, "deaths": 0, "answers": 0, **FINE, "doubled": 1}),
        ({"rows": [[0, 1, 1]], "facts": {"replays": [0, 0]}}, {"steps": 1, "deaths": 0, "answers": 2, **FINE}),
        ({"rows": [[0, 1, 1]], "run": {"usage": {"requests": 2}}}, {"steps": 1, "deaths": 0, "answers": 0, **FINE, "again": 1}),
        ({"rows": [[0, 2, 1]], "run": {"usage": {"requests": 2}}}, {"steps": 1, "deaths": 1, "answers": 0, **FINE}),
    ],
)  # fmt: skip
async def test_the_counted_line_finds_what_is_wrong(desk: Desk, given: dict[str, Any], found: dict[str, int]) -> None:
    await desk.home()
    assert await desk.page.evaluate(COUNT, {"run": {}, "facts": {}, **given}) == found


TRACK = """
async ({rows, room}) => {
  const {layout} = await import('/track.js');
  const steps = rows.map(([index, carrier, claimedAt, committedAt, attempt = 1, status = 'RUNNING']) =>
    ({index, carrier, claimedAt, committedAt, attempt, status, parts: []}));
  const plan = layout({carrier: rows.at(-1)[1], createdAt: 0, step: rows.length, attempts: 0}, steps, null, 100, {room});
  return {...plan, lanes: plan.lanes.map((l) => l.name)};
}
"""


async def test_the_track_shows_legs_deaths_and_batons(desk: Desk) -> None:
    await desk.home()
    rows = [
        [0, "client", 0, 4],
        [1, "client", 4, 5],
        [2, "background", 5, 9],
        [3, "background", 24, 26, 2],
        [4, "temporal", 26, 27],
    ]
    plan = await desk.page.evaluate(TRACK, {"rows": rows, "room": 2000})
    assert plan["lanes"] == ["Browser", "Background", "Temporal"]
    kinds = [s["kind"] for s in plan["shapes"]]
    assert kinds == ["step", "step", "baton", "step", "dead", "lease", "hop", "step", "baton", "step"]
    blocks = [s for s in plan["shapes"] if s["kind"] == "step"]
    assert [b["index"] for b in blocks] == [0, 1, 2, 3, 4]
    assert all(a["x"] + a["w"] <= b["x"] for a, b in pairwise(blocks))  # time runs to the right
    assert blocks[0]["w"] > blocks[1]["w"]  # longer is wider
    assert plan["shapes"][5]["text"] == "15 s"  # what the death cost


async def test_a_long_track_is_squeezed_before_it_scrolls(desk: Desk) -> None:
    await desk.home()
    rows = [[i, "client", i * 30, i * 30 + 25] for i in range(10)]
    wide = await desk.page.evaluate(TRACK, {"rows": rows, "room": 5000})
    tight = await desk.page.evaluate(TRACK, {"rows": rows, "room": 800})
    assert tight["width"] <= 800 < wide["width"]
    assert [s["kind"] for s in tight["shapes"]] == [s["kind"] for s in wide["shapes"]]
