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
from emulators.scripted import ScriptedUpstream, Seen, Step, answer, chat_answer
from faults import malformed, smuggled
from faults.malformed import AMBIGUOUS, Case

SECONDS_MAX = 5.0
THREADS = 64  # nearly all of them wait for a second to pass
MARK = re.compile(
    rb'\A\{"model": "(?:local/)?gpt-4o-mini", "user": "((?:call|probe)-[a-z0-9-]+)", "messages": \[\]\}\Z'
)
"""A whole body of ours: a mark that is found inside something else was not read as a request."""

REFUSED = (400, 405, 408, 413, 431, 501, 505)
LIMITS = {"header_seconds": 1, "body_seconds": 1, "keep_alive_seconds": 1}

EXPLAINED: dict[str, str] = {
    "a length with a tab before": "nginx: RFC 9110, 5.5 allows a tab as well as a space around a value; h11 agrees.",
    "an empty line before": "h11: RFC 9112, 2.2 wants at least one empty line to be ignored; nginx agrees.",
    "two empty lines before": "h11: as one empty line; nginx agrees.",
    "one behind the other, with empty lines between": "h11: as empty lines before the first; nginx agrees.",
    "a bare LF before": "h11: RFC 9112, 2.2 lets LF alone end a line; nothing stands in it; nginx agrees.",
    "two spaces before the target": "h11: RFC 9112, 3 lets words be split at any white space; nginx agrees.",
    "two spaces before the version": "h11: the same; nginx agrees.",
    "RTSP/1.0": "h11, nginx: llhttp takes this name too, and does not tell; framing and meaning are those of HTTP/1.0.",
}
"""What we serve although one of the others refuses it: who, and why we do."""


class Outcome(NamedTuple):
    """What came back. ``status`` is 0 when the connection was closed without a word."""

    case: Case
    status: int
    closed: bool
    seconds: float


def every_case(key: str) -> list[Case]:
    """Both tables."""
    plain = list(malformed.cases(key))
    return plain + list(smuggled.cases(key, len(plain)))


def echo(seen: Seen) -> list[Step]:
    """Answer with the mark of the request, so that nobody can take another's answer for their own."""
    found = MARK.match(seen.body)
    return answer(chat_answer(found[1].decode() if found else "unmarked"))


