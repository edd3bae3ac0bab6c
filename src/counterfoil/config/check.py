"""Checks that need more than one value, or more than a type, to be judged."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from counterfoil.config.model import Config, ProviderConfig, RouteConfig
from counterfoil.config.shape import Fitter, suggestion
from counterfoil.config.tree import fault

_PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_ALIAS = re.compile(r"[!-~]{1,128}\Z")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_RESERVED_NAMES = frozenset({"none", "unknown"})
_RESERVED_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
)


def check(config: Config, fitter: Fitter) -> Config:
    """``config`` with keys and addresses in their final form. Raises :class:`ConfigError` naming the place."""
    providers = {name: _provider(name, provider, fitter) for name, provider in config.providers.items()}
    for alias, route in config.models.items():
        _route(alias, route, providers, fitter)
    if (config.server.tls_cert is None) != (config.server.tls_key is None):
        raise fault(fitter.where("server"), "server", "tls_cert and tls_key go together; give both or neither")
    for index, network in enumerate(config.byok.allow_private):
        _network(network, f"byok.allow_private[{index}]", fitter)
    for index, proxy in enumerate(config.server.trusted_proxies):
        if proxy != "*":  # any other text would be compared with the peer's address, and never be it
            _network(
                proxy, f"server.trusted_proxies[{index}]", fitter, "an address or a network, such as 10.1.0.0/16, or *"
            )
    if config.ledger.checkpoint_url is not None:
        _address(config.ledger.checkpoint_url, "ledger.checkpoint_url", fitter, hint="ledger.checkpoint_token")
    _key(config.ledger.checkpoint_token, "ledger.checkpoint_token", fitter)
    for path, file in _files(config):
        if not file.is_file():
            raise fault(fitter.where(path), path, f"there is no file {file}")
    return msgspec.structs.replace(config, providers=providers)


def _provider(name: str, provider: ProviderConfig, fitter: Fitter) -> ProviderConfig:
    path = f"providers.{name}"
    if not _PROVIDER_NAME.match(name):
        problem = "a provider's name has letters, digits, `.`, `_` and `-` only (at most 64), and no `/`"
        raise fault(fitter.where(path), path, problem)
    if name in _RESERVED_NAMES:
        raise fault(fitter.where(path), path, "this name has a meaning in records; choose another")
    if not provider.base_url:
        raise fault(fitter.where(path), f"{path}.base_url", "this key is needed, such as http://127.0.0.1:9001/v1")
    _address(provider.base_url, f"{path}.base_url", fitter)
    if provider.proxy is not None and provider.proxy != "none":
        _address(provider.proxy, f"{path}.proxy", fitter, credentials=True)
    _headers(provider.headers, f"{path}.headers", fitter)
    return msgspec.structs.replace(
        provider, base_url=provider.base_url.rstrip("/"), api_key=_key(provider.api_key, f"{path}.api_key", fitter)
    )


def _key(key: str | None, path: str, fitter: Fitter) -> str | None:
    if key is None or key == "none":
        return None
    if not key.strip():
        raise fault(fitter.where(path), path, "the key is empty; write `none` to send no key")
    if not re.match(r"[!-~]+\Z", key):
        raise fault(fitter.where(path), path, "the key holds a space, a line break or a character no key has")
    return key


def _address(url: str, path: str, fitter: Fitter, *, credentials: bool = False, hint: str = "api_key") -> None:
    """The address is not repeated in the error: it may hold a password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise fault(fitter.where(path), path, "this is not a web address") from error
    if parts.scheme not in ("http", "https") or not host or not re.match(r"[!-~]+\Z", url):
        raise fault(fitter.where(path), path, "expected an address that begins with http:// or https://")
    if parts.query or parts.fragment:
        raise fault(fitter.where(path), path, "the address may not hold `?` or `#`")
    if parts.username is not None and not credentials:
        raise fault(fitter.where(path), path, f"the address may not hold a user name; put the key in {hint}")


def _network(text: str, path: str, fitter: Fitter, expected: str = "a network such as 10.1.0.0/16 or fd00::/8") -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise fault(fitter.where(path), path, f"expected {expected}") from error


def _headers(headers: dict[str, str], path: str, fitter: Fitter) -> None:
    for name, value in headers.items():
        here = f"{path}.{name}"
        if not _TOKEN.match(name):
            raise fault(fitter.where(here), here, "this is not a header's name")
        if name.lower() in _RESERVED_HEADERS:
            raise fault(fitter.where(here), here, "this header belongs to the connection and cannot be set")
        if not _FIELD_VALUE.match(value):
            raise fault(fitter.where(here), here, "a header's value may not hold line breaks or control characters")


def _route(alias: str, route: RouteConfig, providers: dict[str, ProviderConfig], fitter: Fitter) -> None:
    path = f"models.{alias}"
    if not _ALIAS.match(alias):
        raise fault(fitter.where(path), path, "an alias has 1 to 128 visible ASCII characters and no space")
    for index, target in enumerate(route.targets):
        here = f"{path}.targets[{index}]"
        provider = target.target.partition("/")[0]
        if provider not in providers:
            hint = suggestion(provider, providers) if providers else "no provider is configured"
            raise fault(fitter.where(here), path, f"the target {target.target} names no configured provider; {hint}")
    if route.strategy == "weighted" and not any(target.weight for target in route.targets):
        raise fault(fitter.where(path), path, "at least one target needs a weight above 0")


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    candidates = [
        ("prices_file", config.prices_file),
        ("byok.ca_file", config.byok.ca_file),
        ("server.tls_cert", config.server.tls_cert),
        ("server.tls_key", config.server.tls_key),
        *((f"providers.{name}.tls.ca_file", provider.tls.ca_file) for name, provider in config.providers.items()),
    ]
    yield from ((path, file) for path, file in candidates if file is not None)
