"""The server of the browser tests: the example's pages and the founding one, and the API, on one origin, as on a site.

Whoever opens a page may start runs; a signed cookie, or the run's token, says whose they are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from stage_agent import app as api
from starlette.staticfiles import StaticFiles

from steprelay.deploy.asgi import Receive, Scope, Send, serve

HERE = Path(__file__).parent
PAGES = StaticFiles(directory=os.environ["STAGE_PAGES"], html=True)
FOUNDING = StaticFiles(directory=HERE / "founding", html=True)


async def site(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope.get("path", "")
    if scope["type"] != "http" or path.startswith("/api"):
        await api(scope, receive, send)
    elif path.startswith("/founding"):
        await FOUNDING({**scope, "path": path.removeprefix("/founding") or "/"}, receive, send)
    else:
        await PAGES(scope, receive, send)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--fd", type=int, required=True)
    options.add_argument("--lifeline", type=int)
    given = options.parse_args()
    serve(site, fd=given.fd, lifeline=given.lifeline)
