"""Inngest as a carrier, with its real server."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from steprelay.testing.driver_suite import DriverSuite, Stage
from steprelay.testing.engines import engine

HELD = """
select count(*) from events e left join function_runs r on r.event_id = e.internal_id left join function_finishes f using (run_id)
where e.event_name like 'steprelay-%' and json_extract(e.event_data, '$.run') = ? and f.run_id is null
"""
"""Events of a run whose function has not ended: it runs, sleeps, or was not started yet."""


class TestInngest(DriverSuite):
    engine = "inngest"

    async def pending(self, stage: Stage, run: str) -> int:
        with closing(sqlite3.connect(f"file:{engine('inngest').data}/main.db?mode=ro", uri=True)) as db:
            return int(db.execute(HELD, (run,)).fetchone()[0])
