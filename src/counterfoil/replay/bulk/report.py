"""What a bulk run found, as figures: per target the originals beside the reruns. Pure.

Both sides of every distribution are over the same items: those that the target answered. A figure that is not known is
counted as unknown and stands in no mean and no percentile; it never passes for 0. Percentiles are nearest-rank, so each
is a figure that really occurred.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from counterfoil.ledger.query import Summary
from counterfoil.replay.bulk.outcome import Result, Side, State
from counterfoil.replay.bulk.store import Progress, Run

LARGEST: Final = 20
"""Differences that a report names."""
BINS: Final = 10
METRICS: Final[dict[str, Callable[[Side], float | int | None]]] = {
    "cost_nanos": lambda side: side.cost_nanos,
    "latency_ms": lambda side: side.latency_ms,
    "generation_ms": lambda side: side.generation_ms,
    "throughput": lambda side: side.throughput,
    "prompt_tokens": lambda side: side.prompt_tokens,
    "completion_tokens": lambda side: side.completion_tokens,
}


class Spread(Struct, frozen=True):
    """How a figure is distributed; ``unknown`` counts the items where it is not known. Null without any."""

    known: int
    unknown: int
    total: float | int | None
    mean: float | int | None
    p50: float | int | None
    p90: float | int | None
    p99: float | int | None


class Both(Struct, frozen=True):
    """The originals beside the target. ``ratio`` is the target's mean over the originals', of items known on both."""

    original: Spread
    target: Spread
    ratio: float | None


class Rates(Struct, frozen=True):
    """How many failed, and how many were refused by the model, of how many where that is known."""

    calls: int
    errors: int
    refusals: int
    refusals_known: int


class Agreements(Struct, frozen=True):
    """Of ``compared`` items, how many say the same. ``not_compared`` counts the others by reason.

    ``histogram`` counts similarities in tenths: below 0.1 first, 0.9 and above last.
    """

    compared: int
    not_compared: dict[str, int]
    equal: int
    text_equal: int
    tool_calls_equal: int
    finish_equal: int
    similarity: Spread
    similarity_p10: float | None
    histogram: tuple[int, ...]


class Judged(Struct, frozen=True):
    """What one judge found. ``none`` counts items without a verdict; ``reasons`` say why not, or why they failed."""

    name: str
    passed: int
    failed: int
    none: int
    mean_score: float | None
    reasons: dict[str, int]


class Month(Struct, frozen=True):
    """What the filter's calls of the 30 days before the run would have cost on the target. An estimate.

    ``original_unknown`` and ``original_partial`` of its records have no cost, or not all of it, because of
    ``unpriced_meters``.

    ``target_nanos`` is null when nothing is known to reckon with. ``pairs`` are the items whose cost is known on both
    sides; the known part of the month is scaled by their ratio, each record without a cost counts as their mean.
    """

    records: int
    original_nanos: int
    original_unknown: int
    original_partial: int
    unpriced_meters: dict[str, int]
    target_nanos: int | None
    pairs: int


class Difference(Struct, frozen=True):
    """One item whose answers differ much; ``diff`` is where to read the difference."""

    item: int
    original: str
    rerun: str
    similarity: float | None
    tool_calls_equal: bool | None
    cost_nanos: tuple[int | None, int | None]
    diff: str


class TargetReport(Struct, frozen=True, kw_only=True):
    """Everything about one target."""

    name: str
    done: int
    failed: int
    skipped: int
    pending: int
    skipped_by_reason: dict[str, int]
    errors_by_code: dict[str, int]
    original: Rates
    target: Rates
    metrics: dict[str, Both]
    unpriced: int
    unpriced_meters: dict[str, int]
    agreement: Agreements
    judges: tuple[Judged, ...]
    month: Month | None
    largest: tuple[Difference, ...]


class Report(Struct, frozen=True, kw_only=True):
    """A whole run. ``spent_nanos`` is known cost, judges included; ``held_nanos`` stands in for what is not known.

    ``in_flight_at_a_kill`` are the calls that were sent when a gateway died: perhaps paid, answer lost, made again.
    """

    run_id: str
    name: str | None
    state: str
    reason: str | None
    created_ms: int
    finished_ms: int | None
    items: int
    excluded: dict[str, int]
    filter: dict[str, Any]
    seed: int
    sample: int | None
    budget_nanos: int | None
    progress: Progress
    judges_nanos: int
    judges_unknown: int
    in_flight_at_a_kill: tuple[str, ...]
    targets: tuple[TargetReport, ...]


def report(run: Run, progress: Progress, results: Sequence[Result], month: Summary | None) -> Report:
    """The report on ``results`` of ``run``; ``month`` are the sums over its filter's last 30 days."""
    judged = [call for result in results for call in result.judged]
    return Report(
        run_id=run.run_id,
        name=run.asked.name,
        state=run.state,
        reason=run.reason,
        created_ms=run.created_ms,
        finished_ms=run.finished_ms,
        items=run.items,
        excluded=run.excluded,
        filter=run.asked.shown_filter,
        seed=run.asked.seed,
        sample=run.asked.sample,
        budget_nanos=run.budget_nanos,
        progress=progress,
        judges_nanos=sum(call.cost_nanos or 0 for call in judged),
        judges_unknown=sum(call.cost_nanos is None for call in judged),
        in_flight_at_a_kill=tuple(call.request_id for result in results for call in result.calls if call.interrupted),
        targets=tuple(
            _target(run, at, [result for result in results if result.target == at], month)
            for at in range(len(run.asked.targets))
        ),
    )


