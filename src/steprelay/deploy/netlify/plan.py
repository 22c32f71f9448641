"""What `steprelay init netlify` puts into a folder: files that are made once and then yours, and files that are kept right."""

from __future__ import annotations

import base64
import difflib
import io
import json
import re
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import steprelay

from ...core.errors import ConfigError

TEMPLATE = Path(__file__).parent / "template"
OURS = ("netlify/functions/agent-step.mjs", "netlify/functions/start-job-background.mjs", "netlify/functions/sweep.mjs")
"""Kept as they are shipped: what they do is in the bundle."""
YOURS = ("agent.py", "README.md", ".env.example")
"""Made where there is none, and never looked at again. A folder that is no site yet gets a page as well."""
CLIENT = "vendor/client"
"""Where the client of the page is, until it is in an index."""
SOURCES = {
    "page": ("examples/react-vite", "index.html", "package.json", "tsconfig.json", "vite.config.ts", "src/**/*"),
    "client": ("web/packages/client", "package.json", "src/*.ts"),
}
"""What a wheel brings beside the package: where it is in the repository, and which files; the same as in pyproject.toml."""
PLACEHOLDER = "https://backend.example"
_HIDDEN = {".env.example": "env.example", ".gitignore": "gitignore"}
"""Files whose names would mean something where they are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A file as it is (None: not there) and as it should be."""

    path: str
    before: bytes | None
    after: bytes

    @property
    def new(self) -> bool:
        return self.before is None

    def diff(self) -> str:
        """What would change, as a unified diff; of what is no text, the sizes."""
        try:
            old, new = (self.before or b"").decode(), self.after.decode()
        except UnicodeDecodeError:
            return f"{self.path}: {len(self.before or b'')} bytes become {len(self.after)}\n"
        lines = difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), self.path, f"{self.path} (as it should be)"
        )  # fmt: skip
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def plan(folder: Path, backend: str | None = None) -> list[Change]:
    """Every file that is missing, or not as it should be; `backend`: where the agent runs, if not on Netlify. Raises
    ConfigError for a netlify.toml that cannot be read."""
    if backend is not None and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+", backend):
        raise ConfigError(f"the backend is {backend!r}; give scheme and host, such as https://agent.example.com")
    return [c for c in _wanted(folder, backend) if c.before != c.after]


def _wanted(folder: Path, backend: str | None) -> Iterator[Change]:
    is_site = any((folder / name).exists() for name in ("netlify.toml", "package.json"))
    names = YOURS if backend is None else tuple(n for n in YOURS if n != "agent.py")
    yours = {path: shipped(path, backend).encode() for path in names} | ({} if is_site else page(database=backend is None))
    for path, after in yours.items():
        if not (folder / path).exists():
            yield Change(path=path, before=None, after=after)
    if (folder / CLIENT).is_dir() or not is_site:
        for path, after in client().items():
            yield Change(path=path, before=_read(folder / path), after=after)
    for path in OURS if backend is None else (*OURS, "netlify/backend.mjs"):
        yield Change(path=path, before=_read(folder / path), after=shipped(path, backend).encode())
    if backend is None:
        name, wheel = vendored()
        yield Change(path=f"vendor/{name}", before=_read(folder / "vendor" / name), after=wheel)
        yield _merged(folder, "requirements.txt", lambda text: with_requirement(text, name))
    yield _merged(folder, ".gitignore", with_ignored)
    yield _merged(folder, "netlify.toml", lambda text: with_site(text, backend))


def _merged(folder: Path, path: str, merge: Callable[[str], str]) -> Change:
    before = _read(folder / path)
    return Change(path=path, before=before, after=merge((before or b"").decode()).encode())


def page(*, database: bool) -> dict[str, bytes]:
    """The page in React; `database`: its package.json asks for one as well."""
    files = _sources("page")
    package = json.loads(files["package.json"])
    package["dependencies"] |= {"@steprelay/client": f"file:{CLIENT}"} | ({"@netlify/database": "^2"} if database else {})
    package["scripts"] |= {"build": "vite build"}
    return files | {"package.json": _json(package)}


def client() -> dict[str, bytes]:
    """The page's client as TypeScript, which the page's own build compiles."""
    files = _sources("client")
    package = json.loads(files["package.json"])
    package["exports"] = {
        name: "./package.json" if name == "./package.json" else f"./src/{Path(paths['default']).stem}.ts"
        for name, paths in package["exports"].items()
    }
    kept = (
        "name",
        "version",
        "license",
        "type",
        "sideEffects",
        "exports",
        "dependencies",
        "peerDependencies",
        "peerDependenciesMeta",
    )
    files["package.json"] = _json({k: package[k] for k in kept})
    return {f"{CLIENT}/{path}": data for path, data in files.items()}


