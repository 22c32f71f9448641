"""Errors on the wire: `application/problem+json` (RFC 9457) with a stable `code`, and what to do in `detail`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from ..core.errors import BadInput, ConfigError, StepRelayError, StoreUnavailable


class Problem(Exception):
    """An answer that is an error. `extra` fields stand beside the RFC's own, `headers` go with the response."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers = dict(headers or {})
        self.extra = extra

    @property
    def body(self) -> dict[str, Any]:
        """The members of the problem document; what is an extension never hides one of the RFC's own."""
        title = HTTPStatus(self.status).phrase
        own = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, "code": self.code}
        return {**self.extra, **own}


def absent() -> Problem:
    """One answer for a run that does not exist and for one that is somebody else's."""
    return Problem(404, "not_found", "There is no such run, or it is not yours. Check the id and the token.")


def unavailable() -> Problem:
    """The store cannot be reached now; repeating the same request is safe."""
    detail = "The store cannot be reached now. Repeat the same request in a moment: what was committed is answered again."
    return Problem(503, "store_unavailable", detail, headers={"Retry-After": "2"}, retryable=True)


def translated(error: Exception) -> Problem:
    """Any exception as a problem. What was not meant to be shown is not shown."""
    match error:
        case Problem():
            return error
        case StoreUnavailable():
            return unavailable()
        case BadInput():
            return Problem(400, error.code, str(error))
        case ConfigError():
            return Problem(500, error.code, f"This server is not set up right: {error}")
        case StepRelayError():
            return Problem(500, error.code, str(error))
        case _:
            return Problem(500, "internal", "Something broke on this server; its log says what.")
