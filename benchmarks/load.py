"""The load generator: open loop, closed loop and streams, one thread on one epoll, in a process of its own.

It reads plans from standard input and writes outcomes to standard output, one JSON document a line, so that its cost
stays out of the process that watches the clocks.

Open loop: requests leave on a schedule that does not wait for answers, and a latency counts from the *intended* start,
so a stall of the target shows in every request that it delayed.  Closed loop (`rate` 0): every connection sends again
when its answer is whole; this finds the peak and nothing else.  Streams start on a schedule, spread evenly, so that at
any moment some begin and some end.  Only what happens between `from_ns` and `until_ns` (monotonic) is counted.
"""

from __future__ import annotations

import gc
import json
import math
import random
import re
import select
import socket
import sys
import time
from array import array
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Final

from benchmarks.bodies import Template, chat_request

READ_BYTES: Final = 1 << 18
FINE_WAIT_S: Final = 0.003
# After the last departure, how long answers may still come before they count as lost.
GRACE_S: Final = 15.0
SPLIT_EVERY: Final = 16
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_SPLIT = re.compile(rb"(?i)\r\nserver-timing: *([^\r]*)")
_STAMP = re.compile(rb" (\d{16})\"")
_FRAME = b"data: "
_LAST_CHUNK = b"\r\n0\r\n\r\n"
TAIL_BYTES: Final = len(_LAST_CHUNK)
CHUNKED: Final = -1  # in place of a length


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send where: a rate of 0 means closed loop over `connections`, otherwise departures per second."""

    host: str
    port: int
    path: str
    headers: dict[str, str]
    model: str
    body_bytes: int
    stream: bool
    rate: float
    connections: int
    from_ns: int
    until_ns: int
    frames: int = 0
    poisson: bool = True
    seed: int = 1
    first_serial: int = 0


@dataclass(slots=True)
class Outcome:
    """What came back.  Counts cover the whole run; the samples, in nanoseconds, only the counted window."""

    sent: int = 0
    done: int = 0
    failed: int = 0
    lost: int = 0
    frames: int = 0
    window_done: int = 0
    window_frames: int = 0
    connections_opened: int = 0
    backlog_max: int = 0
    first_error: str = ""
    latency_ns: list[int] = field(default_factory=list[int])
    first_byte_ns: list[int] = field(default_factory=list[int])
    frame_delay_ns: list[int] = field(default_factory=list[int])
    gap_excess_ns: list[int] = field(default_factory=list[int])
    split_us: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    slowest: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class _Connection:
    sock: socket.socket
    intended_ns: int = 0
    sent_ns: int = 0
    split: bytes = b""
    busy: bool = False
    connected: bool = False
    unsent: bytes = b""
    in_head: bool = True
    begun: bool = False
    received: bytes = b""
    left_bytes: int = 0
    tail: bytes = b""
    status_ok: bool = False
    last_frame_ns: int = 0
    last_stamp_ns: int = 0


class Generator:
    """Runs one plan; `run` returns when every answer is in or the grace is over."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._body: Template = chat_request(plan.model, plan.body_bytes, stream=plan.stream)
        head = [f"POST {plan.path} HTTP/1.1", f"Host: {plan.host}:{plan.port}", "Content-Type: application/json"]
        head += [f"{name}: {value}" for name, value in plan.headers.items()]
        head.append(f"Content-Length: {self._body.bytes_total}")
        self._head = "\r\n".join([*head, "", ""]).encode()
        self._poll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._free: list[_Connection] = []
        self._waiting: deque[int] = deque()
        self._serial = plan.first_serial
        self._random = random.Random(plan.seed)  # arrival times, not a secret
        self._latency = array("q")
        self._first_byte = array("q")
        self._delays = array("q")
        self._excess = array("q")
        self._splits: list[bytes] = []
        self._slowest_ns = 0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Send, receive, count."""
        plan = self._plan
        next_ns = time.monotonic_ns()
        if plan.rate == 0:
            for _ in range(plan.connections):
                self._depart(next_ns)
        last = plan.until_ns + int(GRACE_S * 1e9)
        while True:
            now = time.monotonic_ns()
            if now < plan.until_ns:
                while plan.rate and next_ns <= now:
                    self._depart(next_ns)
                    next_ns += self._interval_ns()
                wait = (min(next_ns, plan.until_ns) if plan.rate else plan.until_ns) - now
            elif (len(self._free) == len(self._open) and not self._waiting) or now > last:
                break
            else:
                wait = 50_000_000
            self._serve(max(0, wait) / 1e9)
        return self._finish()

    def _interval_ns(self) -> int:
        if self._plan.poisson:
            return int(-math.log(1.0 - self._random.random()) / self._plan.rate * 1e9)
        return int(1e9 / self._plan.rate)

    def _serve(self, wait_s: float) -> None:
        if wait_s > FINE_WAIT_S:
            events = self._poll.poll(wait_s - 0.001)
        else:
            readable, _, _ = select.select([self._poll], [], [], wait_s)
            events = self._poll.poll(0) if readable else []
        for fd, event in events:
            connection = self._open.get(fd)
            if connection is None:
                continue
            if event & select.EPOLLOUT:
                self._writable(connection)
            if event & ~select.EPOLLOUT:
                self._read(connection)

    def _depart(self, intended_ns: int) -> None:
        if self._free:
            self._send(self._free.pop(), intended_ns)
        elif len(self._open) < self._plan.connections:
            connection = self._connect()
            if connection:
                self._send(connection, intended_ns)
        else:
            self._waiting.append(intended_ns)
            self.outcome.backlog_max = max(self.outcome.backlog_max, len(self._waiting))

    def _connect(self) -> _Connection | None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.connect((self._plan.host, self._plan.port))
        except OSError as error:
            self._fail(f"connect: {error}")
            sock.close()
            return None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock)
        self._open[sock.fileno()] = connection
        self._poll.register(sock.fileno(), select.EPOLLIN)
        self.outcome.connections_opened += 1
        return connection

    def _send(self, connection: _Connection, intended_ns: int) -> None:
        self._serial += 1
        self.outcome.sent += 1
        connection.busy = True
        connection.intended_ns = intended_ns
        connection.received = b""
        connection.in_head = True
        connection.begun = False
        connection.last_frame_ns = 0
        connection.sent_ns = time.monotonic_ns()
        data = self._head + self._body.fill(self._serial)
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._drop(connection, f"send: {error}")
            return
        if sent < len(data):
            connection.unsent = data[sent:]
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _writable(self, connection: _Connection) -> None:
        try:
            sent = connection.sock.send(connection.unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(connection, f"send: {error}")
            return
        connection.unsent = connection.unsent[sent:]
        if not connection.unsent:
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(connection, f"receive: {error}")
            return
        if not data:
            self._drop(connection, "closed before the answer was whole" if connection.busy else "")
            return
        now = time.monotonic_ns()
        if connection.in_head:
            data = connection.received + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                connection.received = data
                return
            self._read_head(connection, data, end)
            data = data[end + 4 :]
        self._read_body(connection, data, now)

    def _read_head(self, connection: _Connection, data: bytes, end: int) -> None:
        connection.in_head = False
        connection.tail = b""
        connection.status_ok = data[9:12] == b"200"
        if not connection.status_ok and not self.outcome.first_error:
            self.outcome.first_error = data[:400].decode("latin-1")
        length = _LENGTH.search(data, 0, end)
        connection.left_bytes = int(length[1]) if length else CHUNKED
        if self._plan.connections == 1 or self.outcome.done % SPLIT_EVERY == 0:
            split = _SPLIT.search(data, 0, end + 2)
            connection.split = split[1] if split else b""
            if split and self.outcome.done % SPLIT_EVERY == 0:
                self._splits.append(split[1])

    def _read_body(self, connection: _Connection, data: bytes, now: int) -> None:
        if data and not connection.begun:
            connection.begun = True
            if self._counted(now):
                self._first_byte.append(now - connection.intended_ns)
        if self._plan.stream:
            self._read_frames(connection, data, now)
        if connection.left_bytes == CHUNKED:
            connection.tail = (connection.tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
            whole = connection.tail == _LAST_CHUNK
        else:
            connection.left_bytes -= len(data)
            whole = connection.left_bytes <= 0
        if whole:
            self._complete(connection, now)

    def _read_frames(self, connection: _Connection, data: bytes, now: int) -> None:
        # The tail is shorter than the mark, so no frame is counted twice.
        frames = (connection.tail[1 - len(_FRAME) :] + data).count(_FRAME)
        self.outcome.frames += frames
        if self._counted(now):
            self.outcome.window_frames += frames
            for stamp in _STAMP.findall(data):
                self._note_frame(connection, int(stamp), now)

    def _note_frame(self, connection: _Connection, stamp_ns: int, now: int) -> None:
        self._delays.append(now - stamp_ns)
        if connection.last_frame_ns:
            self._excess.append((now - connection.last_frame_ns) - (stamp_ns - connection.last_stamp_ns))
        connection.last_frame_ns = now
        connection.last_stamp_ns = stamp_ns

    def _complete(self, connection: _Connection, now: int) -> None:
        connection.busy = False
        connection.in_head = True
        if connection.status_ok:
            self.outcome.done += 1
        else:
            self._fail("")
        if self._counted(now):
            self.outcome.window_done += 1
            self._latency.append(now - connection.intended_ns)
            if self._plan.connections == 1 and now - connection.sent_ns > self._slowest_ns:
                self._note_slowest(connection, now)
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif self._plan.rate == 0 and now < self._plan.until_ns:
            self._send(connection, now)
        else:
            self._free.append(connection)

    def _note_slowest(self, connection: _Connection, now: int) -> None:
        """Where the slowest call of a single client was: how long it took in all, and what the target says of it."""
        self._slowest_ns = now - connection.sent_ns
        said = parse_splits([connection.split])
        self.outcome.slowest = {"total_us": self._slowest_ns // 1000} | {f"{n}_us": v[0] for n, v in said.items()}

    def _counted(self, now: int) -> bool:
        return self._plan.from_ns <= now < self._plan.until_ns

    def _drop(self, connection: _Connection, reason: str) -> None:
        fd = connection.sock.fileno()
        self._poll.unregister(fd)
        del self._open[fd]
        connection.sock.close()
        if connection.busy:
            self._fail(reason)
            if self._plan.rate == 0 and time.monotonic_ns() < self._plan.until_ns:
                self._depart(time.monotonic_ns())
        else:
            self._free.remove(connection)
        if self._waiting:
            self._depart(self._waiting.popleft())

    def _fail(self, reason: str) -> None:
        self.outcome.failed += 1
        self.outcome.first_error = self.outcome.first_error or reason

    def _finish(self) -> Outcome:
        outcome = self.outcome
        outcome.lost = sum(connection.busy for connection in self._open.values()) + len(self._waiting)
        outcome.latency_ns = self._latency.tolist()
        outcome.first_byte_ns = self._first_byte.tolist()
        outcome.frame_delay_ns = self._delays.tolist()
        outcome.gap_excess_ns = self._excess.tolist()
        outcome.split_us = parse_splits(self._splits)
        for connection in self._open.values():
            connection.sock.close()
        return outcome


def parse_splits(headers: list[bytes]) -> dict[str, list[int]]:
    """`Server-Timing` values (`gw;dur=0.04, upstream;dur=1.2`, in ms) as lists of microseconds by name."""
    found: dict[str, list[int]] = {}
    for header in headers:
        for entry in header.decode("latin-1").split(","):
            name, _, duration = entry.strip().partition(";dur=")
            if duration:
                found.setdefault(name, []).append(round(float(duration.split(";")[0]) * 1000))
    return found


def main() -> None:
    """Run each plan that comes in a line of standard input and print its outcome as a line."""
    gc.disable()  # a collection in the middle would look like a stall of the target
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asdict(Generator(Plan(**json.loads(line))).run())) + "\n")
        sys.stdout.flush()
        gc.collect()


if __name__ == "__main__":
    main()
