"""Real servers for tests, storms and benchmarks: PostgreSQL and PgBouncer on free loopback ports, in folders of their own.

Both refuse to run as root, so root lends them another user. They die with the process that started them.
"""

from __future__ import annotations

import atexit
import getpass
import glob
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Literal

from ..core.errors import ConfigError

INSTALL = "scripts/install-test-servers.sh"
PATIENCE = 60.0
"""Seconds a server may take to answer: crash recovery on a busy machine included."""


def program(name: str) -> str:
    """Where a server's program is. Raises ConfigError with the way to install it."""
    folders = [*sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True), "/usr/sbin", *os.environ["PATH"].split(":")]
    found = shutil.which(name, path=":".join(folders))
    if found is None:
        raise ConfigError(f"{name} is not installed; run {INSTALL}")
    return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class Server:
    """A child process that listens on a port of the loopback interface."""

    def __init__(self, name: str, *, lend: bool = True) -> None:
        """`lend`: root gives it another user."""
        self.port = free_port()
        root = lend and os.geteuid() == 0
        self.user = "postgres" if root and _has_user("postgres") else "nobody" if root else None
        self.folder = Path(tempfile.mkdtemp(prefix=f"steprelay-{name}-"))
        if self.user:
            shutil.chown(self.folder, self.user)
        self._child: subprocess.Popen[bytes] | None = None

    def _spawn(self, *command: str, dying: str, env: dict[str, str] | None = None) -> None:
        """Start, and wait until the port answers. `dying`: the signal the server gets when this process dies; `env`: variables
        beside this process's own."""
        until = time.monotonic() + PATIENCE
        while True:
            with (self.folder / "log").open("ab") as log:
                lent = (*_as(self.user), "--pdeathsig", dying) if shutil.which("setpriv") else ()
                self._child = subprocess.Popen(
                    (*lent, *command), stdout=log, stderr=log, cwd="/", env={**os.environ, **(env or {})}, start_new_session=True
                )
            while self._child.poll() is None:
                if self._answers():
                    return
                if time.monotonic() > until:
                    raise ConfigError(f"{command[0]} does not answer:\n{self.log()[-2000:]}")
                time.sleep(0.02)
            if time.monotonic() > until:
                raise ConfigError(f"{command[0]} ended with {self._child.returncode}:\n{self.log()[-2000:]}")
            time.sleep(0.2)  # after a crash the old processes may still be on their way out

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def kill(self, sig: int) -> None:
        """Send a signal and wait for the end."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(sig)
            self._child.wait(PATIENCE)

    def stop(self) -> None:
        self.kill(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgresServer(Server):
    """A PostgreSQL cluster of its own; user `steprelay`, trusted on the loopback interface.

    `durable=False` turns fsync off: for tests, which never outlive a crash of the machine.
    """

    def __init__(self, *, durable: bool = False, settings: dict[str, str] | None = None) -> None:
        super().__init__("postgres")
        self.durable, self.settings = durable, settings or {}
        self.data = self.folder / "data"
        subprocess.run(
            (*_as(self.user), program("initdb"), "-D", str(self.data), "-U", "steprelay", "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-sync"),
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip

    def start(self) -> PostgresServer:
        options = {
            "listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": "", "shared_buffers": "64MB",
            "max_connections": "100", "fsync": "on" if self.durable else "off", **self.settings,
        }  # fmt: skip
        flags = [f for k, v in options.items() for f in ("-c", f"{k}={v}")]
        self._spawn(program("postgres"), "-D", str(self.data), *flags, dying="QUIT")
        return self

    def _answers(self) -> bool:
        ask = (program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port))
        return super()._answers() and subprocess.run(ask, check=False).returncode == 0

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://steprelay@127.0.0.1:{port or self.port}/{database}?sslmode=disable"

    def create(self, database: str) -> str:
        """A new empty database; answers its URL."""
        self.sql(f'create database "{database}"')
        return self.url(database)

    def sql(self, text: str, database: str = "postgres") -> str:
        """Run SQL with psql and answer what it prints, unaligned."""
        command = (program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-c", text)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def crash(self, *, hard: bool = True) -> None:
        """End it as a crash would: kill -9 of the postmaster, or an immediate shutdown. `start` recovers."""
        self.kill(signal.SIGKILL if hard else signal.SIGQUIT)


class PgBouncerServer(Server):
    """PgBouncer in transaction mode before a PostgreSQL server."""

    def __init__(self, before: PostgresServer, *, size: int = 10) -> None:
        super().__init__("pgbouncer")
        self.before = before
        users = self.folder / "users.txt"
        users.write_text('"steprelay" ""\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={before.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\ndefault_pool_size = {size}\n"
            "max_client_conn = 500\nserver_login_retry = 1\nserver_lifetime = 60\n"
        )

    def start(self) -> PgBouncerServer:
        self._spawn(program("pgbouncer"), str(self.folder / "pgbouncer.ini"), dying="KILL")
        return self

    def url(self, database: str = "postgres") -> str:
        return self.before.url(database, self.port)

    def stop(self) -> None:
        self.kill(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


_numbers = itertools.count(1)


@cache
def postgres() -> PostgresServer:
    """This process's own server, started when first asked for."""
    server = PostgresServer().start()
    atexit.register(server.stop)
    return server


@cache
def pgbouncer() -> PgBouncerServer:
    """This process's PgBouncer before `postgres()`."""
    server = PgBouncerServer(postgres()).start()
    atexit.register(server.stop)
    return server


def fresh_url(kind: Literal["postgres", "pgbouncer"]) -> str:
    """A store's URL with a schema that nobody has used."""
    server = postgres() if kind == "postgres" else pgbouncer()
    return f"{server.url()}&schema=test{next(_numbers)}"


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _as(user: str | None) -> tuple[str, ...]:
    """The command prefix that lends another user; setpriv alone for one's own."""
    if user is None or user == getpass.getuser():
        return ("setpriv",) if shutil.which("setpriv") else ()
    entry = pwd.getpwnam(user)
    return ("setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups")
