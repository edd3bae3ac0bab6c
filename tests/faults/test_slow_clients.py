"""Clients that read or write slowly, by the hundred: little memory each, none of it from the others, and an end."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.raw import RawClient, post
from emulators.scripted import ScriptedUpstream, Until, answer, chat_answer, chat_frames, chunked
from emulators.waiting import PATIENCE_S, wait_until
from faults.checker import CHAT, body_of

MIB = 1 << 20
MEMORY_MAX_BYTES = 768 << 10
"""What one slow reader may cost: one read from the provider (256 KB at most) that the client did not take, the same
again for the capture, what the kernel took before (128 KiB), and the call itself. The answer is 4 MiB, so a gateway
that reads on would show."""
ANSWER = chat_frames(*["x" * 4000] * 1000)


@pytest.fixture(autouse=True)
def _descriptors() -> None:
    """Let this process and the gateway have as many connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8000:
        pytest.skip(f"this needs 8000 file descriptors; the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.fixture
def crowded(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway that takes thousands of connections from one address, with short limits on sending a request."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
    limits = {"connections_per_client": 5000, "header_seconds": 1.5, "body_seconds": 1.5}
    providers = {"local": {**one, "connections_max": 4000}, "quick": {**one, "timeouts": {"idle_seconds": 1}}}
    running = start_gateway({"providers": providers, "limits": limits})
    running.key()
    yield running
    running.stop()


def memory_bytes(gateway: Gateway) -> int:
    """What the gateway's process has in memory."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


class SlowReaders:
    """Connections that ask for a long stream and read nothing. Their receive buffers are the smallest there are."""

    def __init__(self, gateway: Gateway, count: int, model: bytes = b"local/") -> None:
        self.sockets: list[socket.socket] = []
        request = post(CHAT, body_of("slow", stream=True).replace(b"local/", model), gateway.key(), x_app_id="slow")
        for _ in range(count):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            one.settimeout(PATIENCE_S)
            one.connect(("127.0.0.1", gateway.port))
            one.sendall(request)
            self.sockets.append(one)

    def wait_for_heads(self) -> None:
        """Return when every one of them has something to read."""
        with selectors.DefaultSelector() as selector:
            for one in self.sockets:
                selector.register(one, selectors.EVENT_READ)
            waiting, deadline = set(self.sockets), time.monotonic() + PATIENCE_S
            while waiting:
                assert time.monotonic() < deadline, f"{len(waiting)} streams have not begun"
                for key, _ in selector.select(1):
                    waiting.discard(key.fileobj)  # type: ignore[arg-type]
                    selector.unregister(key.fileobj)

    def close(self) -> None:
        """Leave."""
        for one in self.sockets:
            one.close()


@pytest.mark.parametrize(
    "count", [150, pytest.param(1000, marks=[pytest.mark.faults, pytest.mark.timeout(900)])], ids=str
)
def test_slow_readers_cost_little_each_and_hold_up_nobody(
    crowded: Gateway, upstream: ScriptedUpstream, count: int
) -> None:
    """Bounded memory for each, served calls beside them, and a record for each when they have left."""
    upstream.script = lambda seen: chunked(*ANSWER) if seen.json.get("stream") else answer(chat_answer())
    healthy(crowded, 50)
    before = memory_bytes(crowded)
    alone = healthy(crowded, 200)
    slow = SlowReaders(crowded, count)
    try:
        slow.wait_for_heads()
        assert len(healthy(crowded, 100)) == 100
        beside = healthy(crowded, 200)
        each = (memory_bytes(crowded) - before) / count
    finally:
        slow.close()
    print(
        f"{count} slow readers: {each / 1024:.0f} KiB each; p99 of healthy calls {p99(alone):.1f} ms alone, "
        f"{p99(beside):.1f} ms beside them"
    )
    assert each < MEMORY_MAX_BYTES
    wait_until(lambda: records_of_slow(crowded).total() == count)
    assert records_of_slow(crowded) == {499: count}


def healthy(gateway: Gateway, count: int) -> list[float]:
    """So many ordinary calls one after the other, all of which succeed; milliseconds of each."""
    took: list[float] = []
    with RawClient(gateway.port) as client:
        for _ in range(count):
            began = time.perf_counter()
            client.send(post(CHAT, body_of("healthy", stream=False), gateway.key(), x_app_id="healthy"))
            assert client.reply().status == 200
            took.append((time.perf_counter() - began) * 1000)
    return took


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(values, n=100)[98]


def records_of_slow(gateway: Gateway) -> Counter[int]:
    """How the slow readers' calls ended, by status."""
    found: Counter[int] = Counter()
    cursor = ""
    while True:
        page = gateway.request("GET", f"/v1/generations/search?app=slow&limit=1000{cursor}", key=gateway.key()).json()
        found.update(record["status_code"] for record in page["data"])
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def test_a_reader_that_stops_for_good_is_cut_off(crowded: Gateway, upstream: ScriptedUpstream) -> None:
    """After the provider's idle_seconds without taking a byte: its connection is closed, its record says 499."""
    upstream.script = chunked(*ANSWER)
    slow = SlowReaders(crowded, 20, b"quick/")
    try:
        slow.wait_for_heads()
        wait_until(lambda: records_of_slow(crowded)[499] == 20)
    finally:
        slow.close()


def trickle(gateway: Gateway, first: bytes, unit: bytes, count: int) -> list[bytes]:
    """``count`` connections that send ``first`` and then ``unit`` again and again; what each was told in the end."""
    connections = [RawClient(gateway.port) for _ in range(count)]
    told = [b""] * count
    stop = threading.Event()

    def feed() -> None:
        while not stop.wait(0.1):
            for one in connections:
                with contextlib.suppress(OSError):
                    one.send(unit)

    for one in connections:
        one.send(first)
    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for number, one in enumerate(connections):
            told[number] = one.read_all()
    finally:
        stop.set()
        feeder.join()
        for one in connections:
            one.socket.close()
    return told


def test_a_head_that_trickles_in_is_cut(crowded: Gateway) -> None:
    """header_seconds for the whole head, not from byte to byte: 408, and the connection is closed."""
    told = trickle(crowded, b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nx-slow: ", b"a", 100)
    assert all(one.startswith(b"HTTP/1.1 408 ") for one in told)


def test_a_connection_that_says_nothing_is_closed(crowded: Gateway) -> None:
    """It never had a request, so it gets no answer."""
    assert set(trickle(crowded, b"", b"", 50)) == {b""}


def test_a_body_that_trickles_in_is_cut_and_recorded(crowded: Gateway, upstream: ScriptedUpstream) -> None:
    """body_seconds for the whole body; the key was good, so each refusal has its record, and nothing was sent."""
    seen = len(upstream.seen)
    head = post(CHAT, b"", crowded.key(), x_app_id="slow").replace(b"content-length: 0", b"content-length: 9999")
    told = trickle(crowded, head, b" ", 100)
    assert all(one.startswith(b"HTTP/1.1 408 ") for one in told)
    assert records_of_slow(crowded) == {408: 100}
    assert len(upstream.seen) == seen


def test_slow_writers_hold_up_nobody(crowded: Gateway, upstream: ScriptedUpstream) -> None:
    """Calls go through while a hundred bodies never end."""
    upstream.script = answer(chat_answer())
    head = post(CHAT, b"", crowded.key(), x_app_id="slow").replace(b"content-length: 0", b"content-length: 9999")
    connections = [RawClient(crowded.port) for _ in range(100)]
    for one in connections:
        one.send(head)
    assert len(healthy(crowded, 50)) == 50
    for one in connections:
        one.socket.close()


def test_a_slow_provider_holds_up_nobody_else(crowded: Gateway, upstream: ScriptedUpstream) -> None:
    """Two hundred calls that wait for their first byte, and others that are served meanwhile."""
    free = threading.Event()
    upstream.script = lambda seen: (
        [Until(free), *chunked(*chat_frames("one"))] if seen.json.get("stream") else answer(chat_answer())
    )
    slow = SlowReaders(crowded, 200)
    try:
        wait_until(lambda: sum(1 for seen in upstream.seen if seen.body and seen.json.get("stream")) == 200)
        assert len(healthy(crowded, 50)) == 50
        free.set()
        slow.wait_for_heads()
    finally:
        free.set()
        slow.close()
