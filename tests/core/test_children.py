"""What a run's account says of the runs it has started: lent, spent, given back, and taken down with it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from steprelay.core import codec, machine
from steprelay.core.errors import Transient
from steprelay.core.model import Limits, Outgoing, Reply, Tally, Usage
from steprelay.core.noun import replace
from steprelay.testing.fakes import virtual
from steprelay.testing.stage import Stage

SPAWN = Reply(then="wait", needs=("c1", "c2"), reason="child", children={"c1": {"steps": 4, "tokens": 300}, "c2": {"steps": 3}})


def report(child: str, steps: int = 2, tokens: int = 100, **more: Any) -> dict[str, Any]:
    usage = codec.plain(Usage(requests=1, input_tokens=tokens, usd=0.25))
    return {"id": child, "status": "COMPLETED", "output": child, "usage": usage, "steps": steps, **more}


async def tally(stage: Stage) -> Tally:
    return codec.tally((await stage.run()).tally)


async def outbox(stage: Stage) -> list[Outgoing]:
    return await stage.store.inner.read(stage.key, "outbox")


@virtual
async def test_what_is_lent_is_gone_until_the_child_ends_then_what_it_spent_is_ours() -> None:
    stage = Stage(SPAWN, Reply(then="finish"), limits={"steps": 10, "tokens": 1000})
    await stage.advance()
    assert machine.left(await tally(stage), Limits(steps=10, tokens=1000)) == {"steps": 10 - 1 - 7, "tokens": 700}
    for child in ("c1", "c2"):
        await stage.signal("child", report(child), request_id=f"{child}.1")
    await stage.until_quiet()
    assert stage.agent.turns[1].left == {"steps": 10 - 1 - 4, "tokens": 800}
    after = await tally(stage)
    assert (after.children, after.steps) == ({}, 5)
    assert (after.total.tokens, after.total.usd, after.total.requests) == (200, 0.5, 2)


@virtual
async def test_a_child_is_settled_once_however_often_it_reports() -> None:
    stage = Stage(SPAWN, Reply(then="finish"))
    await stage.advance()
    for n in range(3):  # its first round, and rounds that others had with it later
        await stage.signal("child", report("c1", n=n), request_id=f"c1.{n}")
    await stage.signal("child", report("stranger"), request_id="s.0")
    await stage.advance()
    assert (await tally(stage)).total.tokens == 100
    assert set((await tally(stage)).children) == {"c2"}


@virtual
async def test_news_that_were_waited_for_are_told_to_one_step_though_it_had_to_be_tried_again() -> None:
    script = (SPAWN, Transient("a provider's hiccup"), Transient("another"), Reply(), Reply(then="finish"))
    stage = Stage(*script, limits={"steps": 30, "tokens": 1000, "repeats": None})
    await stage.advance()
    for child in ("c1", "c2"):
        await stage.signal("child", report(child), request_id=f"{child}.1")
    await stage.until_quiet()
    told = [[m.id for m in turn.inbox] for turn in stage.agent.turns]
    assert told == [[], ["c1", "c2"], ["c1", "c2"], ["c1", "c2"], []]


@virtual
async def test_a_dead_attempt_does_not_settle_twice() -> None:
    stage = Stage(SPAWN, OSError("first try"), Reply(then="finish"))
    await stage.advance()
    for child in ("c1", "c2"):
        await stage.signal("child", report(child), request_id=child)
    await stage.until_quiet()
    assert (await tally(stage)).total.tokens == 200


@virtual
async def test_the_end_of_a_cancelled_run_reaches_the_children_still_under_way() -> None:
    stage = Stage(SPAWN)
    await stage.advance()
    await stage.signal("child", report("c1"), request_id="c1")
    await stage.signal("cancel")
    await stage.advance(carrier=None)
    (cancel,) = await outbox(stage)
    assert (cancel.kind, cancel.target, codec.loads(cancel.body)["kind"]) == ("signal", "c2", "cancel")
    await stage.signal("child", report("c2", status="CANCELLED"), request_id="c2")
    await stage.signal("resume")
    await stage.advance()
    assert (await tally(stage)).total.tokens == 200, "what the cancelled child had spent is not forgotten"


@virtual
async def test_children_outlive_a_run_that_is_content() -> None:
    stage = Stage(replace(SPAWN, then="finish", needs=()))
    await stage.until_quiet()
    assert await outbox(stage) == []


@virtual
async def test_a_wait_that_ran_out_takes_the_children_with_it() -> None:
    stage = Stage(replace(SPAWN, after=30.0))
    await stage.until_quiet()
    assert (await stage.run()).stop_reason == "expired"
    assert {o.target for o in await outbox(stage)} == {"c1", "c2"}


@virtual
async def test_a_child_tells_its_parent_what_it_spent_and_a_fork_tells_nobody() -> None:
    stage = Stage(Reply(usage=Usage(requests=1, input_tokens=7)), Reply(then="finish", output="so"))
    stage.new = replace(stage.new, parent='{"id":"me","run":"above"}')
    await stage.until_quiet()
    (told,) = await outbox(stage)
    body = codec.loads(told.body)["body"]
    assert (told.target, body["id"], body["output"], body["steps"]) == ("above", "me", "so", 1)
    assert codec.build(Usage, body["usage"]).tokens == 7
    fork = Stage(Reply(then="finish"))
    fork.new = replace(fork.new, parent='{"kind":"fork","run":"above","step":2}')
    await fork.until_quiet()
    assert await outbox(fork) == []


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 500), st.booleans()), max_size=12),
    st.integers(0, 20),
    st.integers(0, 900),
)
@settings(max_examples=60, deadline=None)
def test_the_sums_add_up_whoever_reports_in_whatever_order(
    children: list[tuple[int, int, bool]], steps: int, tokens: int
) -> None:
    """spent + lent + left is the limit at every moment, and what is spent is what everybody together has spent."""
    limits = Limits(steps=10_000, tokens=1_000_000)
    account = Tally(steps=steps, round=Usage(input_tokens=tokens), total=Usage(input_tokens=tokens))
    account = replace(account, children={str(n): {"steps": s, "tokens": t} for n, (s, t, _) in enumerate(children)})
    for n, (s, t, reports) in enumerate(children):
        for _ in range(2 if reports else 0):
            account = machine._settled(account, report(str(n), steps=s // 2, tokens=t // 2))
        rest = machine.left(account, limits)
        lent = account.children.values()
        assert rest["steps"] + account.steps + sum(c["steps"] for c in lent) == limits.steps
        assert rest["tokens"] + account.round.tokens + sum(c["tokens"] for c in lent) == limits.tokens
    assert account.total.tokens == tokens + sum(t // 2 for _, t, reports in children if reports)
    assert account.steps == steps + sum(s // 2 for s, _, reports in children if reports)


@virtual
async def test_a_child_that_cannot_be_read_any_more_still_tells_its_parent() -> None:
    for parent, heard in (('{"id":"me","run":"above"}', ["above"]), ("[[", [])):
        stage = Stage(Reply())
        stage.new = replace(stage.new, parent=parent)
        await stage.advance()
        rows = stage.store.inner._runs[stage.key]
        rows.run = replace(rows.run, tally="[]")
        await stage.advance()
        assert (await stage.run()).stop_reason == "state_invalid"
        assert [o.target for o in await outbox(stage)] == heard
