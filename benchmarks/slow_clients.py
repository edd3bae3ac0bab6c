"""What a thousand clients that do not read cost: memory each, and the latency of calls that are served beside them.

    python -m benchmarks.slow_clients [--clients 1000] [--rounds 7]

Each client asks for a stream of 4 MiB and reads none of it. Rounds with them and without them come in pairs, now the
one first and now the other, on one gateway that goes on: so a slow minute of the machine meets both, and what is quoted
is the ratio within a pair. In between the clients leave, and the next round waits until each of them has its record.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from benchmarks import clocks, figures, machine
from benchmarks.compare import Series, running
from benchmarks.rounds import Bench, Round, Scenario
from benchmarks.scenarios import ALONE
from benchmarks.statistics import Estimate
from benchmarks.targets import LOAD_CORE, Counterfoil

STREAM_BYTES: Final = 4 << 20
FRAME_BYTES: Final = 4000
RECEIVE_BUFFER_BYTES: Final = 2048
SECONDS_MAX: Final = 60.0
STILL_SECONDS: Final = 0.5
STILL_CORES: Final = 0.1
"""A gateway that uses less of a core for so long has nothing left to do but to wait."""
SCENARIOS: Final = (ALONE, Scenario("500 calls/s", rate=500, connections=64, request_bytes=1000, window_s=4.0))
QUIET, CROWDED = "without", "beside"


class LongAnswers:
    """A provider in a thread that answers everything with :data:`STREAM_BYTES` of events, as fast as they are taken."""

    def __init__(self) -> None:
        self.port = 0
        self._ready = threading.Event()
        with clocks.pinned({LOAD_CORE}):
            threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait(SECONDS_MAX)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        delta = {"choices": [{"index": 0, "delta": {"content": "x" * FRAME_BYTES}, "finish_reason": None}]}
        event = (
            b"data: %b\n\n" % json.dumps({"id": "chatcmpl-long", "object": "chat.completion.chunk", **delta}).encode()
        )
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(STREAM_BYTES // len(chunk)):
                writer.write(chunk)
                await writer.drain()
            await reader.read()  # until the gateway hangs up
        writer.close()


class Crowded(Counterfoil):
    """The gateway with a second provider, the one that the slow clients ask, and room for all of them."""

    def __init__(self, long_port: int) -> None:
        super().__init__()
        self._long_port = long_port

    def providers(self, upstream_port: int) -> dict[str, Any]:
        known = super().providers(upstream_port)
        slow = {"base_url": f"http://127.0.0.1:{self._long_port}/v1", "connections_max": 8192}
        return known | {"long": known["mock"] | slow}

    @contextmanager
    def slow_clients(self, count: int) -> Generator[None]:
        """``count`` clients whose streams stand still, until the block ends; then each of them gets its record."""
        body = b'{"model":"long/gpt-4o-mini","messages":[],"stream":true}'
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        )
        request = head.encode() + f"authorization: {self.headers['Authorization']}\r\n\r\n".encode() + body
        clients: list[socket.socket] = []
        try:
            for _ in range(count):
                client = socket.socket()
                clients.append(client)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
                client.settimeout(SECONDS_MAX)
                client.connect(("127.0.0.1", self.port))
                client.sendall(request)
            _wait_until_readable(clients)
            self._wait_until_still()
            yield
        finally:
            for client in clients:
                client.close()
        deadline = time.monotonic() + SECONDS_MAX
        while self.stats()["open_intents"]:
            if time.monotonic() > deadline:
                raise RuntimeError("the slow clients' calls were not recorded")
            time.sleep(0.05)

    def _wait_until_still(self) -> None:
        """Return when the gateway has taken from the provider what it takes ahead of its clients."""
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            before = clocks.read(self.pids())
            time.sleep(STILL_SECONDS)
            if clocks.read(self.pids()).since(before).cores < STILL_CORES:
                return
        raise RuntimeError("the gateway never came to rest beside its slow clients")


def _wait_until_readable(clients: Sequence[socket.socket]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while selector.get_map():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(selector.get_map())} streams have not begun")
            for key, _ in selector.select(1):
                selector.unregister(key.fileobj)


def measure(clients: int, rounds: int) -> tuple[list[Round], float]:
    """The rounds of both kinds, named as targets, and the bytes of memory that each slow client took at first.

    At first: what they leave behind is used again by the next ones, so later rounds would show nothing.
    """
    target = Crowded(LongAnswers().port)
    found: list[Round] = []

    def one(bench: Bench, scenario: Scenario, number: int, kind: str) -> None:
        bench.forget(target)
        made = bench.run(target, scenario)
        made.target, made.number = kind, number
        found.append(made)

    with Bench() as bench, running(target, bench.port):
        bench.warm(target)
        before = clocks.rss_bytes(target.pids())
        with target.slow_clients(clients):
            each = (clocks.rss_bytes(target.pids()) - before) / clients
        for scenario in SCENARIOS:
            for number in range(rounds):
                if number % 2 == 0:
                    one(bench, scenario, number, QUIET)
                with target.slow_clients(clients):
                    one(bench, scenario, number, CROWDED)
                if number % 2 == 1:
                    one(bench, scenario, number, QUIET)
                sys.stderr.write(f"{scenario.name}, round {number + 1} of {rounds}\n")
    return found, each


def _said(value: Estimate, unit: str = "", digits: int = 2) -> str:
    return figures.text(value, unit, digits)


def main() -> int:
    """Measure and print; 1 when a record was missing or no pair counts."""
    parser = argparse.ArgumentParser(prog="benchmarks.slow_clients")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found, each = measure(given.clients, given.rounds)
    series = Series(tuple(found))
    print(json.dumps(machine.describe()))
    for scenario in SCENARIOS:
        for name, figure in (
            ("p50", figures.latency_p50),
            ("p99", figures.latency_p99),
            ("CPU", figures.cpu_per_request),
        ):
            alone, beside = (series.estimate(scenario.name, kind, figure) for kind in (QUIET, CROWDED))
            ratio = series.ratio(scenario.name, CROWDED, QUIET, figure)
            print(f"{scenario.name}, {name}: {_said(alone, 'µs', 0)} without, {_said(beside, 'µs', 0)} beside", end="")
            print(f" {given.clients} slow clients; ratio {_said(ratio)}")
    print(f"memory of one slow client: {each / 1024:.0f} KiB")
    print("\n".join(figures.verdict(series)))
    return 1 if series.broken or len(series.void) == len(series.rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
