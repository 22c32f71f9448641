"""The bundle: an interpreter, its packages and the user's code in one folder that runs wherever it is put.

    python/bin/python3  python/lib/python3.x/…  python/app/…  python/proxy.mjs  python/bundle.json

Netlify has no Python at run time, but its build machine has, and the network: this is made there and travels in the zip of
each function. Dates inside a zip are lost, so compiled files are marked as never to be checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import ConfigError

Say = Callable[[str], None]
HERE = Path(__file__).parent
AT = "/var/task"
"""Where a function's files are at run time: compiled files name their sources there, so that no import has to correct it."""
GLIBC = (2, 34)
"""Of Amazon Linux 2023, on which Netlify's functions run."""
WHEELS = "x86_64-manylinux_2_28"
"""The newest common tag for wheels that such a machine can load."""
_STDLIB = (
    "__pycache__", "site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "ensurepip",
    "pydoc_data", "config-*", "*.a", "_tkinter*", "_test*", "_xxtest*", "xxlimited*", "_ctypes_test*", "nis.*", "_curses*",
    "readline.*", "_dbm*", "_gdbm*",
)  # fmt: skip
"""Of the standard library: what no server needs."""
_PACKAGES = (
    "__pycache__", "tests", "*.pyi", "*.a", "*.c", "*.h", "*.pyx", "*.pxd", "*.ts", "*.tsx", "*.mts", "*.cts",
)  # fmt: skip
"""Of packages: what no program imports. TypeScript has to go: Netlify's packager takes it for part of the function, compiles
it, and puts it in the function's place."""
_OURS = ("ui", "deploy/netlify/page", "deploy/netlify/client", "deploy/netlify/template")
"""Of steprelay itself: pages."""
_CODE = (".*", "__pycache__", "node_modules", "tests", "netlify")
"""Folders of a site that are none of the agent's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What is built: the site's folder, where the bundle goes, and what is served."""

    folder: Path
    out: Path
    target: str
    """`agent.py`, `module` or `module:name`, seen from the folder."""
    requirements: Path
    include: tuple[str, ...] = ()
    """Patterns of files the code reads, beside Python's own."""


def interpreter(wanted: str | None) -> Path:
    """The interpreter that is copied: a path is itself; of a version (by default this one's) uv fetches a relocatable one.
    Raises ConfigError with the remedy."""
    if wanted and (os.sep in wanted or Path(wanted).is_file()):
        if not Path(wanted).is_file():
            raise ConfigError(f"there is no interpreter {wanted!r}; give the path of a python3, or a version such as 3.13")
        return Path(wanted)
    version = wanted or f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        uv("python", "install", "--managed-python", version)
        return Path(uv("python", "find", "--managed-python", "--no-project", version))
    except ConfigError as e:
        raise ConfigError(
            f"a relocatable Python {version} could not be fetched ({e}); where there is no network give an interpreter of this "
            f"machine: --python {sys.executable}"
        ) from e


def build(site: Site, python: Path, say: Say) -> None:
    """Make the bundle, all but its `bundle.json`; what was there before is removed. Raises ConfigError."""
    if not site.requirements.is_file():
        raise ConfigError(f"there is no {site.requirements}; list what the agent needs, steprelay[postgres] at least")
    shutil.rmtree(site.out, ignore_errors=True)
    say("copying the interpreter")
    packages = copy_interpreter(python, site.out)
    say("installing packages")
    install(site.requirements, python, packages)
    say("copying the code")
    copy_code(site)
    for name in ("cacert.pem", "proxy.mjs"):
        shutil.copy2(packages / "certifi/cacert.pem" if name == "cacert.pem" else HERE / name, site.out / name)
    say("compiling")
    compile_all(site.out)


def copy_interpreter(python: Path, out: Path) -> Path:
    """Copy an interpreter with its standard library and the shared libraries it brings; answers its site-packages."""
    ask = "import sys; print(sys.base_prefix); print('python%d.%d' % sys.version_info[:2])"
    prefix, name = run(str(python), "-c", ask).splitlines()
    program, library = Path(prefix) / "bin" / name, out / "lib" / name
    (out / "bin").mkdir(parents=True)
    shutil.copy2(program, out / "bin/python3")  # a file: links are not kept
    shutil.copytree(Path(prefix) / "lib" / name, library, ignore=shutil.ignore_patterns(*_STDLIB))
    if sys.platform == "linux":
        _copy_libraries([program, *library.glob("lib-dynload/*.so")], out / "lib/copied")
        _strip([out / "bin/python3", *library.glob("lib-dynload/*.so"), *out.glob("lib/copied/*")])
    packages = library / "site-packages"
    packages.mkdir()
    return packages


