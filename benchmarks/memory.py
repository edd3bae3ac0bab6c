"""How memory grows with calls (P11): what a gateway holds that is in no file, after every so many calls of full load.

The slope is taken over the last two thirds of the calls by least squares, because the first fill caches that stay as
they are, and given for 100,000 calls. `COUNTERFOIL_BENCH_MINUTES=60` waits for an hour, a reading a minute, at a rate
that leaves the disk room; every step opens connections of its own, so those count as well.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any, Final

from benchmarks import clocks
from benchmarks.compare import running
from benchmarks.rounds import Bench, Round, Scenario
from benchmarks.targets import Counterfoil

STEPS: Final = 12
STEP_S: Final = 4.0
MINUTES: Final = int(os.environ.get("COUNTERFOIL_BENCH_MINUTES", "0"))
FULL_LOAD: Final = Scenario("memory", connections=64, warm_s=0.0)
LONG_FORM: Final = Scenario("memory, 500/s", rate=500, connections=64, warm_s=0.0)


def measure(bench: Bench, scale: float = 1.0) -> tuple[dict[str, Any], list[Round]]:
    """Idle, after each step, and MB for 100,000 calls; and the rounds."""
    steps = MINUTES or STEPS
    scenario = replace(LONG_FORM, window_s=60.0) if MINUTES else replace(FULL_LOAD, window_s=STEP_S * scale)
    rounds: list[Round] = []
    with running(Counterfoil(), bench.port) as target:
        time.sleep(2.0)
        idle = clocks.own_bytes(target.pids())
        points: list[tuple[int, int]] = []
        calls = 0
        for number in range(steps):
            round_ = bench.run(target, scenario)
            round_.number = number
            rounds.append(round_)
            calls += round_.mock_hits
            points.append((calls, clocks.own_bytes(target.pids())))
    slope = _slope(points[steps // 3 :])
    return {
        "load": f"{scenario.rate:.0f} calls a second" if scenario.rate else "full load",
        "minutes": round(steps * scenario.window_s / 60, 1),
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
