"""Tools that only look: files under one folder, and arithmetic.

Nothing outside the folder can be reached, not by `..` and not by a link. Binary and huge files are passed over, and every
answer is bounded. What cannot be done is told to the model (`ToolFailed`), so that it can do something else.
"""

from __future__ import annotations

import ast
import math
import operator
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic_ai.exceptions import ToolFailed

PASSED_OVER = {
    ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache",
    ".tox", "dist", "build", "target", ".next", ".steprelay",
}  # fmt: skip
OWN = Path(__file__).resolve().parent
"""Passed over as well: where every question finds its own words."""
FILES = 5_000
"""Files that are looked at, at most."""
FILE_BYTES = 1_000_000
SEARCH_BYTES = 40_000_000
HITS, HITS_A_FILE = 60, 6
LINES, COLUMNS = 200, 400


@dataclass(frozen=True)
class Folder:
    """The tools over one folder; their docstrings are what the model reads."""

    root: Path

    def list_files(self, pattern: str = "*") -> dict[str, Any]:
        """List the text files of the folder, with their sizes in bytes.

        Args:
            pattern: A glob over the path or the name, such as `*.py` or `docs/*`.
        """
        found = [(p, s) for p, s in self._files() if fnmatch(p, pattern) or fnmatch(p.rpartition("/")[2], pattern)]
        return {"files": [{"path": p, "bytes": s} for p, s in found[:LINES]], "total": len(found)}

    def search(self, query: str) -> dict[str, Any]:
        """Find lines that contain all words of the query (as parts of words, upper or lower case alike).

        Args:
            query: One or more words. A part of a word finds more: `retr` finds retry and retries.
        """
        words = query.lower().split()
        if not words:
            raise ToolFailed("the query is empty; give a word to look for")
        by_file: dict[str, list[dict[str, Any]]] = {}
        read = 0
        for path, size in self._files():
            if (read := read + size) > SEARCH_BYTES:
                break
            lines = enumerate(self._text(path).splitlines(), 1)
            found = [(n, line) for n, line in lines if all(w in line.lower() for w in words)]
            if found:
                by_file[path] = [{"path": path, "line": n, "text": line.strip()[:COLUMNS]} for n, line in found]
        # The file that speaks of it most comes first, documents before code.
        most = sorted(
            by_file.values(), key=lambda f: len(f) * (3 if f[0]["path"].endswith((".md", ".rst", ".txt")) else 1), reverse=True
        )
        hits = [h for found in most for h in found[:HITS_A_FILE]][:HITS]
        return {"hits": hits, "total": sum(map(len, most))}

    def read_file(self, path: str, start: int = 1, end: int | None = None) -> dict[str, Any]:
        """Read lines of a text file.

        Args:
            path: The path as `list_files` and `search` give it.
            start: The first line, counted from 1.
            end: The last line; at most 200 lines are read at once.
        """
        lines = self._text(self._inside(path)).splitlines()
        start = max(1, start)
        last = min(len(lines), start + LINES - 1, max(start, end) if end is not None else len(lines))
        text = "\n".join(line[:COLUMNS] for line in lines[start - 1 : last])
        return {"path": path, "start": start, "end": last, "lines": len(lines), "text": text}

    def _inside(self, path: str) -> str:
        root = self.root.resolve()
        full = (root / path).resolve()
        if not full.is_relative_to(root) or PASSED_OVER & set(full.relative_to(root).parts):
            raise ToolFailed(f"{path!r} is not in the folder; give a path as list_files shows it")
        if not full.is_file():
            raise ToolFailed(f"there is no file {path!r}; list_files shows what there is")
        return full.relative_to(root).as_posix()

    def _text(self, path: str) -> str:
        full = self.root.resolve() / path
        try:
            if full.stat().st_size > FILE_BYTES:
                raise ToolFailed(f"{path!r} is larger than {FILE_BYTES} bytes; it is not read")
            raw = full.read_bytes()
        except OSError as e:
            raise ToolFailed(f"{path!r} cannot be read: {e.strerror}") from e
        if b"\0" in raw[:4096]:
            raise ToolFailed(f"{path!r} is not a text file")
        return raw.decode("utf-8", errors="replace")

    def _files(self) -> Iterator[tuple[str, int]]:
        """Text files in a stable order: path and size. Links are not followed."""
        root, seen = self.root.resolve(), 0
        for where, folders, names in os.walk(root):
            folders[:] = sorted(
                f for f in folders if f not in PASSED_OVER and not f.endswith(".egg-info") and Path(where, f) != OWN
            )
            for name in sorted(names):
                full = Path(where) / name
                if seen >= FILES:
                    return
                seen += 1
                if not full.is_symlink() and full.is_file() and (size := full.stat().st_size) <= FILE_BYTES and _is_text(full):
                    yield full.relative_to(root).as_posix(), size


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as f:
            return b"\0" not in f.read(4096)
    except OSError:
        return False


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"sqrt": math.sqrt, "round": round, "min": min, "max": max, "abs": abs}


def calculate(expression: str) -> float:
    """Work out an arithmetic expression: numbers, + - * / // % **, parentheses, sqrt, round, min, max, abs.

    Args:
        expression: For example `17.5 * (3 + 4)`.
    """
    try:
        value: float = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as e:
        raise ToolFailed(f"{expression!r:.200} cannot be worked out: {e}") from e
    if isinstance(value, complex) or not math.isfinite(value):
        raise ToolFailed(f"{expression!r:.200} has no finite value")
    return value


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _value(left), _value(right)
            if isinstance(op, ast.Pow) and (abs(b) > 1000 or abs(a) > 1e12):
                raise ValueError("the power is too large")
            return _BINARY[type(op)](a, b)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(_value, args))
    raise ValueError("only numbers and + - * / // % ** ( ) sqrt round min max abs are understood")
