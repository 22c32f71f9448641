"""A storm: worker processes on a real store, everything around them failing, and a judge afterwards.

    python -m steprelay.testing.storm --store sqlite|postgres|pgbouncer --runs 200 --steps 100 --workers 6 --deaths 1000
                                      --freezes 60 --crashes 5 --cuts 400 --seed 1 [--mutant fence|cas|ledger|attempts|replay]

Processes are killed with `kill -9` at random and at the worst places, freeze beyond their lease and come back, send requests
twice and again; lines to the database are cut inside commits; the database itself crashes and recovers. Then the rows are
compared with a file outside that saw every run of a tool. Exit code 0: no promise was broken; 1: one was. A mutant takes one
guard out on purpose: the storm has to notice.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core import codec
from ..core.model import Limits, New, RunKey
from .servers import PgBouncerServer, PostgresServer
from .storm_checks import ATTEMPTS, KINDS, Verdict, judge
from .storm_worker import POISON, Weather, main as work
from .wire import SYNC, Cut, Wire

MUTANTS = ("fence", "cas", "ledger", "attempts", "replay")
FORK = multiprocessing.get_context("fork")
PATIENCE = 900.0
"""Seconds without a single new step after which the storm is given up as stuck."""


@dataclass
class Storm:
    """One storm. `play` answers what was wrong."""

    options: argparse.Namespace
    folder: Path
    chance: random.Random = field(init=False)
    servers: list[Any] = field(default_factory=list)
    crew: dict[int, Any] = field(default_factory=dict)
    born: int = 0
    deaths: int = 0
    crashes: int = 0
    cuts: Any = field(default_factory=lambda: FORK.RawValue("i", 0))
    _read: int = 0
    _steps: int = 0
    _done: bool = False

    def __post_init__(self) -> None:
        self.chance = random.Random(self.options.seed)

    def play(self) -> Verdict:
        direct = self._serve()
        calm = self._weather(direct)
        asyncio.run(_create(calm))
        rough = replace(calm, url=self._cutter(direct, calm)) if self.options.cuts else calm
        try:
            self._rage(rough)
        finally:
            for child in self.crew.values():
                child.kill()
        return asyncio.run(_judged(calm))

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.stop()

    # ------------------------------------------------------------ the scene

    def _serve(self) -> str:
        """Start what the store needs; answers its URL."""
        if self.options.store == "sqlite":
            return f"sqlite:///{self.folder}/storm.db"
        postgres = PostgresServer().start()
        self.servers.append(postgres)
        server: PostgresServer | PgBouncerServer = postgres
        if self.options.store == "pgbouncer":
            server = PgBouncerServer(postgres, size=4).start()
            self.servers.append(server)
        return f"{server.url()}&timeout=5"

    def _weather(self, url: str) -> Weather:
        o = self.options
        steps = o.runs * o.steps
        return Weather(
            store=o.store, url=url, outside=str(self.folder / "outside"), runs=o.runs, steps=o.steps, poisons=min(3, o.deaths),
            seed=o.seed, lease=o.lease, mutant=o.mutant, death=o.deaths / steps / 8, freeze=o.freezes / steps / 2,
        )  # fmt: skip

    def _cutter(self, url: str, weather: Weather) -> str:
        """A proxy in a process of its own that cuts lines inside commits."""
        ready, told = FORK.Pipe(duplex=False)
        share = self.options.cuts / (weather.runs * weather.steps)
        child = FORK.Process(target=_proxy, args=(url, told, share, self.options, self.cuts), daemon=True)
        child.start()
        self.servers.append(_Process(child))
        return str(ready.recv())

    # ------------------------------------------------------------ the storm

    def _rage(self, weather: Weather) -> None:
        total, moved = weather.runs * weather.steps, time.monotonic()
        while True:
            before = self._steps
            self._look(weather.outside)
            moved = time.monotonic() if self._steps > before else moved
            if time.monotonic() - moved > PATIENCE:
                return
            share = self._steps / total
            if self.crashes < self.options.crashes * share - 0.5:
                self._crash()
            if self.deaths < self.options.deaths * share and self.crew:
                self.chance.choice(list(self.crew.values())).kill()
            self._reap()
            if (self._done and not self.crew) or self.deaths > 2 * self.options.deaths + 20:
                return  # every run has ended; or hosts die of something that no brake stops
            while len(self.crew) < self.options.workers and not self._done:
                self.born += 1
                child = FORK.Process(target=work, args=(weather, self.born), daemon=True)
                child.start()
                self.crew[self.born] = child
            time.sleep(0.01)

    def _reap(self) -> None:
        """Count the dead; one that ended by itself has seen every run end."""
        for number, child in [(n, c) for n, c in self.crew.items() if not c.is_alive()]:
            del self.crew[number]
            self.deaths += child.exitcode == -signal.SIGKILL
            self._done = self._done or child.exitcode == 0
            child.close()

    def _look(self, outside: str) -> None:
        """Count the steps that came to their tool since the last look (not every one lives to be answered)."""
        if os.path.exists(outside):
            with open(outside, "rb") as file:
                file.seek(self._read)
                new = file.read()
            new = new[: new.rfind(b"\n") + 1]
            self._read += len(new)
            self._steps += new.count(b'["tool"') + new.count(b'["unknown"')

    def _crash(self) -> None:
        postgres = self.servers[0]
        postgres.crash(hard=self.crashes % 2 == 0)
        postgres.start()
        self.crashes += 1


@dataclass
class _Process:
    """A helper process, stopped like a server."""

    child: Any

    def stop(self) -> None:
        self.child.kill()


def _proxy(url: str, told: Any, share: float, options: argparse.Namespace, cuts: Any) -> None:
    chance = random.Random(options.seed)
    places: tuple[Cut, ...] = ("answer", "answer", "request", "half")

    def cut(data: bytes) -> Cut | None:
        commits = b".commit(" in data and data.endswith(SYNC)
        if not commits or cuts.value >= options.cuts or chance.random() > share * 1.3:
            return None
        cuts.value += 1
        return chance.choice(places)

    async def serve() -> None:
        wire = Wire.before(url)
        wire.cut = cut
        await wire.start()
        told.send(wire.url(url))
        await asyncio.Event().wait()

    asyncio.run(serve())


async def _create(weather: Weather) -> None:
    store = weather.open()
    await store.migrate()
    for key in weather.every_run():
        attempts = ATTEMPTS if key.id.startswith(POISON) else 10_000
        limits = Limits(steps=None, repeats=None, tool_errors=None, attempts=attempts, releases=10_000)
        new = New(agent="storm", adapter="function", prompt='"go"', limits=codec.pack(limits), carrier="any")
        await store.claim(RunKey(key.tenant, key.id), claim_id="-", holder="", lease=0, carrier=None, new=new)
    await store.close()


async def _judged(weather: Weather) -> Verdict:
    store = weather.open()
    try:
        return await judge(store, weather)
    finally:
        await store.close()


def table(storm: Storm, verdict: Verdict, seconds: float) -> str:
    """The outcome as lines of `name  value`."""
    o, seen = storm.options, verdict.seen
    lines = {
        "store": o.store + (f" (mutant: {o.mutant})" if o.mutant else ""), "seed": o.seed, "processes at a time": o.workers,
        "runs": o.runs, "steps committed": verdict.steps, "processes killed": storm.deaths, "hosts frozen": seen["freeze"],
        "database crashes": storm.crashes, "commits cut": storm.cuts.value, "requests repeated": seen["repeat"] + seen["replay"],
        "signals": seen["signal"], "once tools run": seen["tool"], "outcomes unknown": seen["unknown"],
        **{f"- {kind}": verdict.count(kind) for kind in KINDS}, "seconds": round(seconds, 1),
    }  # fmt: skip
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m steprelay.testing.storm", description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--store", choices=("sqlite", "postgres", "pgbouncer"), default="sqlite")
    for name, default in (("runs", 20), ("steps", 20), ("workers", 4), ("deaths", 40), ("freezes", 10), ("crashes", 0),
                          ("cuts", 0), ("seed", 0)):  # fmt: skip
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--lease", type=float, default=1.0)
    p.add_argument("--mutant", choices=MUTANTS)
    return p


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    if options.store == "sqlite" and (options.crashes or options.cuts):
        parser().error("a SQLite file has no server to crash and no line to cut")
    began = time.monotonic()
    storm = Storm(options, Path(tempfile.mkdtemp(prefix="steprelay-storm-")))
    try:
        verdict = storm.play()
    finally:
        storm.stop()
        shutil.rmtree(storm.folder, ignore_errors=True)
    print(table(storm, verdict, time.monotonic() - began))
    for kind, words in verdict.wrong[:20]:
        print(f"{kind}: {words}")
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
