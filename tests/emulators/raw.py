"""A client that says exactly the bytes it is given, for everything a real client would never send."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from types import TracebackType
from typing import Any, NamedTuple, Self

from emulators.waiting import PATIENCE_S


class Reply(NamedTuple):
    """An answer as it came. Header names are lower case; ``body`` has its chunked coding removed."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def generation_id(self) -> str:
        """The id of the call."""
        return self.headers["x-request-id"]


class RawClient:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """These bytes; a peer that closed meanwhile is no error here."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def half_close(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave without a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes; fewer when the peer closes."""
        while len(self._buffer) < size and self._more():
            pass
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to and including ``mark``; what there is when the peer closes first."""
        while mark not in self._buffer and self._more():
            pass
        at = self._buffer.find(mark)
        return self.read(at + len(mark) if at >= 0 else len(self._buffer))

    def arrived(self) -> bytes:
        """What has come and was not read yet, which stays to be read; nothing is waited for."""
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._more():
                pass
        self.socket.settimeout(PATIENCE_S)
        return bytes(self._buffer)

    def read_all(self) -> bytes:
        """Everything until the peer closes."""
        while self._more():
            pass
        return self.read(len(self._buffer))

    def reply(self) -> Reply:
        """One whole answer; raises ConnectionError for one that was cut off."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        assert head.startswith("HTTP/1.1 "), f"no answer: {head!r}"
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = self._chunks()
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        else:
            body = self.read_all()
        return Reply(int(first.split(" ")[1]), headers, body)

    def closed(self) -> bool:
        """Whether the peer has closed: nothing is left to read, not even by waiting."""
        return not self._buffer and not self._more()

    def _chunks(self) -> bytes:
        pieces: list[bytes] = []
        while True:
            line = self.read_until(b"\r\n")
            if not line.endswith(b"\r\n"):
                raise ConnectionError(f"an answer that was cut off: {b''.join(pieces)!r}")
            size = int(line, 16)
            pieces.append(self._exactly(size))
            self._exactly(2)
            if not size:
                return b"".join(pieces)

    def _exactly(self, size: int) -> bytes:
        data = self.read(size)
        if len(data) < size:
            raise ConnectionError(f"an answer that was cut off: {data!r}")
        return data

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)


def post(path: str, body: bytes, key: str | None, **headers: str) -> bytes:
    """A well-formed request's bytes; ``headers`` are added as they are, underscores as hyphens."""
    fields = {"host": "gateway", "content-type": "application/json", "content-length": str(len(body))}
    if key is not None:
        fields["authorization"] = f"Bearer {key}"
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body
