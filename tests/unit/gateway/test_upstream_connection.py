"""A provider's answer is the same however its bytes are cut, on the short way for whole chunks too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.errors import Fault
from counterfoil.gateway.upstream.connection import UpstreamConnection

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """A socket that takes everything and is never full."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Taken."""

    def abort(self) -> None:
        """Closed."""

    def get_write_buffer_size(self) -> int:
        return 0


class Listener:
    """Collects an answer."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = False
        self.fault: Fault | None = None

    def on_head(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        assert status == 200

    def on_body(self, data: bytes) -> None:
        assert data
        self.pieces.append(data)

    def on_end(self) -> None:
        self.ended = True

    def on_fault(self, fault: Fault) -> None:
        self.fault = fault


def receive(reads: list[bytes]) -> tuple[Listener, list[Any]]:
    """What becomes of an answer that comes in these reads, and the connections that may be used again."""
    idle: list[Any] = []
    connection = UpstreamConnection(idle.append, lambda _: None)
    connection.connection_made(Transport())
    listener = Listener()
    connection.send(listener, b"POST / HTTP/1.1\r\n\r\n", b"")
    for data in reads:
        if not connection.closed:
            connection.data_received(data)
    return listener, idle


def chunk(body: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(body), body)


@given(
    st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([b"\r\n", b"5\r\nhello", b"0\r\n\r\n"]), max_size=8),
    st.lists(st.integers(1, 60), max_size=12),
)
def test_chunks_read_the_same_in_every_cut(bodies: list[bytes], cuts: list[int]) -> None:
    """Chunk by chunk, in one piece, and cut anywhere: the same body, and the connection is fit for the next call."""
    whole = HEAD + b"".join(map(chunk, bodies)) + b"0\r\n\r\n"
    reads = [HEAD, *map(chunk, bodies), b"0\r\n\r\n"]
    cut: list[bytes] = []
    rest = whole
    for size in cuts:
        cut.append(rest[:size])
        rest = rest[size:]
    for way in (reads, [whole], [*filter(None, cut), *([rest] if rest else [])]):
        listener, idle = receive(way)
        assert b"".join(listener.pieces) == b"".join(bodies)
        assert listener.ended
        assert listener.fault is None
        assert len(idle) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        b"+5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5_\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"\r\nhello\r\n",
        b"g\r\nhello\r\n",
        b"5\r\nhelloXX",
        b"4\r\nhello\r\n",
        b"5\nhello\r\n",
    ],
)
def test_a_chunk_that_is_none_ends_the_answer(wrong: bytes) -> None:
    """Between two good chunks as at the beginning, a size line that HTTP does not know is a fault of the provider's."""
    listener, idle = receive([HEAD + chunk(b"one"), chunk(b"two"), wrong, chunk(b"three"), b"0\r\n\r\n"])
    assert listener.fault is not None
    assert listener.fault.code == "upstream:invalid_response"
    assert not idle


def test_a_chunk_with_an_extension_is_read_by_the_parser() -> None:
    """What follows the size is passed over, and the chunks behind it are read as before."""
    listener, idle = receive([HEAD + chunk(b"one"), b"3;a=b\r\ntwo\r\n", chunk(b"three"), b"00000000F\r\n", b"x" * 15])
    assert b"".join(listener.pieces) == b"onetwothree" + b"x" * 15
    assert not listener.ended
    assert not idle
