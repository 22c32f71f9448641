"""The HTTP application: every route, and nothing else.

    request ─ body within its limit ─ who ─ shape ─▶ handler ─▶ loop.pulse / store.signal / store.read ─▶ wire ─▶ response

Handlers translate; what may happen to a run is decided by the store's guard and the machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..core.model import RunKey
from ..drivers.loop import Loop
from ..engine import Engine
from . import ops, runs, steps, talk
from .api import Api, Endpoint, HttpSettings, refuse, respond, serve
from .auth import Auth
from .problem import Problem

FOUNDING = ("/api/agent-step", "/.netlify/functions/agent-step", "/api/step")
_PAGE = {"after": "index of the newest step already known", "limit": "at most so many steps"}
_LIST = {"cursor": "where the last page ended", "limit": "at most so many runs"}
_KEY = {"Idempotency-Key": "makes a repeated request recognisable"}
_PREFER = {**_KEY, "Prefer": "`steps=fit`: as many steps as fit the time; `strict`: 409 instead of 202"}
_ANYONE = "server key; or anyone, as `anonymous_start` allows"
_RUN = "server key, run token, or the browser that started the run"

ENDPOINTS: tuple[Endpoint, ...] = (
    *(
        Endpoint(
            "POST", path, steps.agent_step, "Take one step of a session", "Envelope", _ANYONE, body="AgentStep",
            headers=_PREFER, query={"protocol": "plain, agui or aisdk, of an event stream"}, stream=True,
        )
        for path in FOUNDING
    ),
    Endpoint("POST", "/api/start-job", steps.start_job, "Start a run in the background", "Created", _ANYONE,
             body="StartJob", status=202, headers=_KEY),
    Endpoint("POST", "/api/runs", runs.create_run, "Create a run", "Created", _ANYONE, body="CreateRun", status=201, headers=_KEY),
    Endpoint("GET", "/api/runs", runs.list_runs, "List runs, newest first", "RunList", "server key; a browser sees its own",
             query={"status": "one or more, by commas", "agent": "its name", "label": "name:value", **_LIST}),
    Endpoint("GET", "/api/runs/{id}", runs.get_run, "Read a run", "RunView", _RUN,
             query={"wait": "seconds to wait for a change"}, headers={"If-None-Match": "the ETag already known"}),
    Endpoint("GET", "/api/runs/{id}/steps", runs.list_steps, "Read its steps", "StepList", _RUN, query=_PAGE),
    Endpoint("GET", "/api/runs/{id}/messages", runs.list_messages, "Read its messages", "MessageList", _RUN, query=_PAGE),
    Endpoint("GET", "/api/runs/{id}/parts", runs.list_parts, "Read or follow its parts", "PartList", _RUN, stream=True,
             query={**_PAGE, "protocol": "plain, agui or aisdk, of an event stream"}, headers={"Last-Event-ID": "goes on from that step"}),
    Endpoint("GET", "/api/runs/{id}/blobs/{name}", runs.get_blob, "The whole of a tool result that was cut", "Whole", _RUN,
             headers={"If-None-Match": "the ETag already known"}),
    Endpoint("GET", "/api/runs/{id}/explain", runs.explain_run, "Why it stands still", "Explanation", _RUN),
    Endpoint("POST", "/api/runs/{id}/step", steps.run_step, "Take its next step", "Envelope", _RUN, body="TakeStep",
             headers=_PREFER, query={"protocol": "plain, agui or aisdk, of an event stream"}, stream=True),
    Endpoint("POST", "/api/runs/{id}/input", talk.give_input, "Answer it, or give it a prompt", "RunView", _RUN, body="InputBody",
             headers=_KEY),
    Endpoint("POST", "/api/runs/{id}/cancel", talk.cancel, "Stop it for good", "RunView", _RUN, body="Nothing"),
    Endpoint("POST", "/api/runs/{id}/resume", talk.resume, "Go on after a failure or a brake", "RunView", _RUN, body="Resume"),
    Endpoint("POST", "/api/runs/{id}/fork", talk.fork, "A new run from one of its steps", "Created", _RUN, body="Fork", status=201),
    Endpoint("POST", "/api/runs/{id}/hand-over", talk.hand_over, "Give it to another driver", "RunView", _RUN, body="HandOver"),
    Endpoint("POST", "/api/runs/{id}/token", runs.give_token, "A token for it, to hand on", "Token", "server key", body="GiveToken"),
    Endpoint("GET", "/api/approvals", ops.approvals, "Everything that waits for a person", "ApprovalList",
             "server key; a browser sees its own", query=_LIST),
    Endpoint("POST", "/api/events/{token}", ops.deliver_event, "Deliver an event to a run that waits for it", "Delivered",
             "the token; a signature where it asks for one", headers={"webhook-id": "the message, once however often it comes"}, open=True),
    Endpoint("POST", "/api/carry", ops.carry, "Carry a run on in the background", "Accepted", "driver secret", body="Carry",
             status=202, headers={"Prefer": "`wait`: answer when the run needs no more from here"}),
    Endpoint("POST", "/api/sweep", ops.sweep, "Pick up what nobody carries", "Swept", "driver secret"),
    Endpoint("GET", "/api/metrics", ops.metrics, "Figures of this process, for Prometheus", "Figures", "server key, or driver secret",
             media="text/plain"),
    Endpoint("GET", "/api/health", ops.health, "Liveness, store, schema", "Health", "anyone", open=True),
    Endpoint("GET", "/api/openapi.json", ops.openapi, "This document", "Document", "anyone", open=True),
)  # fmt: skip


def build(
    engine: Engine, loop: Loop, *, auth: Auth, settings: HttpSettings,
    wake: Callable[[RunKey, str], Awaitable[object]] | None = None,
    carry: Callable[[RunKey, str, float], Awaitable[object]] | None = None,
    sweep: Callable[[], Awaitable[Any]] | None = None,
    deliver: Callable[[RunKey], Awaitable[object]] | None = None, carriers: Sequence[str] = ("background",),
    metrics: Callable[[], tuple[bytes, str]] | None = None,
) -> Starlette:  # fmt: skip
    """The ASGI app. `wake(key, carrier)` calls a run's carrier, if it is one of `carriers`, `carry(key, carrier, wall)` drives it in this process,
    `sweep()` answers what it found, `deliver(key)` sends a run's outbox, `metrics()` answers figures
    and their content type. Without them, what needs them says so."""
    api = Api(
        engine=engine, loop=loop, auth=auth, settings=settings, endpoints=ENDPOINTS, wake=wake, carry=carry, sweep=sweep,
        deliver=deliver, carriers=carriers, metrics=metrics,
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await api.close()

    app = Starlette(
        routes=[*_routes(api), *_page(settings)],
        middleware=_cors(settings),
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.state.api = api
    return app


def _routes(api: Api) -> list[BaseRoute]:
    """One route a path, so that a wrong method is answered with `Allow`."""
    paths: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
    for e in ENDPOINTS:
        paths.setdefault(e.path, {})[e.method] = serve(api, e)
    whole = {path: path.replace("{name}", "{name:path}") for path in paths}  # the name of a blob has slashes
    return [Route(whole[path], _by_method(methods), methods=list(methods)) for path, methods in paths.items()]


def _by_method(methods: dict[str, Callable[[Request], Awaitable[Response]]]) -> Callable[[Request], Awaitable[Response]]:
    async def dispatch(request: Request) -> Response:
        return await methods["GET" if request.method == "HEAD" else request.method](request)

    return dispatch


def _page(settings: HttpSettings) -> list[BaseRoute]:
    """The built page, if there is one."""
    if settings.ui is None:
        return []
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    return [Mount("/", StaticFiles(directory=settings.ui, html=True))]


def _cors(settings: HttpSettings) -> list[Middleware]:
    """Closed unless origins are named."""
    if not settings.cors:
        return []
    from starlette.middleware.cors import CORSMiddleware

    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Prefer"],
            expose_headers=["ETag", "Location", "Retry-After", "Idempotent-Replayed"],
        )
    ]


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses: no such path, or not with this method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 405:
        return refuse(
            Problem(
                405, "method_not_allowed", f"{request.method} is not allowed here; use {headers.get('Allow')}.", headers=headers
            )
        )
    return refuse(
        Problem(status, "not_found" if status == 404 else "http", f"There is nothing at {request.url.path!r}.", headers=headers)
    )


__all__ = ["ENDPOINTS", "FOUNDING", "HttpSettings", "build", "respond"]
