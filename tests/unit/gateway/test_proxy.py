"""Which proxy lies on the way to a provider."""

from __future__ import annotations

import pytest

from counterfoil.errors import UpstreamFault
from counterfoil.gateway.upstream.proxy import Proxy, proxy_for
from counterfoil.providers.provider import Origin

API = Origin("https", "api.example.com", 443)


@pytest.mark.parametrize(
    ("environment", "origin", "proxy"),
    [
        ({}, API, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, API, Proxy("proxy", 3128, b"")),
        ({"https_proxy": "proxy:3128"}, API, Proxy("proxy", 3128, b"")),
        ({"ALL_PROXY": "http://proxy"}, API, Proxy("proxy", 8080, b"")),
        ({"HTTP_PROXY": "http://proxy:1"}, API, None),
        ({"HTTP_PROXY": "http://proxy:1"}, Origin("http", "models.example.com", 80), Proxy("proxy", 1, b"")),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": ".example.com"}, API, None),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "other.com"}, API, Proxy("proxy", 1, b"")),
        ({"HTTPS_PROXY": "http://proxy:1"}, Origin("https", "127.0.0.1", 443), None),
        ({"HTTPS_PROXY": "http://proxy:1"}, Origin("https", "api.example.com", 443, proxy="none"), None),
        (
            {"HTTPS_PROXY": "http://proxy:1"},
            Origin("https", "api.example.com", 443, proxy="http://u:p@own:2"),
            Proxy("own", 2, b"proxy-authorization: Basic dTpw\r\n"),
        ),
    ],
    ids=[
        "none",
        "https",
        "lower-case",
        "all",
        "other-scheme",
        "http",
        "excluded",
        "not-excluded",
        "loopback",
        "off",
        "own",
    ],
)
def test_the_providers_own_proxy_wins_then_the_environments(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], origin: Origin, proxy: Proxy | None
) -> None:
    """As curl reads the variables, but loopback stays on the machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(origin) == proxy


def test_a_proxy_of_another_kind_is_refused() -> None:
    """SOCKS is not spoken; better said than guessed."""
    with pytest.raises(UpstreamFault) as caught:
        proxy_for(Origin("https", "api.example.com", 443, proxy="socks5://proxy:1080"))
    assert caught.value.code == "upstream:proxy_failed"
