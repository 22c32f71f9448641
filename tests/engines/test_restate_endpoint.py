"""What is Restate's own: who may call our endpoint, how it is registered and woken, and how little it keeps."""

from __future__ import annotations

import traceback
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from restate_server import invocations

from steprelay.app import App
from steprelay.core.errors import ConfigError, StoreUnavailable
from steprelay.core.model import RunKey
from steprelay.drivers.leg import Leg
from steprelay.drivers.restate import STEPS, NotTaken, Restate
from steprelay.testing import engines
from steprelay.testing.driver_site import Site
from steprelay.testing.fakes import ScriptedAgent
from steprelay.testing.servers import free_port, fresh_url

SINGLY = f"{Path(__file__).with_name('restate_singly.py')}:app"
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def key_pair(file: Path) -> str:
    """A private key in a file; its public half as Restate writes it."""
    private = Ed25519PrivateKey.generate()
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return "publickeyv1_" + base58(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def driver(url: str = "http://restate.invalid") -> Restate:
    return Restate(url, Leg(None, None))


async def asked(driver: Restate, client: tuple[str, int] = ("127.0.0.1", 1), path: str = "/discover", **headers: str):
    transport = httpx.ASGITransport(driver.endpoint, client=client)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        return await http.get(path, headers={"accept": "application/vnd.restate.endpointmanifest.v4+json", **headers})


# ---------------------------------------------------------------- who may call


async def test_without_keys_this_machine_alone_may_call():
    here = driver()
    assert (await asked(here)).status_code == 200
    assert (await asked(here, ("::1", 1))).status_code == 200
    for client in (("203.0.113.5", 1), ("10.0.0.2", 1), ("unix", 0)):
        refused = await asked(here, client)
        assert (refused.status_code, "RESTATE_IDENTITY_KEYS" in refused.text) == (401, True)
    assert (await asked(here, **{"x-forwarded-for": "203.0.113.5"})).status_code == 401, (
        "a proxy on this machine is not this machine"
    )


async def test_a_key_that_is_none_is_told(monkeypatch):
    monkeypatch.setenv("RESTATE_IDENTITY_KEYS", "publickeyv1_nonsense!")
    with pytest.raises(ConfigError, match="RESTATE_IDENTITY_KEYS"):
        driver()


@pytest.mark.slow
@pytest.mark.engines("restate")
async def test_with_keys_only_the_server_that_has_the_other_half_may_call(tmp_path, monkeypatch):
    public = key_pair(tmp_path / "private.pem")
    server = engines.Restate(
        {"RESTATE_WORKER__INVOKER__REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE": str(tmp_path / "private.pem")}
    ).start()
    site = Site(server, fresh_url("postgres"), tmp_path)
    await site.migrate()
    site.served.env["RESTATE_IDENTITY_KEYS"] = f"{key_pair(tmp_path / 'older.pem')}, {public}"
    try:
        site.served.start()
        async with (
            site.stage() as stage,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.served.port}/api/restate") as stranger,
        ):
            await stage.start("signed", steps=4)
            await stage.until_status("signed", "COMPLETED")
            await stage.whole("signed", 4, "restate")
            assert (await stranger.get("/discover")).status_code == 401
            forged = {"x-restate-signature-scheme": "v1", "x-restate-jwt-v1": "e30.e30.e30"}
            assert (await stranger.post("/invoke/steprelay-default/drive", headers=forged)).status_code == 401

            monkeypatch.setenv("RESTATE_ADMIN_URL", server.admin)
            with pytest.raises(ConfigError, match="--url"):
                await driver(server.url).register(f"http://127.0.0.1:{free_port()}/api/restate")
    finally:
        site.close()
        server.stop()


# ---------------------------------------------------------------- registered and woken


async def test_an_admin_api_that_does_not_answer_is_told_with_its_variable(monkeypatch):
    monkeypatch.setenv("RESTATE_ADMIN_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match="RESTATE_ADMIN_URL"):
        await driver().register("http://127.0.0.1:1/api/restate")


async def test_a_wake_whose_answer_got_lost_is_repeated_under_the_same_key(monkeypatch):
    seen = []

    def ingress(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) == 1:
            raise httpx.ReadError("gone")
        return httpx.Response(202, json={"invocationId": "inv_1"})

    monkeypatch.setenv("RESTATE_AUTH_TOKEN", "token")
    monkeypatch.setattr(httpx, "AsyncClient", lambda real=httpx.AsyncClient, **_: real(transport=httpx.MockTransport(ingress)))
    here = driver("https://ingress.invalid/")
    await here.wake(RunKey("default", "a/b"), "restate", 1.5)
    assert [str(r.url) for r in seen] == ["https://ingress.invalid/steprelay-default/a%2Fb/drive/send?delay=1500ms"] * 2
    assert len({r.headers["idempotency-key"] for r in seen}) == 1
    assert {r.headers["authorization"] for r in seen} == {"Bearer token"}
    await here.close()


async def test_a_server_that_does_not_know_us_says_so(monkeypatch):
    unknown = httpx.MockTransport(lambda _: httpx.Response(404, json={"message": "service 'steprelay-default' not found"}))
    monkeypatch.setattr(httpx, "AsyncClient", lambda real=httpx.AsyncClient, **_: real(transport=unknown))
    here = driver()
    with pytest.raises(StoreUnavailable, match=r"not found.*registered"):
        await here.wake(RunKey("default", "r"), "restate")
    await here.close()


async def test_on_a_lambda_the_endpoint_is_an_app_all_the_same(monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "netlify-api")
    assert (await asked(driver())).status_code == 200


# ---------------------------------------------------------------- how little it keeps


async def test_it_is_told_nothing_that_was_said():
    app = App(ScriptedAgent([]), store="memory:", auth=False, observer=None)
    try:
        await app.start("a secret", id="r", carrier="restate")
        told = await Leg(app.loop, app.outbox.deliver).take("r", "restate", "a/0")
        assert set(told.plain()) == {"kind", "after"}
    finally:
        await app.shutdown()


async def test_what_is_not_an_error_of_ours_is_told_by_its_name_alone():
    class Broken(Leg):
        async def take(self, *_, **__):
            raise ValueError("the user said: a secret")

    with pytest.raises(NotTaken) as told:
        await Restate("http://restate.invalid", Broken(None, None))._step("r", "a/0")
    assert str(told.value) == "ValueError; see this server's log"
    assert "the user said" not in "".join(traceback.format_exception(told.value))


@pytest.mark.slow
@pytest.mark.engines("restate")
async def test_its_journal_does_not_grow_with_the_run(tmp_path):
    site = Site(engines.engine("restate"), fresh_url("postgres"), tmp_path, target=SINGLY)
    await site.migrate()
    try:
        site.served.start()
        async with site.stage() as stage:
            await stage.start("journal", steps=100)
            await stage.until_status("journal", "COMPLETED")
            await stage.whole("journal", 100, "restate")
            sizes = [row["journal_size"] for row in await invocations("journal", "target_service_key = '{}'")]
            assert len(sizes) >= 100 / STEPS
            assert max(sizes) <= 2 * STEPS + 10, "an entry and its result for a step, and the chain's own"
    finally:
        site.close()
