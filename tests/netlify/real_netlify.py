"""Netlify's own tools, installed once: the packager, and the command line that plays the platform on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import httpx
from netlify_world import SECRET, eventually

from steprelay.testing import servers

CLI, ZIP = "26.2.0", "14.7.1"
HOME = Path.home() / f".cache/steprelay/netlify-cli-{CLI}"
_ZIP = """
import { zipFunctions } from "@netlify/zip-it-and-ship-it";
const [site] = process.argv.slice(1);
const options = { basePath: site, repositoryRoot: site, config: { "*": { includedFiles: ["python/**"] } } };
const made = await zipFunctions(`${site}/netlify/functions`, `${site}/zips`, options);
console.log(JSON.stringify(made.map(({ name, invocationMode, schedule, runtimeAPIVersion }) => ({ name, invocationMode, schedule, runtimeAPIVersion }))));
"""


def tools() -> Path:
    """The folder with both, installed when first asked for: 420 MB, a minute or two."""
    if not (HOME / "installed").is_file():
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir(parents=True)
        (HOME / "package.json").write_text(
            f'{{"private": true, "type": "module", "dependencies": {{"netlify-cli": "{CLI}", "@netlify/zip-it-and-ship-it": "{ZIP}"}}}}'
        )
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HOME, check=True, timeout=900)
        (HOME / "installed").touch()
    return HOME


def real_site(folder: Path, store: str) -> tuple[Path, str]:
    """A site as `init` makes it, with an agent of ours, and beside its page the founding one; built as Netlify builds it.
    Answers what the build said as well."""
    main = [sys.executable, "-c", "from steprelay.cli import main; main()"]
    subprocess.run([*main, "init", "netlify", str(folder)], check=True, capture_output=True, timeout=60)
    shutil.copy(Path(__file__).parent / "site_agent.py", folder / "agent.py")
    for command in (("npm", "install", "--no-audit", "--no-fund", "--loglevel=error"), ("npm", "run", "build")):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
    shutil.copy(Path(__file__).parent / "page.html", folder / "dist/founding.html")
    done = subprocess.run(
        [*main, "build", "netlify", "--python", sys.executable], cwd=folder, env=clean() | {"STEPRELAY_STORE": store},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def zipped(site: Path) -> tuple[Path, str]:
    """The three zips, laid out as they are at run time, and what the packager found the functions to be."""
    done = subprocess.run(
        ["node", "--input-type=module", "-e", _ZIP, str(site)],
        cwd=tools(),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    for one in (site / "zips").glob("*.zip"):
        with zipfile.ZipFile(one) as packed:
            for entry in packed.infolist():
                Path(packed.extract(entry, site / "unzipped")).chmod(entry.external_attr >> 16 or 0o644)  # with its run bit
    return site / "unzipped", done.stdout


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("STEPRELAY_", "NETLIFY", "DATABASE_URL"))}


class Dev:
    """`netlify dev` on a site."""

    def __init__(self, site: Path, store: str, **environ: str) -> None:
        self.port, self.log = servers.free_port(), site / "dev.log"
        self.url = f"http://localhost:{self.port}"
        told = {
            "NETLIFY_TELEMETRY_DISABLED": "1", "CI": "1", "STEPRELAY_SECRET": SECRET, "STEPRELAY_STORE": store,
            "STEPRELAY_PUBLIC_URL": self.url, "STEPRELAY_LEASE": "3",
        }  # fmt: skip
        arguments = ("dev", "--offline", "--internal-disable-edge-functions", "--skip-gitignore", "--no-open", "--dir", "dist")
        ports = ("--port", str(self.port), "--functions-port", str(servers.free_port()))
        dying = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()  # with the tests, however they end
        with self.log.open("wb") as log:
            self.node = subprocess.Popen(
                [*dying, tools() / "node_modules/.bin/netlify", *arguments, *ports], cwd=site, env=clean() | told | environ, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            eventually(self._up, 120)
        except BaseException:
            self.close()
            raise

    def _up(self) -> bool:
        assert self.node.poll() is None, self.said()
        try:
            return httpx.get(f"{self.url}/api/health", timeout=20).status_code == 200
        except httpx.HTTPError:
            return False

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.node.pid, signal.SIGKILL)
        self.node.wait(10)
