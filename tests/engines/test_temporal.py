"""Temporal as a carrier, with its real server."""

from __future__ import annotations

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from steprelay.core.model import RunKey
from steprelay.drivers.temporal import workflow_id
from steprelay.testing.driver_suite import DriverSuite, Stage
from steprelay.testing.engines import engine


class TestTemporal(DriverSuite):
    engine = "temporal"

    async def pending(self, stage: Stage, run: str) -> int:
        client = await Client.connect(engine("temporal").url)
        try:
            workflow = await client.get_workflow_handle(workflow_id(RunKey("default", run))).describe()
        except RPCError as e:
            if e.status != RPCStatusCode.NOT_FOUND:
                raise
            return 0
        return int(workflow.status == WorkflowExecutionStatus.RUNNING)
