"""The scenarios, by the goal that each one answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from benchmarks.mock import Behaviour
from benchmarks.rounds import Scenario

KIB: Final = 1024

# P1, P3, P6: closed loop.  The costliest proxy and the cheapest both work without pause, so wake-ups cost neither much.
PEAK: Final = Scenario("unary peak", connections=64)
# P1 again, at one rate for all: what a gateway costs that is not at its limit.
STEADY: Final = Scenario("unary 3,000/s", rate=3000, connections=256)
# P2: 200 streams of 50 frames a second.
STREAMS: Final = Scenario(
    "200 streams", rate=200 / 1.3, connections=400, stream=True, window_s=2.0, behaviour=Behaviour(frames=64)
)
# P4: one client, evenly paced far below any limit.
ALONE: Final = Scenario("one client, 1 KB", rate=200, connections=1, request_bytes=1000, window_s=3.0, poisson=False)
# P5: few streams, so that frames do not queue behind each other at the mock.
FEW_STREAMS: Final = Scenario(
    "5 streams", rate=5 / 1.3, connections=20, stream=True, window_s=4.0, behaviour=Behaviour(frames=64)
)
# P13: a prompt of 400 KB.
LONG_PROMPT: Final = Scenario("400 KB prompt", rate=30, connections=16, request_bytes=400 * KIB, window_s=3.0)
# A slow upstream: many calls in flight at once.
SLOW_UPSTREAM: Final = Scenario("60 ms upstream", rate=1000, connections=512, behaviour=Behaviour(latency_ms=60))
LARGE_ANSWER: Final = Scenario("10 KB answer", connections=64, behaviour=Behaviour(body_bytes=10 * KIB))

QUICK: Final = (
    replace(PEAK, window_s=0.6),
    replace(STREAMS, rate=200.0, window_s=1.0, behaviour=Behaviour(frames=49)),
    replace(ALONE, window_s=1.0),
)
# What every target runs, and what only those run that can bear thousands of calls a second.
FOR_ALL: Final = (PEAK, STREAMS, ALONE, FEW_STREAMS, LONG_PROMPT)
FOR_FAST: Final = (STEADY, SLOW_UPSTREAM, LARGE_ANSWER)
# P11: 1,000 streams at once, at a pace that the load can keep.
MANY_STREAMS: Final = Scenario(
    "1,000 streams",
    rate=1000 / 4.2,
    connections=1200,
    stream=True,
    window_s=2.0,
    behaviour=Behaviour(frames=20, pace_ms=200),
)


def slowed(scenario: Scenario, per_second_max: float) -> Scenario:
    """The scenario at no more than 70 % of a slow target's peak; closed loops stay as they are.

    A frame is taken to cost a tenth of a call, which held for every peer within a factor of two.
    """
    if not scenario.rate:
        return scenario
    calls_each = 1 + scenario.frames / 10
    bound = 0.7 * per_second_max / calls_each
    return scenario if scenario.rate <= bound else replace(scenario, rate=bound)
