"""Quantiles, medians and bootstrap intervals, over rounds rather than over calls.

Calls of one round share their moment: a neighbour on the machine slows all of them.  Resampling single calls would
therefore promise far too narrow an interval.  Whole rounds are resampled instead.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

RESAMPLES: Final = 2000
CONFIDENCE: Final = 0.95
# Leading bits that a histogram keeps: buckets between 3 % and 6 % wide.
BUCKET_BITS: Final = 5


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median over `rounds` rounds with its 95 % bootstrap interval; of no round, all zero."""

    value: float
    low: float
    high: float
    rounds: int

    def __truediv__(self, unit: float) -> Estimate:
        """The same estimate in another unit."""
        return Estimate(self.value / unit, self.low / unit, self.high / unit, self.rounds)


def quantile(samples: Sequence[float], share: float) -> float:
    """The value below which `share` of the samples lie, interpolated; samples need not be sorted; 0 of none."""
    if not samples:
        return 0.0
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def histogram(samples: Sequence[int]) -> dict[int, int]:
    """Counts by bucket; a bucket is named by its lower bound and about 5 % wide, so quantiles can be told again."""
    counts: Counter[int] = Counter()
    for sample in samples:
        counts[_bucket(sample)] += 1
    return dict(sorted(counts.items()))


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return quantile(values, 0.5)


def estimate(values: Sequence[float]) -> Estimate:
    """Median of one value a round."""
    return _bootstrap(values, median)


def _bucket(sample: int) -> int:
    kept_bits = max(0, sample.bit_length() - BUCKET_BITS)
    return sample >> kept_bits << kept_bits


def _bootstrap(values: Sequence[float], statistic: Callable[[Sequence[float]], float]) -> Estimate:
    if not values:
        return Estimate(0.0, 0.0, 0.0, 0)
    source = random.Random(len(values))  # resampling, repeatable on purpose
    found = sorted(statistic(source.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    return Estimate(statistic(values), quantile(found, tail), quantile(found, 1 - tail), len(values))
