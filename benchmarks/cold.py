"""What a cold start costs: importing, measured in fresh interpreters, less an empty one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

PARTS = {
    "kernel: `import steprelay`": "import steprelay",
    "kernel with the engine and asyncio": "import steprelay, steprelay.engine",
    "kernel + HTTP app + SQLite": "import steprelay.app, steprelay.http.app, steprelay.stores.sqlite",
    "kernel + HTTP app + PostgreSQL driver": "import steprelay.app, steprelay.http.app, steprelay.stores.postgres, asyncpg",
}
_PROBE = """
import resource
{statement}
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print((used.ru_utime + used.ru_stime) * 1000, int(peak.split()[1]) / 1024)
"""


def cold(statement: str = "", repeat: int = 7) -> tuple[float, float]:
    """Milliseconds of CPU and MiB of memory of a fresh interpreter that runs the statement: the best of some.

    The first one is not counted: it compiles, into a folder of its own, what a deployment brings along compiled.
    """
    command = (sys.executable, "-c", _PROBE.format(statement=statement))
    found = []
    with tempfile.TemporaryDirectory() as compiled:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        for _ in range(repeat + 1):
            told = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**env, "PYTHONPYCACHEPREFIX": compiled}
            )
            cpu, memory = told.stdout.split()
            found.append((float(cpu), float(memory)))
    return min(cpu for cpu, _ in found[1:]), min(memory for _, memory in found[1:])
