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
FULL: Final = (PEAK, STEADY, STREAMS, ALONE, FEW_STREAMS, LONG_PROMPT, SLOW_UPSTREAM, LARGE_ANSWER)


def slowed(scenario: Scenario, per_second_max: float) -> Scenario:
    """The scenario at no more than 70 % of a slow target's peak; closed loops stay as they are.

    Streams count as one call for each 64 frames relayed, so their rate falls with the target's peak as well.
    """
    if not scenario.rate:
        return scenario
    bound = per_second_max * (0.7 if not scenario.stream else 0.05)
    return scenario if scenario.rate <= bound else replace(scenario, rate=max(bound, 0.5))
