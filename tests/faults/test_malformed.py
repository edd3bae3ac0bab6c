"""What two parsers could read in two ways is refused; nothing hangs; no request becomes two."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from emulators.gateway import Gateway
from emulators.raw import RawClient
from emulators.scripted import ScriptedUpstream
from faults import malformed
from faults.malformed import AMBIGUOUS
from faults.reading import (
    EXPLAINED,
    MARK,
    REFUSED,
    THREADS,
    Outcome,
    bodies,
    every_case,
    marks,
    outcome,
    second_opinion,
)


@pytest.fixture(scope="module")
def outcomes(reader: Gateway) -> list[Outcome]:
    """Give what became of every case, each on a connection of its own."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda case: outcome(reader.port, case), every_case(reader.key())))


def test_there_are_enough(outcomes: list[Outcome]) -> None:
    """At least five hundred that differ in more than their mark."""
    assert len({one.case.name for one in outcomes}) == len(outcomes)
    assert len({re.sub(rb"call-\d+", b"", one.case.data) for one in outcomes}) >= 500
    counts = Counter((one.case.kind, one.status) for one in outcomes)
    print(f"{len(outcomes)} cases; slowest {max(one.seconds for one in outcomes):.2f} s; {dict(counts)}")


def test_nothing_hangs(outcomes: list[Outcome]) -> None:
    """Every connection is answered and closed; how long the slowest took is printed above."""
    assert not [(one.case.name, one.seconds) for one in outcomes if not one.closed]


def test_the_ambiguous_is_refused(outcomes: list[Outcome], echoing: ScriptedUpstream) -> None:
    """It gets an error, and nothing of it reaches the provider."""
    reached = bodies(echoing)
    wrong = [
        (one.case.name, one.status)
        for one in outcomes
        if one.case.kind == AMBIGUOUS and (one.status not in REFUSED or reached.keys() & marks(one.case))
    ]
    assert not wrong, f"{len(wrong)}: {wrong}"


def test_nothing_behind_the_ambiguous_is_read(reader: Gateway, echoing: ScriptedUpstream) -> None:
    """The connection is closed with it: a good request on its heels is not served, wherever a reader might begin."""
    cases = [case for case in every_case(reader.key()) if case.kind == AMBIGUOUS]
    behind = {f"call-behind-{case.mark}": case for case in cases}
    with ThreadPoolExecutor(THREADS) as pool:
        good = {mark: malformed.good(mark, reader.key()).bytes() for mark in behind}
        followed = [case._replace(data=case.data + good[mark]) for mark, case in behind.items()]
        unclosed = [
            one.case.name for one in pool.map(lambda case: outcome(reader.port, case), followed) if not one.closed
        ]
    assert not unclosed
    assert not [behind[mark].name for mark in bodies(echoing).keys() & behind.keys()]


def test_no_request_becomes_two(outcomes: list[Outcome], echoing: ScriptedUpstream) -> None:
    """The provider has seen each mark once at the most, and no body but whole ones."""
    del outcomes
    assert max(Counter(seen.body for seen in echoing.seen).values()) == 1
    assert not [seen.body for seen in echoing.seen if not MARK.match(seen.body)]


def test_what_is_served_is_what_h11_reads(outcomes: list[Outcome], echoing: ScriptedUpstream) -> None:
    """A second parser finds the same requests in the same bytes, or there is a reason."""
    reached = bodies(echoing)
    wrong = []
    for one in outcomes:
        ours = {reached[mark] for mark in marks(one.case) & reached.keys()}
        theirs = {body.replace(b"local/", b"") for body in second_opinion(one.case.data)}
        if not ours <= theirs and "h11" not in EXPLAINED.get(one.case.name, "").partition(":")[0]:
            wrong.append((one.case.name, ours, theirs))
    assert not wrong, f"{len(wrong)}: {wrong}"


def test_a_broken_body_of_a_call_is_recorded(reader: Gateway) -> None:
    """The key was good, so its team can read why the call was refused."""
    request = malformed.good("call-broken", reader.key(), chunked=True)
    with RawClient(reader.port) as client:
        client.send(request._replace(body=b"zz\r\n").bytes())
        reply = client.reply()
        assert client.closed()
    assert reply.status == 400
    assert reader.record(reply.generation_id)["error_code"] == "user:invalid_http"


@pytest.mark.parametrize("size", [b"zz", b"-1", b"ffffffffffffffffff"])
def test_a_broken_body_for_the_control_plane_is_refused(reader: Gateway, size: bytes) -> None:
    """The application, which waits for its body already, is told that none will come."""
    key = reader.command("keys", "create", "--scopes", "admin").stdout.strip()
    head = b"POST /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\nexpect: 100-continue\r\n" % key.encode()
    with RawClient(reader.port) as client:
        client.send(head + b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(size + b"\r\n")
        assert client.reply().status == 400
        assert client.closed()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_the_request_that_the_cases_spoil_is_good(reader: Gateway, *, chunked: bool) -> None:
    """What is refused is refused for what was spoiled."""
    with RawClient(reader.port) as client:
        client.send(malformed.good("call-good", reader.key(), chunked=chunked).bytes())
        assert client.reply().status == 200


def test_a_slow_body_for_the_control_plane_is_refused(reader: Gateway) -> None:
    """It has as long to arrive as a call's; whoever sends it is told, and does not hold a connection for ever."""
    key = reader.command("keys", "create", "--scopes", "admin").stdout.strip()
    head = b"POST /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n" % key.encode()
    with RawClient(reader.port) as client:
        client.send(head + b"content-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        assert client.reply().status == 408
        assert client.closed()


def test_an_idle_connection_to_the_control_plane_is_closed(reader: Gateway) -> None:
    """It is kept as long as a caller's, and no longer."""
    with RawClient(reader.port) as client:
        client.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.reply().status == 200
        assert client.closed()


@pytest.mark.parametrize("target", [b"http://gateway/v1/chat/completions", b"*", b"v1/chat/completions"])
def test_a_target_that_is_no_path_is_refused(reader: Gateway, target: bytes) -> None:
    """A client that takes the gateway for a proxy is told so."""
    with RawClient(reader.port) as client:
        client.send(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" % target)
        reply = client.reply()
    assert reply.status == 400
