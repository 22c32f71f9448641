"""How runs come to be: who may start one, what it is made of, and the limits on strangers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from secrets import token_hex
from typing import Any
from uuid import uuid4

from ..core import codec
from ..core.model import Json, Limits, New, Refused, Run, RunKey, Step, Tally, Value
from ..core.noun import replace
from .api import Api, Call, unknown_sender
from .auth import ACTIONS, Action, cookie, same_origin
from .problem import Problem, absent

DAY = 86_400.0
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


async def admit(call: Call) -> str | None:
    """Let the sender start a run and answer its owner; a browser without a cookie gets one. Raises Problem 401, 403, 429."""
    who, settings = call.who, call.api.settings
    if who.kind == "server":
        return None
    if who.kind == "run":
        raise Problem(403, "not_allowed", "A run token is for one run; starting another needs the server key.")
    if who.kind == "driver" or settings.anonymous_start == "deny":
        raise unknown_sender()
    if settings.anonymous_start == "same-origin" and same_origin(call.request.headers, settings.public_url) is not True:
        raise Problem(403, "foreign_origin", "Runs are started from this server's own pages, or with the server key.")
    await within_rate(call)
    if who.owner is not None:
        return who.owner
    owner, value = call.api.auth.owner()
    call.cookie = cookie(value, call.request.headers)
    return owner


async def admit_round(call: Call, run: Run) -> None:
    """Let another round of a run begin: what a stranger started is counted like a start. Raises Problem 429."""
    if run.owner is not None and not call.who.trusted:
        await within_rate(call)


async def within_rate(call: Call) -> None:
    """Count a stranger's start by address. Raises Problem 429."""
    store, settings, address = call.api.engine.store, call.api.settings, _address(call)
    if await store.incr(f"starts/{settings.tenant}/{address}", 1, ttl=60.0) > settings.starts_a_minute:
        raise Problem(
            429, "rate_limited", f"More than {settings.starts_a_minute} starts a minute from this address; try again later.",
            headers={"Retry-After": "60"},
        )  # fmt: skip
    usd = settings.limits.usd
    if settings.usd_a_day is None or usd is None:
        return
    if await store.incr(f"usd/{settings.tenant}/{address}", usd, ttl=DAY) > settings.usd_a_day:
        raise Problem(
            429, "budget_spent", "The money for runs from this address is spent for today.", headers={"Retry-After": "3600"}
        )


def _address(call: Call) -> str:
    """Whom to count: a hash, so that no address is kept."""
    name, client = call.api.settings.address_header, call.request.client
    given = call.header(name) if name else None
    address = (given or "").split(",")[0].strip() or (client.host if client else "unknown")
    return sha256(address.encode()).hexdigest()[:32]


def make(
    call: Call, *, agent: str | None, prompt: Value, owner: str | None, limits: Any = None, carrier: str = "client",
    takeover_after: float | None = None, notify_url: str | None = None, **more: Any,
) -> New:  # fmt: skip
    """What a new run is made of. Raises Problem 400 and 403."""
    settings = call.api.settings
    name = agent or next(iter(settings.agents))
    if name not in settings.agents:
        known = ", ".join(map(repr, settings.agents))
        raise Problem(400, "unknown_agent", f"There is no agent {name!r}; there are {known}.", path="$.agent")
    if notify_url is not None and not call.who.trusted:
        raise Problem(403, "server_key_only", "notifyUrl needs the server key.", path="$.notifyUrl")
    takeover_after = call.api.silence(carrier, takeover_after)
    more["labels"] = _traced(call, more.get("labels", "{}"))
    return New(
        agent=name,
        adapter=settings.agents[name],
        prompt=None if prompt is None else codec.dumps(prompt),
        limits=codec.pack(limited(settings.limits, limits, free=call.who.trusted)),
        carrier=carrier,
        takeover_after=takeover_after,
        owner=owner,
        notify_url=notify_url,
        **more,
    )


