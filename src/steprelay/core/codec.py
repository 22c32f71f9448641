"""Values <-> canonical JSON text.

ASCII only (NUL and lone surrogates travel as escapes, so every store can keep them), no NaN, sorted keys, nothing but
JSON: no pickle, no class names, no fallback serialiser (CVE-2025-64439). Payload classes are read leniently: fields of a
later release of the same schema are kept in `extra` and written back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any, TypeVar, get_args

from .errors import BadInput, SchemaTooNew, StateInvalid
from .model import SCHEMA, ErrorInfo, Json, Limits, Part, Tally, Value, Wait
from .noun import Noun

T = TypeVar("T", bound=Noun)
PARTS: dict[str, type[Any]] = {c.type: c for c in get_args(Part)}
_decode = json.JSONDecoder().decode
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def dumps(value: Value) -> Json:
    """Canonical text of a JSON value. Raises BadInput for NaN, infinities and what is not JSON."""
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as e:
        raise BadInput(f"{value!r:.80} is not JSON: {e}. Use str, int, finite float, bool, None, list and dict.") from e


def loads(text: Json | None) -> Value:
    """The value of a stored text; None for None. Raises StateInvalid."""
    if text is None:
        return None
    try:
        return _decode(text)
    except (ValueError, RecursionError) as e:
        raise StateInvalid(f"stored text {text!r:.80} is not JSON: {e}") from e


def pack(payload: Noun) -> Json:
    """Text of a payload, without the fields that hold their defaults."""
    return dumps(plain(payload))


def unpack(cls: type[T], text: Json | None) -> T:
    """A payload from its text; None gives the defaults. Raises StateInvalid."""
    return build(cls, {} if text is None else loads(text))


def plain(payload: Noun) -> dict[str, Value]:
    """A payload as a JSON object, defaults left out."""
    out: dict[str, Value] = {}
    for name, default in payload.fields.items():
        value = getattr(payload, name)
        if name == "extra":
            out |= value
        elif default is ... or value != default:
            out[name] = plain(value) if isinstance(value, Noun) else value
    return out


def build(cls: type[T], data: Value) -> T:
    """A payload from a JSON object. Raises StateInvalid when the shape is wrong."""
    if not isinstance(data, dict):
        raise StateInvalid(f"{cls.__name__}: expected an object, got {data!r:.80}")
    known = {name: value for name, value in data.items() if name in cls.fields and name != "extra"}
    known |= {name: _field(cls.fields[name], name, value) for name, value in known.items() if isinstance(value, dict | list)}
    if "extra" in cls.fields and len(known) < len(data):
        known["extra"] = {name: value for name, value in data.items() if name not in known}
    try:
        return cls(**known)
    except TypeError as e:
        raise StateInvalid(str(e)) from e


def _field(default: Any, name: str, value: Value) -> Any:
    """A default that is a payload or a tuple says what the field holds; errors have none."""
    kind = ErrorInfo if name in ("error", "last_error") else type(default)
    if isinstance(value, dict) and issubclass(kind, Noun):
        return build(kind, value)
    return tuple(value) if kind is tuple and isinstance(value, list) else value


def part_to(part: Part) -> dict[str, Value]:
    """A part as a JSON object with its `type`."""
    return {"type": part.type, **plain(part)}


def part_from(data: Value) -> Part:
    """A part from its JSON object. Raises StateInvalid for an unknown type."""
    try:
        cls = PARTS[data["type"]]
    except (KeyError, TypeError) as e:
        raise StateInvalid(f"{data!r:.80} is no part; types are {', '.join(PARTS)}") from e
    part: Part = build(cls, {k: v for k, v in data.items() if k != "type"})
    return part


def parts_from(texts: Iterable[Json]) -> tuple[Part, ...]:
    return tuple(part_from(loads(t)) for t in texts)


def check_schema(schema: int) -> None:
    """Raises SchemaTooNew when a row was written by a newer release."""
    if schema > SCHEMA:
        raise SchemaTooNew(f"the run has schema {schema}, this steprelay reads up to {SCHEMA}: deploy the newer release")


limits, tally = partial(unpack, Limits), partial(unpack, Tally)


def wait(text: Json | None) -> Wait | None:
    return None if text is None else unpack(Wait, text)
