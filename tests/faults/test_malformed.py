"""What two parsers could read in two ways is refused; nothing hangs; no request becomes two."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import h11
import pytest

from emulators.gateway import Gateway
from emulators.raw import RawClient
from emulators.scripted import ScriptedUpstream, answer, chat_answer
from faults import malformed
from faults.malformed import AMBIGUOUS, Case

SECONDS_MAX = 5.0
MARK = re.compile(rb'"user": "(call-\d+)"')


class Outcome(NamedTuple):
    """What came back. ``status`` is 0 when the connection was closed without a word."""

    case: Case
    status: int
    closed: bool
    seconds: float


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider that answers whatever reaches it."""
    with ScriptedUpstream(answer(chat_answer())) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway that waits a second at the most for the rest of a request."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
    limits = {"header_seconds": 1, "body_seconds": 1, "keep_alive_seconds": 1}
    running = start_gateway({"providers": {"local": one}, "limits": limits})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def outcomes(gateway: Gateway) -> list[Outcome]:
    """Give what became of every case, each on a connection of its own."""
    cases = list(malformed.cases(gateway.key()))
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda case: outcome(gateway, case), cases))


def outcome(gateway: Gateway, case: Case) -> Outcome:
    """Send one case and read until the connection is closed."""
    began = time.monotonic()
    with RawClient(gateway.port) as client:
        client.socket.settimeout(2 * SECONDS_MAX)
        client.send(case.data)
        try:
            said = client.read_all()
            closed = True
        except TimeoutError:
            said, closed = b"", False
    status = int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/1.1 ") else 0
    return Outcome(case, status, closed, time.monotonic() - began)


def test_there_are_enough(outcomes: list[Outcome]) -> None:
    """At least five hundred that differ in more than their mark."""
    assert len({one.case.name for one in outcomes}) == len(outcomes)
    assert len({MARK.sub(b"", one.case.data) for one in outcomes}) >= 500
    counts = Counter((one.case.kind, one.status) for one in outcomes)
    print(f"{len(outcomes)} cases; slowest {max(one.seconds for one in outcomes):.2f} s; {dict(counts)}")


def test_nothing_hangs(outcomes: list[Outcome]) -> None:
    """Every connection is answered and closed in time."""
    slow = [(one.case.name, one.seconds) for one in outcomes if not one.closed or one.seconds > SECONDS_MAX]
    assert not slow


def test_the_ambiguous_is_refused(outcomes: list[Outcome], upstream: ScriptedUpstream) -> None:
    """It gets an error, and nothing of it reaches the provider."""
    reached = served(upstream)
    wrong = [
        (one.case.name, one.status, reached[one.case.mark])
        for one in outcomes
        if one.case.kind == AMBIGUOUS and (one.status not in REFUSED or reached[one.case.mark])
    ]
    assert not wrong, f"{len(wrong)}: {wrong}"


REFUSED = (400, 405, 408, 413, 431, 501, 505)


def test_no_request_becomes_two(outcomes: list[Outcome], upstream: ScriptedUpstream) -> None:
    """The provider has seen each mark once at the most, and nothing without a mark."""
    del outcomes
    assert all(count == 1 for count in served(upstream).values())
    assert not [seen.body for seen in upstream.seen if not MARK.search(seen.body)]


def test_what_is_served_is_what_h11_reads(outcomes: list[Outcome], upstream: ScriptedUpstream) -> None:
    """A second parser finds one request in the same bytes, with the body that the provider got."""
    bodies = {MARK.search(seen.body)[1].decode(): seen.body for seen in upstream.seen}
    wrong = []
    for one in outcomes:
        if one.case.mark in bodies:
            read = second_opinion(one.case.data)
            if read is None or read.replace(b"local/", b"") != bodies[one.case.mark]:
                wrong.append((one.case.name, read))
    assert not wrong, f"{len(wrong)}: {wrong}"


def served(upstream: ScriptedUpstream) -> Counter[str]:
    """How often each mark reached the provider."""
    return Counter(match[1].decode() for seen in upstream.seen if (match := MARK.search(seen.body)))


def second_opinion(data: bytes) -> bytes | None:
    """The body of the one request that h11 reads, or None when it refuses."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif not isinstance(event, h11.Request):
                return body if isinstance(event, h11.EndOfMessage) else None
    except h11.RemoteProtocolError:
        return None


def test_a_broken_body_of_a_call_is_recorded(gateway: Gateway) -> None:
    """The key was good, so its team can read why the call was refused."""
    request = malformed.good("call-broken", gateway.key(), chunked=True)
    with RawClient(gateway.port) as client:
        client.send(request._replace(body=b"zz\r\n").bytes())
        reply = client.reply()
        assert client.closed()
    assert reply.status == 400
    assert gateway.record(reply.generation_id)["error_code"] == "user:invalid_http"


@pytest.mark.parametrize("size", [b"zz", b"-1", b"ffffffffffffffffff"])
def test_a_broken_body_for_the_control_plane_is_refused(gateway: Gateway, size: bytes) -> None:
    """The application, which waits for its body already, is told that none will come."""
    key = gateway.command("keys", "create", "--scopes", "admin").stdout.strip()
    head = b"POST /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\nexpect: 100-continue\r\n" % key.encode()
    with RawClient(gateway.port) as client:
        client.send(head + b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(size + b"\r\n")
        assert client.reply().status == 400
        assert client.closed()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_the_request_that_the_cases_spoil_is_good(gateway: Gateway, *, chunked: bool) -> None:
    """What is refused is refused for what was spoiled."""
    with RawClient(gateway.port) as client:
        client.send(malformed.good("call-good", gateway.key(), chunked=chunked).bytes())
        assert client.reply().status == 200
