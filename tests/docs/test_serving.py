"""What README says of serving: a secret is asked for at the start, and an App can be mounted."""

import os
import subprocess
import sys

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from steprelay import App

AGENT = "from steprelay import App\n\napp = App(lambda turn, ctx: 'done')\n"


@pytest.mark.slow
def test_a_server_without_a_secret_does_not_start_and_says_what_to_set(tmp_path):
    (tmp_path / "agent.py").write_text(AGENT)
    env = {k: v for k, v in os.environ.items() if not k.startswith("STEPRELAY_")}
    command = [sys.executable, "-m", "uvicorn", "agent:app", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "set STEPRELAY_SECRET" in done.stderr


@pytest.mark.parametrize("path", ["", "/agents"])
async def test_an_app_is_mounted_into_another(path):
    inner = App(lambda turn, ctx: "done", store="memory:", secret="0123456789abcdef")
    outer = Starlette(routes=[Mount(path, app=inner)])
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=outer),
        base_url="http://localhost",
        headers={"authorization": "Bearer 0123456789abcdef"},
    )
    async with http:
        answer = await http.post(f"{path}/api/agent-step", json={"sessionId": "a", "userPrompt": "b"})
    await inner.shutdown()
    assert (answer.status_code, answer.json()["output"]) == (200, "done")
