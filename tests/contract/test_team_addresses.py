"""A team's own base_url: the team's key goes there and nowhere else, over TLS, and never to a forbidden place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Answer, Gateway
from emulators.scripted import ScriptedUpstream, answer, chat_answer
from emulators.tunnel import TunnelProxy, self_signed

OPERATORS, TEAMS = "sk-operator-secret", "sk-teams-own"
BODY = {"model": "local/gpt-4o-mini", "messages": []}


class Place:
    """The operator's provider, a TLS server that teams may name, a proxy, and a gateway that allows loopback."""

    def __init__(self, folder: Path, start_gateway: Any, stack: list[Any]) -> None:
        context, authority = self_signed(folder)
        self.operators, self.teams, self.proxy = ScriptedUpstream(), ScriptedUpstream(tls=context), TunnelProxy()
        stack += [one.__enter__() for one in (self.operators, self.teams, self.proxy)]
        for upstream in (self.operators, self.teams):
            upstream.script = answer(chat_answer())
        one = {"type": "openai", "base_url": self.operators.base_url, "api_key": OPERATORS}
        headers = {"headers": {"x-operator-secret": OPERATORS}}
        self.byok = {"ports": [self.teams.port], "ca_file": str(authority)}
        self.providers = {
            "local": {**one, **headers},
            "through": {**one, "proxy": f"http://127.0.0.1:{self.proxy.port}"},
        }
        settings = {"providers": self.providers, "byok": {**self.byok, "allow_private": ["127.0.0.1/32", "::1/128"]}}
        self.gateway: Gateway = start_gateway(settings)
        self.strict: Gateway = start_gateway({"providers": self.providers, "byok": self.byok})

    def own(self, gateway: Gateway, team: str, base_url: str, provider: str = "local") -> str:
        """Give ``team`` a key of its own for ``base_url``; give its API key."""
        key = gateway.key(team)
        arguments = ("provider-keys", "set", "--team", team, provider, "--base-url", base_url)
        gateway.command(*arguments, stdin=f"{TEAMS}\n")
        return key

    def url(self, host: str) -> str:
        """The team's server under one of its names."""
        return f"https://{host}:{self.teams.port}/own/v1"


def call(gateway: Gateway, key: str, model: str = BODY["model"]) -> Answer:
    """One call."""
    return gateway.request("POST", "/v1/chat/completions", {**BODY, "model": model}, key=key)


@pytest.fixture(scope="module")
def place(start_gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give all of it once."""
    stack: list[Any] = []
    made = Place(tmp_path_factory.mktemp("teams"), start_gateway, stack)
    yield made
    made.gateway.stop()
    made.strict.stop()
    for one in reversed(stack):
        one.__exit__(None, None, None)


def test_the_teams_key_goes_to_the_teams_address(place: Place) -> None:
    """And nothing of the operator's: no key, no header. The record says whose key it was, and keeps neither."""
    key = place.own(place.gateway, "movers", place.url("localhost"))
    before = len(place.operators.seen)
    got = call(place.gateway, key)
    assert (got.status, len(place.operators.seen)) == (200, before)
    seen = place.teams.seen[-1]
    assert seen.path == "/own/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {TEAMS}"
    assert seen.headers["host"] == f"localhost:{place.teams.port}"
    assert OPERATORS not in json.dumps(seen.headers)
    record = place.gateway.look_up(got.headers["x-request-id"], key)
    assert record.json()["byok"] is True
    assert record.json()["attempts"][0]["key_source"] == "team"
    assert TEAMS.encode() not in record.body


def test_other_teams_go_on_to_the_operators_provider(place: Place) -> None:
    """With the operator's key."""
    place.own(place.gateway, "movers", place.url("localhost"))
    call(place.gateway, place.gateway.key("stayers"))
    assert place.operators.seen[-1].headers["authorization"] == f"Bearer {OPERATORS}"


def test_connections_to_a_teams_address_are_kept(place: Place) -> None:
    """A judged connection serves the next call as well."""
    key = place.own(place.gateway, "keepers", place.url("127.0.0.1"))
    call(place.gateway, key)
    before = place.teams.connections
    assert [call(place.gateway, key).status for _ in range(3)] == [200, 200, 200]
    assert place.teams.connections == before


def test_a_certificate_for_another_name_is_refused(place: Place) -> None:
    """The certificate is checked against the name, whatever address it has. The key was not sent."""
    key = place.own(place.gateway, "misnamed", place.url("ip6-localhost"))
    seen = len(place.teams.seen)
    got = call(place.gateway, key)
    assert got.status in (502, 403)  # 403 where the machine does not know the name
    assert len(place.teams.seen) == seen


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "nowhere.invalid"])
def test_what_is_not_public_is_refused_by_default(place: Place, host: str) -> None:
    """403 in the surface's shape, a record, nothing sent, and the same words for a name that does not exist."""
    key = place.own(place.strict, "outsiders", place.url(host))
    seen = place.teams.connections
    got = call(place.strict, key)
    error = got.json()["error"]
    assert (got.status, error["code"]) == (403, "user:base_url_refused")
    assert host not in error["message"]
    record = place.strict.look_up(got.headers["x-request-id"], key).json()
    assert (record["error_code"], record["status_code"], record["byok"]) == ("user:base_url_refused", 403, True)
    assert record["attempts"][0]["latency_ms"] is None
    assert place.teams.connections == seen


