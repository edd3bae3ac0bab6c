"""Alternating rounds: every target in turn, again and again, so that a slow minute of the machine meets all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.rounds import Bench, Round, Scenario
from benchmarks.statistics import Estimate, estimate
from benchmarks.targets import Target

Value: TypeAlias = Callable[[Round], float]
Adapt: TypeAlias = Callable[[Target, Scenario], Scenario]


@dataclass(frozen=True, slots=True)
class Series:
    """The rounds of some scenarios and targets, void ones included."""

    rounds: tuple[Round, ...]

    def of(self, scenario: str, target: str) -> list[Round]:
        """The rounds of one target that count."""
        return [r for r in self.rounds if (r.scenario, r.target) == (scenario, target) and not r.void]

    def estimate(self, scenario: str, target: str, value: Value) -> Estimate:
        """Median of one figure over a target's rounds."""
        return estimate([value(r) for r in self.of(scenario, target)])

    def ratio(self, scenario: str, target: str, base: str, value: Value) -> Estimate:
        """Median of `target ÷ base` over pairs of neighbouring rounds."""
        return estimate([value(a) / value(b) for a, b in self._pairs(scenario, target, base) if value(b)])

    def difference(self, scenario: str, target: str, base: str, value: Value) -> Estimate:
        """Median of `target − base` over pairs of neighbouring rounds."""
        return estimate([value(a) - value(b) for a, b in self._pairs(scenario, target, base)])

    def peak(self, scenario: str, target: str) -> Estimate:
        """Median of requests per second over the rounds in which the target, not the load, was at its limit."""
        return estimate([r.per_second for r in self.of(scenario, target) if not r.not_peak])

    @property
    def broken(self) -> list[Round]:
        """Rounds after which the ledger did not hold exactly the calls that the mock saw."""
        return [r for r in self.rounds if r.broken]

    @property
    def void(self) -> list[Round]:
        """Rounds that do not count."""
        return [r for r in self.rounds if r.void]

    def _pairs(self, scenario: str, target: str, base: str) -> list[tuple[Round, Round]]:
        bases = {r.number: r for r in self.of(scenario, base)}
        return [(r, bases[r.number]) for r in self.of(scenario, target) if r.number in bases]


def alternate(
    bench: Bench,
    targets: Sequence[Target],
    scenarios: Iterable[Scenario],
    times: int,
    tell: Callable[[Round], None],
    adapt: Adapt = lambda _, scenario: scenario,
) -> Series:
    """Run each scenario `times` times against each target in turn; the targets are started already."""
    rounds: list[Round] = []
    for scenario in scenarios:
        for number in range(times):
            for target in targets:
                round_ = bench.run(target, adapt(target, scenario))
                round_.number = number
                rounds.append(round_)
                tell(round_)
    return Series(tuple(rounds))


@contextmanager
def running(target: Target, upstream_port: int) -> Iterator[Target]:
    """The target, started, and stopped at the end whatever happens."""
    target.start(upstream_port)
    try:
        yield target
    finally:
        target.stop()


def show_progress(round_: Round) -> None:
    """One line on a terminal, written over itself; nothing elsewhere."""
    if sys.stderr.isatty():
        line = f"{round_.scenario} · {round_.target} · round {round_.number + 1}"
        sys.stderr.write(f"\r{line:<78}\r")
        sys.stderr.flush()
