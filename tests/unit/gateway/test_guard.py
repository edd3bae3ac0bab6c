"""A team's own address is resolved once, judged, and connected to as it was judged."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from counterfoil.config.model import ProviderConfig, Timeouts
from counterfoil.errors import Fault
from counterfoil.gateway.upstream.guard import TRIED_MAX, Guard
from counterfoil.gateway.upstream.pool import Pool
from counterfoil.providers.addresses import TeamAddresses
from counterfoil.providers.provider import Origin, Provider, at_team_address, build

PUBLIC, OTHER = "8.8.8.8", "8.8.4.4"


class Names:
    """A name server whose answers a test writes: one list of addresses for each question."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        """As ``loop.getaddrinfo``."""
        self.asked += 1
        found = self.answers.pop(0)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


def judge(names: Names, host: str = "models.example.com", port: int = 443) -> list[str]:
    """What the guard gives for a host."""
    return asyncio.run(Guard(TeamAddresses(), names).addresses(Origin("https", host, port, guarded=True)))


def refusal(names: Names, host: str = "models.example.com", port: int = 443) -> Fault:
    """The fault it raises."""
    with pytest.raises(Fault) as caught:
        judge(names, host, port)
    assert (caught.value.code, caught.value.status) == ("user:base_url_refused", 403)
    return caught.value


def test_public_addresses_are_given_in_the_resolvers_order() -> None:
    """Without repetitions, and not more than are worth trying."""
    assert judge(Names([OTHER, PUBLIC, OTHER])) == [OTHER, PUBLIC]
    assert len(judge(Names([f"8.8.8.{number}" for number in range(9)]))) == TRIED_MAX


@pytest.mark.parametrize(
    "found", [["127.0.0.1"], ["10.0.0.7", PUBLIC], [PUBLIC, "169.254.169.254"], ["::1"], ["fd00::1"]]
)
def test_one_forbidden_address_refuses_the_host(found: list[str]) -> None:
    """Even among good ones."""
    refusal(Names(found))


def test_a_name_that_does_not_exist_is_told_like_a_forbidden_one() -> None:
    """Or this would be a way to ask the operator's name server."""
    assert refusal(Names([])).message == refusal(Names(["10.0.0.7"])).message


def test_a_port_that_is_not_listed_is_refused_before_any_question() -> None:
    """Whatever stood in the database."""
    names = Names([PUBLIC])
    refusal(names, port=22)
    assert names.asked == 0


def test_an_address_written_out_needs_no_resolver() -> None:
    """And is judged all the same."""
    names = Names()
    assert judge(names, PUBLIC) == [PUBLIC]
    refusal(names, "127.0.0.1")
    assert names.asked == 0


@asynccontextmanager
async def listening(*hosts: str) -> AsyncIterator[tuple[int, list[str]]]:
    """Listeners on the same port of several loopback addresses; gives the port, and the addresses that were reached."""
    reached: list[str] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(writer.get_extra_info("sockname")[0])
        writer.transport.abort()

    first = await asyncio.start_server(accept, hosts[0], 0)
    port = first.sockets[0].getsockname()[1]
    others = [await asyncio.start_server(accept, host, port) for host in hosts[1:]]
    try:
        yield port, reached
    finally:
        for server in (first, *others):
            server.close()


def at(port: int) -> Provider:
    """A provider that a team moved to ``models.example.com``."""
    timeouts = Timeouts(connect_seconds=5)
    own = build("openai", ProviderConfig(base_url="https://api.openai.com/v1", proxy="none", timeouts=timeouts))
    return at_team_address(own, f"https://models.example.com:{port}/v1", None)


def connecting(test: Callable[[Callable[[Names, int], Awaitable[Fault | None]]], Awaitable[None]]) -> None:
    """Run ``test`` with a function that connects by way of given names, and gives the fault that came of it."""

    async def run() -> None:
        loop = asyncio.get_running_loop()

        async def connect(names: Names, port: int) -> Fault | None:
            pool = Pool(loop, loop.time, Guard(TeamAddresses.of(["127.0.0.2/32", "127.0.0.3/32"], [port]), names))
            try:
                await pool.connect(at(port))
            except Fault as fault:
                return fault
            finally:
                pool.close()
            return None

        await test(connect)

    asyncio.run(run())


def test_a_connection_goes_to_the_address_that_was_judged() -> None:
    """One question for each connection; the answer that a rebinding name would give next deceives nobody."""

    async def test(connect: Callable[[Names, int], Awaitable[Fault | None]]) -> None:
        async with listening("127.0.0.1", "127.0.0.2") as (port, reached):
            names = Names(["127.0.0.2"], ["127.0.0.1"])
            fault = await connect(names, port)  # nobody there speaks TLS, which is not the question
            assert fault is not None
            assert fault.code in ("upstream:tls_failed", "upstream:connect_failed")
            assert (names.asked, reached) == (1, ["127.0.0.2"])
            fault = await connect(names, port)
            assert fault is not None
            assert fault.code == "user:base_url_refused"
            assert reached == ["127.0.0.2"]

    connecting(test)


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    """As any client does."""

    async def test(connect: Callable[[Names, int], Awaitable[Fault | None]]) -> None:
        async with listening("127.0.0.3") as (port, reached):
            await connect(Names(["127.0.0.2", "127.0.0.3"]), port)
            assert reached == ["127.0.0.3"]

    connecting(test)


def test_nothing_the_operator_wrote_for_the_provider_goes_to_the_team() -> None:
    """No header, no key, no relaxed certificate check; the proxy stays, because it is the way out."""
    config = ProviderConfig(
        base_url="https://api.openai.com/v1",
        api_key="sk-operator",
        headers={"x-secret": "s"},
        proxy="http://proxy:3128",
    )
    moved = at_team_address(build("openai", config), "https://models.example.com:8443/own/v1", "/ca.pem")
    assert moved.origin == Origin("https", "models.example.com", 8443, "http://proxy:3128", "/ca.pem", guarded=True)
    assert (moved.fields, moved.credential) == ((), b"")
    assert (moved.request_line, moved.host_line) == (b"POST /own/v1", b"host: models.example.com:8443\r\n")
