"""Is a call's record there the moment its last byte is (P7)? Every call is looked up at once, and misses are counted.

The generator of the rounds sends calls over 32 connections, whole and streamed in turns. As soon as the last byte of an
answer has arrived it looks the record up by the id in the answer's head: always as another process would, through a
reader of its own on the data folder, and every `HTTP_EVERY`-th call also with `GET /v1/generations?id=`. The count does
not depend on how busy the machine is. `COUNTERFOIL_BENCH_CALLS` says how many calls; 1,000,000 take some ten minutes.
"""

from __future__ import annotations

import http.client
import os
import re
import sys
import time
from typing import Any, Final

from benchmarks.compare import running
from benchmarks.load import Generator, Plan, _Connection
from benchmarks.mock import Behaviour
from benchmarks.rounds import Bench
from benchmarks.targets import Counterfoil
from counterfoil.folder import DataFolder
from counterfoil.ledger.query import LedgerReader

CALLS: Final = int(os.environ.get("COUNTERFOIL_BENCH_CALLS", "100000"))
CONNECTIONS: Final = 32
HTTP_EVERY: Final = 50
ROUND_S: Final = 5.0
BEHAVIOURS: Final = ((False, Behaviour()), (True, Behaviour(frames=3, pace_ms=1.0)))
_ID = re.compile(rb"(?i)\r\nx-generation-id: *(gen_\w+)")


class Looking(Generator):
    """A generator that looks each call up when its last byte is there."""

    def __init__(self, plan: Plan, reader: LedgerReader, gateway: http.client.HTTPConnection) -> None:
        super().__init__(plan)
        self._reader = reader
        self._gateway = gateway
        self._ids: dict[int, str] = {}  # by file descriptor
        self.looked_up = self.misses = self.http_looked_up = self.http_misses = 0

    def _read_head(self, connection: _Connection, data: bytes, end: int) -> None:
        found = _ID.search(data, 0, end + 2)
        self._ids[connection.sock.fileno()] = found[1].decode() if found else ""
        super()._read_head(connection, data, end)

    def _complete(self, connection: _Connection, now: int) -> None:
        request_id = self._ids.pop(connection.sock.fileno())
        self.looked_up += 1
        self.misses += self._reader.find(None, request_id) is None
        if self.looked_up % HTTP_EVERY == 0:
            self.http_looked_up += 1
            self._gateway.request("GET", f"/v1/generations?id={request_id}", headers=self._plan.headers)
            answer = self._gateway.getresponse()
            self.http_misses += answer.status != 200 or request_id.encode() not in answer.read()
            answer.read()
        super()._complete(connection, now)


def measure(bench: Bench, calls: int = CALLS, round_s: float = ROUND_S) -> dict[str, Any]:
    """Calls, lookups and misses, through the reader and over HTTP; what failed altogether counts as a miss nowhere."""
    totals = dict.fromkeys(("calls", "failed", "misses", "http_lookups", "http_misses", "streamed"), 0)
    began = time.monotonic()
    with running(Counterfoil(), bench.port) as target:
        reader = LedgerReader(DataFolder.existing(target.data))
        gateway = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30)
        try:
            while totals["calls"] < calls:
                for stream, behaviour in BEHAVIOURS:
                    bench.behave(behaviour)
                    done = Looking(_plan(target, totals["calls"], round_s, stream=stream), reader, gateway)
                    outcome = done.run()
                    totals["calls"] += done.looked_up
                    totals["streamed"] += done.looked_up * stream
                    totals["failed"] += outcome.failed + outcome.lost
                    totals["misses"] += done.misses
                    totals["http_lookups"] += done.http_looked_up
                    totals["http_misses"] += done.http_misses
                if sys.stderr.isatty():
                    sys.stderr.write(f"\rlookup: {totals['calls']:,} calls\r")
        finally:
            reader.close()
            gateway.close()
    return {**totals, "seconds": round(time.monotonic() - began, 1)}


def _plan(target: Counterfoil, serial: int, round_s: float, *, stream: bool) -> Plan:
    now = time.monotonic_ns()
    return Plan(
        host="127.0.0.1",
        port=target.port,
        path=target.path,
        headers=target.headers,
        model=target.model,
        body_bytes=400,
        stream=stream,
        rate=0,
        connections=CONNECTIONS,
        from_ns=now,
        until_ns=now + int(round_s * 1e9),
        first_serial=serial,
    )
