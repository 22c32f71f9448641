"""The protocol's model in proof/relay.pml: every interleaving of it is sound, and none of its guards is idle."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "proof" / "relay.pml"


def errors_found(where: Path, *defines: str) -> int:
    """Check the model in a folder; how many errors spin found (it stops at the first)."""
    for tool in ("spin", "gcc"):
        assert shutil.which(tool), f"{tool} is missing: apt-get install -y spin gcc libc6-dev"
    shutil.copy(MODEL, where)

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True, timeout=300).stdout

    run("spin", *defines, "-a", MODEL.name)
    run("gcc", "-O2", "-DSAFETY", "-DMEMLIM=3000", "-o", "pan", "pan.c")
    said = run("./pan", "-E", "-m200000")
    assert "Search not completed" not in said or re.search(r"errors: [1-9]", said), said
    found = re.search(r"errors: (\d+)", said)
    assert found, said
    return int(found[1])


@pytest.mark.all
@pytest.mark.timeout(600)
def test_no_interleaving_breaks_a_promise(tmp_path: Path) -> None:
    assert errors_found(tmp_path) == 0


@pytest.mark.all
@pytest.mark.parametrize("guard", ["FENCE", "CAS", "LEDGER", "COUNT", "CANCEL"])
def test_every_guard_is_needed(tmp_path: Path, guard: str) -> None:
    assert errors_found(tmp_path, f"-D{guard}=0") == 1
