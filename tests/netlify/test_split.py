"""The site on Netlify, the agent elsewhere: what it takes, and that its runs are carried all the same."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import jwt
import pytest
from click.testing import CliRunner
from netlify_world import SECRET, eventually, platform

from steprelay import App
from steprelay.cli import cli
from steprelay.core.errors import ConfigError
from steprelay.deploy.netlify.signed import Signed
from steprelay.drivers.wake import signed
from steprelay.http.auth import driver_secret
from steprelay.testing import servers

PROXY = "a secret between the site and the agent, long enough for any algorithm"
SITE = "https://my-site.netlify.app"


def signature(secret: str = PROXY, algorithm: str = "HS256", **claims) -> str:
    """As Netlify makes it."""
    now = {"iss": "netlify", "site_url": SITE, "netlify_id": "1", "deploy_context": "production", "exp": int(time.time()) + 300}
    kept = {k: v for k, v in (now | claims).items() if v is not None}
    return jwt.encode(kept, secret, algorithm=algorithm)


async def agent(turn, ctx):
    return ctx.remaining()


def behind(**options) -> httpx.AsyncClient:
    app = App(agent, store="memory:", secret=SECRET, public_url=SITE, anonymous_start="same-origin")
    return httpx.AsyncClient(transport=httpx.ASGITransport(Signed(app, PROXY, **options)), base_url="https://agent.example")


async def asked(headers: dict[str, str] | list[tuple[str, str]], **options) -> httpx.Response:
    async with behind(**options) as client:
        body = {"sessionId": "s", "userPrompt": "x"}
        return await client.post("/api/agent-step", json=body, headers=httpx.Headers([("origin", SITE), *dict_items(headers)]))


def dict_items(headers) -> list[tuple[str, str]]:
    return list(headers.items()) if isinstance(headers, dict) else headers


async def test_what_the_site_has_signed_is_taken_and_its_pages_may_start_runs() -> None:
    told = await asked({"x-nf-sign": signature(), "x-steprelay-wall-ms": "600000"})
    assert told.status_code == 200, told.text
    assert 15 < told.json()["output"] <= 24  # the life of a rewritten request, whatever the client says


@pytest.mark.parametrize("headers", [
    {},
    {"x-nf-sign": ""},
    {"x-nf-sign": "nonsense"},
    {"x-nf-sign": signature("another secret, of the same length...")},
    {"x-nf-sign": signature(exp=int(time.time()) - 60)},
    {"x-nf-sign": signature(exp=None)},
    {"x-nf-sign": signature(iss="somebody")},
    {"x-nf-sign": signature(iss=None)},
    {"x-nf-sign": signature("", "none")},
    {"x-nf-sign": signature(algorithm="HS512")},
    [("x-nf-sign", signature()), ("x-nf-sign", signature())],
    {"authorization": f"Bearer {SECRET}"},
])  # fmt: skip
async def test_everything_else_is_refused(headers) -> None:
    told = await asked(headers)
    assert (told.status_code, told.json()["code"]) == (401, "not_signed")


async def test_of_several_sites_one_can_be_named() -> None:
    assert (await asked({"x-nf-sign": signature()}, site=SITE)).status_code == 200
    assert (await asked({"x-nf-sign": signature(site_url="https://other.netlify.app")}, site=SITE)).status_code == 401


async def test_what_the_driver_secret_has_signed_is_checked_by_the_app() -> None:
    body = json.dumps({"tenant": "default", "id": "nobody", "carrier": "background"})
    async with behind() as client:
        told = await client.post("/api/carry", content=body, headers=signed(driver_secret(SECRET), body))
        assert told.status_code == 202
        forged = await client.post("/api/carry", content=body, headers=signed(driver_secret("x" * 20), body))
        assert (forged.status_code, forged.json()["code"]) == (401, "signature_invalid")
        assert (await client.get("/api/health")).status_code == 200


def test_without_the_secret_it_does_not_start(monkeypatch) -> None:
    monkeypatch.delenv("STEPRELAY_PROXY_SECRET", raising=False)
    for secret in (None, "", "short"):
        with pytest.raises(ConfigError, match="STEPRELAY_PROXY_SECRET"):
            Signed(App(agent, store="memory:", secret=SECRET), secret)


def test_a_backend_has_a_scheme_and_a_host(tmp_path) -> None:
    told = CliRunner().invoke(cli, ["init", "netlify", str(tmp_path), "--backend", "agent.example/x'"])
    assert isinstance(told.exception, ConfigError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
async def test_the_sites_functions_drive_an_agent_that_is_elsewhere(tmp_path) -> None:
    """A function's life of five seconds there; a job of ten seconds is carried by several, each called through the site."""
    there, here = servers.free_port(), servers.free_port()
    site = tmp_path / "site"
    assert CliRunner().invoke(cli, ["init", "netlify", str(site), "--backend", f"http://127.0.0.1:{there}"]).exit_code == 0
    shutil.copy(Path(__file__).parent / "site_agent.py", tmp_path)
    (tmp_path / "elsewhere.py").write_text(
        "from site_agent import app as inner\nfrom steprelay.deploy.netlify.signed import Signed\napp = Signed(inner)\n"
    )
    env = {
        "STEPRELAY_SECRET": SECRET, "STEPRELAY_PROXY_SECRET": PROXY, "STEPRELAY_PUBLIC_URL": f"http://127.0.0.1:{here}",
        "STEPRELAY_STORE": f"sqlite:{tmp_path}/runs.db", "STEPRELAY_DEADLINE": "3", "STEPRELAY_LEASE": "1",
    }  # fmt: skip
    with elsewhere(tmp_path, there, env):
        await asyncio.to_thread(eventually, lambda: healthy(there), 60)
        with platform(site, PLATFORM_SPLIT="1", **env) as world:
            async with httpx.AsyncClient(base_url=world.url, timeout=60) as world.client:
                assert await world.output("founding", "say:hello") == "hello"
                job = {"sessionId": "job", "userPrompt": "count:16"}
                headers = {"x-nf-sign": signature()}
                told = await world.client.post(f"http://127.0.0.1:{there}/api/start-job", json=job, headers=headers)
                assert told.status_code == 202, told.text
                await asyncio.to_thread(eventually, lambda: swept(world.url) and ended(there, "job"), 60)
                assert "start-job-background:" not in await world.log()


@contextmanager
def elsewhere(folder: Path, port: int, environ: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "uvicorn", "elsewhere:app", "--port", str(port), "--log-level", "warning"]
    backend = subprocess.Popen(command, cwd=folder, env=os.environ | environ)
    try:
        yield
    finally:
        backend.terminate()
        backend.wait(10)


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/health").status_code == 200
    except httpx.TransportError:
        return False


def swept(platform: str) -> bool:
    """Strike the clock: on a busy machine a step may outlive its three seconds, and then the sweep finds the run."""
    told = httpx.post(f"{platform}/platform/sweep", timeout=30)
    assert told.status_code == 204, told.text
    time.sleep(0.5)
    return True


def ended(port: int, id: str) -> bool:
    headers = {"authorization": f"Bearer {SECRET}", "x-nf-sign": signature()}
    view = httpx.get(f"http://127.0.0.1:{port}/api/runs/{id}", headers=headers, timeout=30).json()
    assert view["status"] in ("RUNNING", "COMPLETED"), view
    return view["isTerminal"]