def _sources(name: str) -> dict[str, bytes]:
    """Files that the wheel brings in a folder `name`, and that are elsewhere in the repository. Raises ConfigError."""
    checkout, *patterns = SOURCES[name]
    here = Path(__file__).parent / name
    source = here if here.is_dir() else Path(__file__).parents[4] / checkout
    found = {p.relative_to(source).as_posix(): p.read_bytes() for k in patterns for p in sorted(source.glob(k)) if p.is_file()}
    if "package.json" not in found:
        raise ConfigError(f"this installation of steprelay has no {name} for a site; install it from its wheel")
    return found


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def shipped(path: str, backend: str | None = None) -> str:
    """A file of the template; with a backend, of the one for agents that run elsewhere."""
    if backend is None:
        return (TEMPLATE / _HIDDEN.get(path, path)).read_text("utf-8")
    return (TEMPLATE / "split" / _HIDDEN.get(path, path)).read_text("utf-8").replace(PLACEHOLDER, backend)


def with_requirement(text: str, wheel: str) -> str:
    """Requirements that name steprelay, as the wheel that is vendored."""
    line = f"./vendor/{wheel}[postgres]"
    if re.search(r"(?m)^\s*(\S*/)?steprelay\b", text):
        return re.sub(r"(?m)^\./vendor/steprelay-[^\[\s]+\.whl", line.partition("[")[0], text)
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n"


def with_ignored(text: str) -> str:
    """Every line of ours that is not there."""
    there = {line.strip() for line in text.splitlines()}
    missing = [line for line in shipped(".gitignore").splitlines() if line.strip() not in there]
    if not [line for line in missing if not line.startswith("#")]:
        return text
    return text + ("" if text.endswith("\n") or not text else "\n") + "\n".join(missing) + "\n"


def with_site(text: str, backend: str | None = None) -> str:
    """netlify.toml with our build, our functions and our rewrites; what it says besides is left as it is. Raises ConfigError."""
    ours = shipped("netlify.toml", backend)
    if not text.strip():
        return ours
    try:
        there, wanted = tomllib.loads(text), tomllib.loads(ours)
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"netlify.toml cannot be read: {e}") from e
    functions = there.get("functions", {})
    if backend is None:
        text = _with_python(text, there, wanted["build"]["command"].partition(" && npm")[0])
    if "directory" not in functions and "functions" not in there.get("build", {}):
        text = _into_table(text, "functions", 'directory = "netlify/functions"')
    if not any(r.get("from") == "/api/*" for r in there.get("redirects", [])):
        text = _before_redirects(text, ours[ours.index("[[redirects]]") :])
    return text


def _with_python(text: str, there: dict[str, Any], build: str) -> str:
    """netlify.toml with the build of the bundle before its own, and the bundle in each function."""
    command = there.get("build", {}).get("command")
    if command is None:
        text = _into_table(text, "build", f'command = "{build}"')
    elif "steprelay build netlify" not in command:
        text = _replaced(text, "command", command, f"{build} && {command}")
    included = there.get("functions", {}).get("included_files")
    if included is None:
        return _into_table(text, "functions", 'included_files = ["python/**"]')
    if "python/**" not in included:
        raise ConfigError('add "python/**" to included_files in netlify.toml, and run this again')
    return text


def _replaced(text: str, key: str, old: str, new: str) -> str:
    """Put another value behind a key. Raises ConfigError where the old one is not written on one line."""
    for quote in ('"', "'"):
        found = re.search(rf"(?m)^\s*{key}\s*=\s*{quote}{re.escape(old)}{quote}", text)
        if found:
            return text.replace(found[0], f"{found[0].partition('=')[0]}= {quote}{new}{quote}", 1)
    raise ConfigError(f"put `{new.removesuffix(old)}` before the {key} in netlify.toml, and run this again")


def _into_table(text: str, table: str, line: str) -> str:
    """Put a line below the head of a table, or the table to the end."""
    head = re.search(rf"(?m)^\[{table}\][^\n]*\n", text)
    if head is None:
        return f"{text.rstrip()}\n\n[{table}]\n  {line}\n"
    return f"{text[: head.end()]}  {line}\n{text[head.end() :]}"


def _before_redirects(text: str, block: str) -> str:
    """Put a rewrite before all others: the first that fits is taken, and a page's own `/*` would fit."""
    first = re.search(r"(?m)^\[\[redirects\]\]", text)
    if first is None:
        return f"{text.rstrip()}\n\n{block}"
    return f"{text[: first.start()]}{block}\n{text[first.start() :]}"


def vendored() -> tuple[str, bytes]:
    """This installation as a wheel: its name and its bytes, always the same ones."""
    package = Path(steprelay.__file__).parent
    about = metadata.distribution("steprelay")
    name = f"steprelay-{about.version}"
    info = f"{name}.dist-info"
    files = {
        p.relative_to(package.parent).as_posix(): p.read_bytes()
        for p in sorted(package.rglob("*"))
        if p.is_file() and "__pycache__" not in p.parts
    }
    ours = Path(__file__).parent.relative_to(package.parent).as_posix()
    files |= {f"{ours}/{name}/{path}": data for name in SOURCES for path, data in _sources(name).items()}
    files[f"{info}/METADATA"] = (about.read_text("METADATA") or "").encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: steprelay\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = (about.read_text("entry_points.txt") or "").encode()
    rows = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in files.items():
            wheel.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
    return f"{name}-py3-none-any.whl", packed.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
