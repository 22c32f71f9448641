"""The contract suite of the Agent port: what an adapter must stand to be one.

An adapter of your own is held to it by one test module; it needs pytest and pytest-asyncio:

    from steprelay.testing.agent_suite import AgentSuite

    class TestMyAdapter(AgentSuite):
        subject = "my_subjects:make"

The module `my_subjects` has `ADAPTER`, the adapter's registered name, and `make(case, outside, version) -> Agent`, which
makes the same small agent in your framework for each case. No model is asked; fake ones do as they are told:

    finish    answers "done"
    pay       calls a `once` tool that answers `outside.effect("pay")`; answers with what it was told about that call
    ask       the same with a `needs_approval` tool and `outside.effect("wipe")`
    together  calls three `read` tools at once, which end only when all three have begun; answers "together"
    talk      says words without end, a piece every few milliseconds, beginning with "word"
    change    calls a `read` tool, then answers f"version {version}"
    many      calls a `read` tool 200 times, one after the other, then answers "done"

Every step is taken in a process of its own over one SQLite file, and any of them is killed (-9). What tools do outside is
counted in a file that no store can tidy up.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

pytest.register_assert_rewrite("steprelay.testing.agent_checks")

from ..core import codec  # noqa: E402
from ..core.machine import interrupts_of  # noqa: E402
from ..core.model import Call, End, Interrupt, Result, Signal, Text  # noqa: E402
from .agent_checks.bench import Bench, Zygote  # noqa: E402

__all__ = ["AgentSuite"]


@pytest.mark.asyncio
class AgentSuite:
    """Give it `subject`."""

    subject: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def zygote(cls) -> Iterator[Zygote]:
        zygote = Zygote(cls.subject)
        yield zygote
        zygote.close()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path

    # ------------------------------------------------------------ steps and processes

    async def test_every_step_in_a_process_of_its_own(self, zygote: Zygote, folder: Path) -> None:
        bench = await _bench(zygote, folder, "pay")
        run = await bench.finish()
        assert (run.status, run.stop_reason) == ("COMPLETED", "finished")
        assert "pay is done" in str(await _output(bench))
        assert bench.outside.count("pay") == 1
        assert [s.index for s in await bench.steps()] == list(range(run.step))

    async def test_history_shows_prompt_call_result_and_end(self, zygote: Zygote, folder: Path) -> None:
        bench = await _bench(zygote, folder, "pay")
        await bench.finish()
        parts = await bench.parts()
        assert [p.text for p in parts if isinstance(p, Text) and p.role == "user"] == ["go"]
        calls, results = [p for p in parts if isinstance(p, Call)], [p for p in parts if isinstance(p, Result)]
        assert len(calls) == len(results) == 1
        assert calls[0].id == results[0].id
        assert (results[0].status, results[0].value) == ("ok", "pay is done")
        assert isinstance(parts[-1], End)

    async def test_tools_of_one_response_run_together(self, zygote: Zygote, folder: Path) -> None:
        bench = await _bench(zygote, folder, "together")
        assert (await bench.finish()).status == "COMPLETED"
        assert await _output(bench) == "together"

    async def test_code_may_change_between_steps(self, zygote: Zygote, folder: Path) -> None:
        bench = await _bench(zygote, folder, "change")
        assert (await bench.step(version=1))["status"] == "RUNNING"
        assert (await bench.finish(version=2)).status == "COMPLETED"
        assert await _output(bench) == "version 2"

    async def test_two_hundred_turns_cost_the_same_bytes_each(self, zygote: Zygote, folder: Path) -> None:
        bench = await _bench(zygote, folder, "many", steps=None, repeats=None)
        for _ in range(20):
            await bench.step(steps=50, lease=10.0)
            if (await bench.row()).ended:
                break
        run, steps = await bench.row(), await bench.steps()
        assert run.status == "COMPLETED"
        assert sum(isinstance(p, Result) for p in await bench.parts()) == 200
        sizes = [sum(map(len, (*s.messages, *s.parts))) for s in steps]
        assert max(sizes[-21:-1]) <= max(sizes[1:21]) + 16, "a step grows with the history"
        assert len(run.state or "") <= 300, "the state grows"
        assert max(len(s.state or "") for s in steps) <= 300

    # ------------------------------------------------------------ kill -9

    async def test_killed_anywhere_the_run_ends_and_a_once_tool_ran_at_most_once(self, zygote: Zygote, folder: Path) -> None:
        whole = await _bench(zygote, folder, "pay")
        length = (await whole.finish()).step
        deaths = 0
        for step in range(length):
            for boundary in range(1, 20):
                bench = await _bench(zygote, folder, "pay")
                for _ in range(step):
                    await bench.step()
                died = "died" in await bench.process(dies=boundary)
                run = await bench.finish() if died or not (await bench.row()).ended else await bench.row()
                where = f"step {step}, boundary {boundary}"
                assert run.status == "COMPLETED", where
                told = str(await _output(bench)).lower()
                ran = bench.outside.count("pay")
                assert ran <= 1, where
                assert ("pay is done" in told and ran == 1) or "unknown" in told, f"{where}: {told}"
                if not died:
                    break
                deaths += 1
        assert deaths >= 4 * length, "there are at least four boundaries in every step"

    async def test_killed_right_after_the_effect_the_model_is_told(self, zygote: Zygote, folder: Path) -> None:
        bench = await _bench(zygote, folder, "pay")
        while "died" not in (done := await bench.step(fatal="pay")):
            assert done["status"] == "RUNNING"
        run = await bench.finish()
        assert run.status == "COMPLETED"
        assert bench.outside.count("pay") == 1
        assert "unknown" in str(await _output(bench)).lower()
        assert "unknown" in [p.status for p in await bench.parts() if isinstance(p, Result)]

    async def test_killed_while_it_talks_another_process_takes_the_same_step(self, zygote: Zygote, folder: Path) -> None:
        bench = await _bench(zygote, folder, "talk")
        pid = await zygote.start(bench.job())
        await bench.until(lambda: _talking(bench))
        os.kill(pid, signal.SIGKILL)
        assert "died" in await zygote.end()
        await bench.until(lambda: _free(bench))
        await bench.store.signal(bench.key, Signal(kind="cancel"))
        await bench.step()
        run = await bench.row()
        assert run.status == "CANCELLED"
        assert run.step == 1, "the dead attempt left no step"

    # ------------------------------------------------------------ people

    async def test_cancel_in_mid_stream_ends_the_run_and_keeps_the_words(self, zygote: Zygote, folder: Path) -> None:
        bench = await _bench(zygote, folder, "talk")
        await zygote.start(bench.job())
        await bench.until(lambda: _talking(bench))
        await bench.store.signal(bench.key, Signal(kind="cancel"))
        assert (await zygote.end())["status"] == "CANCELLED"
        said = [p.text for p in await bench.parts() if isinstance(p, Text) and p.role == "assistant"]
        assert said, "the words are lost"
        assert said[0].startswith("word")
        assert (await bench.process())["refused"] == "ended"

    async def test_an_approved_call_runs_once(self, zygote: Zygote, folder: Path) -> None:
        bench, question = await _asked(zygote, folder)
        await bench.answer(question.id, {"approved": True})
        run = await bench.finish()
        assert run.status == "COMPLETED"
        assert bench.outside.count("wipe") == 1
        assert "wipe is done" in str(await _output(bench))

    async def test_a_refused_call_does_not_run_and_the_model_hears_why(self, zygote: Zygote, folder: Path) -> None:
        bench, question = await _asked(zygote, folder)
        await bench.answer(question.id, {"approved": False, "reason": "not on a Friday"})
        assert (await bench.finish()).status == "COMPLETED"
        assert bench.outside.count("wipe") == 0
        assert "not on a Friday" in str(await _output(bench))
        assert [p.status for p in await bench.parts() if isinstance(p, Result)] == ["denied"]

    async def test_a_question_taken_back_counts_as_no(self, zygote: Zygote, folder: Path) -> None:
        bench, question = await _asked(zygote, folder)
        await bench.answer(question.id, None, status="cancelled")
        assert (await bench.finish()).status == "COMPLETED"
        assert bench.outside.count("wipe") == 0

    async def test_killed_after_the_approved_effect_it_is_not_run_again(self, zygote: Zygote, folder: Path) -> None:
        bench, question = await _asked(zygote, folder)
        await bench.answer(question.id, True)
        assert "died" in await bench.step(fatal="wipe")
        assert (await bench.finish()).status == "COMPLETED"
        assert bench.outside.count("wipe") == 1
        assert "unknown" in str(await _output(bench)).lower()

    async def test_a_second_prompt_goes_on_from_the_first(self, zygote: Zygote, folder: Path) -> None:
        bench = await _bench(zygote, folder, "finish")
        await bench.finish()
        await bench.store.signal(bench.key, Signal(kind="prompt", body=codec.dumps("once more"), reopens=True))
        run = await bench.finish()
        assert (run.status, run.round) == ("COMPLETED", 1)
        said = [p.text for p in await bench.parts() if isinstance(p, Text) and p.role == "user"]
        assert said == ["go", "once more"]


async def _bench(zygote: Zygote, folder: Path, case: str, **limits: object) -> Bench:
    bench = Bench(zygote, folder, case, **limits)
    await bench.store.migrate()
    return bench


async def _asked(zygote: Zygote, folder: Path) -> tuple[Bench, Interrupt]:
    """A run that waits for a person, with its question."""
    bench = await _bench(zygote, folder, "ask")
    run = await bench.finish()
    assert (run.status, run.stop_reason) == ("AWAITING_INPUT", "approval")
    assert bench.outside.count("wipe") == 0
    (question,) = interrupts_of(await bench.steps())
    assert question.kind == "approval"
    return bench, question


async def _output(bench: Bench) -> object:
    return next((p.output for p in reversed(await bench.parts()) if isinstance(p, End)), None)


async def _talking(bench: Bench) -> bool:
    runs = await bench.store.read(bench.key, "run")
    return bool(runs and runs[0].tail and "word" in runs[0].tail)


async def _free(bench: Bench) -> bool:
    from time import time

    return (await bench.row()).lease_until <= time()
