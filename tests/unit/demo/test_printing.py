"""Records side by side: what differs is shown, and what is not known is not shown as a number."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from counterfoil.demo.printing import Run, side_by_side, similarity, word_difference


def record(
    cost_nanos: int = 1500, cost_state: str = "exact", source: str = "reported", **fields: Any
) -> dict[str, Any]:
    """Give as much of a record as a comparison reads."""
    return {
        "request_id": "gen_1",
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "source": source},
        "latency_ms": 12.0,
        "generation_ms": 120.0,
        "throughput": 166.7,
        "cost_nanos": cost_nanos,
        "cost_state": cost_state,
        **fields,
    }


def shown(*runs: Run) -> str:
    """Give what a wide terminal without colours shows."""
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(side_by_side(runs))
    return capture.get()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a b", "a b", [("=", "a b")]),
        ("a b c", "a x c", [("=", "a "), ("-", "b "), ("+", "x "), ("=", "c")]),
        ("", "new", [("+", "new")]),
        ("old", "", [("-", "old")]),
        ("", "", []),
    ],
    ids=["equal", "one word", "added", "removed", "empty"],
)
def test_words_are_compared_one_by_one(before: str, after: str, expected: list[tuple[str, str]]) -> None:
    """The difference of two texts is what stays, goes and comes, in order."""
    assert list(word_difference(before, after)) == expected


def test_similarity_has_its_two_ends() -> None:
    """Equal texts have everything in common, and texts without a common word nothing."""
    assert similarity("the same text", "the same text") == 1.0
    assert similarity("one", "two") == 0.0


def test_a_difference_can_be_read_without_colours() -> None:
    """What went and what came are told apart by signs, not by colour alone."""
    text = shown(Run("the original", "The sky is blue.", record()), Run("again", "The sky was blue.", record()))
    assert "The sky [-is-] {+was+} blue." in text


def test_equal_runs_are_said_to_be_equal() -> None:
    """Two runs with the same text and tokens are shown as the same."""
    text = shown(Run("the original", "Red.", record()), Run("again", "Red.", record()))
    assert "again: the text is the same, to the byte." in text
    assert "20 (the same)" in text
    assert "$0.0000015 (the same)" in text


def test_a_dearer_run_says_by_how_much() -> None:
    """A difference in cost is given in nano-dollars and in dollars."""
    text = shown(Run("the original", "Red.", record()), Run("again", "Blue.", record(cost_nanos=2500)))
    assert "+1,000 nano-dollars, $0.000001" in text


def test_an_unknown_cost_has_no_difference() -> None:
    """A cost that is not known is shown as unknown, and nothing is subtracted from it."""
    unknown = record(cost_nanos=0, cost_state="unknown")
    text = shown(Run("the original", "Red.", record()), Run("again", "Red.", unknown))
    assert "unknown" in text
    assert "nano-dollars" not in text


def test_absent_usage_is_not_shown_as_zero() -> None:
    """Tokens that nobody reported are not known."""
    absent = record(source="absent", throughput=None)
    text = shown(Run("the original", "Red.", absent), Run("again", "Red.", absent))
    assert text.count("not known") == 6
