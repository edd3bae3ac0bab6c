"""Connections kept for the next call, one stack per origin.

The last one used is the next one taken: it is the least likely to have been closed by the provider meanwhile. An idle
connection that the provider closes leaves its stack at once, because the event loop reads idle sockets too; the
remaining race (it closes while we write) cannot be retried safely for a POST and is reported as what it is.
A connection is used only while younger, when idle, than our own limit and than what the provider announced.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from counterfoil.errors import Fault, GatewayFault, UpstreamFault
from counterfoil.gateway.upstream.connection import UpstreamConnection
from counterfoil.gateway.upstream.guard import Guard
from counterfoil.gateway.upstream.proxy import Proxy, proxy_for, tunnel
from counterfoil.providers.provider import Origin, Provider

IDLE_MARGIN_SECONDS = 1.0
"""Taken off a provider's announced keep-alive, for the time our request is on its way."""


class Pool:
    """All connections of one worker. ``now`` is the loop's clock in seconds; ``guard`` judges what teams wrote."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float], guard: Guard) -> None:
        self._loop = loop
        self._now = now
        self._guard = guard
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._open: dict[Origin, set[UpstreamConnection]] = {}
        self._contexts: dict[tuple[str | None, bool], ssl.SSLContext] = {}
        self._proxies: dict[Origin, Proxy | None] = {}

    def take(self, provider: Provider) -> UpstreamConnection | None:
        """An idle connection fit for use, or None. Never waits."""
        idle = self._idle.get(provider.origin)
        if not idle:
            return None
        now = self._now()
        while idle:
            connection = idle.pop()
            limit = provider.timeouts.keep_alive_seconds
            if connection.keep_alive_seconds is not None:
                limit = min(limit, connection.keep_alive_seconds - IDLE_MARGIN_SECONDS)
            if not connection.closed and now - connection.idle_since < limit:
                return connection
            connection.abort()
        return None

    async def connect(self, provider: Provider) -> UpstreamConnection:
        """A new connection, ready to send on.

        Raises :class:`UpstreamFault` ``connect_failed``, ``connect_timeout``, ``tls_failed`` or ``proxy_failed``,
        :class:`CallerFault` ``base_url_refused`` for a team's own address that is not permitted, and
        :class:`GatewayFault` ``overloaded`` when the provider's connections are all in use.
        """
        origin = provider.origin
        mine = self._open.setdefault(origin, set())
        if len(mine) >= provider.connections_max:
            raise GatewayFault(
                "overloaded", f"All {provider.connections_max} connections to {provider.name} are in use."
            )
        connection = UpstreamConnection(self._kept(origin), mine.discard)
        mine.add(connection)
        try:
            async with asyncio.timeout(provider.timeouts.connect_seconds):
                await self._open_transport(origin, connection)
        except BaseException as error:
            mine.discard(connection)
            connection.abort()
            fault = _connect_fault(provider, error)
            if fault is None:
                raise
            raise fault from error
        return connection

    def sweep(self, keep_alive_max: float) -> None:
        """Close what has been idle for longer than ``keep_alive_max`` seconds."""
        oldest = self._now() - keep_alive_max
        for idle in self._idle.values():
            while idle and idle[0].idle_since < oldest:
                idle.pop(0).abort()

    def close(self) -> None:
        """Close every connection, busy or idle."""
        for connections in list(self._open.values()):
            for connection in list(connections):
                connection.abort()

    def _kept(self, origin: Origin) -> Callable[[UpstreamConnection], None]:
        idle = self._idle.setdefault(origin, [])

        def keep(connection: UpstreamConnection) -> None:
            connection.idle_since = self._now()
            idle.append(connection)

        return keep

    async def _open_transport(self, origin: Origin, connection: UpstreamConnection) -> None:
        context = self._context(origin) if origin.scheme == "https" else None
        if origin not in self._proxies:
            self._proxies[origin] = proxy_for(origin)  # the environment is read once an origin: it costs 100 µs
        proxy = self._proxies[origin]
        if not origin.guarded:
            await self._open_to(origin.host, origin, proxy, context, connection)
            return
        addresses = await self._guard.addresses(origin)
        for address in addresses:
            try:
                await self._open_to(address, origin, proxy, context, connection)
            except ssl.SSLError:
                raise
            except OSError:
                if address == addresses[-1]:
                    raise
            else:
                return

    async def _open_to(
        self,
        host: str,
        origin: Origin,
        proxy: Proxy | None,
        context: ssl.SSLContext | None,
        connection: UpstreamConnection,
    ) -> None:
        """Connect to ``host``: the origin's own, or one of its addresses. TLS is for the origin's name either way."""
        if proxy is not None:
            await tunnel(self._loop, proxy, host, origin, context, connection)
            return
        await self._loop.create_connection(
            lambda: connection,
            host,
            origin.port,
            ssl=context,
            server_hostname=origin.host if context is not None else None,
        )

    def _context(self, origin: Origin) -> ssl.SSLContext:
        key = (origin.ca_file, origin.verify)
        context = self._contexts.get(key)
        if context is None:
            context = ssl.create_default_context(cafile=origin.ca_file)
            context.set_alpn_protocols(["http/1.1"])
            if not origin.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._contexts[key] = context
        return context


def _connect_fault(provider: Provider, error: BaseException) -> Fault | None:
    """The fault a failed connect stands for; None for what is not the way's fault (cancellation)."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, TimeoutError):
        return UpstreamFault("connect_timeout", f"{provider.name} did not accept a connection in time.")
    if isinstance(error, ssl.SSLError):
        return UpstreamFault("tls_failed", f"A secure connection to {provider.name} could not be made.")
    if isinstance(error, OSError):
        return UpstreamFault("connect_failed", f"{provider.name} could not be reached.")
    return None
