"""Temporal: a workflow for each run calls one step at a time, as an activity, in a worker process.

wake ──▶ workflow `steprelay` ──▶ activity `steprelay.advance`: one step ──▶ again, at once or by a timer; or until a kick

Temporal holds which run it is and what came of its newest step, nothing else: no prompt, no words, no secret. Where the
server is says STEPRELAY_TEMPORAL; namespace, TLS and API key are Temporal's own TEMPORAL_* variables (or its profile file),
and TEMPORAL_TASK_QUEUE names another queue than `steprelay-<tenant>`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from .. import __version__
from ..core.errors import ConfigError, StepRelayError, StoreUnavailable
from ..core.model import RunKey
from .leg import Leg, Next, Orchestrator
from .temporal_relay import Relay

BEAT = 3.0
"""Seconds between heartbeats: their answers bring a cancel."""
SPAN = 1.0
"""Seconds in which one activity may begin further steps: an activity costs Temporal some 20 ms, as much as many a step."""
PATIENCE = 10.0
"""Seconds that the server may take to answer a wake."""
_log = logging.getLogger("steprelay")


class Temporal(Orchestrator):
    """Runs carried by Temporal. Waking needs the server alone; `work` is what takes the steps."""

    name = "temporal"

    def __init__(self, url: str, leg: Leg) -> None:
        """`url`: host and port of the server's frontend, such as `localhost:7233`."""
        self._target, self._leg = url.rpartition("://")[2].rstrip("/"), leg
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    def queue(self, tenant: str) -> str:
        """The task queue of a tenant's runs."""
        return os.environ.get("TEMPORAL_TASK_QUEUE") or f"steprelay-{tenant}"

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        """Start the run's workflow, or kick the one that lives. A delay is left to its first look: that says when."""
        client = await self._connected()
        try:
            await client.start_workflow(
                Relay.run, {"tenant": key.tenant, "run": key.id}, id=workflow_id(key), task_queue=self.queue(key.tenant),
                start_signal="kick", id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING, rpc_timeout=timedelta(seconds=PATIENCE),
            )  # fmt: skip
        except RPCError as e:
            raise StoreUnavailable(f"Temporal took no wake ({_brief(e)})") from e

    async def work(self, ready: Callable[[], object] = lambda: None) -> None:
        """Take steps until cancelled; then steps under way are handed back at once, whole."""
        try:
            client = await self._connected()
        except StoreUnavailable as e:
            raise ConfigError(f"{e}; start the server, or set STEPRELAY_TEMPORAL to where it is") from e
        worker = Worker(
            client, task_queue=self.queue(self._leg.tenant), workflows=[Relay], activities=[self._advance, self._cancel],
            workflow_runner=SandboxedWorkflowRunner(SandboxRestrictions.default.with_passthrough_modules("steprelay")),
            max_heartbeat_throttle_interval=timedelta(seconds=BEAT), sticky_queue_schedule_to_start_timeout=timedelta(seconds=BEAT),
            build_id=f"steprelay-{__version__}",  # else the SDK compiles all modules there are, to make a hash of them
        )  # fmt: skip
        try:
            async with worker:
                while not worker.is_running:  # noqa: ASYNC110  it asks the server first, and tells by this alone
                    await asyncio.sleep(0.02)
                ready()
                await asyncio.Event().wait()
        except (RuntimeError, RPCError) as e:
            raise ConfigError(
                f"Temporal at {self._target} takes no worker ({_brief(e)}); look at TEMPORAL_NAMESPACE and TEMPORAL_API_KEY"
            ) from e

    async def close(self) -> None:
        self._client = None  # the SDK closes its connection with the last reference

    async def _connected(self) -> Client:
        """The one connection. Raises StoreUnavailable, ConfigError."""
        async with self._connecting:
            if self._client is None:
                try:
                    profile: dict[str, Any] = {**ClientConfig.load_client_connect_config(), "target_host": self._target}
                except (OSError, RuntimeError, ValueError) as e:
                    raise ConfigError(f"Temporal's own settings (TEMPORAL_*) cannot be read: {e}") from e
                try:
                    async with asyncio.timeout(PATIENCE):
                        self._client = await Client.connect(**profile)
                except (RuntimeError, RPCError, TimeoutError) as e:
                    raise StoreUnavailable(f"no Temporal server answers at {self._target} ({_brief(e)})") from e
            return self._client

    @activity.defn(name="steprelay.advance")
    async def _advance(self, key: dict[str, str]) -> dict[str, Any]:
        """One step. The activity's id in its workflow is the request id, the same at every attempt."""
        step = asyncio.ensure_future(self._leg.take(self._ours(key), self.name, _request(), span=SPAN))
        beating = asyncio.ensure_future(_beat())
        try:
            await asyncio.wait({step})
        except asyncio.CancelledError:
            await self._interrupted(step, key)
            raise
        finally:
            beating.cancel()
        return _told(step).plain()

    async def _interrupted(self, step: asyncio.Future[Next], key: dict[str, str]) -> None:
        """Somebody cancels the workflow: the step hears it from our store, by its next sign of life, and keeps what it has.
        Anything else (this worker ends, Temporal gave the step to another or paused it): the run is handed back."""
        details = activity.cancellation_details()
        if details is not None and details.cancel_requested:
            with suppress(StepRelayError):  # the workflow repeats it
                await self._leg.cancel(self._ours(key), self.name, _request())
            await asyncio.wait({step})
            return
        step.cancel()
        await asyncio.wait({step})
        raise ApplicationError("the run was handed back", type="HandedBack", category=ApplicationErrorCategory.BENIGN)

    @activity.defn(name="steprelay.cancel")
    async def _cancel(self, key: dict[str, str]) -> None:
        await self._leg.cancel(self._ours(key), self.name, _request())

    def _ours(self, key: dict[str, str]) -> str:
        """The run's id. Raises ConfigError when it is not for this app to carry."""
        if key["tenant"] != self._leg.tenant:
            raise ConfigError(f"a run of tenant {key['tenant']!r} is on the queue of an app for {self._leg.tenant!r}")
        return key["run"]


def workflow_id(key: RunKey) -> str:
    """The one workflow that lives for a run."""
    return f"steprelay/{quote(key.tenant, safe='')}/{key.id}"


def _request() -> str:
    info = activity.info()
    return f"{info.workflow_run_id}/{info.activity_id}"


def _brief(error: Exception) -> str:
    """Without the innards of the connection."""
    return (str(error) or "no answer in time").partition(": Status {")[0][:300]


def _told(step: asyncio.Future[Next]) -> Next:
    """What came of a step. What is not an error of ours is told to Temporal by its name alone: its words may be anybody's."""
    error = step.exception()
    if error is None:
        return step.result()
    if isinstance(error, StepRelayError):
        raise error
    _log.error("a step failed in Temporal's worker and is tried again", exc_info=error)
    raise ApplicationError(f"{type(error).__name__}; see the worker's log", type=type(error).__name__) from None


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(BEAT)
