"""A server on a loopback port, on a thread and an event loop of its own, that leaves nothing behind when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from typing import Any, Self

from emulators.waiting import PATIENCE_S


class Looped:
    """What such servers share. Entered it serves ``port``; left it has hung up on everybody.

    A connection that is still open when its loop is closed would be complained of (``ResourceWarning``) when the
    garbage collector finds it, which is in the middle of some later test.
    """

    port: int = 0
    _loop: asyncio.AbstractEventLoop
    _thread: threading.Thread
    _transports: weakref.WeakSet[asyncio.WriteTransport]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak over one connection. It is closed afterwards, in order."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """What :func:`asyncio.start_server` is told besides."""
        return {}

    def also(self, writer: asyncio.StreamWriter) -> None:
        """Hang up on this connection too in the end: one that ``serve`` made itself."""
        self._transports.add(writer.transport)

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._transports = weakref.WeakSet()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=type(self).__name__, daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)

    def _run(self, ready: threading.Event) -> None:
        self._loop = asyncio.new_event_loop()
        started = asyncio.start_server(self._connected, "127.0.0.1", 0, **self.options())
        server = self._loop.run_until_complete(started)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._hang_up())
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.also(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self.serve(reader, writer)
        writer.close()

    async def _hang_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in list(self._transports):
            transport.abort()  # one that is only closed stays until its peer has read all that was written
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next round
