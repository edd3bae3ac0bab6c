"""A team's own host name whose answers change, asked of a real name server by a real resolver.

The gateway runs in a mount namespace of its own, in which the system's resolver asks a name server of the test.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Answer, Gateway
from emulators.names import NameServer
from emulators.scripted import Close, ScriptedUpstream, answer, chat_answer
from emulators.tunnel import self_signed

HOST = "models.example.com"
"""What the team's server has a certificate for."""
GOOD, FORBIDDEN = "127.0.0.1", "127.0.0.2"
NAMES_AT = "127.83.0.53"
IN_ITS_OWN = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


class Place:
    """A name server, the team's server at :data:`GOOD`, somebody who listens at :data:`FORBIDDEN`, and a gateway."""

    def __init__(self, names: NameServer, teams: ScriptedUpstream, inside: socket.socket, gateway: Gateway) -> None:
        self.names = names
        self.teams = teams
        self.inside = inside
        self.gateway = gateway

    def call(self) -> Answer:
        """One call of the team that has an address of its own."""
        body = {"model": "local/gpt-4o-mini", "messages": []}
        return self.gateway.request("POST", "/v1/chat/completions", body, key=self.gateway.key("movers"))

    def somebody_came_inside(self) -> bool:
        """Whether anything ever connected to the forbidden address."""
        try:
            self.inside.accept()
        except BlockingIOError:
            return False
        return True


@pytest.fixture(scope="module")
def place(start_gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give all of it."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("a resolver of its own for the gateway needs root and mount namespaces")
    folder = tmp_path_factory.mktemp("names")
    context, authority = self_signed(folder)
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {NAMES_AT}\noptions timeout:2 attempts:2\n")
    with ExitStack() as stack:
        try:
            names = stack.enter_context(NameServer(NAMES_AT))
        except OSError as error:
            pytest.skip(f"no name server can be run here: {error}")
        teams = stack.enter_context(ScriptedUpstream(tls=context))
        teams.script = [*answer(chat_answer(), connection="close"), Close()]
        inside = stack.enter_context(socket.create_server((FORBIDDEN, teams.port)))
        inside.setblocking(False)
        gateway = started(start_gateway, teams.port, authority, resolver)
        own = ("provider-keys", "set", "--team", "movers", "local", "--base-url", f"https://{HOST}:{teams.port}/v1")
        gateway.key("movers")
        gateway.command(*own, stdin="sk-teams-own\n")
        yield Place(names, teams, inside, gateway)
        gateway.stop()


def started(start_gateway: Any, port: int, authority: Path, resolver: Path) -> Gateway:
    """A gateway that lets teams connect to :data:`GOOD`, with a resolver of its own."""
    byok = {"ports": [port], "ca_file": str(authority), "allow_private": [f"{GOOD}/32"]}
    one = {"type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "sk-operator"}
    gateway: Gateway = start_gateway({"providers": {"local": one}, "byok": byok})
    gateway.stop()
    gateway.wrapper = ["unshare", "--mount", "sh", "-c", IN_ITS_OWN, str(resolver)]
    gateway.start()
    return gateway


def test_a_name_that_rebinds_deceives_nobody(place: Place) -> None:
    """Judged and connected to by one resolution; the next connection is judged anew, and refused."""
    place.names.say([GOOD], [FORBIDDEN])
    seen = len(place.teams.seen)
    assert place.call().status == 200
    assert (place.names.asked, len(place.teams.seen)) == (1, seen + 1)
    assert place.teams.seen[-1].headers["host"] == f"{HOST}:{place.teams.port}"
    got = place.call()
    assert (got.status, got.json()["error"]["code"]) == (403, "user:base_url_refused")
    assert (place.names.asked, len(place.teams.seen)) == (2, seen + 1)
    assert not place.somebody_came_inside()


@pytest.mark.parametrize(
    "addresses",
    [
        [FORBIDDEN],
        [GOOD, FORBIDDEN],
        ["10.0.0.7"],
        ["169.254.169.254"],
        ["100.100.100.200"],
        ["0.0.0.0"],
        ["::1"],
        ["fe80::1"],
        ["fd00:ec2::254"],
        [f"::ffff:{FORBIDDEN}"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::7f00:2"],
        ["64:ff9b::a9fe:a9fe"],
        ["2002:7f00:2::"],
        [GOOD, "::1"],
        [],
    ],
    ids=lambda addresses: " ".join(addresses) or "none",
)
def test_a_name_that_leads_inside_is_refused(place: Place, addresses: list[str]) -> None:
    """Whatever the form, also beside a good address; nothing is connected to, and the record says why."""
    place.names.say(addresses)
    connections = place.teams.connections
    got = place.call()
    assert (got.status, got.json()["error"]["code"]) == (403, "user:base_url_refused")
    record = place.gateway.record(got.headers["x-request-id"], place.gateway.key("movers"))
    assert record["error_code"] == "user:base_url_refused"
    assert place.names.asked >= 1
    assert place.teams.connections == connections
    assert not place.somebody_came_inside()
