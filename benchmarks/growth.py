"""How cost grows: with the body, with open streams, with load, with workers, with records in the ledger.

Each table is a list of rows; a row is one setting with the medians of its rounds, nginx beside the gateway where nginx
can do the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, TypeAlias

from benchmarks import figures, lookups
from benchmarks.compare import Series, alternate, running, show_progress
from benchmarks.mock import Behaviour
from benchmarks.rounds import Bench, Round, Scenario
from benchmarks.statistics import estimate
from benchmarks.targets import LOAD_CORE, TARGET_CORE, Counterfoil, Nginx, Target

Row: TypeAlias = dict[str, Any]

BODY_BYTES: Final = (400, 4_000, 40_000, 400_000, 4_000_000)
# Bytes a second that the load may send, so that mock and generator stay far from their limit.
BODY_BYTES_PER_SECOND: Final = 20_000_000
STREAM_COUNTS: Final = (1, 10, 100, 1000, 2000)
STREAM_PACE_MS: Final = 100.0
STREAM_FRAMES: Final = 30
RATES: Final = (250, 500, 1000, 2000, 4000, 8000)
WORKERS: Final = (1, 2)


class Recorder:
    """Alternates rounds like `compare.alternate` and keeps them all, so that no void or broken one goes unseen."""

    def __init__(self, bench: Bench, times: int) -> None:
        self.bench = bench
        self.times = times
        self.rounds: list[Round] = []

    def alternate(self, targets: Sequence[Target], scenarios: Sequence[Scenario], times: int | None = None) -> Series:
        """The rounds of the scenarios against the targets, `times` each unless told otherwise."""
        series = alternate(self.bench, targets, scenarios, times or self.times, show_progress)
        self.rounds.extend(series.rounds)
        return series


def measure(bench: Bench, tables: Sequence[str], times: int) -> tuple[dict[str, list[Row]], Series]:
    """The named tables, all when none is named; and every round behind them."""
    makers: dict[str, Callable[[Recorder], list[Row]]] = {
        "bodies": bodies,
        "streams": streams,
        "load": load,
        "workers": workers,
        "lookups": lambda _: lookups.measure(),
    }
    recorder = Recorder(bench, times)
    made: dict[str, list[Row]] = {}
    for name in tables or makers:
        sys.stderr.write(f"growth: {name}\n")
        made[name] = makers[name](recorder)
    return made, Series(tuple(recorder.rounds))


def bodies(recorder: Recorder) -> list[Row]:
    """CPU per request against the size of the request's body."""
    scenarios = [
        Scenario(f"{size:,} bytes", rate=min(1000.0, BODY_BYTES_PER_SECOND / size), connections=32, request_bytes=size)
        for size in BODY_BYTES
    ]
    series, names = _beside_nginx(recorder, scenarios, recorder.times)
    return [
        {"body_bytes": size, "rate": scenario.rate}
        | {name: _value(series, scenario, name, figures.cpu_per_request) for name in names}
        for size, scenario in zip(BODY_BYTES, scenarios, strict=True)
    ]


def streams(recorder: Recorder) -> list[Row]:
    """CPU per frame, delay of a frame and memory against the number of streams open at once."""
    scenarios = [_stream_scenario(count) for count in STREAM_COUNTS]
    series, names = _beside_nginx(recorder, scenarios, min(recorder.times, 3))
    rows: list[Row] = []
    for count, scenario in zip(STREAM_COUNTS, scenarios, strict=True):
        row: Row = {"streams": count}
        for name in names:
            row[name] = _value(series, scenario, name, figures.cpu_per_frame)
            row[f"{name}_delay_p99_us"] = _value(series, scenario, name, figures.frame_delay_p99)
            row[f"{name}_rss_bytes"] = _value(series, scenario, name, figures.rss)
        rows.append(row)
    return rows


def load(recorder: Recorder) -> list[Row]:
    """CPU, latency and the wait for the commit against the rate of calls."""
    if Counterfoil().missing():
        return []
    scenarios = [Scenario(f"{rate:,}/s", rate=rate, connections=256) for rate in RATES]
    with running(Counterfoil(), recorder.bench.port) as target:
        recorder.bench.warm(target)
        series = recorder.alternate([target], scenarios)
        name = target.name
    return [
        {
            "rate": rate,
            "cpu_us": _value(series, scenario, name, figures.cpu_per_request),
            "latency_p50_us": _value(series, scenario, name, figures.latency_p50),
            "latency_p99_us": _value(series, scenario, name, figures.latency_p99),
            "ledger_p50_us": _split(series, scenario, name, "p50"),
            "ledger_p99_us": _split(series, scenario, name, "p99"),
        }
        for rate, scenario in zip(RATES, scenarios, strict=True)
    ]


def workers(recorder: Recorder) -> list[Row]:
    """Requests a second and CPU against workers: on the target's one core, and on both cores beside the load."""
    if Counterfoil().missing():
        return []
    scenario = Scenario("closed loop", connections=64)
    rows: list[Row] = []
    for cores in (frozenset({TARGET_CORE}), frozenset({TARGET_CORE, LOAD_CORE})):
        for count in WORKERS:
            with running(Counterfoil(workers=count, cores=cores), recorder.bench.port) as target:
                recorder.bench.warm(target)
                series = recorder.alternate([target], [scenario])
                name = target.name
            found = estimate([r.per_second for r in series.of(scenario.name, name)])
            rows.append(
                {
                    "workers": count,
                    "cores": len(cores),
                    "per_second": round(found.value, 1) if found.rounds else None,
                    "cpu_us": _value(series, scenario, name, figures.cpu_per_request),
                    "ledger_p99_us": _split(series, scenario, name, "p99"),
                    "rss_bytes": _value(series, scenario, name, figures.rss),
                }
            )
    return rows


def _stream_scenario(count: int) -> Scenario:
    behaviour = Behaviour(frames=STREAM_FRAMES, pace_ms=STREAM_PACE_MS)
    seconds = (STREAM_FRAMES + 1) * STREAM_PACE_MS / 1000
    return Scenario(
        f"{count} streams",
        rate=count / seconds,
        connections=count * 2 + 8,
        stream=True,
        behaviour=behaviour,
        window_s=3.0,
        poisson=False,
    )


def _beside_nginx(recorder: Recorder, scenarios: Sequence[Scenario], times: int) -> tuple[Series, list[str]]:
    targets: list[Target] = [t for t in (Nginx(), Counterfoil()) if not t.missing()]
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(running(target, recorder.bench.port))
            recorder.bench.warm(target)
        return recorder.alternate(targets, scenarios, times), [t.name for t in targets]


def _value(series: Series, scenario: Scenario, name: str, figure: Callable[[Any], float]) -> float | None:
    found = series.estimate(scenario.name, name, figure)
    return round(found.value, 2) if found.rounds else None


def _split(series: Series, scenario: Scenario, name: str, quantile: str) -> float | None:
    found = estimate([r.split_us["ledger"][quantile] for r in series.of(scenario.name, name) if "ledger" in r.split_us])
    return round(found.value, 1) if found.rounds else None
