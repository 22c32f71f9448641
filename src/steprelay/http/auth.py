"""Who may do what: one secret, five kinds of right, nothing kept on the server.

    server key      Authorization: Bearer <key>   everything in the tenant
    run token       Authorization: Bearer <token> the listed actions on one run, until it expires: what a browser holds
    owner cookie    set when a browser starts a run anonymously: everything on the runs it started
    driver secret   Standard Webhooks headers: sweeps, self-calls, steps; each message counts once
    event token     in the URL: delivers one event to one run

All of them are derived from `STEPRELAY_SECRET`; what the previous secret has signed is still accepted.
"""

from __future__ import annotations

import hmac
import secrets
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import ConfigError
from ..core.model import RunKey
from ..ports import Store
from .problem import Problem

if TYPE_CHECKING:
    from itsdangerous import URLSafeSerializer

Action = Literal["read", "step", "input", "cancel", "resume", "fork", "hand-over"]
ACTIONS: tuple[Action, ...] = ("read", "step", "input", "cancel", "resume", "fork", "hand-over")
COOKIE = "steprelay_owner"
COOKIE_SECONDS = 180 * 86_400
MESSAGE_SECONDS = 600
"""How long a message id is remembered: twice the age at which Standard Webhooks refuses a message."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Who:
    """Whoever asks. `run` and `actions` bind a run token, `owner` the browser behind a cookie."""

    kind: Literal["server", "driver", "run", "owner", "anonymous"]
    owner: str | None = None
    run: RunKey | None = None
    actions: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """May name what costs money or reaches out: higher limits, a URL to notify."""
        return self.kind == "server"

    def sees(self, key: RunKey, owner: str | None) -> bool:
        """Whether a run is theirs at all; if not, they are told that there is none."""
        match self.kind:
            case "server" | "driver":
                return True
            case "run":
                return self.run == key
            case "owner":
                return owner is not None and owner == self.owner
            case _:
                return False

    def may(self, action: Action) -> bool:
        """Whether a run that they see may be acted on like this."""
        if self.kind == "driver":
            return action in ("read", "step")
        return self.kind != "run" or action in self.actions


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What an event token says: the run, what it waits for, and whether the message must be signed."""

    key: RunKey
    id: str
    signed: bool


class Auth:
    """Signs and checks. `off=True` lets everybody on loopback do everything: development only."""

    def __init__(
        self, secret: str | None, *, previous: Sequence[str] = (), off: bool = False, clock: Callable[[], float] = time.time
    ) -> None:  # fmt: skip
        if secret is None and not off:
            raise ConfigError("no secret is set; set STEPRELAY_SECRET (for example to the output of `openssl rand -hex 32`)")
        if secret is not None and len(secret) < 16:
            raise ConfigError("STEPRELAY_SECRET is shorter than 16 characters; use the output of `openssl rand -hex 32`")
        self._secrets = (secret or secrets.token_hex(32), *previous)
        self.off, self._clock = off, clock

    def __repr__(self) -> str:
        return f"Auth({'off' if self.off else 'on'})"

    # ------------------------------------------------------------ what is handed out

    @property
    def server_key(self) -> str:
        """What a server sends as bearer. The secret itself is taken as well: whoever has it can make this."""
        return _server_key(self._secrets[0])

    def run_token(self, key: RunKey, actions: Sequence[Action], seconds: float) -> str:
        """A right to `actions` on one run, for so many seconds."""
        until = int(self._clock() + seconds)
        return str(self._signer("run").dumps({"t": key.tenant, "r": key.id, "a": list(actions), "x": until}))

    def event_token(self, key: RunKey, id: str, *, signed: bool = False) -> str:
        """A right to deliver the event `id` to a run. `signed`: the message must carry a signature by `event_secret`."""
        return str(self._signer("event").dumps({"t": key.tenant, "r": key.id, "e": id, "s": signed}))

    def event_secret(self, token: str) -> str:
        """The Standard Webhooks secret of whoever sends to a signed event token."""
        return _webhook_secret(self._secrets[0], f"event {token}")

    def owner(self) -> tuple[str, str]:
        """A new owner, and the cookie's value for it."""
        owner = secrets.token_hex(16)
        return owner, str(self._signer("owner").dumps(owner))

    def run_ids(self, tenant: str, owner: str | None, key: str) -> list[str]:
        """The run ids an Idempotency-Key stands for: by the secret, then by previous ones."""
        text = "\0".join((tenant, owner or "", key)).encode()
        return [hmac.new(_derived(s, "run id"), text, sha256).hexdigest()[:32] for s in self._secrets]

    # ------------------------------------------------------------ what comes in

    async def who(self, headers: Mapping[str, str], cookies: Mapping[str, str], raw: bytes, store: Store) -> Who:
        """Who sent this request. Raises Problem 401 for credentials that are no good; none at all is `anonymous`."""
        if self.off:
            _loopback_only(headers)
            return Who(kind="server")
        if "webhook-signature" in headers:
            await self._driver(headers, raw, store)
            return Who(kind="driver")
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme:
            if scheme.lower() != "bearer":
                raise _unauthorized("auth_scheme", "Use `Authorization: Bearer` with a server key or a run token.")
            return self._bearer(bearer.strip())
        owner = self._read("owner", cookies.get(COOKIE, ""))
        return Who(kind="owner", owner=owner) if isinstance(owner, str) else Who(kind="anonymous")

    def event(self, token: str) -> Event:
        """What an event token says. Raises Problem 404: a wrong URL is no URL."""
        match self._read("event", token):
            case {"t": str(tenant), "r": str(run), "e": str(id), "s": bool(signed)}:
                return Event(key=RunKey(tenant, run), id=id, signed=signed)
        raise Problem(404, "not_found", "This is not an address for events.")

    def check_event(self, token: str, headers: Mapping[str, str], raw: bytes) -> None:
        """Check the signature of a message to a signed event token. Raises Problem 401."""
        _verified([_webhook_secret(s, f"event {token}") for s in self._secrets], headers, raw)

    def _bearer(self, text: str) -> Who:
        for secret in self._secrets:
            if _same(text, _server_key(secret)) or _same(text, secret):
                return Who(kind="server")
        match self._read("run", text):
            case {"t": str(tenant), "r": str(run), "a": list(actions), "x": int(until)}:
                if until <= self._clock():
                    raise _unauthorized("token_expired", "The run token has expired; ask your server for a new one.")
                return Who(kind="run", run=RunKey(tenant, run), actions=tuple(actions))
        raise _unauthorized("token_invalid", "The bearer is neither this server's key nor a run token that it signed.")

    async def _driver(self, headers: Mapping[str, str], raw: bytes, store: Store) -> None:
        _verified([driver_secret(s) for s in self._secrets], headers, raw)
        message = headers["webhook-id"]
        name = f"driver/{sha256(message.encode()).hexdigest()}"
        if not await store.put_if(name, "1", ttl=MESSAGE_SECONDS, expect=None):
            raise _unauthorized("message_replayed", "A message with this webhook-id was taken before; sign a new one.")

    def _signer(self, purpose: str) -> URLSafeSerializer:
        from itsdangerous import URLSafeSerializer

        keys = [_derived(s, "token") for s in reversed(self._secrets)]  # the last one signs
        return URLSafeSerializer(keys, salt=f"steprelay.{purpose}", signer_kwargs={"digest_method": sha256})

    def _read(self, purpose: str, text: str) -> Any:
        """The payload of a signed text, None if we did not sign it."""
        from itsdangerous import BadData

        try:
            return self._signer(purpose).loads(text) if text else None
        except (BadData, ValueError):
            return None


