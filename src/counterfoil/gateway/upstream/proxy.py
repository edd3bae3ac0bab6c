"""Proxies between the gateway and a provider: which one, and the CONNECT tunnel through it.

A provider's own ``proxy`` wins; otherwise ``HTTPS_PROXY``/``HTTP_PROXY`` and ``NO_PROXY`` are read as curl and
Python's urllib read them. Every request goes through a tunnel, plain HTTP ones too: the proxy then never sees a
credential in a request it would have to rewrite. Loopback addresses never go through a proxy that the environment
names: a gateway beside its model server would otherwise leave the machine.
Source: RFC 9110 section 9.3.6.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import (
    getproxies_environment,
    proxy_bypass_environment,  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]  # not in typeshed
)

from counterfoil.errors import UpstreamFault
from counterfoil.providers.provider import Origin

ANSWER_BYTES_MAX = 16 * 1024


class Proxy(NamedTuple):
    """A proxy's address and the credential line it wants (empty when none)."""

    host: str
    port: int
    authorization: bytes


def proxy_for(origin: Origin) -> Proxy | None:
    """The proxy to reach ``origin`` through, or None for a direct connection."""
    if origin.proxy is not None:
        return None if origin.proxy == "none" else _parse(origin.proxy)
    environment = getproxies_environment()
    url = environment.get(origin.scheme) or environment.get("all")
    if not url or _is_loopback(origin.host) or proxy_bypass_environment(origin.host, environment):
        return None
    return _parse(url)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse(url: str) -> Proxy:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise UpstreamFault("proxy_failed", "Only http:// proxies are supported.")
    authorization = b""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = b"proxy-authorization: Basic %b\r\n" % base64.b64encode(pair)
    return Proxy(parts.hostname, parts.port or 8080, authorization)


class _Handshake(asyncio.Protocol):
    """Reads the proxy's answer to CONNECT; ``answered`` gives its status code."""

    def __init__(self, answered: asyncio.Future[int]) -> None:
        self._answered = answered
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._answered.done():
            return
        if b"\r\n\r\n" in self._seen:
            words = self._seen.split(None, 2)
            valid = len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit()
            self._answered.set_result(int(words[1]) if valid else 0)
        elif len(self._seen) > ANSWER_BYTES_MAX:
            self._answered.set_result(0)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answered.done():
            self._answered.set_result(0)


async def tunnel(
    loop: asyncio.AbstractEventLoop,
    proxy: Proxy,
    host: str,
    origin: Origin,
    context: ssl.SSLContext | None,
    protocol: asyncio.Protocol,
) -> None:
    """Connect ``protocol`` to ``origin`` through ``proxy``, with TLS inside the tunnel when ``context`` is given.

    The proxy is asked for ``host``: the origin's name, or the address that was judged in its place.

    Raises :class:`UpstreamFault` ``proxy_failed`` when the proxy cannot be reached or refuses.
    """
    answered: asyncio.Future[int] = loop.create_future()
    try:
        transport, handshake = await loop.create_connection(lambda: _Handshake(answered), proxy.host, proxy.port)
    except OSError as error:
        raise UpstreamFault("proxy_failed", "The proxy on the way to the provider could not be reached.") from error
    target = b"%b:%d" % (f"[{host}]".encode() if ":" in host else host.encode("idna"), origin.port)
    transport.write(b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (target, target, proxy.authorization))
    try:
        status = await answered
        if not 200 <= status < 300:
            raise UpstreamFault("proxy_failed", f"The proxy on the way to the provider refused the tunnel ({status}).")
        if context is None:
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            return
        secured = await loop.start_tls(transport, handshake, context, server_hostname=origin.host)
        if secured is None:
            raise UpstreamFault("tls_failed")
        secured.set_protocol(protocol)
        protocol.connection_made(secured)
    except BaseException:
        transport.abort()
        raise
