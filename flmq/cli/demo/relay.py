"""A relay of TCP connections, to try what happens when the link between two sites is cut.

``python -m flmq.cli.demo.relay 7001 127.0.0.1:5672`` forwards port 7001 of this machine until it is
stopped, which cuts the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Coroutine
from typing import Any

from flmq.broker.ports import LOOPBACK

__all__ = ["Relay"]

_PIECE = 1 << 16


class Relay:
    """Forwards connections to a port of loopback to ``host``:``port``, until it is cut.

    A context manager; its loop runs on a thread of its own.
    """

    def __init__(self, listen: int, host: str, port: int) -> None:
        """Prepare to forward what comes to port ``listen``."""
        self.port = listen
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Relay:
        """Start."""
        self._thread.start()
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut, for good."""
        self._await(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        self._await(self._cut())

    def mend(self) -> None:
        """Accept connections, again."""
        self._await(self._mend())

    def _await(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _mend(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in list(self._ends):
            end.transport.abort()
        await asyncio.sleep(0)

    async def _end(self) -> None:
        await self._cut()
        # Their connections are broken: they end by themselves.
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        if serving:
            await asyncio.wait(serving, timeout=5.0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            self._close(writer)
            return
        self._ends.add(back)
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE):
                writer.write(piece)
                await writer.drain()
        self._close(writer)

    def _close(self, end: asyncio.StreamWriter) -> None:
        self._ends.discard(end)
        end.close()


def _main(listen: str, target: str) -> None:
    host, _, port = target.rpartition(":")
    with Relay(int(listen), host, int(port)), contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    _main(*sys.argv[1:])
