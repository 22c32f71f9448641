"""Frozen values with keyword-only fields.

What `dataclasses` does, without its import (which loads `inspect`) and without compiling six methods a class: together
four fifths of the time that `import steprelay` may take. Type checkers see dataclasses (PEP 681), and so does whoever
calls `dataclasses.asdict`, `fields` or `replace`.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar, dataclass_transform

N = TypeVar("N", bound="Noun")
_REQUIRED = object()


class _DataclassFields:
    """`__dataclass_fields__`, made by `dataclasses` itself when somebody asks."""

    def __get__(self, noun: Any, cls: type[Noun]) -> dict[str, Any]:
        import dataclasses

        made: Any = cls.__dict__.get("_dataclass")
        if made is None:
            spec: list[Any] = []
            for name, default in cls.fields.items():
                mutable = isinstance(default, dict)
                kept = {} if required(default) else {"default_factory": default.copy} if mutable else {"default": default}
                spec.append((name, Any, dataclasses.field(**kept)))
            made = dataclasses.make_dataclass(cls.__name__, spec, kw_only=True)
            cls._dataclass = made
        fields: dict[str, Any] = made.__dataclass_fields__
        return fields


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Noun:
    """Base of the nouns: annotated names are fields, assigned ones have defaults (never changed in place)."""

    fields: ClassVar[dict[str, Any]] = {}
    _defaults: ClassVar[dict[str, Any]] = {}
    _dataclass: ClassVar[Any]
    __dataclass_fields__: ClassVar[Any] = _DataclassFields()

    def __init_subclass__(cls) -> None:
        names = [n for n, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar")]
        cls.fields = {**cls.fields, **{n: cls.__dict__.get(n, _REQUIRED) for n in names}}
        cls._defaults = {n: d for n, d in cls.fields.items() if d is not _REQUIRED}

    def __init__(self, **given: Any) -> None:
        values = self.__dict__
        values.update(self._defaults)
        values.update(given)
        if len(values) != len(self.fields) or not self.fields.keys() >= given.keys():
            raise TypeError(f"{type(self).__name__}: {_complaint(self.fields, given)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; make another with replace(…, {name}=…)")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.__dict__.values())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


def replace(noun: N, /, **changes: Any) -> N:
    """The same noun with some fields changed."""
    return type(noun)(**{**noun.__dict__, **changes})


def required(default: Any) -> bool:
    """Whether a value of `fields` stands for a field without a default."""
    return default is _REQUIRED


def _complaint(fields: dict[str, Any], given: dict[str, Any]) -> str:
    unknown = [n for n in given if n not in fields]
    missing = [n for n, d in fields.items() if d is _REQUIRED and n not in given]
    return f"unknown field {unknown[0]!r}" if unknown else f"missing field {missing[0]!r}"
