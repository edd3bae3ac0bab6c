"""The table of goals: what is wanted, what this gateway has, and what nginx and each peer have from the same run.

A goal is met when the median reaches it. Where a goal has two figures both count. What was not measured is a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from benchmarks import figures
from benchmarks.compare import Series, Value
from benchmarks.full import NO_LEDGER
from benchmarks.rounds import Round
from benchmarks.scenarios import ALONE, FEW_STREAMS, LONG_PROMPT, MANY_STREAMS, PEAK, STREAMS
from benchmarks.statistics import Estimate

OURS: Final = "counterfoil"
FLOOR: Final = "nginx"
Documents: TypeAlias = Mapping[str, dict[str, Any]]
Cell: TypeAlias = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Goal:
    """A row: the goal in words, whether it is met (None: not measured), and what stands in each target's column."""

    number: str
    figure: str
    wanted: str
    met: bool | None
    cells: Mapping[str, str] = field(default_factory=dict[str, str])


def table(documents: Documents) -> tuple[list[str], list[list[str]]]:
    """Head and rows."""
    names = _names(documents)
    head = ["", "figure", "goal", OURS, "", *(name for name in names if name != OURS)]
    rows = [
        [goal.number, goal.figure, goal.wanted, goal.cells.get(OURS, "–"), _mark(goal)]
        + [goal.cells.get(name, "–") for name in names if name != OURS]
        for goal in _goals(documents, names)
    ]
    return head, rows


def series_of(rounds: Sequence[Mapping[str, Any]]) -> Series:
    """The rounds of a document."""
    return Series(tuple(Round(**each) for each in rounds))


def _mark(goal: Goal) -> str:
    return {None: "–", True: "met", False: "missed"}[goal.met]


def _names(documents: Documents) -> list[str]:
    targets = documents["compare"]["targets"] if "compare" in documents else {}
    return [OURS, *(name for name, each in targets.items() if not each["skipped"] and name != OURS)]


def _goals(documents: Documents, names: Sequence[str]) -> list[Goal]:
    made: list[Goal] = []
    if "compare" in documents:
        made += _compared(documents["compare"], names)
    made += [*_lookups(documents), *_alone(documents), *_tax(documents), *_memory(documents)]
    return sorted(made, key=lambda goal: int(goal.number[1:]))


def _compared(document: Mapping[str, Any], names: Sequence[str]) -> list[Goal]:
    series = series_of(document["rounds"])

    def over_nginx(scenario: str, value: Value) -> Callable[[str], Estimate]:
        return lambda name: series.ratio(scenario, name, FLOOR, value)

    def added(scenario: str, value: Value, unit: float = 1000.0) -> Callable[[str], Estimate]:
        return lambda name: series.difference(scenario, name, "direct", value) / unit

    def over_ours(name: str) -> Estimate:
        return series.ratio(PEAK.name, name, OURS, figures.cpu_per_request)

    goals = [
        _goal("P1", "CPU of a request ÷ nginx", "≤ 5", [(over_nginx(PEAK.name, figures.cpu_per_request), 5.0)], names),
        _goal("P2", "CPU of a chunk ÷ nginx", "≤ 1.3", [(over_nginx(STREAMS.name, figures.cpu_per_frame), 1.3)], names),
        Goal(
            "P3",
            "its CPU of a request ÷ ours: LiteLLM; Portkey",
            "≥ 120; ≥ 10",
            _both(_at_least(over_ours("litellm"), 120.0), _at_least(over_ours("portkey"), 10.0)),
            {name: figures.text(over_ours(name), digits=2) for name in names if name != OURS} | {OURS: "1"},
        ),
        _goal(
            "P4",
            "added latency p50; p99, ms",
            "≤ 0.5; ≤ 1.5",
            [(added(ALONE.name, figures.latency_p50), 0.5), (added(ALONE.name, figures.latency_p99), 1.5)],
            names,
        ),
        _goal(
            "P5",
            "added time to first token p99, ms; gap between frames p99, µs",
            "≤ 0.8; ≤ 50",
            [
                (added(FEW_STREAMS.name, figures.first_byte_p99), 0.8),
                (added(FEW_STREAMS.name, figures.gap_excess_p99, 1.0), 50.0),
            ],
            names,
        ),
        Goal(
            "P6",
            "requests/s on one core",
            "≥ 12,000",
            _at_least(series.peak(PEAK.name, OURS), 12_000.0),
            {name: _peak(series.peak(PEAK.name, name)) for name in names},
        ),
        _goal(
            "P13",
            "CPU of a call with a 400 KB prompt, ms",
            "≤ 3",
            [(lambda name: series.estimate(LONG_PROMPT.name, name, figures.cpu_per_request) / 1000, 3.0)],
            names,
        ),
    ]
    idle = {name: document["targets"][name]["rss_idle_bytes"] / 1e6 for name in names}
    streams = {name: series.estimate(MANY_STREAMS.name, name, figures.rss) / 1e6 for name in names}
    held = streams[OURS].value <= 130.0 if streams[OURS].rounds else None
    cells = {name: f"{figures.number(idle[name])}; {_plain(streams[name])}" for name in names}
    return [
        *goals,
        Goal("P11", "memory idle; with 1,000 streams, MB", "≤ 70; ≤ 130", _both(idle[OURS] <= 70, held), cells),
    ]


