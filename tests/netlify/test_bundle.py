"""What is copied, left out, weighed and told. Installing for real is in test_real_netlify.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steprelay.core.errors import ConfigError
from steprelay.deploy.netlify import bundle, weight

ELF = b"\x7fELF..\0GLIBC_2.2.5\0GLIBC_2.28\0GLIBC_PRIVATE\0"


def tree(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("")
    return folder


def site(folder: Path, **options) -> bundle.Site:
    options = {"target": "agent.py", "requirements": folder / "requirements.txt", "out": folder / "python", **options}
    return bundle.Site(folder=folder, **options)


def test_the_code_is_python_and_what_is_named_and_nothing_of_the_site(tmp_path) -> None:
    tree(
        tmp_path, "agent.py", "tools/search.py", "pyproject.toml", "prompts/system.txt", "prompts/old/a.txt", "public/index.html",
        "node_modules/x/setup.py", ".venv/lib/x.py", "env/pyvenv.cfg", "env/lib/x.py", "netlify/functions/helper.py",
        "python/lib/os.py", "old-python/bundle.json", "old-python/lib/os.py", "tests/test_agent.py", "src/__pycache__/a.py",
    )  # fmt: skip
    found = bundle.code(site(tmp_path, include=("prompts/*.txt",)))
    assert {str(p) for p in found} == {"agent.py", "tools/search.py", "pyproject.toml", "prompts/system.txt"}


def test_the_code_lies_below_app_as_it_lay_in_the_site(tmp_path) -> None:
    tree(tmp_path, "agent.py", "tools/search.py")
    bundle.copy_code(site(tmp_path))
    assert (tmp_path / "python/app/tools/search.py").is_file()


def test_what_no_program_imports_goes(tmp_path) -> None:
    kept = [
        "a/__init__.py",
        "a/b.cpython-311-x86_64-linux-gnu.so",
        "a/testing/__init__.py",
        "a/data.json",
        "a-1.dist-info/METADATA",
    ]
    tree(
        tmp_path,
        *kept,
        "a/tests/test_b.py",
        "a/tests/data/x.json",
        "a/b.pyx",
        "a/b.c",
        "a/b.pyi",
        "a/__pycache__/b.pyc",
        "libb.a",
    )
    bundle.prune(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


def test_compiled_files_are_never_checked_and_name_their_place_on_netlify(tmp_path) -> None:
    """Bit 0 of the flags: by hash; bit 1, check it, is not set. The date of the source may become any."""
    out = tmp_path / "python"
    tree(out, "app/agent.py", "bin/python3")
    (out / "app/agent.py").write_text("def f():\n    return 1\n")
    (out / "app/broken.py").write_text("def f(:\n")
    (out / "bin/python3").write_text(f'#!/bin/sh\nunset PYTHONHOME\nexec {sys.executable} "$@"\n')
    (out / "bin/python3").chmod(0o755)
    bundle.compile_all(out)
    [pyc] = (out / "app/__pycache__").glob("*.pyc")
    data = pyc.read_bytes()
    assert int.from_bytes(data[4:8], "little") == 0b01
    assert b"/var/task/python/app/agent.py" in data


@pytest.mark.parametrize(("environ", "url"), [
    ({}, None),
    ({"URL": "https://shop.example"}, "https://shop.example"),
    ({"CONTEXT": "production", "URL": "https://shop.example", "DEPLOY_PRIME_URL": "https://x.example"}, "https://shop.example"),
    ({"CONTEXT": "deploy-preview", "URL": "https://shop.example", "DEPLOY_PRIME_URL": "https://p7.example"}, "https://p7.example"),
])  # fmt: skip
def test_a_preview_calls_itself_and_not_production(tmp_path, environ, url) -> None:
    bundle.finish(tmp_path, "agent.py:app", environ)
    told = json.loads((tmp_path / "bundle.json").read_text())
    assert told == {"app": "agent.py:app"} | ({"url": url} if url else {})


def test_each_package_is_weighed_and_the_c_library_asked_for_is_known(tmp_path) -> None:
    packages = "lib/python3.11/site-packages"
    tree(tmp_path, "app/agent.py", "lib/python3.11/os.py")
    for path, size in (("numpy/core.so", 3000), ("numpy.libs/blas.so", 4000), ("numpy-2.1.dist-info/METADATA", 5), ("six.py", 7)):
        tree(tmp_path, f"{packages}/{path}")
        (tmp_path / packages / path).write_bytes((ELF + b"x" * size)[:size])
    found = weight.weigh(tmp_path)
    assert found.size == 7012
    assert found.zipped < 500
    assert found.parts[:2] == (("numpy", 7005), ("six", 7))
    assert found.glibc == (2, 28)


def weighed(size: int = 1, zipped: int = 1, glibc: tuple[int, int] = (2, 17)) -> weight.Weight:
    return weight.Weight(size=size * weight.MB, zipped=zipped * weight.MB, parts=(("torch", size * weight.MB),), glibc=glibc)


def test_a_bundle_that_is_too_large_is_refused_with_what_makes_it_so() -> None:
    with pytest.raises(ConfigError, match=r"251 MB, and a function may have 250 unzipped.*torch 251 MB"):
        weight.judge(weighed(251), deployed=True)
    assert "torch 250 MB" in weight.judge(weighed(250), deployed=True)[0]


def test_a_zip_that_is_too_large_is_told() -> None:
    assert len(weight.judge(weighed(zipped=50), deployed=True)) == 1
    assert "under 50 MB" in weight.judge(weighed(zipped=51), deployed=True)[1]


def test_programs_that_netlify_cannot_load_are_refused_there_and_told_here() -> None:
    with pytest.raises(ConfigError, match=r"asks for GLIBC 2.36, and Netlify's functions have 2.34: build without --python"):
        weight.judge(weighed(glibc=(2, 36)), deployed=True)
    assert "Fine for trying it on this machine" in weight.judge(weighed(glibc=(2, 36)), deployed=False)[1]
    assert len(weight.judge(weighed(glibc=(2, 34)), deployed=True)) == 1


def cli(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NETLIFY", "STEPRELAY_", "DATABASE_URL"))} | environ
    return subprocess.run(
        [sys.executable, "-c", "from steprelay.cli import main; main()", *arguments], cwd=folder, env=env,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(("files", "arguments", "said"), [
    ((), (), "there is no agent.py or app.py here"),
    (("agent.py",), ("--python", "/nowhere/python3"), "no interpreter '/nowhere/python3'"),
    (("agent.py",), ("--python", sys.executable), "list what the agent needs, steprelay[postgres] at least"),
])  # fmt: skip
def test_what_is_missing_is_told_in_one_line_with_the_remedy(tmp_path, files, arguments, said) -> None:
    tree(tmp_path, *files)
    done = cli(tmp_path, "build", "netlify", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_interpreter_that_cannot_be_fetched_is_told_with_the_way_round(tmp_path) -> None:
    tree(tmp_path, "agent.py", "requirements.txt", "uv")
    (tmp_path / "uv").write_text("#!/bin/sh\necho 'error: no network' >&2\nexit 2\n")
    (tmp_path / "uv").chmod(0o755)
    done = cli(tmp_path, "build", "netlify", UV=str(tmp_path / "uv"))
    assert "could not be fetched (error: no network)" in done.stderr
    assert f"--python {sys.executable}" in done.stderr


def test_requirements_that_cannot_be_installed_are_told_in_the_installers_words(tmp_path, monkeypatch) -> None:
    tree(tmp_path, "agent.py", "requirements.txt", "uv")
    (tmp_path / "uv").write_text("#!/bin/sh\necho 'No solution found: x wants y' >&2\nexit 1\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("UV", str(tmp_path / "uv"))
    with pytest.raises(ConfigError, match=r"requirements.txt cannot be installed: No solution found"):
        bundle.install(tmp_path / "requirements.txt", Path(sys.executable), tmp_path / "packages")


def test_requirements_without_steprelay_are_refused(tmp_path, monkeypatch) -> None:
    tree(tmp_path, "requirements.txt", "uv", "packages/x.py")
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("UV", str(tmp_path / "uv"))
    with pytest.raises(ConfigError, match="does not name steprelay"):
        bundle.install(tmp_path / "requirements.txt", Path(sys.executable), tmp_path / "packages")
