"""Restate as a carrier, with its real server."""

from __future__ import annotations

from restate_server import invocations

from steprelay.testing.driver_suite import DriverSuite, Stage


class TestRestate(DriverSuite):
    engine = "restate"

    async def pending(self, stage: Stage, run: str) -> int:
        return len(await invocations(run))
