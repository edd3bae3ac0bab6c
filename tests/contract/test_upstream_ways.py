"""The way to a provider: TLS, a proxy's tunnel, both at once, and what is said when the way is closed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Answer, Gateway
from emulators.scripted import ScriptedUpstream, answer, chat_answer, chat_frames, chunked
from emulators.tunnel import TunnelProxy, self_signed


class Place:
    """A plain and a TLS provider, two proxies, and a gateway that knows every way between them."""

    def __init__(self, folder: Path, start_gateway: Any, stack: list[Any]) -> None:
        context, authority = self_signed(folder)
        self.plain, self.secure = ScriptedUpstream(), ScriptedUpstream(tls=context)
        self.proxy, self.closed = TunnelProxy(), TunnelProxy(refusal=403)
        stack += [one.__enter__() for one in (self.plain, self.secure, self.proxy, self.closed)]
        for upstream in (self.plain, self.secure):
            upstream.script = lambda seen: (
                chunked(*chat_frames("a", "b")) if seen.json.get("stream") else answer(chat_answer())
            )
        plain = {"type": "openai", "base_url": self.plain.base_url, "api_key": "none"}
        secure = {**plain, "base_url": self.secure.base_url}
        trusted = {**secure, "tls": {"ca_file": str(authority)}}
        through = f"http://user:p%40ss@127.0.0.1:{self.proxy.port}"
        self.gateway: Gateway = start_gateway(
            {
                "providers": {
                    "tls": trusted,
                    "untrusted": secure,
                    "unverified": {**secure, "tls": {"verify": False}},
                    "tunnel": {**plain, "proxy": through},
                    "tls-tunnel": {**trusted, "proxy": through},
                    "refused": {**plain, "proxy": f"http://127.0.0.1:{self.closed.port}"},
                    "gone": {**plain, "proxy": "http://127.0.0.1:9"},
                }
            }
        )

    def call(self, provider: str, *, stream: bool = False) -> Answer:
        """One call to ``provider``."""
        body = {"model": f"{provider}/m", "messages": [], "stream": stream}
        return self.gateway.request("POST", "/v1/chat/completions", body, key=self.gateway.key())


@pytest.fixture(scope="module")
def place(start_gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give all of it once."""
    stack: list[Any] = []
    made = Place(tmp_path_factory.mktemp("ways"), start_gateway, stack)
    yield made
    made.gateway.stop()
    for one in reversed(stack):
        one.__exit__(None, None, None)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("provider", ["tls", "unverified", "tunnel", "tls-tunnel"])
def test_every_way_serves_and_records(place: Place, provider: str, stream: bool) -> None:
    """The answer and the record are the same whatever lies between."""
    for _ in range(2):  # the second call over the connection of the first
        got = place.call(provider, stream=stream)
        assert got.status == 200
        record = place.gateway.record(got.headers["x-request-id"])
        assert (record["provider"], record["success"], record["finish_reason"]) == (provider, True, "stop")


def test_a_tunnel_is_asked_for_with_the_proxys_credential_only(place: Place) -> None:
    """The proxy learns the target and its own user; the provider's request is inside."""
    place.call("tunnel")
    target, credential = place.proxy.asked[-1]
    assert target.startswith("127.0.0.1:")
    assert credential == "Basic dXNlcjpwQHNz"
    assert "proxy-authorization" not in place.plain.seen[-1].headers


@pytest.mark.parametrize(
    ("provider", "code"),
    [
        ("untrusted", "upstream:tls_failed"),
        ("refused", "upstream:proxy_failed"),
        ("gone", "upstream:proxy_failed"),
    ],
)
def test_a_closed_way_is_named(place: Place, provider: str, code: str) -> None:
    """502 with what failed, and a record; nothing was sent."""
    seen = len(place.plain.seen) + len(place.secure.seen)
    got = place.call(provider)
    assert (got.status, got.json()["error"]["code"]) == (502, code)
    assert place.gateway.record(got.headers["x-request-id"])["error_code"] == code
    assert len(place.plain.seen) + len(place.secure.seen) == seen


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_never_takes_loopback_traffic(
    place: Place, start_gateway: Any, variable: str
) -> None:
    """A gateway beside its model server does not leave the machine because of a variable."""
    config = {"providers": {"local": {"type": "openai", "base_url": place.plain.base_url, "api_key": "none"}}}
    gateway: Gateway = start_gateway(config, environment={variable: f"http://127.0.0.1:{place.closed.port}"})
    body = {"model": "local/m", "messages": []}
    assert gateway.request("POST", "/v1/chat/completions", body, key=gateway.key()).status == 200
    gateway.stop()