def _lookups(documents: Documents) -> list[Goal]:
    goals: list[Goal] = []
    found = documents.get("lookup", {}).get("lookup")
    if found:
        misses = found["misses"] + found["http_misses"]
        text = f"{misses} of {found['calls']:,}"
        goals.append(Goal("P7", "misses of an immediate lookup", "0 of 1,000,000", misses == 0, {OURS: text}))
    rows = {row["records"]: row for row in documents.get("growth", {}).get("growth", {}).get("lookups", [])}
    if rows:
        largest = max(rows)
        slowest = rows[largest]["by_id_p99_us"] / 1000
        ratio = rows[largest]["by_id_p99_us"] / rows[10_000]["by_id_p99_us"]
        met = (slowest <= 2 and ratio <= 1.5) if largest >= 10_000_000 else None
        text = f"{slowest:.3f}; {ratio:.2f}"
        figure = f"lookup by id p99 at {largest:,} records, ms; ÷ at 10,000 (both in memory)"
        goals.append(Goal("P8", figure, "≤ 2; ≤ 1.5 at 10,000,000", met, {OURS: text}))
    return goals


def _alone(documents: Documents) -> list[Goal]:
    goals: list[Goal] = []
    found = documents.get("ledger", {}).get("ledger")
    if found:
        whole, metadata = found["written with bodies"], found["written, metadata only"]
        proved, repriced = found["verified, everything"], found["repriced"]
        goals += [
            Goal(
                "P9",
                "durable records/s, the writer alone, with bodies; metadata only",
                "≥ 50,000",
                whole >= 50_000,
                {OURS: f"{whole:,}; {metadata:,}"},
            ),
            Goal(
                "P12",
                "records/s a core: verify everything; reprice",
                "≥ 100,000; ≥ 50,000",
                proved >= 100_000 and repriced >= 50_000,
                {OURS: f"{proved:,} (chain alone {found['verified, chain']:,}); {repriced:,}"},
            ),
        ]
    rows = documents.get("conversation", {}).get("conversation")
    if rows:
        text = "; ".join(f"{row['ratio']:.2f} {row['conversation']}" for row in rows)
        figure = f"bytes of {rows[0]['turns']} turns ÷ the last transcript, compressed"
        goals.append(Goal("P14", figure, "≤ 1.5", all(row["ratio"] <= 1.5 for row in rows), {OURS: text}))
    return goals


def _tax(documents: Documents) -> list[Goal]:
    rounds = documents.get("audit", {}).get("audit")
    if not rounds:
        return []
    tax = series_of(rounds).ratio(PEAK.name, "counterfoil-full-fsync", NO_LEDGER, figures.cpu_per_request)
    met = tax.value <= 1.35 if tax.rounds else None
    return [Goal("P10", "audit tax: CPU ÷ without a ledger", "≤ 1.35", met, {OURS: figures.text(tax, digits=2)})]


def _memory(documents: Documents) -> list[Goal]:
    grown = documents.get("memory", {}).get("memory")
    if not grown:
        return []
    slope = grown["bytes_per_100k_calls"] / 1e6
    hourly = slope * grown["calls"] / 100_000 * 60 / grown["minutes"]
    text = f"{hourly:.2f} in an hour at this pace ({grown['minutes']:g} minutes, {grown['calls']:,} calls)"
    return [Goal("P11", "growth under load, MB", "≤ 1 in an hour", hourly <= 1, {OURS: text})]


def _goal(
    number: str,
    figure: str,
    wanted: str,
    parts: Sequence[tuple[Callable[[str], Estimate], float]],
    names: Sequence[str],
) -> Goal:
    """A goal whose every figure has to be at most its bound."""
    met: bool | None = True
    for value, bound in parts:
        ours = value(OURS)
        met = _both(met, ours.value <= bound if ours.rounds else None)
    cells = {name: "; ".join(figures.text(value(name), digits=2) for value, _ in parts) for name in names}
    return Goal(number, figure, wanted, met, cells)


def _at_least(estimate: Estimate, bound: float) -> bool | None:
    return estimate.value >= bound if estimate.rounds else None


def _both(*parts: bool | None) -> bool | None:
    """False when one is, None when one is not known."""
    if False in parts:
        return False
    return None if None in parts else True


def _peak(estimate: Estimate) -> str:
    return figures.text(estimate) if estimate.rounds else "above the load's limit"


def _plain(estimate: Estimate) -> str:
    return figures.number(estimate.value) if estimate.rounds else "–"
