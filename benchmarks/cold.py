"""What a cold start costs: importing, measured in fresh interpreters, less an empty one."""

from __future__ import annotations

import subprocess
import sys

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
    """Milliseconds of CPU and MiB of memory of a fresh interpreter that runs the statement: the best of some."""
    command = (sys.executable, "-c", _PROBE.format(statement=statement))
    found = []
    for _ in range(repeat):
        cpu, memory = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        found.append((float(cpu), float(memory)))
    return min(cpu for cpu, _ in found), min(memory for _, memory in found)
