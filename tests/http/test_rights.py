"""Who may do what: keys, tokens, the owner cookie, signed messages; and what a stranger is told."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import http_world as w
import pytest
from standardwebhooks import Webhook

from steprelay.core.errors import ConfigError
from steprelay.core.model import Limits, RunKey
from steprelay.http.auth import Auth, driver_secret

KEY = RunKey("default", "s1")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def signed(body: str, message: str = "msg_1", secret: str = w.SECRET, at: datetime | None = None) -> dict[str, str]:
    at = at or datetime.now(UTC)
    signature = Webhook(driver_secret(secret)).sign(message, at, body)
    return {"webhook-id": message, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


async def start(world: w.World, id: str = "s1") -> str:
    async with world.server() as c:
        made = await c.post("/api/runs", json={"userPrompt": "x", "sessionId": id})
    return made.json()["token"]


# ---------------------------------------------------------------- keys and tokens


async def test_nothing_goes_without_credentials_unless_the_server_says_so():
    world = w.World(w.three_steps)
    await start(world)
    async with world.client() as nobody:
        answers = [
            await w.founding(nobody, "s1"),
            await w.founding(nobody, "s2"),
            await nobody.post("/api/runs", json={"userPrompt": "x"}),
            await nobody.post("/api/start-job", json={"userPrompt": "x"}),
            *[await nobody.get(p) for p in ("/api/runs", "/api/runs/s1", "/api/runs/s2", "/api/approvals")],
            *[await nobody.post(p, json={}) for p in ("/api/runs/s1/step", "/api/runs/s1/cancel", "/api/sweep")],
        ]
    assert {a.status_code for a in answers} == {401}
    assert world.calls == 0


async def test_a_server_gives_tokens_for_runs_that_are_there():
    world = w.World(w.three_steps)
    await start(world)
    async with world.server() as c:
        given = (await c.post("/api/runs/s1/token", json={"actions": ["step", "read"], "seconds": 60})).json()
        whole = (await c.post("/api/runs/s1/token")).json()
        absent = await c.post("/api/runs/nobody/token")
        wrong = await c.post("/api/runs/s1/token", json={"actions": ["prune"]})
    assert (given["sessionId"], given["actions"], given["seconds"]) == ("s1", ["read", "step"], 60.0)
    assert (whole["seconds"], len(whole["actions"])) == (3600.0, 7)
    assert (absent.status_code, wrong.status_code) == (404, 400)
    async with world.client(bearer(given["token"])) as page:
        assert (await page.post("/api/runs/s1/step", json={})).status_code == 200
        assert (await page.post("/api/runs/s1/cancel")).status_code == 403
        assert (await page.post("/api/runs/s1/token")).status_code == 403
    async with world.client(bearer(whole["token"])) as page:
        assert (await page.post("/api/runs/s1/cancel")).json()["status"] == "CANCELLED"


@pytest.mark.parametrize("key", ["the key", "the secret", "the previous secret"])
async def test_a_server_key_may_do_everything(key: str):
    world = w.World(w.three_steps, auth=Auth(w.SECRET, previous=["an older secret that still counts"]))
    value = {
        "the key": world.auth.server_key,
        "the secret": w.SECRET,
        "the previous secret": "an older secret that still counts",
    }[key]
    async with world.client(bearer(value)) as c:
        assert (await w.founding(c, "s1")).status_code == 200
        assert (await c.get("/api/runs")).status_code == 200


@pytest.mark.parametrize("value", ["", "wrong", "srk_wrong", "ünï", "a.b.c"])
async def test_a_wrong_bearer_is_told_so(value: str):
    world = w.World(w.three_steps)
    async with world.client() as c:
        answer = await c.get("/api/runs", headers={"authorization": f"Bearer {value}".encode()})
    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_run_token_is_for_one_run_and_its_listed_actions():
    world = w.World(w.three_steps)
    await start(world)
    await start(world, "s2")
    token = world.auth.run_token(KEY, ["read", "step"], 60)
    async with world.client(bearer(token)) as c:
        mine = [await c.get("/api/runs/s1"), await c.post("/api/runs/s1/step", json={}), await w.founding(c, "s1")]
        other, missing = await c.get("/api/runs/s2"), await c.get("/api/runs/s3")
        founding_other = await w.founding(c, "s2")
        not_listed = await c.post("/api/runs/s1/cancel", json={})
        server_things = [
            await c.get("/api/runs"),
            await c.post("/api/runs", json={"userPrompt": "x"}),
            await c.get("/api/approvals"),
        ]
    assert [a.status_code for a in mine] == [200, 200, 200]
    assert (other.status_code, other.content) == (404, missing.content)
    assert founding_other.status_code == 404
    assert (not_listed.status_code, not_listed.json()["code"]) == (403, "not_allowed")
    assert [a.status_code for a in server_things] == [403, 403, 403]


async def test_a_token_expires_and_cannot_be_stretched():
    now = [1000.0]
    auth = Auth(w.SECRET, clock=lambda: now[0])
    world = w.World(w.three_steps, auth=auth)
    await start(world)
    token = auth.run_token(KEY, ["read"], 60)
    forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    event = auth.event_token(KEY, "x")
    async with world.client() as c:
        fresh = await c.get("/api/runs/s1", headers=bearer(token))
        wrong = [await c.get("/api/runs/s1", headers=bearer(t)) for t in (forged, event, auth.owner()[1])]
        now[0] = 1060.0
        late = await c.get("/api/runs/s1", headers=bearer(token))
    assert fresh.status_code == 200
    assert [a.json()["code"] for a in wrong] == ["token_invalid"] * 3
    assert (late.status_code, late.json()["code"]) == (401, "token_expired")


async def test_tokens_of_the_previous_secret_are_still_good():
    old = Auth("the secret of last month")
    world = w.World(w.three_steps, auth=Auth(w.SECRET, previous=["the secret of last month"]))
    await start(world)
    async with world.client(bearer(old.run_token(KEY, ["read"], 60))) as c:
        assert (await c.get("/api/runs/s1")).status_code == 200
    assert old.run_ids("t", None, "k")[0] in world.auth.run_ids("t", None, "k")


async def test_a_token_of_another_tenant_is_for_nothing_here():
    world = w.World(w.three_steps)
    await start(world)
    async with world.client(bearer(world.auth.run_token(RunKey("other", "s1"), ["read"], 60))) as c:
        assert (await c.get("/api/runs/s1")).status_code == 404


# ---------------------------------------------------------------- the owner cookie


async def test_the_first_request_sets_one_cookie_and_the_run_is_that_browsers():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    async with world.browser() as mine, world.browser() as other:
        first = await w.founding(mine, "s1")
        second = await w.founding(mine, "s2")
        await w.founding(other, "s9")
        foreign = [await w.founding(other, "s1"), await other.get("/api/runs/s1"), await other.post("/api/runs/s1/cancel")]
        missing = await other.get("/api/runs/nobody")
        listed = (await mine.get("/api/runs")).json()["runs"]
    cookie = first.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie  # loopback
    assert "set-cookie" not in second.headers
    assert {(a.status_code, a.content) for a in foreign} == {(404, missing.content)}
    assert sorted(r["sessionId"] for r in listed) == ["s1", "s2"]


async def test_the_cookie_is_secure_except_on_loopback():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    async with world.client({"origin": "https://app.example"}, base_url="https://app.example") as c:
        assert "; Secure" in (await w.founding(c, "s1")).headers["set-cookie"]


async def test_a_cookie_counts_only_on_our_own_pages():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    async with world.browser() as mine:
        await w.founding(mine, "s1")
        strange = await mine.post("/api/runs/s1/cancel", headers={"origin": "https://evil.example"})
        opaque = await mine.post("/api/runs/s1/cancel", headers={"origin": "null"})
    assert [(a.status_code, a.json()["code"]) for a in (strange, opaque)] == [(403, "foreign_origin")] * 2


async def test_a_forged_cookie_is_nobody():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    await start(world)
    async with world.browser(cookie="steprelay_owner=abc.def") as c:
        assert (await c.get("/api/runs/s1")).status_code == 401


async def test_same_origin_starts_need_a_page_of_ours():
    world = w.World(w.three_steps, anonymous_start="same-origin")
    async with world.client() as no_browser:
        silent = await w.founding(no_browser, "s1")
        foreign = await no_browser.post(
            "/api/agent-step", json={"sessionId": "s1", "userPrompt": "x"}, headers={"origin": "https://evil.example"}
        )
        fetched = await no_browser.post(
            "/api/agent-step", json={"sessionId": "s1", "userPrompt": "x"}, headers={"sec-fetch-site": "same-origin"}
        )
    assert [silent.status_code, foreign.status_code, fetched.status_code] == [403, 403, 200]


async def test_a_public_url_counts_as_ours():
    world = w.World(w.three_steps, anonymous_start="same-origin", public_url="https://relay.example/")
    async with world.client({"origin": "https://relay.example"}, base_url="http://inside") as c:
        assert (await w.founding(c, "s1")).status_code == 200


# ---------------------------------------------------------------- strangers cost money


async def test_strangers_are_counted_by_address():
    world = w.World(w.three_steps, anonymous_start="allow", starts_a_minute=2, address_header="x-real-ip")
    async with world.client() as c:
        from_one = [await w.founding(await _forget(c, "1.2.3.4"), f"s{n}") for n in range(3)]
        other = await w.founding(await _forget(c, "5.6.7.8"), "s9")
    assert [a.status_code for a in from_one] == [200, 200, 429]
    assert from_one[2].headers["retry-after"] == "60"
    assert other.status_code == 200
    assert not any("1.2.3.4" in name for name in await world.store.scan(""))


async def _forget(client, address: str):
    client.cookies.clear()
    client.headers["x-real-ip"] = address
    return client


async def test_another_round_of_a_strangers_run_is_counted_as_well():
    world = w.World(w.fails, anonymous_start="same-origin", starts_a_minute=2)
    async with world.browser() as c:
        await w.founding(c, "s1")
        second = await c.post("/api/runs/s1/input", json={"userPrompt": "more"})
        await w.founding(c, "s1")
        third = [
            await c.post("/api/runs/s1/input", json={"userPrompt": "more"}),
            await c.post("/api/runs/s1/resume", json={}),
            await c.post("/api/runs/s1/fork", json={"step": -1}),
        ]
    assert second.status_code == 200
    assert [a.status_code for a in third] == [429, 429, 429]
    assert world.calls == 2


async def test_strangers_money_is_counted_by_address():
    world = w.World(w.three_steps, anonymous_start="allow", usd_a_day=2.0, limits=Limits(usd=1.0))
    async with world.client() as c:
        answers = [await w.founding(c, f"s{n}") for n in range(3)]
        again = await w.founding(c, "s0")
    assert [a.status_code for a in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "budget_spent"
    assert again.status_code == 200


async def test_strangers_may_tighten_limits_only_and_notify_nobody():
    world = w.World(w.three_steps, anonymous_start="same-origin", limits=Limits(steps=5, usd=1.0))
    async with world.browser() as c:
        answers = [
            await c.post("/api/start-job", json={"userPrompt": "x", **more})
            for more in (
                {"limits": {"steps": 3}},
                {"limits": {"steps": 6}},
                {"limits": {"usd": None}},
                {"notifyUrl": "https://x.example"},
            )
        ]
    assert [a.status_code for a in answers] == [202, 403, 403, 403]


# ---------------------------------------------------------------- signed messages


async def test_the_driver_secret_carries_and_steps_and_each_message_counts_once():
    world = w.World(w.three_steps)
    await start(world)
    body = json.dumps({"tenant": "default", "id": "s1", "carrier": "client"})
    async with world.client() as c:
        carried = await c.post("/api/carry", content=body, headers={**signed(body), "prefer": "wait"})
        replayed = await c.post("/api/carry", content=body, headers=signed(body))
        changed = await c.post("/api/carry", content=body.replace("s1", "s2"), headers=signed(body, "msg_2"))
        old = await c.post("/api/carry", content=body, headers=signed(body, "msg_3", at=datetime(2020, 1, 1, tzinfo=UTC)))
        wrong = await c.post("/api/carry", content=body, headers=signed(body, "msg_4", secret="another secret altogether"))
        broken = await c.post(
            "/api/carry", content=body, headers={"webhook-signature": "nonsense", "webhook-id": "a", "webhook-timestamp": "b"}
        )
        other_thing = await c.post("/api/runs/s1/cancel", content="{}", headers=signed("{}", "msg_5"))
    assert carried.status_code == 202
    assert world.calls == 3
    assert (replayed.status_code, replayed.json()["code"]) == (401, "message_replayed")
    assert [a.json()["code"] for a in (changed, old, wrong, broken)] == ["signature_invalid"] * 4
    assert other_thing.status_code == 403


async def test_a_sweep_that_is_not_there_says_so():
    world = w.World(w.three_steps)
    async with world.client() as c:
        assert (await c.post("/api/sweep", content="", headers=signed(""))).status_code == 501


async def test_a_signed_event_needs_its_own_signature():
    world = w.World(w.waits_for_event)
    await start(world)
    token = world.auth.event_token(KEY, "payment", signed=True)
    at = datetime.now(UTC)
    headers = {
        "webhook-id": "m1", "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(world.auth.event_secret(token)).sign("m1", at, "{}"),
    }  # fmt: skip
    async with world.client() as c:
        bare = await c.post(f"/api/events/{token}", content="{}")
        good = await c.post(f"/api/events/{token}", content="{}", headers=headers)
        other = await c.post(f"/api/events/{token}", content='{"a":1}', headers=headers)
    assert [a.status_code for a in (bare, good, other)] == [401, 200, 401]


# ---------------------------------------------------------------- without auth


async def test_auth_off_is_for_this_machine_only():
    world = w.World(w.three_steps, auth=Auth(None, off=True))
    async with world.client() as c:
        here = await w.founding(c, "s1")
        rebound = await c.get("/api/runs", headers={"host": "evil.example"})
        foreign = await c.get("/api/runs", headers={"origin": "https://evil.example"})
    assert here.status_code == 200
    assert "set-cookie" not in here.headers
    assert [(a.status_code, a.json()["code"]) for a in (rebound, foreign)] == [(403, "loopback_only")] * 2


def test_no_secret_or_a_short_one_refuses_to_start():
    for secret in (None, "short"):
        with pytest.raises(ConfigError, match="STEPRELAY_SECRET"):
            Auth(secret)


async def test_no_secret_is_shown(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    world = w.World(w.three_steps)
    token = await start(world)
    said = [repr(world.auth), repr(world.app.state.api.auth)]
    async with world.client() as c:
        for value in (token + "x", w.SECRET + "x"):
            said.append((await c.get("/api/runs/s1", headers=bearer(value))).text)
        said.append((await c.post("/api/carry", content="{}", headers=signed("{}", secret="another secret altogether"))).text)
    for text in (*said, caplog.text):
        assert w.SECRET not in text
        assert token not in text


async def test_cors_is_closed_unless_named():
    closed, opened = w.World(w.three_steps), w.World(w.three_steps, cors=("https://app.example",))
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with closed.client() as c:
        assert "access-control-allow-origin" not in (await c.options("/api/runs", headers=asked)).headers
    async with opened.client() as c:
        assert (await c.options("/api/runs", headers=asked)).headers["access-control-allow-origin"] == "https://app.example"
        assert (await c.options("/api/runs", headers={**asked, "origin": "https://evil.example"})).status_code == 400
