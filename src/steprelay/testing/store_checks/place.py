"""Where a store under test lives."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import cast

from ...ports import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """`target` is `module:Class`, called with `url`; any number of processes may open the same place."""

    target: str
    url: str

    def open(self) -> Store:
        module, _, name = self.target.partition(":")
        return cast(Store, getattr(import_module(module), name)(self.url))
