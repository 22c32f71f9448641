"""What is Temporal's own: its workflow's life and history, cancels from its side, workers that come and go, its settings.

What every engine has to do is in the driver suite.
"""

from __future__ import annotations

import ast
import asyncio
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import is_cancelled_exception
from temporalio.worker import Replayer

from steprelay.app import App
from steprelay.core import codec
from steprelay.core.errors import ConfigError, StoreUnavailable
from steprelay.core.model import End, Interrupt, Limits, Reply, RunKey, Signal, Text
from steprelay.drivers import temporal, temporal_relay
from steprelay.drivers.leg import Leg
from steprelay.drivers.temporal import Relay, Temporal, workflow_id
from steprelay.drivers.temporal_relay import CHAIN
from steprelay.testing.engines import engine
from steprelay.testing.fakes import ScriptedAgent
from steprelay.testing.servers import free_port

ON = Reply(messages=("on",))
END = Reply(then="finish", output="over")
WORDS = "the number of the card is 4929"

pytestmark = [pytest.mark.engines("temporal"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def queue(monkeypatch):
    """The server's address, and a queue of its own for each test."""
    monkeypatch.setenv("STEPRELAY_TEMPORAL", engine("temporal").url)
    monkeypatch.setenv("TEMPORAL_TASK_QUEUE", name := uuid4().hex)
    return name


class Carried:
    """An app, a run of it that Temporal carries, and that run's workflow."""

    def __init__(self, app, key, client) -> None:
        self.app, self.key, self.client = app, key, client
        self.driver = app.orchestrator("temporal")
        self.workflow = client.get_workflow_handle(workflow_id(key))

    async def start(self) -> None:
        await self.app.start(WORDS, id=self.key.id, carrier="temporal")

    async def run(self):
        return (await self.app.store.read(self.key, "run"))[0]

    async def steps(self):
        return await self.app.store.read(self.key, "steps", limit=1000)

    async def until(self, true, seconds=45.0):
        """Wait until the run is as wished."""
        end = time.monotonic() + seconds
        while not true(run := await self.run()):
            assert time.monotonic() < end, f"it is {run.status} at step {run.step}"
            await asyncio.sleep(0.02)
        return run

    async def ended(self):
        return await self.until(lambda run: run.ended)

    async def prompt(self, words) -> None:
        await self.app.store.signal(self.key, Signal(kind="prompt", body=codec.dumps(words), reopens=True))
        await self.app.wakers.wake(self.key, "temporal")


@asynccontextmanager
async def carried(*script, **options):
    """The app with its worker; the run is not there yet."""
    options = {"lease": 2.0, "observer": None, "limits": Limits(steps=None, repeats=None)} | options
    app = App(ScriptedAgent(script), store="memory:", auth=False, **options)
    client = await Client.connect(engine("temporal").url)
    try:
        async with working(app.orchestrator("temporal")):
            yield Carried(app, RunKey("default", uuid4().hex), client)
    finally:
        await app.shutdown()


@asynccontextmanager
async def working(driver):
    """A worker, for as long as this lasts. Raises what it raises at its start."""
    ready = asyncio.Event()
    work, waiting = asyncio.create_task(driver.work(ready.set)), asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        yield
    finally:
        waiting.cancel()
        work.cancel()
        await asyncio.gather(work, waiting, return_exceptions=True)


# ---------------------------------------------------------------- the life of a workflow


async def test_one_workflow_lives_for_a_run_however_often_it_is_woken():
    question = Reply(then="ask", interrupts=(Interrupt(id="q", kind="question", prompt="Well?"),))
    async with carried(question, END) as it:
        await it.start()
        await it.until(lambda run: run.status == "AWAITING_INPUT")
        first = (await it.workflow.describe()).run_id
        await asyncio.gather(*(it.app.wakers.wake(it.key, "temporal") for _ in range(20)))
        assert (await it.workflow.describe()).run_id == first
        answer = codec.dumps({"id": "q", "status": "resolved", "payload": "Yes"})
        await it.app.store.signal(it.key, Signal(kind="answer", body=answer, request_id="answer:q"))
        await it.app.wakers.wake(it.key, "temporal")
        assert (await it.ended()).status == "COMPLETED"
        await it.workflow.result()
        assert (await it.workflow.describe()).run_id == first
        assert {s.carrier for s in await it.steps()} == {"temporal"}


async def test_a_kick_that_comes_while_the_workflow_ends_is_not_lost():
    rounds, tasks = 25, set()

    def observe(event) -> None:
        """The next prompt comes in the moment in which a round ends."""
        if event["event"] == "step" and len(tasks) < rounds:
            tasks.add(asyncio.create_task(it.prompt(len(tasks))))

    async with carried(END, observer=observe) as it:
        await it.start()
        await it.until(lambda run: run.ended and run.round == rounds)


async def test_a_long_run_goes_on_as_a_new_workflow_and_every_history_can_be_replayed(monkeypatch):
    monkeypatch.setattr(temporal, "SPAN", 0.0)
    steps = CHAIN + 5
    async with carried(*[ON] * (steps - 1), END) as it:
        await it.start()
        assert (await it.until(lambda run: run.ended, 100)).step == steps
        await it.workflow.result()
        last = await it.workflow.describe()
        history = await it.workflow.fetch_history()
        first = history.events[0].workflow_execution_started_event_attributes.first_execution_run_id
        assert first != last.run_id
        chain = it.client.get_workflow_handle(workflow_id(it.key), run_id=first)
        assert (await chain.describe()).status == WorkflowExecutionStatus.CONTINUED_AS_NEW
        before = await chain.fetch_history()
        assert len(before.events) < 7 * CHAIN
        await Replayer(workflows=[Relay]).replay_workflow(before)
        await Replayer(workflows=[Relay]).replay_workflow(history)
        requests = [s.request.id for s in await it.steps()]
        assert len(set(requests)) == steps
        assert {r.partition("/")[0] for r in requests} == {first, last.run_id}


async def test_temporal_is_told_nothing_that_was_said():
    async def talks(turn, ctx):
        ctx.emit(Text(text=WORDS, delta=True))
        return Reply(then="finish", output=WORDS, messages=(WORDS,)) if turn.step == 2 else Reply(messages=(WORDS,))

    async with carried(talks) as it:
        fail = it.driver._leg.take

        async def fails_once(*args, **options):
            monkey.undo()
            raise KeyError(WORDS)

        with pytest.MonkeyPatch.context() as monkey:
            monkey.setattr(it.driver._leg, "take", fails_once)
            await it.start()
            assert (await it.ended()).status == "COMPLETED"
        assert it.driver._leg.take == fail
        await it.workflow.result()
        told = (await it.workflow.fetch_history()).to_json()
        assert "KeyError" in told, "the failure has to be seen, without its words"
        assert "4929" not in told


# ---------------------------------------------------------------- cancels from Temporal's side


async def hangs(turn, ctx):
    ctx.emit(Text(text="as far as I came", delta=True))
    await asyncio.Event().wait()


async def test_a_step_under_way_hears_a_cancel_of_its_workflow_and_keeps_what_it_said():
    async with carried(hangs) as it:
        await it.start()
        await it.until(lambda run: run.tail and "far" in run.tail)
        await it.workflow.cancel()
        assert (await it.ended()).status == "CANCELLED"
        parts = [p for s in await it.steps() for p in codec.parts_from(s.parts)]
        assert [p.text for p in parts if isinstance(p, Text)] == ["as far as I came"]
        assert [p.status for p in parts if isinstance(p, End)] == ["CANCELLED"]
        await was_cancelled(it)


@pytest.mark.parametrize(
    "waits",
    [
        Reply(then="wait", after=3600.0),
        Reply(then="ask", interrupts=(Interrupt(id="q", kind="question", prompt="Well?"),)),
    ],
    ids=["timer", "question"],
)  # fmt: skip
async def test_a_run_that_waits_ends_when_its_workflow_is_cancelled(waits):
    async with carried(waits) as it:
        await it.start()
        await it.until(lambda run: run.step == 1)
        await it.workflow.cancel()
        assert (await it.ended()).status == "CANCELLED"
        await was_cancelled(it)


async def test_a_cancel_that_comes_while_an_activity_ends_is_heard():
    async def cancels_itself(turn, ctx):
        await it.workflow.cancel()
        return Reply(then="wait", after=3600.0)

    for _ in range(5):
        async with carried(cancels_itself) as it:
            await it.start()
            assert (await it.ended()).status == "CANCELLED"
            await was_cancelled(it)


async def was_cancelled(it) -> None:
    with pytest.raises(WorkflowFailureError) as failure:
        await it.workflow.result()
    assert is_cancelled_exception(failure.value.cause)


async def test_after_an_operator_terminated_the_workflow_a_wake_begins_anew():
    async with carried(Reply(then="wait", after=3600.0), END) as it:
        await it.start()
        await it.until(lambda run: run.step == 1)
        await it.workflow.terminate()
        await it.app.store.signal(it.key, Signal(kind="cancel"))
        await it.app.wakers.wake(it.key, "temporal")
        assert (await it.ended()).status == "CANCELLED"


# ---------------------------------------------------------------- workers


async def test_a_worker_that_is_told_to_end_hands_its_step_to_the_next_at_once():
    begun, over = asyncio.Event(), asyncio.Event()

    async def first_hangs(turn, ctx):
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return END

    def observe(event) -> None:
        if event["event"] == "step":
            over.set()

    app = App(ScriptedAgent([first_hangs]), store="memory:", auth=False, observer=observe, lease=600)
    key = RunKey("default", uuid4().hex)
    one, two = (Temporal(engine("temporal").url, Leg(app.loop, app.outbox.deliver)) for _ in "12")
    async with working(one):
        await app.start(WORDS, id=key.id, carrier="temporal")
        await begun.wait()
    async with working(two), asyncio.timeout(30):
        await over.wait()
    assert (await app.store.read(key, "run"))[0].status == "COMPLETED"
    await app.shutdown()


async def test_a_store_that_is_away_is_asked_again():
    async with carried(ON, END, lease=0.5) as it:
        await it.start()
        claim, refused = it.app.store.claim, []

        async def away(*args, **options):
            if len(refused) < 8:
                refused.append(1)
                raise StoreUnavailable("gone")
            return await claim(*args, **options)

        with pytest.MonkeyPatch.context() as monkey:
            monkey.setattr(it.app.store, "claim", away)
            await it.prompt("more")
            assert (await it.until(lambda run: run.ended and len(refused) == 8)).status == "COMPLETED"


async def test_a_run_of_another_tenant_on_the_same_queue_is_refused_for_good(queue):
    async with carried(END) as it:
        await it.client.start_workflow(Relay.run, {"tenant": "other", "run": "r"}, id=uuid4().hex, task_queue=queue)
        key = RunKey("other", uuid4().hex)
        await it.driver.wake(key, "temporal")
        with pytest.raises(WorkflowFailureError) as failure:
            await it.client.get_workflow_handle(workflow_id(key)).result()
        assert failure.value.cause.cause.type == "ConfigError"


# ---------------------------------------------------------------- settings


async def test_a_server_that_is_not_there_is_told_with_the_remedy():
    leg = Leg(None, None)
    driver = Temporal(f"127.0.0.1:{free_port()}", leg)
    with pytest.raises(StoreUnavailable, match="no Temporal server answers"):
        await driver.wake(RunKey("default", "r"), "temporal")
    with pytest.raises(ConfigError, match="STEPRELAY_TEMPORAL"):
        await driver.work()


async def test_temporals_own_variables_are_heeded(monkeypatch):
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "nowhere")
    driver = Temporal(engine("temporal").url, Leg(None, None))
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await driver.wake(RunKey("default", "r"), "temporal")
    with pytest.raises(ConfigError, match="TEMPORAL_NAMESPACE"):
        await driver.work()
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", __file__)
    with pytest.raises(ConfigError, match="TEMPORAL_"):
        await Temporal(engine("temporal").url, Leg(None, None)).work()


def test_a_workflow_id_is_of_one_run_alone():
    assert workflow_id(RunKey("a", "b/c")) != workflow_id(RunKey("a/b", "c"))


def test_the_workflows_module_imports_temporal_alone():
    imported = [
        n for n in ast.walk(ast.parse(Path(temporal_relay.__file__).read_text())) if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    modules = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imported}
    assert {m.partition(".")[0] for m in modules} - set(sys.stdlib_module_names) == {"temporalio"}
    assert not any(isinstance(n, ast.ImportFrom) and n.level for n in imported)
