"""Money and failures of a provider, in this project's words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic_ai import RunUsage
from pydantic_ai.exceptions import (
    FallbackExceptionGroup,
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelUnavailableError,
)  # fmt: skip

from ...core.errors import AgentError, Transient
from ...core.model import Usage

AGAIN = (ModelRateLimitError, ModelUnavailableError, ModelServerError, ModelConnectionError, ModelRequestTimeout)
PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}


def usage_so_far(used: Usage) -> RunUsage:
    """What the round has used, as the agent's tools and instructions see it in `ctx.usage`."""
    return RunUsage(
        requests=used.requests, input_tokens=used.input_tokens, output_tokens=used.output_tokens,
        cache_read_tokens=used.cached_tokens, tool_calls=used.tool_calls,
    )  # fmt: skip


def spent(run_usage: RunUsage, before: Usage) -> Usage:
    """What this step used, agents inside tools included."""
    delta = run_usage - usage_so_far(before)
    return Usage(
        requests=max(0, delta.requests),
        input_tokens=max(0, delta.input_tokens),
        output_tokens=max(0, delta.output_tokens),
        cached_tokens=max(0, delta.cache_read_tokens),
        usd=None if run_usage.cost is None else float(run_usage.cost),
    )


def check_price(model: Any) -> None:
    """Raise unless every model that may answer has a known price: a limit in money could not be kept.

    A model of your own that costs nothing says so with an attribute `free = True`.
    """
    for m in _all(model):
        if not getattr(m, "free", False) and not _priced(m):
            raise AgentError(
                f"no price is known for model {m.model_name!r} of {m.system!r}, so the limit in money (limits.usd) cannot be "
                "kept. Nothing was sent. Choose a model with a known price, update the package genai-prices, or set "
                "limits.usd to none and limit tokens or steps instead.",
                final=True,
            )


def provider_of(model: Any) -> str:
    """The models that may answer, and where they are."""
    return ", ".join(f"{m.system}:{m.model_name}" + (f" at {url}" if (url := _url(m)) else "") for m in _all(model))


def _url(model: Any) -> str | None:
    try:
        url: str | None = model.base_url
    except Exception:  # some models know their address only once they have been used
        return None
    return url


def _all(model: Any) -> list[Any]:
    if (inner := getattr(model, "wrapped", None)) is not None:
        return _all(inner)
    if (several := getattr(model, "models", None)) is not None:
        return [m for each in several for m in _all(each)]
    return [model]


def _priced(model: Any) -> bool:
    from genai_prices import calc_price
    from genai_prices.types import Usage as Amount

    for where in ({"provider_api_url": _url(model)}, {"provider_id": model.system}):
        try:
            calc_price(Amount(input_tokens=1, output_tokens=1), model.model_name, **where)
            return True
        except (LookupError, ValueError, TypeError):
            continue
    return False


def streams(model: Any, settings: Any) -> bool:
    """Whether to stream: not if the model cannot, nor if it works in the background, where the step shall not wait for it."""
    from pydantic_ai.models import Model

    model = _all(model)[0]
    if any(isinstance(s, dict) and s.get("openai_background") for s in (settings, model.settings)):
        return False
    if getattr(model, "stream_function", model) is None:  # a FunctionModel without one
        return False
    return type(model).request_stream is not Model.request_stream


def once_only(request_context: Any) -> Any:
    """The provider's client shall not sit and retry inside the function: a failed request releases the step instead."""
    settings = request_context.model_settings or {}
    if "max_retries" in settings or "max_retries" in _all(request_context.model)[0].unsupported_settings:
        return request_context
    return replace(request_context, model_settings={**settings, "max_retries": 0})


def translated(error: BaseException) -> BaseException:
    """A provider's failure: Transient where the same request may work later, else final."""
    if isinstance(error, FallbackExceptionGroup):
        each = [translated(e) for e in error.exceptions]
        again = [e for e in each if isinstance(e, Transient)]
        return min(again, key=lambda e: e.after or 0.0) if again else AgentError(str(each[0]), final=True)
    if isinstance(error, ModelAPIError):
        passing = isinstance(error, ModelHTTPError) and error.status_code in PASSING
        if isinstance(error, AGAIN) or passing:
            reason = "rate_limited" if isinstance(error, ModelRateLimitError) else "retry"
            return Transient(str(error), after=error.retry_after, reason=reason)
        return AgentError(str(error), final=True)
    return error
