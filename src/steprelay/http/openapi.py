"""The OpenAPI 3.1 document, from the routes and the shapes that check what comes in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from .. import __version__
from . import shapes
from .api import Endpoint

Object = dict[str, Any]
_REF = "#/components/schemas/{name}"
_HEADERS = {
    "Location": "where the run is",
    "Retry-After": "seconds until asking again is worth it",
    "Idempotent-Replayed": "`true` when this is the answer to an earlier request",
    "ETag": "changes when the run does",
}
_REFUSALS = {
    "400": "The request is malformed; `path` says where",
    "401": "No or bad credentials",
    "403": "Not with these credentials",
    "404": "No such run, or not yours",
    "409": "Not as the run stands now; of a step, with its snapshot",
    "410": "Pruned",
    "413": "Body too large",
    "422": "This request id was used with another body",
    "429": "Too often",
    "503": "The store cannot be reached; repeat the same request",
}


def document(endpoints: Sequence[Endpoint]) -> Object:
    """Every route with its body, its answers and who may."""
    names = sorted({n for e in endpoints for n in (e.body, e.answer) if n} | {"Problem"})
    refs, components = msgspec.json.schema_components([getattr(shapes, n) for n in names], ref_template=_REF)
    schemas = dict(zip(names, refs, strict=True))
    paths: dict[str, Object] = {}
    for e in endpoints:
        paths.setdefault(e.path, {})[e.method.lower()] = _operation(e, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "steprelay",
            "version": __version__,
            "description": "One request is one durable step of an agent's run.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "the server key, or a run token"},
                "owner": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "steprelay_owner",
                    "description": "set when a browser starts a run",
                },
                "driver": {"type": "apiKey", "in": "header", "name": "webhook-signature", "description": "Standard Webhooks"},
            },
        },
        "security": [{"bearer": []}, {"owner": []}, {"driver": []}, {}],
    }


def _operation(e: Endpoint, schemas: Object) -> Object:
    answers = {str(e.status): _answer("Done", schemas[e.answer], e.media, stream=e.stream)}
    if e.answer == "Envelope":
        answers["202"] = _answer("Another driver has the run, or it is not due yet", schemas[e.answer])
    if "/{id}/cancel" in e.path:
        answers["202"] = _answer("Its driver will hear of it", schemas[e.answer])
    if "If-None-Match" in e.headers:
        answers["304"] = {"description": "Not changed"}
    answers |= {
        status: {"description": text, "content": {"application/problem+json": {"schema": schemas["Problem"]}}}
        for status, text in _REFUSALS.items()
    }
    operation: Object = {
        "operationId": _operation_id(e),
        "summary": e.summary,
        "description": f"Who may: {e.rights}.",
        "parameters": _parameters(e),
        "responses": answers,
    }
    if e.body is not None:
        operation["requestBody"] = {"required": e.body != "Nothing", "content": {"application/json": {"schema": schemas[e.body]}}}
    return operation


def _answer(text: str, schema: Object, media: str = "application/json", *, stream: bool = False) -> Object:
    content: Object = {media: {"schema": schema}}
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    headers = {name: {"description": said, "schema": {"type": "string"}} for name, said in _HEADERS.items()}
    return {"description": text, "headers": headers, "content": content}


def _parameters(e: Endpoint) -> list[Object]:
    named = [("path", n, "") for n in re.findall(r"{(\w+)}", e.path)]
    named += [("query", n, text) for n, text in e.query.items()] + [("header", n, text) for n, text in e.headers.items()]
    return [
        {
            "name": n,
            "in": where,
            "required": where == "path",
            "schema": {"type": "string"},
            **({"description": text} if text else {}),
        }
        for where, n, text in named
    ]


def _operation_id(e: Endpoint) -> str:
    words = re.findall(r"[A-Za-z]+", e.path)
    return "_".join([e.method.lower(), *(w.lower() for w in words)])
