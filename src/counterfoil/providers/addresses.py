"""Where a team may send its own provider key: the form of its ``base_url``, and the networks behind the host's name.

The operator writes the addresses of providers; a team writes only the ``base_url`` beside its own key, and whoever may
set that must not reach what only this machine can reach. So a team's address is https, on a port that the operator
lists, and *every* address that its host resolves to must be public or in a network that the operator allows. The name
says nothing: ``127.1``, ``0x7f000001`` and a domain of the attacker's own all end at the same place, so the judgement
is on what they resolve to: ``gateway.upstream.guard`` resolves, asks here, and connects to what it asked about.

Public is decided by exclusion from IANA's special-purpose registries (RFC 6890; read 2026-11), IPv6 by inclusion in the
one block that is globally assigned, 2000::/3. Addresses that carry another one inside: IPv4-mapped and NAT64
(64:ff9b::/96, RFC 6052) are judged by what they carry, because that is where the packet goes; 6to4 and Teredo relays
are gone from the internet and are refused whole. Metadata services live in link-local, shared and unique-local
space, but for one of Azure's, which is listed by itself.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from counterfoil.errors import CallerFault

Network = IPv4Network | IPv6Network

ADDRESS_LENGTH_MAX: Final = 512

_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers (CGNAT); also metadata of Alibaba Cloud
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform, reachable from its virtual machines only
        "169.254.0.0/16",  # link-local; metadata of nearly every cloud
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_GLOBAL_IPV6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?\Z")
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?\Z")


class TeamAddresses(Struct, frozen=True):
    """What the operator lets teams connect to: public hosts on ``ports``, and the networks of ``allow_private``."""

    allow_private: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({443})

    @classmethod
    def of(cls, networks: Iterable[str], ports: Iterable[int]) -> TeamAddresses:
        """From the configuration's texts. Raises :class:`ValueError` for what is no network."""
        return cls(tuple(ipaddress.ip_network(text) for text in networks), frozenset(ports))

    def check(self, base_url: str) -> None:
        """Raises :class:`CallerFault` ``invalid_field`` for an address that could never be used here."""
        check_form(base_url)
        parts = urlsplit(base_url)
        if (parts.port or 443) not in self.ports:
            listed = ", ".join(map(str, sorted(self.ports)))
            raise _refusal(f"The port of base_url is not among those that this gateway lets teams use ({listed}).")
        host = parts.hostname or ""
        if is_literal(host) and not self.permits(host):
            raise _refusal("The address in base_url is not public, and not in a network that this gateway allows.")

    def permits(self, address: str) -> bool:
        """Whether a connection may go to ``address`` (an IP address as text)."""
        try:
            target = _carried(ipaddress.ip_address(address))
        except ValueError:
            return False
        if any(target in network for network in self.allow_private):
            return True
        if any(target in network for network in _NOT_PUBLIC):
            return False
        return isinstance(target, IPv4Address) or target in _GLOBAL_IPV6


def check_form(base_url: str) -> None:
    """Raises :class:`CallerFault` for a text that is no https address, or one that two readers could read in two ways.

    No user, query, fragment, escape, backslash or dot segment, and a host that is a plain name or a plain IP address.
    """
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refusal("base_url is not a web address.") from error
    if not base_url.startswith("https://") or "@" in parts.netloc or any(mark in base_url for mark in " ?#\\%"):
        raise _refusal("base_url begins with https:// and holds no user, `?`, `#`, `%` or `\\`.")
    if not base_url.isascii() or not base_url.isprintable() or len(base_url) > ADDRESS_LENGTH_MAX:
        raise _refusal(f"base_url is at most {ADDRESS_LENGTH_MAX} visible ASCII characters.")
    if not (is_literal(host) or ("[" not in parts.netloc and _is_name(host))) or port == 0:
        raise _refusal("The host of base_url is neither a domain's name nor an IP address.")
    if not _PATH.match(parts.path) or any(segment in (".", "..") for segment in parts.path.split("/")):
        raise _refusal("The path of base_url holds something that is no plain path.")


def is_literal(host: str) -> bool:
    """Whether ``host`` is an IP address in its usual spelling."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _is_name(host: str) -> bool:
    """A name whose last label is no number: resolvers read ``127.1`` and ``0x7f000001`` as IPv4 addresses."""
    last = host.rstrip(".").rpartition(".")[2].lower()
    return len(host) <= 253 and bool(_NAME.match(host)) and not last.isdigit() and not last.startswith("0x")


def _carried(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _refusal(message: str) -> CallerFault:
    return CallerFault("invalid_field", message, param="base_url")