def _traced(call: Call, labels: Json) -> Json:
    """The labels, and the trace of a trusted caller (W3C Trace Context): the run's spans will be part of it."""
    came, known = call.header("traceparent") or "", codec.loads(labels)
    if not call.who.trusted or "traceparent" in known or not _TRACEPARENT.fullmatch(came):
        return labels
    return codec.dumps({**known, "traceparent": came})


def given(limits: Any) -> dict[str, Value]:
    """The limits that a body really names, by their names in the model."""
    if limits is None:
        return {}
    from msgspec import UNSET

    return {f: v for f in limits.__struct_fields__ if (v := getattr(limits, f)) is not UNSET}


def limited(default: Limits, limits: Any, *, free: bool) -> Limits:
    """The default limits with those of a body. Strangers (`free` false) may only tighten them. Raises Problem 403."""
    wanted = replace(default, **given(limits))
    for name in Limits.fields:
        allowed, asked = getattr(default, name), getattr(wanted, name)
        if not free and name != "extra" and allowed is not None and (asked is None or asked > allowed):
            raise Problem(403, "limit_too_high", f"Without the server key, {name} is at most {allowed}.", path="$.limits")
    return wanted


async def create(api: Api, key: RunKey, new: New) -> tuple[bool, Run]:
    """Create the run if its id is free. Raises Problem 404 when it is somebody else's, 410 when it was pruned."""
    made = await api.engine.store.claim(key, claim_id=uuid4().hex, holder="", lease=0, carrier=None, new=new)
    assert isinstance(made, Refused)
    assert made.run is not None
    if made.run.owner != new.owner:
        raise absent()
    api.know(made.run)
    return made.reason == "created", made.run


async def create_same(call: Call, id: str | None, new: New) -> tuple[bool, Run]:
    """Create a run for a request that may be repeated: by its Idempotency-Key, or by the id it names.

    Raises Problem 409 (the id is taken by another request) and 422 (the key was used for another body).
    """
    api, repeat = call.api, call.header("idempotency-key")
    new = replace(new, create_hash=sha256(call.raw).hexdigest())
    ids = [id] if id is not None else api.auth.run_ids(api.settings.tenant, new.owner, repeat) if repeat else [token_hex(16)]
    for older in ids[1:]:
        if await api.engine.store.read(call.named(older), "run"):
            ids = [older]
    created, run = await create(api, call.named(ids[0]), new)
    if not created and run.create_hash != new.create_hash:
        if repeat:
            raise Problem(422, "key_reused", "This Idempotency-Key was used for a request with another body; use a new key.")
        raise Problem(409, "run_exists", f"There is a run {ids[0]!r} already; read it, give it input, or choose another id.")
    return created, run


def token(call: Call, key: RunKey) -> str:
    """A token for whoever started the run."""
    actions: Sequence[Action] = ACTIONS
    return call.api.auth.run_token(key, actions, call.api.settings.token_seconds)


def seeded(call: Call, agent: str | None, messages: Sequence[Value]) -> dict[str, Any]:
    """The fields of a run that begins with a history. Raises Problem 400, BadInput."""
    name = agent or next(iter(call.api.settings.agents))
    adapter = call.api.engine.agents.get(name)
    if adapter is None or not messages:
        return {}
    stored = tuple(codec.dumps(m) for m in adapter.seed(messages))
    step = Step(index=0, round=0, attempt=0, carrier="import", claim_id="seed", status="RUNNING", messages=stored)
    return {"steps": (step,), "tally": codec.pack(Tally(base=1))}


def split_prompt(messages: list[Any] | None, prompt: str | None) -> tuple[list[Any], Value]:
    """History and prompt: without a prompt, the last message is it. Raises Problem 400."""
    messages = messages or []
    if prompt is not None:
        return messages, prompt
    match messages[-1] if messages else None:
        case {"role": "user", "content": content} if content:
            return messages[:-1], content
    raise Problem(400, "bad_input", "Give userPrompt, or messages that end with one of the user.", path="$.userPrompt")
