"""For an app that runs elsewhere, behind a site on Netlify: takes only what that site has signed.

A rewrite with `signed = "STEPRELAY_PROXY_SECRET"` sends a JSON Web Signature (HS256, good for five minutes) in `x-nf-sign`. It
sends *none* if the variable is not set there; so what is not signed is refused, and an app without the secret does not start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ...core.errors import ConfigError

Message = MutableMapping[str, Any]
HEADER = b"x-nf-sign"
REWRITE = 24_000
"""Milliseconds a rewritten request may live: Netlify gives it 26 s."""
OPEN = ("/api/health",)
"""What anybody may ask: it says that the app lives, and nothing else."""


class Signed:
    """An ASGI app before another. What the driver secret has signed (`webhook-signature`) passes: the app checks that itself."""

    def __init__(self, app: Any, secret: str | None = None, *, site: str | None = None) -> None:
        """`secret`: as `STEPRELAY_PROXY_SECRET` on Netlify, from which it is taken here as well; `site`: the only `site_url`
        that is taken. Raises ConfigError without a secret, or without PyJWT."""
        secret = secret or os.environ.get("STEPRELAY_PROXY_SECRET")
        if not secret or len(secret) < 16:
            raise ConfigError(
                "STEPRELAY_PROXY_SECRET is not set, or shorter than 16 characters: set it here and on Netlify, to the output of "
                "`openssl rand -hex 32`"
            )
        try:
            import jwt
        except ModuleNotFoundError as e:
            raise ConfigError("signed rewrites need PyJWT: pip install 'steprelay[netlify]'") from e
        self._jwt: Any = jwt
        self._app, self._secret, self._site = app, secret, site
        if hasattr(app, "http"):  # an App: it may believe what we say of the wall and the address
            app.http = {"wall_header": True, "address_header": "x-nf-client-connection-ip", **app.http}

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or any(name == b"webhook-signature" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
        elif self._valid(scope["headers"]):
            ours = [(n, v) for n, v in scope["headers"] if not n.startswith(b"x-steprelay-")]
            wall = (b"x-steprelay-wall-ms", str(REWRITE).encode())
            await self._app({**scope, "headers": [*ours, wall]}, receive, send)
        else:
            await _refuse(send)

    def _valid(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether there is one signature, by our secret, of this issuer and still good."""
        found = [value for name, value in headers if name == HEADER]
        if len(found) != 1:
            return False
        options = {"require": ["exp", "iss"], "verify_aud": False}
        try:
            claims = self._jwt.decode(found[0], self._secret, algorithms=["HS256"], issuer="netlify", options=options, leeway=5)
        except self._jwt.InvalidTokenError:
            return False
        return self._site is None or claims.get("site_url") == self._site


async def _refuse(send: Callable[[Message], Awaitable[None]]) -> None:
    problem = {
        "type": "about:blank", "title": "Unauthorized", "status": 401, "code": "not_signed",
        "detail": "This is taken through its site on Netlify only, with a signed rewrite; is STEPRELAY_PROXY_SECRET set there?",
    }  # fmt: skip
    headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(problem).encode()})
