"""The figures of docs/performance.md, measured here, each beside its floor and its budget.

    python -m benchmarks [--full] [--write docs/performance.md] [--only cold|engine|sqlite|postgres|web|netlify|drivers]

A floor is the same work without steprelay, measured in the same run: on a loaded machine the milliseconds mean little, the
ratios much. `--full` adds the claim beside a million runs.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from . import netlify, steps, web
from .chart import chart
from .cold import PARTS, cold
from .drivers import drivers
from .places import Postgres, SQLite
from .pulse import pulse

Row = tuple[str, str, str, str]
"""What, measured, as a multiple of the floor (or empty), budget."""
Measured = tuple[list[Row], list[str]]
"""A table, and the charts below it."""
RUNS = (20, 200, 1000)
"""Steps of the runs that are measured and charted."""


def cold_rows() -> Measured:
    bare_cpu, bare_memory = cold()
    rows: list[Row] = [("bare interpreter", f"{bare_cpu:.0f} ms CPU, {bare_memory:.0f} MiB", "", "")]
    budgets = ("60 ms", "", "300 ms, 45 MiB", "300 ms, 45 MiB")
    for (name, statement), budget in zip(PARTS.items(), budgets, strict=True):
        cpu, memory = cold(statement)
        rows.append(
            (name, f"{cpu:.0f} ms CPU, {memory:.0f} MiB", f"+{cpu - bare_cpu:.0f} ms, +{memory - bare_memory:.0f} MiB", budget)
        )
    return rows, []


async def engine_rows() -> Measured:
    step, over_http = await pulse()
    return [
        ("a step by the engine", f"{step:.2f} ms CPU", "1", "0.5 ms CPU"),
        ("the same as a pulse over HTTP", f"{over_http:.2f} ms CPU", _times(over_http, step), ""),
        ("what HTTP adds", f"{over_http - step:.2f} ms CPU", "", "1 ms CPU"),
    ], []


async def sqlite_rows() -> Measured:
    place = SQLite.start()
    try:
        store = place.store()
        await store.migrate()
        floor = place.floor()
        rows: list[Row] = [("floor: two durable transactions", f"{floor:.2f} ms", "1", "")]
        spent = [await steps.per_step(store, n) for n in RUNS]
        rows += _by_length(spent, floor, ("2", "", ""))
        rows.append(("a step, runs of 1000, claim kept", *_kept(await steps.per_step(store, 1000, keep=True), floor, "")))
        pair = await steps.beside_history(store)
        rows.append(("claim and commit on a run of 100,000 messages", f"{pair:.2f} ms", "", "10 ms"))
        await store.close()
        return rows, [_time_chart("SQLite", spent, floor)]
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)


async def postgres_rows(full: bool) -> Measured:
    place = Postgres.start()
    try:
        store = place.store()
        await store.migrate()
        floor = place.floor()
        rows: list[Row] = [("floor: pgbench select + insert + update", f"{floor:.2f} ms", "1", "")]
        spent = [await steps.per_step(store, n) for n in RUNS]
        rows += _by_length(spent, floor, ("2", "2.5", ""))
        kept = await steps.per_step(store, 1000, keep=True)
        rows.append(("a step, runs of 1000, claim kept", *_kept(kept, floor, "2 ms")))
        wall, cpu = await steps.engine_step(store, 20)
        rows.append(
            ("a step through the engine, runs of 20", f"{wall:.2f} ms, {cpu:.2f} ms CPU", _times(wall, floor), "0.5 ms CPU")
        )
        claimed, renewed = await steps.trips(place)
        rows.append(("round trips a step", f"{claimed:.2f}, {renewed:.2f} with the claim kept", "", "2, 1"))
        logged = [await steps.wal_per_step(place, store, n) for n in RUNS]
        rows += [
            (f"log a step of 500 bytes, runs of {n}", f"{size:.0f} bytes", "", "1 kB")
            for n, size in zip(RUNS, logged, strict=True)
        ]
        rows.append(await _throughput(place))
        pair = await steps.beside_history(store)
        rows.append(("claim and commit on a run of 100,000 messages", f"{pair:.2f} ms", "", "10 ms"))
        for n in (10, 10_000, *((1_000_000,) if full else ())):
            pair, due = await steps.beside_runs(place, store, n)
            rows.append((f"beside {n:,} other runs: claim and commit; due", f"{pair:.2f} ms; {due:.2f} ms", "", "flat"))
        await store.close()
        return rows, [_time_chart("PostgreSQL", spent, floor), chart("Log a step of 500 bytes", "bytes", RUNS, [logged])]
    finally:
        place.server.stop()


async def _throughput(place: Postgres) -> Row:
    store = place.store("&pool=8")
    floor = place.floor(clients=8)
    rate = max([await steps.throughput(store) for _ in range(3)])
    await store.close()
    return (
        "50 runs of 20 steps at once, 8 connections",
        f"{rate:.0f} steps/s, floor {floor:.0f}/s",
        f"{rate / floor:.2f}",
        "0.6",
    )


def _by_length(spent: list[float], floor: float, budgets: tuple[str, ...]) -> list[Row]:
    return [
        (f"a step, runs of {n}", f"{ms:.2f} ms", _times(ms, floor), budget)
        for n, ms, budget in zip(RUNS, spent, budgets, strict=True)
    ]


def _time_chart(store: str, spent: list[float], floor: float) -> str:
    return chart(f"{store}: a step (above), its floor (below)", "ms", RUNS, [spent, [floor] * len(RUNS)])


def _times(spent: float, floor: float) -> str:
    return f"{spent / floor:.1f}"


def _kept(spent: float, floor: float, budget: str) -> tuple[str, str, str]:
    return f"{spent:.2f} ms", _times(spent, floor), budget


def table(rows: list[Row]) -> str:
    lines = ["| what | measured | × floor | budget |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def write(path: Path, name: str, text: str) -> None:
    """Put a table and its charts between their markers."""
    old = path.read_text()
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    new, found = re.subn(pattern, lambda m: f"{m[1]}{text}\n{m[2]}", old, flags=re.S)
    if not found:
        raise SystemExit(f"{path} has no markers <!-- {name} --> … <!-- /{name} -->")
    path.write_text(new)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="claims beside a million runs, too")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables and charts between their markers in this file")
    parser.add_argument("--only", choices=("cold", "engine", "sqlite", "postgres", "web", "netlify", "drivers"))
    options = parser.parse_args()
    measured: dict[str, Callable[[], Measured]] = {
        "cold": cold_rows,
        "engine": lambda: asyncio.run(engine_rows()),
        "sqlite": lambda: asyncio.run(sqlite_rows()),
        "postgres": lambda: asyncio.run(postgres_rows(options.full)),
        "web": web.measure,
        "netlify": lambda: (netlify.rows(), []),
        "drivers": lambda: (asyncio.run(drivers()), []),
    }
    for name, measure in measured.items():
        if options.only in (None, name):
            rows, charts = measure()
            text = "\n\n".join([table(rows), *charts])
            print(f"\n{name}\n{text}", flush=True)
            if options.write:
                write(options.write.with_name("drivers.md") if name == "drivers" else options.write, name, text)


if __name__ == "__main__":
    main()
