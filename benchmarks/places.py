"""What the benchmarks run on: real stores, and the floor below each: the same writes without steprelay."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steprelay.registry import load
from steprelay.testing.servers import PostgresServer, program

MESSAGE = '{"content":"' + "x" * 472 + '","role":"assistant"}'
"""500 bytes, as in the budget."""

FLOOR_TABLES = """
CREATE TABLE floor_run (id int PRIMARY KEY, step int NOT NULL, filler text) WITH (fillfactor = 60);
CREATE TABLE floor_step (run int, idx bigserial, message text NOT NULL, PRIMARY KEY (run, idx));
INSERT INTO floor_run SELECT i, 0, repeat('x', 400) FROM generate_series(1, 1000) i;
"""
FLOOR_SCRIPT = f"""
\\set run random(1, 1000)
SELECT step, filler FROM floor_run WHERE id = :run;
INSERT INTO floor_step (run, message) VALUES (:run, '{MESSAGE}');
UPDATE floor_run SET step = step + 1 WHERE id = :run;
"""


@dataclass
class Postgres:
    """A durable PostgreSQL server of its own."""

    server: PostgresServer

    @classmethod
    def start(cls) -> Postgres:
        quiet = {"checkpoint_timeout": "1h", "max_wal_size": "8GB", "autovacuum": "on"}
        server = PostgresServer(durable=True, settings=quiet).start()
        server.sql(FLOOR_TABLES)
        return cls(server)

    def store(self, options: str = "") -> Any:
        return load("stores", "postgres")(self.server.url() + options)

    def floor(self, clients: int = 1, seconds: int = 3) -> float:
        """Milliseconds per select + insert + update with pgbench, or transactions per second for several clients."""
        script = self.server.folder / "floor.sql"
        script.write_text(FLOOR_SCRIPT)
        command = (
            program("pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "2" if clients > 1 else "1", "-T", str(seconds),
            "-f", str(script), self.server.url(),
        )  # fmt: skip
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"tps = ([\d.]+)", said)
        assert found, said
        rate = float(found[1])
        return rate if clients > 1 else 1000 / rate

    def wal(self) -> int:
        return int(self.server.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))


@dataclass
class SQLite:
    """A SQLite file in a folder of its own."""

    folder: Path

    @classmethod
    def start(cls) -> SQLite:
        return cls(Path(tempfile.mkdtemp(prefix="steprelay-bench-")))

    def store(self, options: str = "") -> Any:
        return load("stores", "sqlite")(f"sqlite:///{self.folder}/runs.db")

    def floor(self, seconds: float = 2.0) -> float:
        """Milliseconds per two durable transactions: an update, then an insert and an update; the best of slices of 60, as of the
        steps beside it."""
        db = sqlite3.connect(self.folder / "floor.db", isolation_level=None)
        db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE run (id INTEGER PRIMARY KEY, step INT, filler TEXT);"
            "CREATE TABLE step (run INT, idx INT, message TEXT, PRIMARY KEY (run, idx));"
        )
        db.execute("INSERT INTO run VALUES (1, 0, ?)", ("x" * 400,))
        began, first, best = time.perf_counter(), 0, 1e9
        while time.perf_counter() - began < seconds:
            slice_began = time.perf_counter()
            for n in range(first, first + 60):
                for statements in ((), (("INSERT INTO step VALUES (1, ?, ?)", (n, MESSAGE)),)):
                    db.execute("BEGIN IMMEDIATE")
                    db.execute("SELECT * FROM run WHERE id = 1").fetchone()
                    for sql, values in statements:
                        db.execute(sql, values)
                    db.execute("UPDATE run SET step = step + 1 WHERE id = 1")
                    db.execute("COMMIT")
            first += 60
            best = min(best, (time.perf_counter() - slice_began) / 60)
        db.close()
        return best * 1000