def test_a_port_that_is_not_listed_is_refused(place: Place) -> None:
    """Although its address would be allowed."""
    key = place.own(place.gateway, "porters", f"https://127.0.0.1:{place.operators.port}/v1")
    assert call(place.gateway, key).json()["error"]["code"] == "user:base_url_refused"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(place: Place, status: int) -> None:
    """It is a fault of the provider's; where it points to is not even told."""
    key = place.own(place.gateway, "movers", place.url("localhost"))
    place.teams.script = answer(b"", status, location=f"http://127.0.0.1:{place.operators.port}/v1/chat/completions")
    before = len(place.operators.seen)
    try:
        got = call(place.gateway, key)
    finally:
        place.teams.script = answer(chat_answer())
    assert (got.status, got.json()["error"]["code"]) == (502, "upstream:error")
    assert "location" not in got.headers
    assert len(place.operators.seen) == before


def test_through_a_proxy_the_judged_address_is_asked_for(place: Place) -> None:
    """The proxy gets no name to resolve anew; TLS inside the tunnel is still for the name."""
    key = place.own(place.gateway, "tunnellers", place.url("localhost"), provider="through")
    assert call(place.gateway, key, "through/gpt-4o-mini").status == 200
    target, _ = place.proxy.asked[-1]
    assert target in (f"127.0.0.1:{place.teams.port}", f"[::1]:{place.teams.port}")
    assert place.teams.seen[-1].headers["host"] == f"localhost:{place.teams.port}"


@pytest.mark.parametrize(
    "base_url",
    [
        "http://models.example.com/v1",
        "https://127.0.0.1/v1",
        "https://u@models.example.com",
        "https://models.example.com:22",
        "https://2130706433/v1",
        "https://0x7f000001/v1",
        "https://0177.0.0.1/v1",
        "https://127.1/v1",
        "https://169.254.169.254/latest",
        "https://[::1]/v1",
        "https://[fe80::1]/v1",
        "https://[::ffff:10.0.0.1]/v1",
        "https://[64:ff9b::a9fe:a9fe]/v1",
        "https://[2002:7f00:1::]/v1",
    ],
)
def test_the_control_plane_refuses_what_could_never_be_used(place: Place, base_url: str) -> None:
    """400 that names the field."""
    place.strict.key("askers")
    manager = place.strict.command("keys", "create", "--scopes", "teams:write").stdout.strip()
    body = {"secret": TEAMS, "base_url": base_url}
    got = place.strict.request("PUT", "/v1/provider-keys/askers/local", body, key=manager)
    assert (got.status, got.json()["field"]) == (400, "base_url")
