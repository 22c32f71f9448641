"""The workflow that Temporal keeps for a run: who calls again, and when. It knows plain data alone: which run, and what came of
its newest step. All that is true of a run is in our store, so the order of things here decides nothing but time.

It is replayed, so it calls nothing but Temporal and has a module of its own, which its sandbox takes as it is: loaded anew for
each workflow it would bring a second kernel along.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import is_cancelled_exception

CHAIN = 100
"""Activities after which a workflow goes on as a new one: about 600 events, which a worker that takes it over reads in one go."""
SILENCE = timedelta(seconds=10)
"""After so long without a heartbeat a worker is dead, and its step is given to another."""
NO_LIMIT = timedelta(days=3650)
"""A step may last: whether its worker lives is told by heartbeats, and its own limits are the agent's."""
AGAIN = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30),
    non_retryable_error_types=["BadInput", "ConfigError"],
)  # fmt: skip


@workflow.defn(name="steprelay")
class Relay:
    """One run, from a wake to the end of its round. `key`: `{"tenant": …, "run": …}`."""

    def __init__(self) -> None:
        self._kicks = 0
        self._cancelling = False

    @workflow.signal
    def kick(self) -> None:
        """There is something new about the run: an answer, a cancel, another carrier."""
        self._kicks += 1

    @workflow.run
    async def run(self, key: dict[str, str]) -> None:
        try:
            await self._carry(key)
        except BaseException as e:
            if not is_cancelled_exception(e):
                raise
            self._cancelling = True
            await _call("steprelay.cancel", key)  # so that the run's own history has its end
            await self._carry(key)
            raise

    async def _carry(self, key: dict[str, str]) -> None:
        """Step after step, until the round is over and nothing new has come."""
        steps = 0
        while True:
            if steps >= CHAIN or workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(key)
            seen, steps = self._kicks, steps + 1
            told = await _call("steprelay.advance", key)
            if self._kicks == seen and told["kind"] == "done":
                return
            if workflow.cancellation_reason() is not None and not self._cancelling:
                raise asyncio.CancelledError  # it came while the activity ended, which is then just done
            if self._kicks == seen and told["after"] != 0:
                await self._news(seen, told["after"])

    async def _news(self, seen: int, within: float | None) -> None:
        """Until a kick, or for `within` seconds; None: however long it takes."""
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._kicks != seen, timeout=within)


async def _call(activity: str, key: dict[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = await workflow.execute_activity(
        activity, key, result_type=dict, start_to_close_timeout=NO_LIMIT, heartbeat_timeout=SILENCE, retry_policy=AGAIN,
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )  # fmt: skip
    return told