def config(base_url: str) -> dict[str, Any]:
    """A gateway that waits a second at the most for the rest of a request."""
    one = {"type": "openai", "base_url": base_url, "api_key": "none", "prices": "openai"}
    return {"providers": {"local": one}, "limits": LIMITS}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider that answers whatever reaches it."""
    with ScriptedUpstream(echo) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway in front of it."""
    running = start_gateway(config(upstream.base_url))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def outcomes(gateway: Gateway) -> list[Outcome]:
    """Give what became of every case, each on a connection of its own."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda case: outcome(gateway.port, case), every_case(gateway.key())))


def outcome(port: int, case: Case) -> Outcome:
    """Send one case and read until the connection is closed."""
    began = time.monotonic()
    with RawClient(port) as client:
        client.socket.settimeout(2 * SECONDS_MAX)
        client.send(case.data)
        try:
            said = client.read_all().removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            closed = True
        except TimeoutError:
            said, closed = b"", False
    status = int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/1.1 ") else 0
    return Outcome(case, status, closed, time.monotonic() - began)


def test_there_are_enough(outcomes: list[Outcome]) -> None:
    """At least five hundred that differ in more than their mark."""
    assert len({one.case.name for one in outcomes}) == len(outcomes)
    assert len({re.sub(rb"call-\d+", b"", one.case.data) for one in outcomes}) >= 500
    counts = Counter((one.case.kind, one.status) for one in outcomes)
    print(f"{len(outcomes)} cases; slowest {max(one.seconds for one in outcomes):.2f} s; {dict(counts)}")


def test_nothing_hangs(outcomes: list[Outcome]) -> None:
    """Every connection is answered and closed in time."""
    slow = [(one.case.name, one.seconds) for one in outcomes if not one.closed or one.seconds > SECONDS_MAX]
    assert not slow


def test_the_ambiguous_is_refused(outcomes: list[Outcome], upstream: ScriptedUpstream) -> None:
    """It gets an error, and nothing of it reaches the provider."""
    reached = bodies(upstream)
    wrong = [
        (one.case.name, one.status)
        for one in outcomes
        if one.case.kind == AMBIGUOUS and (one.status not in REFUSED or reached.keys() & marks(one.case))
    ]
    assert not wrong, f"{len(wrong)}: {wrong}"


def test_nothing_behind_the_ambiguous_is_read(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """The connection is closed with it: a good request on its heels is not served, wherever a reader might begin."""
    cases = [case for case in every_case(gateway.key()) if case.kind == AMBIGUOUS]
    behind = {f"call-behind-{case.mark}": case for case in cases}
    with ThreadPoolExecutor(THREADS) as pool:
        good = {mark: malformed.good(mark, gateway.key()).bytes() for mark in behind}
        followed = [case._replace(data=case.data + good[mark]) for mark, case in behind.items()]
        unclosed = [
            one.case.name for one in pool.map(lambda case: outcome(gateway.port, case), followed) if not one.closed
        ]
    assert not unclosed
    assert not [behind[mark].name for mark in bodies(upstream).keys() & behind.keys()]


def test_no_request_becomes_two(outcomes: list[Outcome], upstream: ScriptedUpstream) -> None:
    """The provider has seen each mark once at the most, and no body but whole ones."""
    del outcomes
    assert max(Counter(seen.body for seen in upstream.seen).values()) == 1
    assert not [seen.body for seen in upstream.seen if not MARK.match(seen.body)]


def test_what_is_served_is_what_h11_reads(outcomes: list[Outcome], upstream: ScriptedUpstream) -> None:
    """A second parser finds the same requests in the same bytes, or there is a reason."""
    reached = bodies(upstream)
    wrong = []
    for one in outcomes:
        ours = {reached[mark] for mark in marks(one.case) & reached.keys()}
        theirs = {body.replace(b"local/", b"") for body in second_opinion(one.case.data)}
        if not ours <= theirs and "h11" not in EXPLAINED.get(one.case.name, "").partition(":")[0]:
            wrong.append((one.case.name, ours, theirs))
    assert not wrong, f"{len(wrong)}: {wrong}"


def bodies(upstream: ScriptedUpstream) -> dict[str, bytes]:
    """The bodies that reached the provider, by their marks."""
    return {match[1].decode(): seen.body for seen in upstream.seen if (match := MARK.match(seen.body))}


def marks(case: Case) -> set[str]:
    """The marks of the requests that somebody may find in a case."""
    return {case.mark, f"{case.mark}-second"}


def second_opinion(data: bytes) -> list[bytes]:
    """The bodies of the requests that h11 reads, up to the first thing it refuses."""
    found: list[bytes] = []
    while data:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(data)
        body = b""
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if not isinstance(event, h11.Request | h11.Data):
                    return found
                body += event.data if isinstance(event, h11.Data) else b""
        except h11.RemoteProtocolError:
            return found
        found.append(body)
        data = connection.trailing_data[0]
    return found


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


def test_a_slow_body_for_the_control_plane_is_refused(gateway: Gateway) -> None:
    """It has as long to arrive as a call's; whoever sends it is told, and does not hold a connection for ever."""
    key = gateway.command("keys", "create", "--scopes", "admin").stdout.strip()
    head = b"POST /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n" % key.encode()
    with RawClient(gateway.port) as client:
        client.send(head + b"content-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        assert client.reply().status == 408
        assert client.closed()


def test_an_idle_connection_to_the_control_plane_is_closed(gateway: Gateway) -> None:
    """It is kept as long as a caller's, and no longer."""
    with RawClient(gateway.port) as client:
        client.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.reply().status == 200
        assert client.closed()


@pytest.mark.parametrize("target", [b"http://gateway/v1/chat/completions", b"*", b"v1/chat/completions"])
def test_a_target_that_is_no_path_is_refused(gateway: Gateway, target: bytes) -> None:
    """A client that takes the gateway for a proxy is told so."""
    with RawClient(gateway.port) as client:
        client.send(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" % target)
        reply = client.reply()
    assert reply.status == 400
