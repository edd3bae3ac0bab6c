"""uvicorn as the host of the hot path: a server that stops in our order.

Stopping: no new connections, idle ones closed, then the calls in flight end (or are broken off when the time allowed
is over), then the ledger takes its last commit. uvicorn alone would re-raise the signal in between and die with
records unwritten, so the signals are ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import signal
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import uvicorn

from counterfoil.config.model import BACKLOG, ServerConfig
from counterfoil.gateway.run import Gateway
from counterfoil.gateway.server import ServerProtocol

UNSENT_BYTES_MAX = 128 * 1024
"""Of an answer, so much waits in the kernel for a client that does not read; beyond it the provider is read no further.
Left alone the kernel takes megabytes for each connection, and the capture's copy of them lies in our memory. What is on
its way to a client that does read does not count, so nobody gets slower. Connections inherit it from the listener."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Host(uvicorn.Server):
    """Serves one worker. ``on_stopped`` runs after the last call has settled. ``failed`` says why it stopped."""

    def __init__(
        self,
        gateway: Gateway,
        app: Any,
        config: ServerConfig,
        on_stopped: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=functools.partial(ServerProtocol, gateway=gateway),  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=config.access_log,
                server_header=False,
                proxy_headers=config.proxy_headers,
                forwarded_allow_ips=config.trusted_proxies,
                backlog=BACKLOG,
                timeout_keep_alive=math.ceil(gateway.limits.keep_alive_seconds),
                timeout_graceful_shutdown=math.ceil(config.shutdown_seconds),
                ssl_certfile=str(config.tls_cert) if config.tls_cert else None,
                ssl_keyfile=str(config.tls_key) if config.tls_key else None,
            )
        )
        self.failed = False
        self._gateway = gateway
        self._shutdown_seconds = config.shutdown_seconds
        self._on_stopped = on_stopped

    def stop(self) -> None:
        """Begin to stop; a second call stops waiting for calls in flight."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._gateway.stopping = True

    def give_up(self) -> None:
        """Stop because this process can serve no more: whoever started it should start another."""
        if not self.failed:
            self.failed = True
            self.stop()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or ():
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
        await super().startup(sockets)
        self._gateway.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.stopping = True
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._shutdown_seconds
        await super().shutdown(sockets)  # takes of the time allowed what the clients' connections take
        await self._gateway.stop(0.0 if self.force_exit else max(ends - loop.time(), 0.0))
        await self._on_stopped()
