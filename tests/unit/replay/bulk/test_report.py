"""Figures of a report, and the ids of a run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from counterfoil.ledger.query import Summary
from counterfoil.record import ids
from counterfoil.record.coverage import ByokSums, Coverage, ReportedSums
from counterfoil.replay.bulk import identity
from counterfoil.replay.bulk.outcome import Side
from counterfoil.replay.bulk.report import _month, rank, spread

SECRET = bytes(range(32))


def side(cost: int | None) -> Side:
    """Give figures with this cost."""
    state = "unknown" if cost is None else "exact"
    return Side("gen", "a/b", True, None, cost, state, 1.0, 2.0, None, 1, 1, "stop")


@given(st.lists(st.none() | st.integers(0, 10**15), max_size=50))
def test_a_spread_counts_what_it_does_not_know(values: list[int | None]) -> None:
    """Known and unknown are all there is; every percentile is a value that occurred; money stays whole."""
    found = spread(values)
    known = [value for value in values if value is not None]
    assert (found.known, found.unknown) == (len(known), len(values) - len(known))
    assert found.total == (sum(known) if known else None)
    assert {found.p50, found.p90, found.p99} <= set(known) | {None}
    assert isinstance(found.mean, int) == bool(known)


def test_percentiles_are_nearest_rank() -> None:
    """The smallest value that at least so many do not exceed."""
    values = list(range(1, 101))
    assert [rank(values, share) for share in (0.01, 0.5, 0.9, 0.99, 1.0)] == [1, 50, 90, 99, 100]
    assert rank([7], 0.99) == 7


def test_the_month_is_scaled_by_the_pairs() -> None:
    """Known cost by the ratio of the pairs known on both sides; records without a cost by the mean; in whole nanos."""
    states = {"exact": 90, "unknown": 10}
    month = Summary(100, 100, 0, 0, 9_000, states, Coverage(), ByokSums(), ReportedSums())
    pairs = [(side(100), side(50)), (side(300), side(150)), (side(None), side(700)), (side(100), side(None))]
    found = _month(month, pairs)
    assert (found.pairs, found.target_nanos) == (2, 9_000 * 200 // 400 + 10 * 300)
    assert _month(month, [(side(1), side(None))]).target_nanos is None
    assert _month(month, [(side(0), side(5))]).target_nanos == 500


@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.integers(0, 40), st.integers(0, 8))
def test_computed_ids_are_ids_and_differ(item: int, target: int, attempt: int, judge: int) -> None:
    """They parse, have the run's time, belong to their run and to no other, and each call has its own."""
    created_ms = 1_790_000_000_000
    made = identity.generation(SECRET, created_ms, item, target, attempt, judge)
    assert (ids.parse(made) or 0) >> 80 == created_ms
    assert made == identity.generation(SECRET, created_ms, item, target, attempt, judge)
    assert made != identity.generation(SECRET, created_ms, item, target, attempt + 1, judge)
    assert identity.belongs(SECRET, created_ms, made)
    assert not identity.belongs(bytes(32), created_ms, made)
    assert not identity.belongs(SECRET, created_ms + 1, made)
