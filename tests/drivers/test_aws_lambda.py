"""A function that invokes itself, against a loopback Lambda which checks AWS's signature and delivers the event for real."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from mangum import Mangum

from steprelay import App, ConfigError, Limits, Reply
from steprelay.core.errors import StoreUnavailable
from steprelay.core.model import Run, RunKey
from steprelay.drivers.aws_lambda import LambdaWaker
from steprelay.http.auth import driver_secret

SECRET = "a secret that only these tests know"
ARN = "arn:aws:lambda:eu-west-3:123456789012:function:agents:live"
KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a session token")
KEY = RunKey("default", "r1")


class Lambda(ThreadingHTTPServer):
    """AWS Lambda's Invoke, as far as asynchronous events go: answers 202, then calls `handler` with the event."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Invoke)
        self.events: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.handler: Any = lambda event: None
        self.deliveries = ThreadPoolExecutor(4)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Invoke(BaseHTTPRequestHandler):
    server: Lambda

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        problem = refusal(self.server.url + self.path, dict(self.headers.items()), body)
        if not problem:  # noted before it is answered: who got the answer looks
            self.server.paths.append(self.path)
            self.server.events.append(json.loads(body))
        self.send_response(403 if problem else 202)
        self.send_header("content-length", "0")
        self.end_headers()
        if not problem:
            self.server.deliveries.submit(self.server.handler, json.loads(body))

    def log_message(self, *args: Any) -> None:
        pass


