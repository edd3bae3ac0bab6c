"""The mock upstream: an OpenAI-shaped server that costs as little as Python allows, so that it is never the limit.

It runs in a process of its own (`python -m benchmarks.mock --port P`).  One thread, one epoll, prepared answers; of a
request it looks for the end of the head, the length of the body and the word `stream`, nothing else.  What it answers
with is set between rounds through its control paths, because a gateway under test may drop headers and queries that
it does not know:

    POST /mock/behave   {"latency_ms": 0, "body_bytes": 1100, "frames": 64, "pace_ms": 20}
    GET  /mock/stats    {"hits": …, "streams": …, "frames": …, "aborted": …}

Each content frame carries the monotonic nanosecond at which it was sent, so a generator on the same machine can tell
the delay of every single frame.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import re
import select
import socket
import sys
import time
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.bodies import SERIAL_MARK, STAMP_DIGITS, STAMP_MARK, Template, chat_response, stream_frames

READ_BYTES: Final = 1 << 18
# Below this the wait goes through select(2), which counts microseconds; epoll_wait(2) counts milliseconds.
FINE_WAIT_S: Final = 0.003
VARIANTS: Final = 8
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")
_STREAM = re.compile(rb'"stream": ?true')
_UNARY_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
# nginx reads X-Accel-Buffering as `proxy_buffering off` for this one answer; the others ignore it.
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_MODELS = b'{"object":"list","data":[{"id":"gpt-4o-mini","object":"model","created":1,"owned_by":"mock"}]}'


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the mock answers with: latency before the first byte, size of a unary body, frames and pace of a stream."""

    latency_ms: float = 0.0
    body_bytes: int = 1100
    frames: int = 64
    pace_ms: float = 20.0


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame as a transfer chunk, cut at the places for the serial and (when `stamped`) for the send time."""

    before: bytes
    middle: bytes
    after: bytes
    stamped: bool

    def fill(self, serial: bytes) -> bytes:
        if not self.middle:
            return self.before
        if self.stamped:
            return b"%b%b%b%016d%b" % (self.before, serial, self.middle, time.monotonic_ns(), self.after)
        return self.before + serial + self.middle


@dataclass(slots=True)
class _Connection:
    sock: socket.socket
    received: bytearray
    awaited_bytes: int = 0
    unsent: bytes = b""
    next_frame: int = -1
    due: float = 0.0
    serial: bytes = b""
    open: bool = True


class Mock:
    """The server; `serve` runs until the process ends."""

    def __init__(self, listener: socket.socket, behaviour: Behaviour) -> None:
        self._listener = listener
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._due: list[tuple[float, int, _Connection]] = []
        self._order = 0
        self.hits = 0
        self.streams = 0
        self.frames = 0
        self.aborted = 0
        self._behave(behaviour)

    def serve(self) -> None:
        """Accept and answer for ever."""
        listening = self._listener.fileno()
        self._poll.register(listening, select.EPOLLIN)
        while True:
            for fd, event in self._ready():
                if fd == listening:
                    self._accept()
                    continue
                connection = self._connections.get(fd)
                if connection is None:
                    continue
                if event & select.EPOLLOUT:
                    self._flush(connection)
                if event & ~select.EPOLLOUT:
                    self._read(connection)
            if self._due:
                self._work_due()

    def _ready(self) -> list[tuple[int, int]]:
        if not self._due:
            return self._poll.poll()
        wait = self._due[0][0] - time.monotonic()
        if wait <= 0:
            return self._poll.poll(0)
        if wait > FINE_WAIT_S:
            return self._poll.poll(wait - 0.001)
        readable, _, _ = select.select([self._poll], [], [], wait)
        return self._poll.poll(0) if readable else []

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[sock.fileno()] = _Connection(sock, bytearray())
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        received = connection.received
        if received:
            received += data
            if len(received) < connection.awaited_bytes:
                return
            data = bytes(received)
        size, body_at = _request_size(data)
        if size == 0 or len(data) < size:
            connection.received = received or bytearray(data)
            connection.awaited_bytes = size
            return
        rest = data[size:]
        connection.received = bytearray(rest)
        self._answer(connection, data[:size] if rest else data, body_at)

    def _answer(self, connection: _Connection, request: bytes, body_at: int) -> None:
        if not request.startswith(b"POST /v1"):
            self._control(connection, request, body_at)
            return
        self.hits += 1
        # Clients write `stream` before or after the messages: both ends are searched, a long prompt is not.
        tail_at = max(body_at, len(request) - 512)
        stream = _STREAM.search(request, body_at, body_at + 512) or _STREAM.search(request, tail_at)
        if stream:
            self.streams += 1
            connection.next_frame = 0
            connection.serial = b"%016d" % self.hits
        elif not self._latency_s:
            self._send(connection, self._unary())
            return
        connection.due = time.monotonic() + self._latency_s
        self._schedule(connection)

    def _unary(self) -> bytes:
        head, template = self._answers[self.hits % VARIANTS]
        return head + template.fill(self.hits)

    def _schedule(self, connection: _Connection) -> None:
        self._order += 1
        heapq.heappush(self._due, (connection.due, self._order, connection))

    def _work_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            connection = heapq.heappop(self._due)[2]
            if not connection.open:
                continue
            if connection.next_frame < 0:
                self._send(connection, self._unary())
            else:
                self._send_frame(connection)

    def _send_frame(self, connection: _Connection) -> None:
        index = connection.next_frame
        frames = self._frames
        if index >= len(frames):  # the behaviour was changed under a running stream
            self._close(connection)
            return
        if index == 0:
            self._send(connection, _STREAM_HEAD + frames[0].fill(connection.serial))
        elif index == self._tail_at:
            self._send(connection, b"".join(frame.fill(connection.serial) for frame in frames[index:]))
            self.frames += len(frames) - index
            connection.next_frame = -1
            return
        else:
            self._send(connection, frames[index].fill(connection.serial))
        self.frames += 1
        if connection.open:
            connection.next_frame = index + 1
            connection.due += self._pace_s
            self._schedule(connection)

    def _send(self, connection: _Connection, data: bytes) -> None:
        if connection.unsent:
            connection.unsent += data
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(data):
            connection.unsent = data[sent:]
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, connection: _Connection) -> None:
        data, connection.unsent = connection.unsent, b""
        if data:
            self._send(connection, data)
        if connection.open and not connection.unsent:
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN)

    def _close(self, connection: _Connection) -> None:
        if connection.open:
            connection.open = False
            self.aborted += connection.next_frame >= 0
            fd = connection.sock.fileno()
            self._poll.unregister(fd)
            del self._connections[fd]
            connection.sock.close()

    def _control(self, connection: _Connection, request: bytes, body_at: int) -> None:
        if request.startswith(b"POST /mock/behave"):
            self._behave(replace(Behaviour(), **json.loads(request[body_at:])))
        elif request.startswith(b"GET /v1/models"):
            self._send(connection, _UNARY_HEAD % len(_MODELS) + _MODELS)
            return
        body = json.dumps({k: getattr(self, k) for k in ("hits", "streams", "frames", "aborted")}).encode()
        self._send(connection, _UNARY_HEAD % len(body) + body)

    def _behave(self, behaviour: Behaviour) -> None:
        self._latency_s = behaviour.latency_ms / 1000
        self._pace_s = behaviour.pace_ms / 1000
        templates = [chat_response(behaviour.body_bytes, seed) for seed in range(VARIANTS)]
        self._answers: list[tuple[bytes, Template]] = [(_UNARY_HEAD % t.bytes_total, t) for t in templates]
        self._frames = [_cut(event) for event in stream_frames(behaviour.frames)]
        # The finish, the usage and [DONE] leave together, with the bytes that end a chunked body.
        self._tail_at = behaviour.frames + 1
        last = self._frames[-1]
        self._frames[-1] = replace(last, before=last.before + b"0\r\n\r\n")


def _cut(event: bytes) -> _Frame:
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    before, _, rest = chunk.partition(SERIAL_MARK.encode())
    middle, stamp, after = rest.partition(STAMP_MARK.encode())
    return _Frame(before, middle, after, stamped=len(stamp) == STAMP_DIGITS)


def _request_size(data: bytes) -> tuple[int, int]:
    """Bytes of the first request in `data` and where its body starts; (0, 0) while that is not known."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0, 0
    body_at = end + 4
    length = _LENGTH.search(data, 0, end)
    if length:
        return body_at + int(length[1]), body_at
    if _CHUNKED.search(data, 0, end):
        # No body of ours contains this sequence, so the search is enough to find the last chunk.
        last = data.find(b"\r\n0\r\n\r\n", end)
        return (last + 7, body_at) if last >= 0 else (0, 0)
    return body_at, body_at


def listen(port: int) -> socket.socket:
    """A listening socket on the loopback address; port 0 takes a free one."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    return listener


def main() -> None:
    """Serve until the process is ended; the port goes to standard output."""
    parser = argparse.ArgumentParser(prog="benchmarks.mock")
    parser.add_argument("--port", type=int, default=0)
    listener = listen(parser.parse_args().port)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    gc.disable()  # nothing here makes cycles
    Mock(listener, Behaviour()).serve()


if __name__ == "__main__":
    main()
