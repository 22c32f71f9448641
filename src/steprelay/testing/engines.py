"""Real durable engines for tests and benchmarks: Restate, Temporal and Inngest on free loopback ports, from a cache that
`scripts/build-engines.sh` fills.

Each keeps its data in a folder of its own, so that it can be killed and started again, and dies with this process.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

from ..core.errors import ConfigError
from .servers import Server, free_port

BUILD = "scripts/build-engines.sh"
VERSIONS = {"temporal": "1.5.1", "restate": "1.7", "inngest": "1.12.1"}
"""As `scripts/build-engines.sh` builds them."""
INNGEST_SIGNING_KEY = "0123456789abcdef" * 4
INNGEST_EVENT_KEY = "test"


def folder(name: str) -> Path:
    """Where an engine is kept between test runs."""
    cache_folder = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache_folder) / "steprelay" / "engines" / f"{name}-{VERSIONS[name]}"


def program(name: str) -> Path:
    """The engine's program. Raises ConfigError with the way to get it."""
    pattern = "node_modules/@restatedev/restate-server-*/bin/restate-server" if name == "restate" else name
    found = next(folder(name).glob(pattern), None)
    if found is None or not os.access(found, os.X_OK):
        raise ConfigError(f"the {name} server is not there; build it with: {BUILD} {name}")
    if name == "inngest" and shutil.which("redis-server") is None:
        raise ConfigError("inngest needs redis-server; install the package of that name")
    return found


def installed() -> list[str]:
    """The engines whose program is there."""
    return [name for name in VERSIONS if _has(name)]


def _has(name: str) -> bool:
    try:
        return bool(program(name))
    except ConfigError:
        return False


class EngineServer(Server):
    """A durable engine. `url` is what the setting of its name takes, `env` all that a process of ours needs to use it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, lend=False)
        self.name = name
        self.data = self.folder / "data"
        self.data.mkdir()

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    def env(self) -> dict[str, str]:
        return {f"STEPRELAY_{self.name.upper()}": self.url}

    @abstractmethod
    def start(self) -> EngineServer:
        """Start it, on the data that is there, and wait until it takes work."""

    def crash(self) -> None:
        """`kill -9` of the server and what it has started. `start` is the next thing to call."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def stop(self) -> None:
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)


class Restate(EngineServer):
    """`restate-server`, one node. `admin`: where deployments are registered and invocations are looked at; `settings`: variables
    of its own."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        super().__init__("restate")
        self.settings = settings or {}
        self._admin, self._fabric = free_port(), free_port()
        self.admin = f"http://127.0.0.1:{self._admin}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "RESTATE_ADMIN_URL": self.admin}

    def start(self) -> Restate:
        settings = {
            "RESTATE_BASE_DIR": str(self.data), "RESTATE_LISTEN_MODE": "tcp", "RESTATE_BIND_IP": "127.0.0.1", "RESTATE_NODE_NAME": "test",
            "RESTATE_INGRESS__BIND_PORT": str(self.port), "RESTATE_ADMIN__BIND_PORT": str(self._admin),
            "RESTATE_BIND_PORT": str(self._fabric), "RESTATE_DEFAULT_NUM_PARTITIONS": "1", "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_ROCKSDB_TOTAL_MEMORY_SIZE": "256 MiB", "RESTATE_SHUTDOWN_TIMEOUT": "1s",
            **self.settings,
        }  # fmt: skip
        self._spawn(str(program(self.name)), "--no-logo", dying="KILL", env=settings)
        return self

    def _answers(self) -> bool:
        return _healthy(f"{self.admin}/health") and _healthy(f"{self.url}/restate/health")


class Temporal(EngineServer):
    """`temporal server start-dev` on a file."""

    def __init__(self) -> None:
        super().__init__("temporal")
        self._http, self._metrics = free_port(), free_port()

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Temporal:
        self._spawn(
            str(program(self.name)), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self.port),
            "--http-port", str(self._http), "--metrics-port", str(self._metrics), "--db-filename", str(self.data / "temporal.db"),
            "--log-level", "error", dying="KILL",
        )  # fmt: skip
        return self

    def _answers(self) -> bool:
        ask = (str(program(self.name)), "operator", "namespace", "describe", "default", "--address", self.url)
        return super()._answers() and subprocess.run(ask, check=False, capture_output=True, timeout=30).returncode == 0


class Redis(Server):
    """What Inngest keeps its queues and functions in: every write is on the disk before it is answered."""

    def __init__(self, data: Path) -> None:
        super().__init__("redis", lend=False)
        self.data = data

    def start(self) -> None:
        self._spawn(
            "redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.data), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", dying="KILL",
        )  # fmt: skip


class Inngest(EngineServer):
    """`inngest start`, the server one hosts oneself, with keys; its development server keeps nothing. With a Redis: alone it
    writes once a minute what it would need after a crash."""

    def __init__(self) -> None:
        super().__init__("inngest")
        self._gateway, self._redis = free_port(), Redis(self.data)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        return {
            **super().env, "INNGEST_SIGNING_KEY": INNGEST_SIGNING_KEY, "INNGEST_EVENT_KEY": INNGEST_EVENT_KEY, "INNGEST_DEV": "0"
        }  # fmt: skip

    def start(self) -> Inngest:
        self._redis.start()
        self._spawn(
            str(program(self.name)), "start", "--host", "127.0.0.1", "--port", str(self.port), "--sqlite-dir", str(self.data),
            "--redis-uri", f"redis://127.0.0.1:{self._redis.port}", "--signing-key", INNGEST_SIGNING_KEY,
            "--event-key", INNGEST_EVENT_KEY, "--connect-gateway-port", str(self._gateway), "--no-ui", "--tick", "20",
            "--retry-interval", "1", "--log-level", "warn", dying="KILL", env={"DO_NOT_TRACK": "1"},
        )  # fmt: skip
        return self

    def _answers(self) -> bool:
        return _healthy(f"{self.url}/health")

    def functions(self) -> list[dict[str, Any]]:
        """The events of the functions that are queued, under way or asleep, from Redis: of its own records some are lost when
        the machine is busy."""
        every = "local o = {} for _, k in ipairs(redis.call('keys', '{estate:*}:bulk-events:*')) do o[#o + 1] = redis.call('get', k) end return o"
        ask = ("redis-cli", "-p", str(self._redis.port), "--raw", "eval", every, "0")
        lines = subprocess.run(ask, check=True, capture_output=True, text=True, timeout=30).stdout.splitlines()
        return [event for line in lines if line for event in json.loads(line)]

    def crash(self) -> None:
        super().crash()
        self._redis.kill(signal.SIGKILL)

    def stop(self) -> None:
        super().stop()
        self._redis.stop()


_KINDS: dict[str, Callable[[], EngineServer]] = {"temporal": Temporal, "restate": Restate, "inngest": Inngest}


@cache
def engine(name: str) -> EngineServer:
    """This process's own engine of that name, started when first asked for. Raises ConfigError with the way to get it."""
    program(name)
    server = _KINDS[name]().start()
    atexit.register(server.stop)
    return server


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status < 300)
    except (URLError, OSError):
        return False