def install(requirements: Path, python: Path, packages: Path) -> None:
    """Install what the site needs, as wheels that Netlify's functions can load. Raises ConfigError with uv's words."""
    wheels = ("--python-platform", WHEELS, "--only-binary", ":all:") if sys.platform == "linux" else ()
    constraints = requirements.with_name("constraints.txt")
    try:
        uv(
            "pip", "install", "--quiet", "--link-mode", "copy", "--python", str(python), "--target", str(packages), *wheels,
            *(("--constraint", str(constraints)) if constraints.is_file() else ()), "--requirement", str(requirements), "certifi",
            cwd=requirements.parent,
        )  # fmt: skip
    except ConfigError as e:
        raise ConfigError(f"{requirements.name} cannot be installed: {e}") from e
    if not (packages / "steprelay").is_dir():
        raise ConfigError(f"{requirements.name} does not name steprelay; add steprelay[postgres]")
    for folder in ("bin", *(f"steprelay/{name}" for name in _OURS)):
        shutil.rmtree(packages / folder, ignore_errors=True)
    prune(packages)


def prune(packages: Path) -> None:
    """Remove what no program imports."""
    for pattern in _PACKAGES:
        for found in [*packages.rglob(pattern)]:
            if found.is_dir():
                shutil.rmtree(found)
            elif found.exists():
                found.unlink()


def copy_code(site: Site) -> None:
    """The site's Python files, its pyproject.toml (for `[tool.steprelay]`), and what it says is read beside them."""
    for path in sorted(code(site)):
        to = site.out / "app" / path
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(site.folder / path, to)


def code(site: Site) -> Iterable[Path]:
    """Paths, seen from the site's folder."""
    named = {p.relative_to(site.folder) for pattern in site.include for p in site.folder.glob(pattern) if p.is_file()}
    if (site.folder / "pyproject.toml").is_file():
        named.add(Path("pyproject.toml"))
    ignored = shutil.ignore_patterns(*_CODE)
    for base, folders, files in os.walk(site.folder):
        left_out = ignored(base, folders)
        folders[:] = [f for f in folders if f not in left_out and not _foreign(Path(base, f), site.out)]
        named |= {Path(base, f).relative_to(site.folder) for f in files if f.endswith(".py")}
    return named


def compile_all(out: Path) -> None:
    """Compile everything with the bundle's own interpreter. A file of another Python (a template, say) is left as it is."""
    command = (
        "-m",
        "compileall",
        "-q",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        str(out),
        "-p",
        f"{AT}/{out.name}",
    )
    subprocess.run([out / "bin/python3", *command, str(out)], env=environment(out), capture_output=True, check=False)


def finish(out: Path, app: str, environ: Mapping[str, str]) -> None:
    """Write what the proxy has to know: the app, and this deploy's own address, which nothing tells at run time."""
    production = environ.get("CONTEXT") in (None, "production")
    told = {"app": app, "url": environ.get("URL") if production else environ.get("DEPLOY_PRIME_URL")}
    (out / "bundle.json").write_text(json.dumps({k: v for k, v in told.items() if v}, indent=1) + "\n")


def environment(out: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which the bundle's interpreter runs, as proxy.mjs makes it."""
    base = dict(os.environ if environ is None else environ)
    base.pop("VIRTUAL_ENV", None)
    base |= {"PYTHONHOME": str(out), "PYTHONNOUSERSITE": "1", "PYTHONPATH": "", "SSL_CERT_FILE": str(out / "cacert.pem")}
    if (out / "lib/copied").is_dir():
        base["LD_LIBRARY_PATH"] = str(out / "lib/copied")
    return base


def run(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program and answer what it prints. Raises ConfigError with the end of its complaint."""
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as e:
        raise ConfigError(f"{command[0]} cannot be run: {e.strerror or e}") from e
    if done.returncode:
        raise ConfigError((done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")[-1500:])
    return done.stdout.strip()


def uv(*arguments: str, cwd: Path | None = None) -> str:
    """Run uv. Raises ConfigError."""
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        raise ConfigError("uv is not installed: python3 -m pip install uv")
    return run(program, *arguments, cwd=cwd)


def _foreign(folder: Path, out: Path) -> bool:
    """A virtual environment, or the bundle."""
    return folder == out or (folder / "pyvenv.cfg").is_file() or (folder / "bundle.json").is_file()


_SYSTEM = re.compile(r"(libc|libm|libdl|librt|libpthread|libresolv|libutil|ld-linux.*)\.so")


def _copy_libraries(programs: Iterable[Path], to: Path) -> None:
    """Shared libraries outside of the C library: those of the machine, where an interpreter of the machine is copied."""
    for program in programs:
        for name, path in re.findall(r"(\S+) => (/\S+)", run("ldd", str(program))):
            if not _SYSTEM.match(name) and not (to / name).exists():
                to.mkdir(exist_ok=True)
                shutil.copy2(os.path.realpath(path), to / name)


def _strip(programs: Iterable[Path]) -> None:
    """Remove symbols, where there is a tool for it."""
    if tool := shutil.which("strip"):
        for program in programs:
            subprocess.run([tool, "--strip-unneeded", str(program)], capture_output=True, check=False)
