"""The way to an address that a team wrote: resolved here, judged, and pinned.

A name is resolved once for each connection; every address it gives must be permitted, and the connection is made to
one of those very addresses, so a second answer of the name server (DNS rebinding) has nobody to deceive. TLS still
checks the certificate against the *name*. One forbidden address among good ones refuses the host: an honest provider
has none, and picking the good ones would let an attacker try again and again.

Whether a name does not exist or leads to a forbidden place is told in the same words, so that this is no way to ask
the operator's name server about the inside.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from counterfoil.errors import CallerFault
from counterfoil.providers.addresses import TeamAddresses, is_literal
from counterfoil.providers.provider import Origin

TRIED_MAX: Final = 4
"""Addresses of one host that are tried, in the resolver's order."""

Resolve = Callable[..., Awaitable[list[Any]]]
"""As ``loop.getaddrinfo``."""


class Guard:
    """Resolves and judges hosts for one worker. ``resolve`` is the loop's ``getaddrinfo``, or a test's."""

    def __init__(self, permitted: TeamAddresses, resolve: Resolve) -> None:
        self._permitted = permitted
        self._resolve = resolve

    async def addresses(self, origin: Origin) -> list[str]:
        """The addresses to connect to, never empty. Raises :class:`CallerFault` ``base_url_refused``."""
        if origin.port not in self._permitted.ports:
            raise CallerFault("base_url_refused", "The port of the team's base_url is not one this gateway allows.")
        found = [origin.host] if is_literal(origin.host) else await self._ask(origin)
        if not found or not all(map(self._permitted.permits, found)):
            raise CallerFault("base_url_refused")
        return found[:TRIED_MAX]

    async def _ask(self, origin: Origin) -> list[str]:
        try:
            found = await self._resolve(origin.host, origin.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))
