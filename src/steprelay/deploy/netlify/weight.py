"""What a bundle weighs, and whether it can run where it is going."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import ConfigError
from .bundle import GLIBC

MB = 1_000_000
UNZIPPED = 250 * MB
"""Bytes a function may have at most, unzipped."""
ZIPPED = 50 * MB
"""Bytes a function should have at most, zipped: beyond that uploads fail, and cold starts are slow long before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """Bytes of a bundle as it is and zipped; `parts`: the heaviest packages first; `glibc`: what its programs ask for."""

    size: int
    zipped: int
    parts: tuple[tuple[str, int], ...]
    glibc: tuple[int, int]


def weigh(out: Path) -> Weight:
    """Look at every file of a bundle."""
    size = zipped = 0
    parts: Counter[str] = Counter()
    glibc = (0, 0)
    for path in files(out):
        data = path.read_bytes()
        size += len(data)
        zipped += len(zlib.compress(data, 1))
        parts[part(path.relative_to(out))] += len(data)
        if data.startswith(b"\x7fELF"):
            glibc = max(glibc, wants(data))
    return Weight(size=size, zipped=zipped, parts=tuple(parts.most_common()), glibc=glibc)


def files(out: Path) -> Iterator[Path]:
    return (p for p in out.rglob("*") if p.is_file() and not p.is_symlink())


def part(path: Path) -> str:
    """The package a file belongs to: `numpy`; what is no package is the interpreter, or the code."""
    names = path.parts
    if "site-packages" in names:
        below = names[names.index("site-packages") + 1]
        return re.split(r"-\d|\.libs|\.py$|\.cpython", below)[0]
    return "your code" if names[0] == "app" else "Python itself"


def wants(elf: bytes) -> tuple[int, int]:
    """The newest GLIBC a program asks for by a versioned symbol; (0, 0) if it asks for none."""
    found = [(int(a), int(b)) for a, b in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", elf)]
    return max(found, default=(0, 0))


def judge(weight: Weight, *, deployed: bool) -> list[str]:
    """What to say about it. Raises ConfigError for what cannot work; elsewhere than on Netlify the C library is only noted."""
    heavy = ", ".join(f"{name} {size / MB:.0f} MB" for name, size in weight.parts[:5])
    if weight.size > UNZIPPED:
        raise ConfigError(
            f"the bundle has {weight.size / MB:.0f} MB, and a function may have {UNZIPPED // MB} unzipped; leave out what the "
            f"agent does not need. The heaviest: {heavy}"
        )
    said = [f"{weight.size / MB:.1f} MB, zipped {weight.zipped / MB:.1f} MB, in each of three functions (most: {heavy})"]
    if weight.zipped > ZIPPED:
        said.append(f"zipped it should be under {ZIPPED // MB} MB: the upload may be refused, and cold starts are slow")
    if weight.glibc > GLIBC:
        asked, there = (".".join(map(str, v)) for v in (weight.glibc, GLIBC))
        told = f"it asks for GLIBC {asked}, and Netlify's functions have {there}: build without --python, or with another wheel"
        if deployed:
            raise ConfigError(told)
        said.append(f"{told}. Fine for trying it on this machine")
    return said
