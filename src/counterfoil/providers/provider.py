"""A provider as the gateway needs it: where it lives, how to authenticate, what it speaks, when to give up.

Everything that can be computed once is computed here, at start, so that a call only joins bytes: the base of its path,
its ``Host``, the credential header for the operator's key. The three protocol families differ in one table,
:data:`FAMILIES`.

Sources: the API references of OpenAI (Authorization: Bearer), Anthropic (x-api-key, anthropic-version) and Gemini
(x-goog-api-key), each read 2026-11.
"""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from counterfoil.config.known import KNOWN_PROVIDERS
from counterfoil.config.model import ProviderConfig, Timeouts
from counterfoil.errors import ConfigError
from counterfoil.providers.disconnect import stops_billing_on_cancel


class Family(NamedTuple):
    """What one protocol family has in common: its base path, credential header and the surfaces it serves."""

    base_path: str
    credential: str
    fields: tuple[tuple[bytes, bytes], ...]
    surfaces: frozenset[str]


_OPENAI_SURFACES = frozenset(
    {
        "chat",
        "completions",
        "responses",
        "responses_compact",
        "responses_input_tokens",
        "embeddings",
        "moderations",
        "rerank",
        "images_generations",
        "images_edits",
        "audio_speech",
        "audio_transcriptions",
        "audio_translations",
    }
)

FAMILIES = {
    "openai": Family("/v1", "authorization: Bearer {key}\r\n", (), _OPENAI_SURFACES),
    "anthropic": Family(
        "/v1",
        "x-api-key: {key}\r\n",
        ((b"anthropic-version", b"2023-06-01"),),
        frozenset({"messages", "count_tokens"}),
    ),
    "google": Family("/v1beta", "x-goog-api-key: {key}\r\n", (), frozenset({"gemini"})),
}
"""The protocol families by ``type``."""

_EVERYTHING = frozenset[str]().union(*(family.surfaces for family in FAMILIES.values()))
"""What a server of one's own is taken to speak. llama.cpp, vLLM and SGLang serve several protocols behind one address;
refusing what they have would cost their operators a line of configuration, and what they lack gives their own 404."""


TEAM_PROVIDERS_MAX = 4096
"""Addresses of teams that are kept computed; beyond it all are computed anew."""


class Origin(Struct, frozen=True):
    """Where connections go. Equal origins share a pool."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    proxy: str | None = None
    ca_file: str | None = None
    verify: bool = True
    guarded: bool = False  # a team wrote it: resolved, judged and pinned by ``gateway.upstream.guard``


class Provider(Struct, frozen=True):
    """One configured provider, ready for the hot path. ``credential`` is the operator's header line or empty."""

    name: str
    family: str
    origin: Origin
    base_path: str
    request_line: bytes  # up to where a surface's path begins
    host_line: bytes
    credential: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    surfaces: frozenset[str]
    prices: str
    drains: bool
    drain_seconds: float
    timeouts: Timeouts
    connections_max: int

    def credential_of(self, key: str) -> bytes:
        """The header line for another key of this provider (a team's own)."""
        return credential_line(self.family, key)


def at_team_address(provider: Provider, base_url: str, ca_file: str | None) -> Provider:
    """``provider`` at a team's own ``base_url``: nothing that the operator wrote for it but its proxy goes there.

    The operator's headers may hold secrets, and the operator's ``tls: {verify: false}`` was said of another host.
    """
    url = urlsplit(base_url)
    host = url.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    authority = shown if url.port in (None, 443) else f"{shown}:{url.port}"
    family = FAMILIES[provider.family]
    base_path = url.path.rstrip("/") or family.base_path
    return msgspec.structs.replace(
        provider,
        origin=Origin("https", host, url.port or 443, provider.origin.proxy, ca_file, guarded=True),
        base_path=base_path,
        request_line=b"POST " + base_path.encode("ascii"),
        host_line=b"host: %b\r\n" % authority.encode("ascii"),
        credential=b"",
        fields=family.fields,
    )


class TeamProviders:
    """Providers at teams' own addresses, computed once. ``ca_file`` is trusted there instead of the system's."""

    def __init__(self, ca_file: str | None) -> None:
        self._ca_file = ca_file
        self._known: dict[tuple[str, str], Provider] = {}

    def at(self, provider: Provider, base_url: str) -> Provider:
        """``provider`` at ``base_url``."""
        known = self._known.get((provider.name, base_url))
        if known is None:
            if len(self._known) >= TEAM_PROVIDERS_MAX:
                self._known.clear()
            known = self._known[provider.name, base_url] = at_team_address(provider, base_url, self._ca_file)
        return known


def credential_line(family: str, key: str) -> bytes:
    """The credential header for ``key``. Raises :class:`ConfigError` for a key that cannot be a header value."""
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigError("A provider's api_key holds characters that cannot be sent in a header.")
    return FAMILIES[family].credential.format(key=key).encode("ascii")


def build(name: str, config: ProviderConfig) -> Provider:
    """The provider ``name`` as configured."""
    family = config.type
    url = urlsplit(config.base_url)
    known = KNOWN_PROVIDERS.get(name)
    custom = known is None or known.base_url != config.base_url
    base_path = url.path.rstrip("/") or (FAMILIES[family].base_path if custom else "")
    port = url.port or (443 if url.scheme == "https" else 80)
    host = url.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    authority = shown if url.port is None else f"{shown}:{port}"
    own = {key.lower(): value for key, value in config.headers.items()}
    fields = tuple((key, value) for key, value in FAMILIES[family].fields if key.decode() not in own)
    return Provider(
        name=name,
        family=family,
        origin=Origin(
            scheme="https" if url.scheme == "https" else "http",
            host=host,
            port=port,
            proxy=config.proxy,
            ca_file=str(config.tls.ca_file) if config.tls.ca_file else None,
            verify=config.tls.verify,
        ),
        base_path=base_path,
        request_line=b"POST " + base_path.encode("ascii"),
        host_line=b"host: %b\r\n" % authority.encode("idna" if not authority.isascii() else "ascii"),
        credential=b"" if config.api_key in (None, "", "none") else credential_line(family, config.api_key),
        fields=fields + tuple((key.encode(), value.encode()) for key, value in own.items()),
        surfaces=_EVERYTHING if custom else FAMILIES[family].surfaces | frozenset(config.surfaces or ()),
        prices=config.prices or name,
        drains=_drains(name, config),
        drain_seconds=config.drain_seconds,
        timeouts=config.timeouts,
        connections_max=config.connections_max,
    )


def _drains(name: str, config: ProviderConfig) -> bool:
    if config.on_disconnect is not None:
        return config.on_disconnect == "drain"
    return not stops_billing_on_cancel(name, config.type)
