"""Frozen values with keyword-only fields.

What `dataclasses` does, without its import (which loads `inspect`) and without compiling six methods a class: together
four fifths of the time that `import steprelay` may take. Type checkers see dataclasses (PEP 681).
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

N = TypeVar("N", bound="Noun")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Noun:
    """Base of the nouns: annotated names are fields, assigned ones have defaults (never changed in place)."""

    fields: ClassVar[dict[str, Any]] = {}
    """Names with their defaults; `...` stands for a field that has to be given."""
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        names = [n for n, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar")]
        cls.fields = {**cls.fields, **{n: cls.__dict__.get(n, ...) for n in names}}
        cls._defaults = {n: d for n, d in cls.fields.items() if d is not ...}

    def __init__(self, **given: Any) -> None:
        values = self.__dict__
        values.update(self._defaults)
        values.update(given)
        if len(values) != len(self.fields) or not self.fields.keys() >= given.keys():
            odd = sorted((given.keys() - self.fields.keys()) or (self.fields.keys() - values.keys()))
            raise TypeError(f"{type(self).__name__}: {'unknown' if odd[0] in given else 'missing'} field {odd[0]!r}")

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """A noun that takes over a dictionary of all its fields, unchecked: for copies, and for stores that read many rows."""
        noun = cls.__new__(cls)
        object.__setattr__(noun, "__dict__", values)
        return noun

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; make another with replace(…, {name}=…)")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *(self.__dict__[name] for name in self.fields)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


def replace(noun: N, /, **changes: Any) -> N:
    """The same noun with some fields changed."""
    values = {**noun.__dict__, **changes}
    return type(noun).of(values) if len(values) == len(noun.fields) else type(noun)(**values)