def _target(run: Run, at: int, results: list[Result], month: Summary | None) -> TargetReport:
    states = Counter(result.state for result in results)
    pairs = [(result.a, result.b) for result in results if result.a is not None and result.b is not None]
    answered = [(r.a, r.b) for r in results if r.state is State.DONE and r.a is not None and r.b is not None]
    codes = Counter(b.error_code for _, b in pairs if b.error_code is not None)
    return TargetReport(
        name=run.asked.targets[at].label,
        done=states[State.DONE],
        failed=states[State.FAILED],
        skipped=states[State.SKIPPED],
        pending=run.items - len(results),
        skipped_by_reason=_counted(r.reason for r in results if r.state is State.SKIPPED),
        errors_by_code=dict(codes.most_common()),
        original=_rates([a for a, _ in pairs]),
        target=_rates([b for _, b in pairs]),
        metrics={name: _both(answered, figure) for name, figure in METRICS.items()},
        unpriced=sum(b.cost_nanos is None for _, b in answered),
        unpriced_meters=_counted(meter for _, b in answered for meter in b.unpriced),
        agreement=_agreements(results),
        judges=tuple(_judged(judge.name, results) for judge in run.asked.judges),
        month=None if month is None else _month(month, answered),
        largest=_largest(results),
    )


def spread(values: Iterable[float | int | None]) -> Spread:
    """The distribution of ``values``; None is unknown. The mean of whole numbers is a whole number."""
    listed = list(values)
    known = sorted(value for value in listed if value is not None)
    if not known:
        return Spread(0, len(listed), None, None, None, None, None)
    whole = all(isinstance(value, int) for value in known)
    total = sum(known)
    mean = round(total / len(known)) if whole else round(total / len(known), 3)
    p50, p90, p99 = (rank(known, share) for share in (0.5, 0.9, 0.99))
    return Spread(len(known), len(listed) - len(known), total if whole else round(total, 3), mean, p50, p90, p99)


def rank(known: Sequence[float | int], share: float) -> float | int:
    """The nearest-rank percentile of sorted values: the smallest that at least ``share`` of them do not exceed."""
    return known[max(0, math.ceil(share * len(known)) - 1)]


