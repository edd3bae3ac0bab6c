"""How memory grows with calls (P11): the proportional set of all processes after every so many calls of full load.

An hour is not waited for. The slope is taken over the last two thirds of the calls by least squares, because the first
fill caches that stay as they are, and given for 100,000 calls.
"""

from __future__ import annotations

import time
from typing import Any, Final

from benchmarks import clocks
from benchmarks.compare import running
from benchmarks.rounds import Bench, Round, Scenario
from benchmarks.targets import Counterfoil

STEPS: Final = 12
STEP_S: Final = 4.0


def measure(bench: Bench, steps: int = STEPS, step_s: float = STEP_S) -> tuple[dict[str, Any], list[Round]]:
    """Idle, after each step, and MB for 100,000 calls; and the rounds."""
    rounds: list[Round] = []
    with running(Counterfoil(), bench.port) as target:
        time.sleep(2.0)
        idle = clocks.rss_bytes(target.pids())
        points: list[tuple[int, int]] = []
        calls = 0
        for number in range(steps):
            round_ = bench.run(target, Scenario("memory", connections=64, warm_s=0.0, window_s=step_s))
            round_.number = number
            rounds.append(round_)
            calls += round_.mock_hits
            points.append((calls, clocks.rss_bytes(target.pids())))
    slope = _slope(points[steps // 3 :])
    return {
        "idle_bytes": idle,
        "calls": calls,
        "points": points,
        "bytes_per_100k_calls": round(slope * 100_000),
    }, rounds


def _slope(points: list[tuple[int, int]]) -> float:
    """Bytes a call, by least squares."""
    count = len(points)
    if count < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
