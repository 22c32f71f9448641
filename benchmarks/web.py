"""The browser client: what it weighs, and the faults it survives, from its own tests against servers that misbehave."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).parent.parent / "web/packages/client"
FAULTS = {"faults": "a server that misbehaves", "tabs": "several tabs", "weather": "`steprelay dev` in bad weather"}
"""Test files, and what the client is up against in them."""

Row = tuple[str, str, str, str]


def measure() -> tuple[list[Row], list[str]]:
    """The table of sizes, and below it that of the faults."""
    if not (CLIENT.parent.parent / "node_modules").exists():
        return [("not measured: run `make web` first", "", "", "")], []
    return sizes(), [faults()]


def sizes() -> list[Row]:
    """Bundled, minified and gzipped."""
    told = subprocess.run(["node", "scripts/size.mjs", "--json"], cwd=CLIENT, capture_output=True, check=True, text=True).stdout
    return [(s["name"], f"{s['bytes'] / 1000:.2f} kB gz", "", f"{s['budget'] / 1000:.1f} kB") for s in json.loads(told)]


def faults() -> str:
    """Every fault that is done to the client, and what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        told = ["--reporter=json", f"--outputFile={report}", *(f"test/{name}.test.ts" for name in FAULTS)]
        subprocess.run(["npx", "vitest", "run", "--project", "core", *told], cwd=CLIENT, capture_output=True, check=False)
        files: list[dict[str, Any]] = json.loads(report.read_text())["testResults"]
    lines = ["| what happens | against | outcome |", "| --- | --- | --- |"]
    for name, against in FAULTS.items():
        (tests,) = (file["assertionResults"] for file in files if file["name"].endswith(f"/{name}.test.ts"))
        for test in tests:
            outcome = "held" if test["status"] == "passed" else "**BROKEN**"
            lines.append(f"| {test['title'].removesuffix(' is survived')} | {against} | {outcome} |")
    return "\n".join(lines)
