"""Python behind a Netlify function: what a cold start costs, and what the proxy adds to a warm request."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from steprelay.deploy.netlify import bundle, plan, weight

HERE = Path(__file__).parent
ROUNDS = 300
REPEATS = 7
Row = tuple[str, str, str, str]


def rows() -> list[Row]:
    """Build a bundle with a copy of this interpreter, and measure one function instance after another. Milliseconds of CPU: a
    busy machine makes them larger by little, and the clock's by much."""
    if missing := [tool for tool in ("node", "uv") if shutil.which(tool) is None]:
        return [(f"not measured: {' and '.join(missing)} not installed", "", "", "")]
    folder = Path(tempfile.mkdtemp(prefix="steprelay-netlify-"))
    try:
        return _measured(_built(folder), folder)
    finally:
        shutil.rmtree(folder)


def _built(folder: Path) -> Path:
    for change in plan.plan(folder):
        (folder / change.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / change.path).write_bytes(change.after)
    site = bundle.Site(folder=folder, out=folder / "python", target="agent.py", requirements=folder / "requirements.txt")
    bundle.build(site, Path(sys.executable), lambda line: None)
    bundle.finish(site.out, "agent.py:app", {})
    return site.out


def _measured(out: Path, folder: Path) -> list[Row]:
    env = {
        **os.environ,
        "STEPRELAY_SECRET": "a secret that only this measurement knows",
        "STEPRELAY_STORE": f"sqlite:{folder}/b.db",
    }
    python = [str(out / "bin/python3"), "-c", "import starlette, asyncpg"]
    floor = min(_cpu(lambda: subprocess.run(python, env=bundle.environment(out), check=True)) for _ in range(REPEATS))
    node = min(_cpu(lambda: subprocess.run(["node", "-e", "0"], check=True)) for _ in range(REPEATS))
    seen = [_instance(out, env) for _ in range(REPEATS)]
    started = min(s["cpu"]["python"] for s in seen)
    added = median(s["through"] - s["direct"] for s in seen)
    heavy = weight.weigh(out)
    return [
        ("floor: `import starlette, asyncpg` in the bundle", f"{floor:.0f} ms CPU", "1", ""),
        ("Node, which does nothing", f"{node:.0f} ms CPU", "", ""),
        ("Python from its start to its first answer", f"{started:.0f} ms CPU", f"{started / floor:.1f}", "1.5"),
        ("both, until the first answer", f"{min(s['cold'] for s in seen):.0f} ms by the clock", "", ""),
        ("a warm request, straight to Python", f"{median(s['direct'] for s in seen):.1f} ms", "", ""),
        ("what the proxy adds to it", f"{added:.1f} ms", "", "2 ms"),
        ("memory", f"Node {seen[0]['node']:.0f}, Python {seen[0]['python']:.0f} MiB", "", ""),
        ("bundle", f"{heavy.size / weight.MB:.0f} MB, zipped {heavy.zipped / weight.MB:.0f} MB", "", "250, 50 MB"),
    ]


def _instance(out: Path, env: dict[str, str]) -> dict:
    command = ["node", str(HERE / "netlify.mjs"), str(out), str(ROUNDS)]
    return json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def _cpu(act: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    act()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