def refusal(url: str, headers: dict[str, str], body: bytes) -> str | None:
    """Why this is no asynchronous invocation that these keys have signed: everything is computed from what has arrived."""
    given = {k.lower(): v for k, v in headers.items()}
    if given.get("x-amz-invocation-type") != "Event":
        return "not asynchronous"
    parts = dict(p.strip().split("=", 1) for p in given["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(","))
    region = parts["Credential"].split("/")[2]
    names = parts["SignedHeaders"].split(";")
    if not {"host", "x-amz-date", "x-amz-security-token", "x-amz-invocation-type"} <= set(names):
        return "too little is signed"
    request = AWSRequest(method="POST", url=url, data=body, headers={n: given[n] for n in names if n != "host"})
    at = datetime.strptime(given["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
    if abs((datetime.now(at.tzinfo) - at).total_seconds()) > 300:
        return "too old"
    request.context["timestamp"] = given["x-amz-date"]
    auth = SigV4Auth(KEYS, "lambda", region)
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return None if parts["Signature"] == signature else "another signature"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lambda]:
    """An environment as Lambda makes it, but for the endpoint."""
    with Lambda() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "NETLIFY", "STEPRELAY_PUBLIC_URL", "QSTASH_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_key)
        monkeypatch.setenv("AWS_SESSION_TOKEN", KEYS.token)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", server.url)
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "agents")
        monkeypatch.setenv("STEPRELAY_STORE", f"sqlite:///{tmp_path}/runs.db")
        yield server
        server.deliveries.shutdown()
        server.shutdown()
        thread.join()


class TwoSeconds:
    """What Lambda tells each invocation of itself."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + 2.0

    def get_remaining_time_in_millis(self) -> int:
        return int(max(0.0, self._ends - time.monotonic()) * 1000)


async def count(turn: Any, ctx: Any) -> Any:
    await asyncio.sleep(0.2)
    return "counted" if turn.step == 14 else Reply()


def an_app(**options: Any) -> App:
    return App(count, secret=SECRET, observer=None, limits=Limits(steps=None, repeats=None), **options)


async def ended(app: App, id: str) -> Run:
    for _ in range(1000):
        (run,) = await app.store.read(RunKey(app.tenant, id), "run")
        if run.ended:
            return run
        await asyncio.sleep(0.03)
    raise AssertionError(f"it does not end: {run}")


@pytest.mark.slow
async def test_a_run_is_carried_by_one_invocation_after_the_other(aws: Lambda) -> None:
    answers: list[int] = []

    def handler(event: dict[str, Any]) -> None:
        """A function as its user writes it; each invocation is one of its own."""
        asyncio.set_event_loop(asyncio.new_event_loop())
        answers.append(Mangum(an_app(), lifespan="off")(event, TwoSeconds())["statusCode"])  # type: ignore[arg-type]

    aws.handler = handler
    app = an_app()
    assert isinstance(app.waker, LambdaWaker)
    run = await ended(app, await app.start("go", id="r1", carrier="background"))
    steps = await app.store.read(RunKey(app.tenant, "r1"), "steps")
    aws.deliveries.shutdown()
    assert (run.status, run.step) == ("COMPLETED", 15)
    assert {s.attempt for s in steps} == {1}
    assert 2 <= len(aws.events) <= 8
    assert answers == [202] * len(aws.events)
    assert set(aws.paths) == {"/2015-03-31/functions/agents/invocations"}
    await app.shutdown()


async def test_an_alias_of_a_function_elsewhere_is_invoked_there(aws: Lambda) -> None:
    await LambdaWaker(ARN, driver_secret(SECRET)).wake(KEY, "background")
    (path,) = aws.paths
    assert path == "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-3%3A123456789012%3Afunction%3Aagents%3Alive/invocations"
    (event,) = aws.events
    assert json.loads(event["body"]) == {"tenant": "default", "id": "r1", "carrier": "background"}
    assert (event["version"], event["rawPath"], event["headers"]["prefer"]) == ("2.0", "/api/carry", "wait")
    assert event["requestContext"]["http"]["method"] == "POST"


async def test_a_delay_is_left_to_the_sweeper(aws: Lambda) -> None:
    await LambdaWaker("agents", driver_secret(SECRET)).wake(KEY, "background", after=3.0)
    assert aws.events == []


async def test_an_invocation_that_is_refused_is_told_without_secrets(aws: Lambda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a wrong one")
    with pytest.raises(StoreUnavailable, match="AWS Lambda answered 403; the sweeper will find the run") as refused:
        await LambdaWaker("agents", driver_secret(SECRET)).wake(KEY, "background")
    assert "a wrong one" not in str(refused.value)
    assert aws.events == []


async def test_what_is_missing_is_said(aws: Lambda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(ConfigError, match="give its ARN, or set AWS_REGION"):
        LambdaWaker("agents", driver_secret(SECRET))
    LambdaWaker(ARN, driver_secret(SECRET))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreUnavailable, match="give the function a role"):
        await LambdaWaker(ARN, driver_secret(SECRET)).wake(KEY, "background")
    monkeypatch.setattr("steprelay.drivers.aws_lambda.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"steprelay\[lambda\]"):
        LambdaWaker(ARN, driver_secret(SECRET))


def test_the_endpoint_is_that_of_the_region(aws: Lambda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_LAMBDA")
    for region, host in (("eu-west-1", "lambda.eu-west-1.amazonaws.com"), ("cn-north-1", "lambda.cn-north-1.amazonaws.com.cn")):
        monkeypatch.setenv("AWS_REGION", region)
        assert LambdaWaker("agents", driver_secret(SECRET))._url == f"https://{host}/2015-03-31/functions/agents/invocations"


@pytest.mark.parametrize(("environ", "waker"), [
    ({}, "LambdaWaker"),
    ({"STEPRELAY_PUBLIC_URL": "https://a.example"}, "LambdaWaker"),
    ({"STEPRELAY_PUBLIC_URL": "https://a.example", "QSTASH_TOKEN": "t"}, "QStashWaker"),
    ({"STEPRELAY_PUBLIC_URL": "https://a.example", "NETLIFY": "true"}, "FunctionWaker"),
    ({"AWS_LAMBDA_FUNCTION_NAME": ""}, "TaskWaker"),
    ({"AWS_LAMBDA_FUNCTION_NAME": "", "STEPRELAY_LAMBDA_FUNCTION": ARN}, "LambdaWaker"),
])  # fmt: skip
def test_on_lambda_the_app_invokes_itself(
    aws: Lambda, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], waker: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert type(an_app().waker).__name__ == waker


def test_without_botocore_a_public_url_is_asked_instead(aws: Lambda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPRELAY_PUBLIC_URL", "https://a.example")
    monkeypatch.setattr("steprelay.drivers.aws_lambda.find_spec", lambda name: None)
    assert type(an_app().waker).__name__ == "HttpWaker"
