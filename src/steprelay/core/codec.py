"""Values <-> canonical JSON text.

ASCII only (NUL and lone surrogates travel as escapes, so every store can keep them), no NaN, sorted keys, nothing but
JSON: no pickle, no class names, no fallback serialiser (CVE-2025-64439). Payload classes are read leniently: fields of a
later release of the same schema are kept in `extra` and written back.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, TypeVar

from .errors import BadInput, SchemaTooNew, StateInvalid
from .model import (
    SCHEMA, Call, End, ErrorInfo, Interrupt, Json, Limits, Part, Result, State, Tally, Text, Thought, Usage, Value,
    Wait,
)  # fmt: skip

T = TypeVar("T")
PARTS: dict[str, type[Any]] = {c.type: c for c in (Text, Thought, Call, Result, State, Interrupt, Usage, End)}
_NESTED: dict[str, type[Any]] = {
    "total": Usage, "round": Usage, "last_request": Usage, "last_error": ErrorInfo, "error": ErrorInfo,
}  # fmt: skip
_TUPLES = {"queued", "needs"}
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def dumps(value: Value) -> Json:
    """Canonical text of a JSON value. Raises BadInput for NaN, infinities and what is not JSON."""
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as e:
        raise BadInput(f"{_short(value)} is not JSON: {e}. Use str, int, finite float, bool, None, list and dict.") from e


def loads(text: Json | None) -> Value:
    """The value of a stored text; None for None. Raises StateInvalid."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise StateInvalid(f"stored text {_short(text)} is not JSON: {e}") from e


def pack(payload: Any) -> Json:
    """Text of a payload dataclass, without the fields that hold their defaults."""
    return dumps(plain(payload))


def unpack(cls: type[T], text: Json | None) -> T:
    """A payload dataclass from its text; None gives the defaults. Raises StateInvalid."""
    return build(cls, {} if text is None else loads(text))


def plain(payload: Any) -> dict[str, Value]:
    """A payload dataclass as a JSON object, defaults left out."""
    out: dict[str, Value] = {}
    for f in dataclasses.fields(payload):
        value = getattr(payload, f.name)
        if value == f.default or (f.default_factory is not dataclasses.MISSING and value == f.default_factory()):
            continue
        if f.name == "extra":
            out |= value
        else:
            out[f.name] = plain(value) if dataclasses.is_dataclass(value) else value
    return out


def build(cls: type[T], data: Value) -> T:
    """A payload dataclass from a JSON object. Raises StateInvalid when the shape is wrong."""
    if not isinstance(data, dict):
        raise StateInvalid(f"{cls.__name__}: expected an object, got {_short(data)}")
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    kwargs: dict[str, Any] = {}
    extra: dict[str, Value] = {}
    for name, value in data.items():
        if name not in known or name == "extra":
            extra[name] = value
        elif name in _NESTED and isinstance(value, dict):
            kwargs[name] = build(_NESTED[name], value)
        elif name in _TUPLES and isinstance(value, list):
            kwargs[name] = tuple(value)
        else:
            kwargs[name] = value
    if extra and "extra" in known:
        kwargs["extra"] = extra
    try:
        return cls(**kwargs)
    except TypeError as e:
        raise StateInvalid(f"{cls.__name__}: {e}") from e


def part_to(part: Part) -> dict[str, Value]:
    """A part as a JSON object with its `type`."""
    return {"type": part.type, **plain(part)}


def part_from(data: Value) -> Part:
    """A part from its JSON object. Raises StateInvalid for an unknown type."""
    try:
        cls = PARTS[data["type"]]
    except (KeyError, TypeError) as e:
        raise StateInvalid(f"{_short(data)} is no part; types are {', '.join(PARTS)}") from e
    part: Part = build(cls, {k: v for k, v in data.items() if k != "type"})
    return part


def parts_from(texts: Iterable[Json]) -> tuple[Part, ...]:
    return tuple(part_from(loads(t)) for t in texts)


def check_schema(schema: int) -> None:
    """Raises SchemaTooNew when a row was written by a newer release."""
    if schema > SCHEMA:
        raise SchemaTooNew(
            f"the run was written with payload schema {schema}, this steprelay reads up to {SCHEMA}: deploy the newer release"
        )


def limits(text: Json) -> Limits:
    return unpack(Limits, text)


def tally(text: Json) -> Tally:
    return unpack(Tally, text)


def wait(text: Json | None) -> Wait | None:
    return None if text is None else unpack(Wait, text)


def _short(value: Any, width: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
