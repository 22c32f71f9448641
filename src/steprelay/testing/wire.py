"""A TCP proxy before a database: it counts round trips, and cuts lines where it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

Cut = Literal["request", "half", "answer"]
"""Where a line is cut: before the request is passed on, in the middle of it, or when its answer comes back."""


SYNC = b"S\x00\x00\x00\x04"
"""The end of a PostgreSQL request that is to be carried out now."""


class Wire:
    """Listens on a free loopback port. `trips`: how often a client spoke and then waited for the server."""

    def __init__(self, host: str, port: int, cut: Callable[[bytes], Cut | None] = lambda _: None) -> None:
        self._to, self.cut = (host, port), cut
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Task[Any]] = set()
        self.port = 0
        self.trips = 0
        self.lines = 0

    @classmethod
    def before(cls, url: str) -> Wire:
        """A proxy before the server that a URL names."""
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 5432)

    async def start(self, port: int = 0) -> Wire:
        self._server = await asyncio.start_server(self._line, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for pump in self._pumps:
            pump.cancel()
        if self._open:
            await asyncio.wait(self._open)

    def url(self, url: str) -> str:
        """The same URL, through this proxy."""
        parts = urlsplit(url)
        user = f"{parts.username}@" if parts.username else ""
        return urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self.port}"))

    async def _line(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.lines += 1
        me = asyncio.current_task()
        assert me is not None, "a stream's callback runs in a task"
        self._open.add(me)
        me.add_done_callback(self._open.discard)
        try:
            server, to_server = await asyncio.open_connection(*self._to)
        except OSError:
            to_client.transport.abort()
            return
        heard = asyncio.Event()  # the server has spoken since the client did
        heard.set()
        cut = asyncio.Event()
        pumps = [
            asyncio.create_task(self._requests(client, to_server, heard, cut)),
            asyncio.create_task(_answers(server, to_client, heard, cut)),
        ]
        self._pumps.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
                self._pumps.discard(pump)
            to_client.transport.abort()
            to_server.transport.abort()

    async def _requests(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, heard: asyncio.Event, cut: asyncio.Event
    ) -> None:  # fmt: skip
        with suppress(OSError):
            while data := await client.read(1 << 16):
                if heard.is_set():
                    self.trips += 1
                    heard.clear()
                where = self.cut(data)
                if where == "request":
                    return
                if where == "answer":
                    cut.set()
                server.write(data[: len(data) // 2] if where == "half" else data)
                await server.drain()
                if where == "half":
                    return


async def _answers(server: asyncio.StreamReader, client: asyncio.StreamWriter, heard: asyncio.Event, cut: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await server.read(1 << 16):
            if cut.is_set():
                return
            heard.set()
            client.write(data)
            await client.drain()
