"""No stall while the ledger looks after itself: latency and gaps beside checkpoints and an export, and without them.

Four gateways take turns. In `calm` the write-ahead log is copied back between rounds only, and nothing is signed. In
`log copied back` that happens after every megabyte instead of every eight, several times a second. `checkpoints signed`
signs four times a second instead of once a minute. `export` is calm, while a client reads all records over and over as
fast as the load's core lets it; that costs CPU of the gateway's one core, in threads, so it shows in latencies as any
other load would.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import apsw

from benchmarks import clocks, figures
from benchmarks.compare import Series, running, show_progress
from benchmarks.mock import Behaviour
from benchmarks.rounds import Bench, Round, Scenario
from benchmarks.targets import LOAD_CORE, Counterfoil, Variant
from counterfoil.folder import DataFolder

CALM: Final = "calm"
EXPORT: Final = "export"
NEVER_PAGES: Final = 1 << 30
OFTEN_PAGES: Final = 256
SELDOM_S: Final = 86_400.0
OFTEN_S: Final = 0.25

FRAMES_ROUNDS: Final = 3  # of seven seconds each, for four gateways
UNARY: Final = Scenario("unary 1,000/s", rate=1000, connections=128, window_s=3.0)
FRAMES: Final = Scenario(
    "50 streams", rate=50 / 1.3, connections=120, stream=True, window_s=3.0, behaviour=Behaviour(frames=64)
)


def targets() -> list[Variant]:
    """The gateways."""
    return [
        Variant(CALM, log_pages=NEVER_PAGES, checkpoint_seconds=SELDOM_S),
        Variant("log copied back", log_pages=OFTEN_PAGES, checkpoint_seconds=SELDOM_S),
        Variant("checkpoints signed", log_pages=NEVER_PAGES, checkpoint_seconds=OFTEN_S),
        Variant(EXPORT, log_pages=NEVER_PAGES, checkpoint_seconds=SELDOM_S),
    ]


def measure(bench: Bench, times: int) -> tuple[list[dict[str, Any]], Series]:
    """A row for each gateway, and every round behind it."""
    if Counterfoil().missing():
        return [], Series(())
    rounds: list[Round] = []
    with ExitStack() as stack:
        started = [stack.enter_context(running(target, bench.port)) for target in targets()]
        for target in started:
            bench.warm(target)  # which also gives the export tens of thousands of records to read
        for scenario, rounds_max in ((UNARY, times), (FRAMES, FRAMES_ROUNDS)):
            for number in range(min(times, rounds_max)):
                for target in started:
                    _copy_back(target)
                    with _reading(target) if target.name == EXPORT else _nothing():
                        round_ = bench.run(target, scenario)
                    round_.number = number
                    rounds.append(round_)
                    show_progress(round_)
    series = Series(tuple(rounds))
    return [_row(series, target.name) for target in started], series


def _row(series: Series, name: str) -> dict[str, Any]:
    def value(scenario: Scenario, figure: Any) -> float | None:
        found = series.estimate(scenario.name, name, figure)
        return round(found.value, 1) if found.rounds else None

    return {
        "meanwhile": name,
        "latency_p50_us": value(UNARY, figures.latency_p50),
        "latency_p99_us": value(UNARY, figures.latency_p99),
        "latency_max_us": value(UNARY, lambda r: r.latency_us.get("max", 0.0)),
        "gap_p99_us": value(FRAMES, figures.gap_excess_p99),
        "gap_max_us": value(FRAMES, lambda r: r.gap_excess_us.get("max", 0.0)),
        "rounds": len(series.of(UNARY.name, name)),
    }


def _copy_back(target: Counterfoil) -> None:
    """Start the round with an empty log, whatever the gateway itself does about it."""
    connection = apsw.Connection(str(DataFolder.existing(target.data).ledger_db))
    connection.set_busy_timeout(1000)
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    except apsw.BusyError:
        return  # somebody reads; then the log goes on from where it is
    finally:
        connection.close()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _reading(target: Counterfoil) -> Iterator[None]:
    """A client that exports everything, again and again, from the load's core."""
    stop = threading.Event()

    def read() -> None:
        with clocks.pinned({LOAD_CORE}):
            while not stop.is_set():
                connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
                connection.request("GET", "/v1/generations/export", headers=target.headers)
                answer = connection.getresponse()
                if answer.status != 200:
                    raise AssertionError(f"the export answered {answer.status}")
                while not stop.is_set() and answer.read(1 << 16):
                    pass
                connection.close()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
