"""The cassette sends exactly what was recorded; the tests over recorded traffic stand on this."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest

from emulators import cassette as recorder
from emulators.cassette import Cassette, Framing, Take

BODY = 'data: {"a": "é"}\r\n\r\ndata: [DONE]\n\n'.encode()


def fetch(cassette: Cassette) -> tuple[http.client.HTTPResponse, bytes]:
    """Give the answer to one POST, and its body."""
    address = cassette.url.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request("POST", "/v1/x?y=1", body=b'{"hello": 1}', headers={"X-Mine": "1"})
        with connection.getresponse() as answer:
            return answer, answer.read()


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("cut", [None, 1, 2, 7, 1000])
def test_the_body_is_the_recorded_one(cassette: Cassette, framing: Framing, cut: int | None) -> None:
    """However it is framed and cut, the body that arrives is the body that was put in."""
    cassette.play(Take(BODY, 418, "text/event-stream", cut=cut, framing=framing))
    answer, body = fetch(cassette)
    assert body == BODY
    assert answer.status == 418
    assert answer.headers["content-type"] == "text/event-stream"


def test_the_request_is_kept(cassette: Cassette) -> None:
    """What was asked is there for the test to look at."""
    cassette.play(Take(b"{}"))
    fetch(cassette)
    [seen] = cassette.requests
    assert (seen.method, seen.target, json.loads(seen.body)) == ("POST", "/v1/x?y=1", {"hello": 1})
    assert seen.headers["x-mine"] == "1"


def test_an_aborted_body_ends_in_a_reset(cassette: Cassette) -> None:
    """A take that aborts sends so many bytes and then breaks the connection."""
    cassette.play(Take(BODY, abort_after=5, framing="length"))
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        fetch(cassette)


@pytest.mark.parametrize("size", [1, 3, None])
def test_pieces_add_up(size: int | None) -> None:
    """The pieces of a body, put together, are the body."""
    assert b"".join(recorder.cuts(BODY, size)) == BODY