def _both(pairs: list[tuple[Side, Side]], figure: Callable[[Side], float | int | None]) -> Both:
    known = [(x, y) for x, y in ((figure(a), figure(b)) for a, b in pairs) if x is not None and y is not None]
    original = sum(x for x, _ in known)
    ratio = round(sum(y for _, y in known) / original, 4) if original else None
    return Both(spread(figure(a) for a, _ in pairs), spread(figure(b) for _, b in pairs), ratio)


def _rates(sides: list[Side]) -> Rates:
    told = [side.refused for side in sides if side.refused is not None]
    return Rates(len(sides), sum(not side.success for side in sides), sum(told), len(told))


def _agreements(results: list[Result]) -> Agreements:
    ran = [result.agreement for result in results if result.b is not None]
    compared = [one for one in ran if one.equal is not None]
    known = sorted(one.similarity for one in compared if one.similarity is not None)
    bins = Counter(min(int(value * BINS), BINS - 1) for value in known)
    return Agreements(
        compared=len(compared),
        not_compared=_counted(one.reason for one in ran if one.equal is None),
        equal=sum(bool(one.equal) for one in compared),
        text_equal=sum(bool(one.text_equal) for one in compared),
        tool_calls_equal=sum(bool(one.tool_calls_equal) for one in compared),
        finish_equal=sum(bool(one.finish_equal) for one in compared),
        similarity=spread(one.similarity for one in compared),
        similarity_p10=rank(known, 0.1) if known else None,
        histogram=tuple(bins[at] for at in range(BINS)),
    )


def _judged(name: str, results: list[Result]) -> Judged:
    found = [(result, next((v for v in result.verdicts if v.judge == name), None)) for result in results]
    verdicts = [verdict for _, verdict in found if verdict is not None]
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    passed = sum(verdict.passed is True for verdict in verdicts)
    failed = sum(verdict.passed is False for verdict in verdicts)
    ran = sum(result.b is not None for result in results)
    return Judged(
        name=name,
        passed=passed,
        failed=failed,
        none=ran - passed - failed,
        mean_score=round(sum(scores) / len(scores), 4) if scores else None,
        reasons=_counted(verdict.reason for verdict in verdicts if verdict.reason is not None),
    )


def _month(month: Summary, pairs: list[tuple[Side, Side]]) -> Month:
    known = [(a.cost_nanos, b.cost_nanos) for a, b in pairs if a.cost_nanos is not None and b.cost_nanos is not None]
    priced = [b.cost_nanos for _, b in pairs if b.cost_nanos is not None]
    original, target = sum(a for a, _ in known), sum(b for _, b in known)
    unknown = month.unpriced
    cost: int | None = None
    if priced:
        mean = sum(priced) // len(priced)
        cost = month.cost_nanos * target // original + unknown * mean if original else month.records * mean
    coverage = month.coverage
    meters = coverage.answer()["unpriced_meters"]
    return Month(month.records, month.cost_nanos, coverage.unknown, coverage.partial, meters, cost, len(known))


def _largest(results: list[Result]) -> tuple[Difference, ...]:
    different = [result for result in results if result.agreement.equal is False]
    different.sort(key=lambda result: (_alike(result), result.item))
    return tuple(
        Difference(
            item=result.item,
            original=result.a.request_id,
            rerun=result.b.request_id,
            similarity=result.agreement.similarity,
            tool_calls_equal=result.agreement.tool_calls_equal,
            cost_nanos=(result.a.cost_nanos, result.b.cost_nanos),
            diff=f"/v1/generations/diff?a={result.a.request_id}&b={result.b.request_id}",
        )
        for result in different[:LARGEST]
        if result.a is not None and result.b is not None
    )


def _alike(result: Result) -> float:
    similarity = result.agreement.similarity
    return (similarity if similarity is not None else 0.0) - (result.agreement.tool_calls_equal is False)


def _counted(reasons: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(reason or "unknown" for reason in reasons).most_common())
