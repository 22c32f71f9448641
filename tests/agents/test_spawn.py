"""Tools that start runs: their output is the tool's result, once, whatever dies on the way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spawn_worker
from models import Script, call, look, results
from pydantic_ai import Agent, ApprovalRequired, RunContext
from pydantic_ai.messages import ModelRequest, ToolReturnPart

from steprelay import AgentError, App, Limits, Reply, Usage
from steprelay.agents.pydantic_ai import delegate, spawn
from steprelay.core import codec
from steprelay.core.model import Filter, Outgoing, Result, Run, RunKey, Signal
from steprelay.ports import Waker
from steprelay.stores.memory import MemoryStore
from steprelay.stores.sqlite import SQLiteStore


class Silent(Waker):
    """Wakes nobody."""

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        pass


async def work(turn: Any, ctx: Any) -> Any:
    if turn.fresh:
        return Reply(usage=Usage(requests=1, input_tokens=10, usd=0.01))
    return Reply(then="finish", output=str(turn.prompt).upper(), usage=Usage(requests=1, output_tokens=5, usd=0.01))


async def breaks(turn: Any, ctx: Any) -> Any:
    raise AgentError("no luck", final=True)


def lead(*turns: Any, tools: Any = (), **options: Any) -> Agent[Any, Any]:
    """An agent whose tools start runs: `one(task)`, `several(tasks)`."""
    agent = Agent(Script(*turns).model, tools=tools, **options)

    @agent.tool_plain
    def one(task: str, by: str = "work", steps: int = 3) -> Any:
        return spawn(task, agent=by, limits={"steps": steps})

    @agent.tool_plain
    async def several(tasks: list[str], by: list[str]) -> Any:
        return [spawn(t, agent=b, limits={"steps": 2}) for t, b in zip(tasks, by, strict=True)]

    return agent


def an_app(agent: Any, *, quiet: bool = False, **agents: Any) -> App:
    named = {"lead": agent, "work": work, "breaks": breaks, **agents}
    return App(named, store=MemoryStore(), auth=False, observer=None, **({"waker": Silent()} if quiet else {}))


async def result(app: App, prompt: str = "go", **options: Any) -> Any:
    found = await asyncio.wait_for(app.result(await app.start(prompt, **options)), 30)
    await app.shutdown()
    return found.strip()  # the model streams each word with a space


async def row(app: App, id: str) -> Run:
    (found,) = await app.store.read(RunKey(app.tenant, id), "run")
    return found


async def children(app: App, id: str) -> list[Run]:
    return [await row(app, c) for c in codec.tally((await row(app, id)).tally).children]


async def carried(app: App, *ids: str) -> None:
    for id in ids:
        await app.carry(RunKey(app.tenant, id), "background")


def told(messages: Any, _: Any = None) -> str:
    return str(
        [
            (p.content, p.outcome)
            for m in messages
            if isinstance(m, ModelRequest)
            for p in m.parts
            if isinstance(p, ToolReturnPart)
        ]
    )


# ---------------------------------------------------------------- results


async def test_what_a_child_answers_is_what_the_tool_answers() -> None:
    app = an_app(lead([call("one", "c1", task="tea")], lambda m, _: f"it said {results(m)}"))
    assert await result(app) == "it said ['TEA']"


async def test_children_of_one_response_work_at_once_and_beside_other_tools() -> None:
    meeting = asyncio.Barrier(2)

    async def meets(turn: Any, ctx: Any) -> Any:
        async with asyncio.timeout(20):
            await meeting.wait()
        return turn.prompt

    calls = [call("one", "c1", task="a", by="meets"), call("look", "c2"), call("one", "c3", task="b", by="meets")]
    app = an_app(lead(calls, told, tools=[look]), meets=meets)
    said = await result(app)
    assert sorted(eval(said)) == [("a", "success"), ("b", "success"), ("seen", "success")]


async def test_several_runs_of_one_call_answer_as_a_list_in_their_order() -> None:
    calls = [call("several", "c1", tasks=["a", "b", "c"], by=["work", "breaks", "work"])]
    app = an_app(lead(calls, lambda m, _: str(results(m)[0])))
    assert eval(await result(app)) == ["A", {"error": "The run that was to do this ended FAILED: no luck"}, "C"]


async def test_a_child_that_fails_fails_the_call_and_the_model_is_told_why() -> None:
    calls = [call("one", "c1", task="x", by="breaks"), call("several", "c2", tasks=["y"] * 2, by=["breaks"] * 2)]
    said = await result(an_app(lead(calls, told)))
    assert eval(said) == [("The run that was to do this ended FAILED: no luck", "failed")] * 2


async def test_a_toolset_hands_tasks_to_agents_by_name() -> None:
    script = Script([call("ask_work", "c1", task="tea")], lambda m, _: str(results(m)))
    agent = Agent(script.model, toolsets=[delegate({"work": "Shouts.", "breaks": "Breaks."}, limits={"steps": 3})])
    assert await result(an_app(agent)) == "['TEA']"
    tools = {t.name: t.description for t in script.sent[0][1].function_tools}
    assert tools == {"ask_work": "Shouts.", "ask_breaks": "Breaks."}


async def test_children_may_be_pydantic_agents_that_start_runs_themselves() -> None:
    top = lead([call("one", "c1", task="x", by="middle", steps=9)], lambda m, _: f"top {results(m)}")
    middle = lead([call("one", "c1", task="tea")], lambda m, _: f"middle {results(m)}")
    assert await result(an_app(top, middle=middle)) == """top ["middle ['TEA'] "]"""


async def test_a_model_that_uses_a_call_id_again_starts_another_child() -> None:
    again = [[call("one", "c1", task=t)] for t in ("a", "b")]
    assert await result(an_app(lead(*again, lambda m, _: str(results(m))))) == "['A', 'B']"


async def test_the_history_shows_one_call_and_one_result() -> None:
    app = an_app(lead([call("one", "c1", task="tea")], "done"))
    run = await app.start("go")
    parts = [p async for p in app.parts(run)]
    assert [(p.name, p.value, p.status) for p in parts if isinstance(p, Result)] == [("one", "TEA", "ok")]
    await app.shutdown()


# ---------------------------------------------------------------- together with people


async def test_who_is_asked_is_asked_while_the_children_work() -> None:
    agent = lead([call("wipe", "c1"), call("one", "c2", task="tea")], told)

    @agent.tool_plain(metadata={"effect": "needs_approval"})
    def wipe() -> str:
        return "wiped"

    app = an_app(agent, quiet=True)
    run = await app.start("go", carrier="background")
    await carried(app, run)
    assert (await row(app, run)).status == "AWAITING_INPUT"
    (child,) = await children(app, run)
    answer = codec.dumps({"id": "c1", "status": "resolved", "payload": {"approved": True}})
    await app.store.signal(RunKey(app.tenant, run), Signal(kind="answer", body=answer, request_id="a"))
    await carried(app, run)
    waits = await row(app, run)
    assert (waits.status, waits.stop_reason) == ("WAITING", "child")
    await carried(app, child.key.id, run)
    ended = await row(app, run)
    assert (ended.status, codec.tally(ended.tally).heard) == ("COMPLETED", {})
    assert eval(await output(app, run)) == [("wiped", "success"), ("TEA", "success")]


async def test_a_child_that_ends_before_the_person_answers_is_not_forgotten() -> None:
    agent = lead([call("wipe", "c1"), call("one", "c2", task="tea")], told)

    @agent.tool_plain(metadata={"effect": "needs_approval"})
    def wipe() -> str:
        return "wiped"

    app = an_app(agent, quiet=True)
    run = await app.start("go", carrier="background")
    await carried(app, run)
    (child,) = await children(app, run)
    await carried(app, child.key.id, run)
    assert (await row(app, run)).status == "AWAITING_INPUT"
    answer = codec.dumps({"id": "c1", "status": "resolved", "payload": {"approved": False, "reason": "no"}})
    await app.store.signal(RunKey(app.tenant, run), Signal(kind="answer", body=answer, request_id="a"))
    await carried(app, run)
    assert (await row(app, run)).status == "COMPLETED"
    assert eval(await output(app, run)) == [("no", "denied"), ("TEA", "success")]
    assert codec.tally((await row(app, run)).tally).heard == {}


async def test_a_tool_that_needs_a_yes_starts_its_run_after_it() -> None:
    agent = Agent(Script([call("hire", "c1")], told).model)

    @agent.tool
    def hire(ctx: RunContext[None]) -> Any:
        if not ctx.tool_call_approved:
            raise ApprovalRequired()
        return spawn("tea", agent="work")

    app = an_app(agent, quiet=True)
    run = await app.start("go", carrier="background")
    await carried(app, run)
    assert (await row(app, run)).status == "AWAITING_INPUT"
    assert len(app.store._runs) == 1  # type: ignore[attr-defined]
    answer = codec.dumps({"id": "c1", "status": "resolved", "payload": {"approved": True}})
    await app.store.signal(RunKey(app.tenant, run), Signal(kind="answer", body=answer, request_id="a"))
    await carried(app, run)
    (child,) = await children(app, run)
    await carried(app, child.key.id, run)
    assert eval(await output(app, run)) == [("TEA", "success")]


async def output(app: App, run: str) -> Any:
    steps = await app.store.read(RunKey(app.tenant, run), "steps")
    found = app.engine.parts("pydantic_ai", steps[-1])[-1].output  # type: ignore[union-attr]
    return found and found.strip()


# ---------------------------------------------------------------- budgets, ends, cancels


async def test_a_childs_budget_is_its_parents_and_comes_back() -> None:
    app = an_app(lead([call("one", "c1", task="a"), call("one", "c2", task="b")], "done"), quiet=True)
    run = await app.start("go", limits=Limits(steps=20, tokens=1000), carrier="background")
    await carried(app, run)
    began = await children(app, run)
    assert [codec.limits(c.limits).steps for c in began] == [3, 3]
    left = codec.tally((await row(app, run)).tally).children
    assert [lent["steps"] for lent in left.values()] == [3, 3]
    await carried(app, *(c.key.id for c in began), run)
    tally = codec.tally((await row(app, run)).tally)
    assert (tally.children, tally.heard) == ({}, {})
    assert tally.total.requests == 2 + 2 * 2, "two model requests of its own, and what the children used"


async def test_more_children_than_can_be_paid_for_are_told_to_the_model_and_none_is_started() -> None:
    calls = [call("one", f"c{n}", task="x", steps=5) for n in range(4)]
    app = an_app(lead(calls, told))
    said = eval(await result(app, limits=Limits(steps=10)))
    assert [status for _, status in said] == ["failed"] * 4
    assert said[0][0].startswith("steps: 9 left is too little for 4 children")
    assert len(app.store._runs) == 1  # type: ignore[attr-defined]


async def test_a_limit_that_does_not_exist_ends_the_run() -> None:
    agent = Agent(Script([call("wrong", "c1")]).model)

    @agent.tool_plain
    def wrong() -> Any:
        return spawn("x", limits={"stepps": 3})

    with pytest.raises(AgentError, match="no limit 'stepps'"):
        await result(an_app(agent))


async def test_cancelling_the_run_cancels_its_children() -> None:
    app = an_app(lead([call("several", "c1", tasks=["a", "b"], by=["work", "work"])]), quiet=True)
    run = await app.start("go", carrier="background")
    await carried(app, run)
    began = await children(app, run)
    await app.store.signal(RunKey(app.tenant, run), Signal(kind="cancel", request_id="stop"))
    await carried(app, run)
    assert [(await row(app, r)).status for r in (run, *(c.key.id for c in began))] == ["CANCELLED"] * 3


async def test_the_last_word_of_a_spent_budget_knows_what_the_children_found() -> None:
    script = Script([call("one", "c1")], told)
    agent = Agent(script.model)

    @agent.tool_plain
    def one() -> Any:
        return spawn("tea", agent="greedy", limits={"steps": 2})

    async def greedy(turn: Any, ctx: Any) -> Any:
        return Reply(then="finish", output="TEA", usage=Usage(requests=1, output_tokens=5000))

    assert eval(await result(an_app(agent, greedy=greedy), limits=Limits(tokens=1000))) == [("TEA", "success")]
    assert script.sent[-1][1].function_tools == [], "this was the last word"


async def test_an_end_that_is_told_twice_is_one_result() -> None:
    app = an_app(lead([call("one", "c1", task="tea")], told), quiet=True)
    run = await app.start("go", carrier="background")
    await carried(app, run)
    (child,) = await children(app, run)
    await carried(app, child.key.id)
    (told_once,) = await app.store.read(RunKey(app.tenant, run), "inbox")
    again = Outgoing(
        kind="signal",
        target=run,
        body=codec.dumps({"kind": "child", "body": codec.loads(told_once.body)}),
        request_id=str(told_once.request_id),
    )
    await app.outbox._send(child.key, again)
    await carried(app, run)
    assert eval(await output(app, run)) == [("TEA", "success")]
    assert codec.tally((await row(app, run)).tally).total.requests == 4


# ---------------------------------------------------------------- a process for each step, some of them killed


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "seed", [pytest.param(0, marks=pytest.mark.slow), *(pytest.param(n, marks=pytest.mark.all) for n in (1, 2, 3))]
)
async def test_with_a_process_for_each_step_and_every_other_killed(seed: int, tmp_path: Path) -> None:
    path, outside = str(tmp_path / "runs.db"), tmp_path / "outside"
    store = SQLiteStore(path)
    app = spawn_worker.an_app(store, outside, waker=Silent())
    run = await app.start("go", agent="lead", carrier="background")
    command = (sys.executable, spawn_worker.__file__, path, str(outside), run, str(seed))
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=160)
    assert done.returncode == 0, done.stderr
    forks, killed = map(int, done.stdout.split())
    ended = await row(app, run)
    said = await output(app, run)
    rows = [r for r in await app.store.read(Filter(tenant=app.tenant), "runs") if r.key != ended.key]
    await store.close()
    assert killed >= 3, forks
    assert (ended.status, said) == ("COMPLETED", f"learned: {[f'{t} is good ' for t in spawn_worker.TOPICS]}")
    assert len(rows) == 3, "a repeated step has started the same children"
    assert {(r.status, r.stop_reason) for r in rows} == {("COMPLETED", "finished")}
    assert len(outside.read_text().splitlines()) <= 3, "each was consulted at most once"
    assert codec.tally(ended.tally).children == {}
