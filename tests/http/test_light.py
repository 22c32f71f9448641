"""The app is light to load: what one kind of request needs is loaded with the first of its kind."""

from __future__ import annotations

import subprocess
import sys

LATE = {"msgspec", "itsdangerous", "standardwebhooks", "sse_starlette", "httpx", "jinja2", "anyio._backends._asyncio"}


def test_importing_the_app_loads_none_of_them():
    code = "import sys, steprelay.http.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert "starlette.applications" in loaded
    assert LATE.isdisjoint(loaded)
