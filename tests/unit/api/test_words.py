"""What people read about money and time: unknown never passes for zero, and nothing takes over a terminal."""

from __future__ import annotations

import pytest

from counterfoil.record import words
from counterfoil.record.charge import CostState


@pytest.mark.parametrize(
    ("nanos", "state", "said"),
    [
        pytest.param(68_500, CostState.EXACT, "$0.0000685", id="exact"),
        pytest.param(0, CostState.EXACT, "$0.00", id="exact zero"),
        pytest.param(68_500, CostState.ESTIMATED, "≈ $0.0000685", id="estimated"),
        pytest.param(68_500, CostState.PARTIAL, "≥ $0.0000685", id="partial"),
        pytest.param(0, CostState.PARTIAL, "≥ $0.00", id="partial, the known part is zero"),
        pytest.param(0, CostState.UNKNOWN, "unknown", id="unknown"),
        pytest.param(5, CostState.UNKNOWN, "unknown (≥ $0.000000005)", id="unknown with something"),
        pytest.param(0, CostState.FREE, "free", id="free"),
        pytest.param(0, CostState.SUPPRESSED, "not charged", id="suppressed"),
        pytest.param(0, CostState.PLAYBACK, "played back", id="playback"),
        pytest.param(7, "later", "$0.000000007 (later)", id="a state of a later version"),
    ],
)
def test_a_cost_says_what_it_is_worth(nanos: int, state: str, said: str) -> None:
    """The state of a cost is part of what is read."""
    assert words.cost(nanos, state) == said


def test_every_state_of_a_cost_has_its_words() -> None:
    """No state falls through to the form that is kept for later versions."""
    assert not [state for state in CostState if words.cost(1, state).endswith(f"({state})") and state != "suppressed"]


@pytest.mark.parametrize(
    ("nanos", "records", "unknown", "partial", "estimated", "said"),
    [
        pytest.param(10**9, 4, 0, 0, 0, "$1.00", id="all known"),
        pytest.param(10**9, 120, 3, 1, 0, "≥ $1.00 (3 of 120 unknown, 1 of 120 partial)", id="some unknown"),
        pytest.param(10**9, 2, 0, 0, 1, "≈ $1.00 (1 of 2 estimated)", id="some estimated"),
        pytest.param(0, 2, 2, 0, 0, "unknown (2 of 2 unknown)", id="none known"),
        pytest.param(0, 0, 0, 0, 0, "$0.00", id="no records"),
    ],
)
def test_a_sum_says_how_much_of_it_is_not_known(
    nanos: int, records: int, unknown: int, partial: int, estimated: int, said: str
) -> None:
    """A total over records with unknown cost is never shown as if it were the whole."""
    assert words.total(nanos, records=records, unknown=unknown, partial=partial, estimated=estimated) == said


@pytest.mark.parametrize(
    ("ms", "said"),
    [(None, "–"), (0.4231, "0.42 ms"), (312.4, "312 ms"), (4312.0, "4.31 s"), (125_000.0, "2 min 05 s")],
    ids=str,
)
def test_durations_have_the_unit_that_fits(ms: float | None, said: str) -> None:
    """What was not measured is a dash, not a zero."""
    assert words.duration(ms) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (1 << 60, "1048576.0 TiB")],
)
def test_sizes_are_binary(count: int, said: str) -> None:
    """Bytes are exact, larger units have one decimal."""
    assert words.size(count) == said


def test_nothing_from_outside_controls_the_terminal() -> None:
    """Escape sequences and right-to-left overrides from clients are shown, not obeyed."""
    assert words.printable("a\x1b[2J\x9b\u202eb\n") == "a\\u001b[2J\\u009b\\u202eb\\u000a"
    assert words.printable("naïve – 日本 🙂") == "naïve – 日本 🙂"
