"""AWS Lambda as its own waker: the function invokes itself asynchronously.

What it is sent is the event of a request (payload format 2.0, as of a function URL), so that the adapter which turns events
into requests for this app turns this one into `POST /api/carry` as well. Lambda keeps the event until it was handled.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from ..core.errors import ConfigError, StoreUnavailable
from ..core.model import RunKey
from ..ports import Waker
from .wake import body_of, post, signed

INSTALL = "pip install 'steprelay[lambda]'"


def available() -> bool:
    """Whether what signs the call is installed: Lambda's own Python runtimes bring it along."""
    return find_spec("botocore") is not None


class LambdaWaker(Waker):
    """Invokes a function with an event (`InvocationType: Event`), signed for AWS and, inside, with the driver secret.

    The role of the caller needs `lambda:InvokeFunction` on it. A delay is left to the sweeper.
    """

    def __init__(self, function: str, secret: str, *, path: str = "/api/carry", timeout: float = 10.0) -> None:
        """`function`: name, `name:alias` or ARN; `secret`: the driver secret. Region, credentials and an endpoint of your own
        (`AWS_REGION`, `AWS_ENDPOINT_URL_LAMBDA`, …) are found as AWS's tools find them. Raises ConfigError."""
        if not available():
            raise ConfigError(f"invoking {function!r} needs botocore: {INSTALL}")
        self._region = _region(function, os.environ)
        self._url = f"{_endpoint(self._region, os.environ)}/2015-03-31/functions/{quote(function, safe='')}/invocations"
        self._secret, self._path, self._timeout = secret, path, timeout
        self._credentials: Any = None

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        if after > 0:
            return
        payload = json.dumps(self._event(body_of(key, carrier)))
        headers = await asyncio.to_thread(self._signed, payload)  # imports for a while, and may have to fetch credentials
        await post(self._url, payload, headers, self._timeout, "AWS Lambda")

    def _event(self, body: str) -> dict[str, Any]:
        """The request, as a function URL would hand it over. `Prefer: wait`: a function lives until it has answered."""
        now = datetime.now(UTC)
        headers = {
            "host": "localhost", "content-type": "application/json", "content-length": str(len(body)), "prefer": "wait",
            "user-agent": "steprelay", **signed(self._secret, body),
        }  # fmt: skip
        http = {"method": "POST", "path": self._path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "steprelay"}
        context = {
            "accountId": "anonymous", "apiId": "steprelay", "domainName": "localhost", "domainPrefix": "localhost",
            "http": http, "requestId": headers["webhook-id"], "routeKey": "$default", "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"), "timeEpoch": int(now.timestamp() * 1000),
        }  # fmt: skip
        return {
            "version": "2.0", "routeKey": "$default", "rawPath": self._path, "rawQueryString": "", "headers": headers,
            "requestContext": context, "body": body, "isBase64Encoded": False,
        }  # fmt: skip

    def _signed(self, payload: str) -> dict[str, str]:
        """The headers of the invocation. Raises StoreUnavailable: where credentials come from may be away."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError
        from botocore.session import get_session

        headers = {"content-type": "application/json", "x-amz-invocation-type": "Event"}
        try:
            self._credentials = self._credentials or get_session().get_credentials()
            frozen = self._credentials and self._credentials.get_frozen_credentials()
        except BotoCoreError as e:
            raise StoreUnavailable(f"no AWS credentials ({type(e).__name__}); the sweeper will find the run") from e
        if frozen is None:
            raise StoreUnavailable("no AWS credentials; give the function a role that may invoke it")
        request = AWSRequest(method="POST", url=self._url, data=payload, headers=headers)
        SigV4Auth(frozen, "lambda", self._region).add_auth(request)
        return dict(request.headers.items())


def _region(function: str, environ: Mapping[str, str]) -> str:
    """That of the ARN, else this process's. Raises ConfigError."""
    parts = function.split(":")
    region = parts[3] if len(parts) > 6 else environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise ConfigError(f"the region of the function {function!r} is not known; give its ARN, or set AWS_REGION")
    return region


def _endpoint(region: str, environ: Mapping[str, str]) -> str:
    own = environ.get("AWS_ENDPOINT_URL_LAMBDA") or environ.get("AWS_ENDPOINT_URL")
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return own.rstrip("/") if own else f"https://lambda.{region}.{domain}"
