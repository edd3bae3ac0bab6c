"""The short mode: P1, P2 and P4 beside nginx, within a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.compare import Series, alternate
from benchmarks.rounds import Bench, Round, Scenario
from benchmarks.scenarios import QUICK
from benchmarks.statistics import Estimate
from benchmarks.targets import Counterfoil, Direct, Nginx, Target

PEAK, STREAMS, ALONE = QUICK
# Rounds of each scenario: together they take about fifty seconds.
TIMES = {PEAK.name: 5, STREAMS.name: 3, ALONE.name: 4}


def run(only: Sequence[str] = ()) -> int:
    """Measure, print, and return the exit status: 1 when a record was missing or nothing could be measured."""
    began = time.monotonic()
    targets = [t for t in (Nginx(), Counterfoil()) if not only or t.name in only]
    present = [t for t in targets if not _say_missing(t)]
    if not present:
        return 1
    with Bench() as bench:
        series = _measure(bench, present)
    for target in present:
        _say(_lines(series, target.name))
    _say(_verdict(series))
    _say([f"{time.monotonic() - began:.0f} s"])
    return 1 if series.broken or len(series.void) == len(series.rounds) else 0


def _measure(bench: Bench, targets: Sequence[Target]) -> Series:
    direct = Direct()
    rounds: list[Round] = []
    started: list[Target] = []
    try:
        for target in (direct, *targets):
            target.start(bench.port)
            started.append(target)
        for scenario in QUICK:
            chosen = [direct, *targets] if scenario is ALONE else targets
            rounds.extend(alternate(bench, chosen, [scenario], TIMES[scenario.name], _tell).rounds)
    finally:
        for target in started:
            target.stop()
    return Series(tuple(rounds))


def _lines(series: Series, name: str) -> list[str]:
    peak = series.peak(PEAK.name, name)
    unary = series.estimate(PEAK.name, name, lambda r: r.cpu_us_per_request)
    frame = series.estimate(STREAMS.name, name, lambda r: r.cpu_us_per_frame)
    p50 = series.difference(ALONE.name, name, "direct", lambda r: r.latency_us["p50"])
    p99 = series.difference(ALONE.name, name, "direct", lambda r: r.latency_us["p99"])
    lines = [
        f"{name}",
        f"  CPU per request    {_text(unary, 'µs')}" + _ratio(series, PEAK, name, lambda r: r.cpu_us_per_request, "P1 ≤ 5"),
        f"  CPU per chunk      {_text(frame, 'µs')}" + _ratio(series, STREAMS, name, lambda r: r.cpu_us_per_frame, "P2 ≤ 1.3"),
        f"  added latency p50  {_text(p50 / 1000, 'ms', 3)}" + ("" if name == "nginx" else "  (P4 ≤ 0.5)"),
        f"  added latency p99  {_text(p99 / 1000, 'ms', 3)}" + ("" if name == "nginx" else "  (P4 ≤ 1.5)"),
    ]
    lines.append(f"  peak, one core     {_text(peak, '/s', 0)}" if peak.rounds else "  peak, one core     above what the load can offer")
    return lines


def _ratio(series: Series, scenario: Scenario, name: str, value: object, goal: str) -> str:
    if name == "nginx" or not series.of(scenario.name, "nginx"):
        return ""
    ratio = series.ratio(scenario.name, name, "nginx", value)  # type: ignore[arg-type]
    return f"   ÷ nginx {_text(ratio, '', 2)}  ({goal})"


def _verdict(series: Series) -> list[str]:
    lines = [f"void: {r.target}, {r.scenario}: {r.void}" for r in series.void]
    lines += [f"BROKEN: {r.target}, {r.scenario}: {r.broken}" for r in series.broken]
    counted = [r for r in series.rounds if r.records is not None]
    if counted and not series.broken:
        lines.append(f"records = calls at the mock in all {len(counted)} rounds: {sum(r.mock_hits for r in counted):,} calls")
    return lines


def _text(estimate: Estimate, unit: str, digits: int = 1) -> str:
    if not estimate.rounds:
        return "not measured"
    value, low, high = (f"{x:,.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} {unit} [{low}, {high}]".replace("  ", " ")


def _say_missing(target: Target) -> bool:
    reason = target.missing()
    if reason:
        _say([f"skipped: {target.name}: {reason}"])
    return bool(reason)


def _tell(round_: Round) -> None:
    if not sys.stderr.isatty():
        return
    sys.stderr.write(f"\r{round_.scenario} · {round_.target} · round {round_.number + 1}".ljust(70) + "\r")
    sys.stderr.flush()


def _say(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
