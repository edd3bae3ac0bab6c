"""The short mode: P1, P2, P4 and P6 beside nginx, within a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks import figures
from benchmarks.compare import Series, alternate, running, show_progress
from benchmarks.rounds import Bench, Round
from benchmarks.scenarios import QUICK
from benchmarks.targets import Counterfoil, Direct, Nginx, Target

PEAK, STREAMS, ALONE = QUICK
# Rounds of each scenario: together they take about fifty seconds.
TIMES = {PEAK.name: 5, STREAMS.name: 3, ALONE.name: 4}


def run(only: Sequence[str] = ()) -> int:
    """Measure, print, and return the exit status: 1 when a record was missing or nothing could be measured."""
    began = time.monotonic()
    targets = [t for t in (Nginx(), Counterfoil()) if not only or t.name in only]
    skipped = {t.name: reason for t in targets if (reason := t.missing())}
    targets = [t for t in targets if t.name not in skipped]
    lines = [f"skipped: {name}: {reason}" for name, reason in skipped.items()]
    series = _measure(targets) if targets else Series(())
    for target in targets:
        lines += _lines(series, target.name)
    lines += figures.verdict(series)
    sys.stdout.write("\n".join([*lines, f"{time.monotonic() - began:.0f} s"]) + "\n")
    return 1 if series.broken or len(series.void) == len(series.rounds) else 0


def _measure(targets: Sequence[Target]) -> Series:
    direct = Direct()
    rounds: list[Round] = []
    with Bench() as bench, ExitStack() as stack:
        for target in (direct, *targets):
            stack.enter_context(running(target, bench.port))
        for scenario in QUICK:
            chosen = [direct, *targets] if scenario is ALONE else targets
            rounds.extend(alternate(bench, chosen, [scenario], TIMES[scenario.name], show_progress).rounds)
    return Series(tuple(rounds))


def _lines(series: Series, name: str) -> list[str]:
    floor = name != "nginx" and bool(series.of(PEAK.name, "nginx"))
    unary = figures.text(series.estimate(PEAK.name, name, figures.cpu_per_request), "µs")
    frame = figures.text(series.estimate(STREAMS.name, name, figures.cpu_per_frame), "µs")
    if floor:
        p1 = series.ratio(PEAK.name, name, "nginx", figures.cpu_per_request)
        p2 = series.ratio(STREAMS.name, name, "nginx", figures.cpu_per_frame)
        unary += f"   ÷ nginx {figures.text(p1, digits=2)}   goal P1 ≤ 5"
        frame += f"   ÷ nginx {figures.text(p2, digits=2)}   goal P2 ≤ 1.3"
    p50 = series.difference(ALONE.name, name, "direct", figures.latency_p50) / 1000
    p99 = series.difference(ALONE.name, name, "direct", figures.latency_p99) / 1000
    peak = series.peak(PEAK.name, name)
    return [
        name,
        f"  CPU per request    {unary}",
        f"  CPU per chunk      {frame}",
        f"  added latency p50  {figures.text(p50, 'ms', 3)}" + ("   goal P4 ≤ 0.5" if floor else ""),
        f"  added latency p99  {figures.text(p99, 'ms', 3)}" + ("   goal P4 ≤ 1.5" if floor else ""),
        f"  peak on one core   {figures.text(peak, '/s') if peak.rounds else 'more than the load could offer'}",
    ]
