"""What a step costs that a durable engine calls for, beside the engine alone: the same calls, answered at once."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch
from uuid import uuid4

from steprelay.testing.driver_site import Site
from steprelay.testing.engines import engine, installed

from .places import Postgres

STEPS = 50
REPEAT = 2
ROOT = Path(__file__).resolve().parent.parent


async def drivers() -> list[tuple[str, str, str, str]]:
    """Three rows for each engine that is on this machine."""
    place, rows = Postgres.start(), []
    try:
        for name in installed():
            alone = await per_call(name, place.server.url(), BENCH_ALONE="1")
            each = await per_call(name, place.server.url(), BENCH_SPAN="0")
            together = await per_call(name, place.server.url())
            title = name.capitalize()
            rows += [
                (f"{title} alone, {STEPS} calls in a row", f"{alone:.1f} ms", "1", ""),
                (f"{title}, a step for each call", f"{each:.1f} ms", f"{each / alone:.1f}", ""),
                (f"{title}, quick steps together", f"{together:.1f} ms", f"{together / alone:.1f}", ""),
            ]
    finally:
        place.server.stop()
    return rows


async def per_call(name: str, store: str, **env: str) -> float:
    """Milliseconds a call, from the wake to the end: the best of some runs, because a loaded machine only ever adds."""
    with TemporaryDirectory(prefix="steprelay-bench-") as folder:
        done = Path(folder) / "done"
        done.touch()
        env = {"BENCH_STEPS": f"{STEPS}", "BENCH_DONE": str(done), "PYTHONPATH": str(ROOT), **env}
        site = Site(engine(name), store, Path(folder), target="benchmarks.engine_app:app", lease=15.0)
        site.served.env |= env
        try:
            await site.migrate()
            site.served.start()
            with patch.dict(os.environ, env):
                return min([await _timed(site, done) for _ in range(REPEAT)])
        finally:
            site.close()


async def _timed(site: Site, done: Path) -> float:
    async with site.stage() as stage:
        run = uuid4().hex
        began = time.perf_counter()
        await stage.start(run)
        await asyncio.to_thread(_watched, done, run)
        return (time.perf_counter() - began) / STEPS * 1000


def _watched(done: Path, run: str) -> None:
    while run not in done.read_text():
        time.sleep(0.002)
