"""A provider that answers with recorded bytes: every body byte for byte, cut at any size, ended in any way.

The test puts a :class:`Take` in; each request gets the take that is in at that moment, whatever its path, and is kept
for the test to look at. The server runs on a loop and thread of its own, so the test may be plain and synchronous.

The framing is the test's to choose: ``chunked`` (each cut becomes one HTTP chunk), ``length``, or ``close`` (the body
ends where the connection does). ``abort_after`` breaks the connection inside the body with a reset.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from emulators.looped import Looped
from emulators.ports import HOST
from emulators.waiting import until

Framing = Literal["chunked", "length", "close"]

HEAD_BYTES_MAX = 1 << 20
BODY_BYTES_MAX = 64 << 20
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends RST


class Take(NamedTuple):
    """One recorded answer and how to send it. ``cut`` is the size of the pieces; None sends the body whole."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    cut: int | None = None
    framing: Framing = "chunked"
    headers: tuple[tuple[str, str], ...] = ()
    abort_after: int | None = None


class Seen(NamedTuple):
    """One request as it arrived. Header names are lower case; the last of several equal names is kept."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Cassette(Looped):
    """A running cassette: its address, what it plays, and what it was asked."""

    def __init__(self) -> None:
        self.take = Take(b"{}")
        self.requests: list[Seen] = []

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://{HOST}:{self.port}"

    def play(self, take: Take) -> None:
        """Answer with ``take`` from now on, and forget the requests before."""
        self.take = take
        self.requests.clear()

    def options(self) -> dict[str, Any]:
        return {"limit": HEAD_BYTES_MAX}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse(reader, writer, self)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cassette: Cassette) -> None:
    """Answer the requests of one connection, one after the other."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as end:
            if not end.partial:
                return
            raise
        request = await _read(head, reader)
        cassette.requests.append(request)
        if not await _answer(writer, cassette.take):
            return


async def _read(head: bytes, reader: asyncio.StreamReader) -> Seen:
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(min(int(headers.get("content-length", "0")), BODY_BYTES_MAX))
    return Seen(method, target, headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return bytes(body)


async def _answer(writer: asyncio.StreamWriter, take: Take) -> bool:
    """Send ``take``; give whether the connection may be used again."""
    framing = {
        "chunked": ("transfer-encoding", "chunked"),
        "length": ("content-length", str(len(take.body))),
        "close": ("connection", "close"),
    }[take.framing]
    fields = (("content-type", take.content_type), framing, *take.headers)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    writer.write(f"HTTP/1.1 {take.status} Recorded\r\n{head}\r\n".encode("latin-1"))
    body = take.body if take.abort_after is None else take.body[: take.abort_after]
    for piece in cuts(body, take.cut):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if take.framing == "chunked" else piece)
        await writer.drain()
        await asyncio.sleep(0)
    if take.abort_after is not None:
        await _reset(writer)
        return False
    if take.framing == "chunked":
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return take.framing != "close"


async def _reset(writer: asyncio.StreamWriter) -> None:
    # What was written must have left before the reset, which throws away whatever still waits here or in the socket.
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()
    connection = writer.get_extra_info("socket")
    await until(lambda: not _unsent_bytes(connection))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _unsent_bytes(connection: socket.socket) -> int:
    """What the peer's kernel has not taken yet. tcp(7), SIOCOUTQ."""
    return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def cuts(body: bytes, size: int | None) -> Iterator[bytes]:
    """``body`` in pieces of ``size`` bytes, the last one shorter; whole when ``size`` is None."""
    step = size or max(len(body), 1)
    return (body[at : at + step] for at in range(0, len(body), step))