def cookie(value: str, headers: Mapping[str, str]) -> str:
    """The Set-Cookie of an owner. Browsers keep `Secure` cookies of plain http on no host we know; loopback is left out."""
    secure = "" if _host(headers) in _LOOPBACK else "; Secure"
    return f"{COOKIE}={value}; Max-Age={COOKIE_SECONDS}; Path=/; HttpOnly; SameSite=Strict{secure}"


def same_origin(headers: Mapping[str, str], public_url: str | None = None) -> bool | None:
    """Whether a browser sent this from our own page; None: it does not say (no browser, or a plain GET)."""
    from urllib.parse import urlsplit

    origin = headers.get("origin")
    if origin is not None:
        ours = {headers.get("host", "").lower()} | ({urlsplit(public_url).netloc.lower()} if public_url else set())
        return urlsplit(origin).netloc.lower() in ours - {""}
    site = headers.get("sec-fetch-site")
    return None if site is None else site in ("same-origin", "none")


def driver_secret(secret: str) -> str:
    """The key of signed self-calls and webhooks, derived from the app's secret, as Standard Webhooks writes it."""
    return "whsec_" + b64encode(sha256(b"steprelay driver\0" + secret.encode()).digest()).decode()


def _webhook_secret(secret: str, purpose: str) -> str:
    return "whsec_" + b64encode(_derived(secret, purpose)).decode()


def _server_key(secret: str) -> str:
    return "srk_" + urlsafe_b64encode(_derived(secret, "server key")).decode().rstrip("=")


def _derived(secret: str, purpose: str) -> bytes:
    return hmac.new(secret.encode(), f"steprelay {purpose}".encode(), sha256).digest()


def _same(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode("utf-8", "surrogatepass"), b.encode())


def _verified(keys: Sequence[str], headers: Mapping[str, str], raw: bytes) -> None:
    """Check a Standard Webhooks signature by any of these keys. Raises Problem 401."""
    from standardwebhooks import Webhook

    for key in keys:
        try:
            Webhook(key).verify(raw, dict(headers), json_parse=False)
            return
        except Exception:  # the library raises what malformed headers happen to cause, not only its own error
            continue
    raise _unauthorized(
        "signature_invalid",
        "The signature is missing, too old, or not by this server's secret; sign webhook-id, -timestamp, body.",
    )


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": "Bearer"})


def _loopback_only(headers: Mapping[str, str]) -> None:
    """Without auth nobody but this machine's own pages may ask: a name that merely resolves to us (DNS rebinding) may not."""
    from urllib.parse import urlsplit

    origin = headers.get("origin")
    if _host(headers) not in _LOOPBACK or (origin is not None and urlsplit(origin).hostname not in _LOOPBACK):
        raise Problem(403, "loopback_only", "Auth is off, so only this machine may ask. Set STEPRELAY_SECRET to serve others.")


def _host(headers: Mapping[str, str]) -> str | None:
    from urllib.parse import urlsplit

    return urlsplit(f"//{headers.get('host', '')}").hostname
