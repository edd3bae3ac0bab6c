"""The difference of two generations."""

from __future__ import annotations

import pytest

from counterfoil.record.charge import CostState
from counterfoil.record.record import Record
from counterfoil.record.usage import Usage, UsageSource
from counterfoil.replay import diff
from counterfoil.replay.text import Said, ToolCall


def record(**changes) -> Record:
    """A plain record."""
    values = {
        "created_at": "2026-11-01T00:00:00.000Z", "request_id": "gen_A", "team_id": "acme", "app_id": None,
        "key_id": "k", "endpoint": "/v1/chat/completions", "model_id": "openai/gpt-4o", "provider": "openai",
        "native_response_id": None, "stream": False, "byok": False, "status_code": 200, "success": True,
        "error_code": None, "error_message": None, "latency_ms": 10.0, "generation_ms": 20.0, "throughput": 5.0,
        "usage": Usage(9, 3, 12, source=UsageSource.REPORTED), "cost_nanos": 100, "cost_state": CostState.EXACT,
        "finish_reason": "stop",
    }  # fmt: skip
    return Record(**(values | changes))


def test_equal_answers_have_no_difference():
    """Equal answers are equal, with similarity 1 and no tool difference, whatever their times."""
    found = diff.compare(record(), record(latency_ms=99.0), Said("Hi"), Said("Hi"))
    assert found.equal
    assert found.text is not None
    assert found.text.similarity == 1.0
    assert found.latency_ms.change == 89.0


def test_words_that_differ():
    """The changes name the words of each side, and both texts can be put together from them."""
    found = diff.text("The sky is blue.", "The sea is very blue.")
    assert "".join(c.text for c in found.changes if c.op != "insert") == "The sky is blue."
    assert "".join(c.text for c in found.changes if c.op != "delete") == "The sea is very blue."
    assert found.similarity is not None
    assert 0.5 < found.similarity < 1


@pytest.mark.parametrize("state", [CostState.UNKNOWN, CostState.PARTIAL])
def test_an_unknown_cost_is_null(state):
    """An unknown cost has no figure and no difference, never 0."""
    found = diff.compare(record(), record(cost_nanos=0, cost_state=state), None, None)
    assert found.cost_nanos == diff.Figure(100, None, None, None)


def test_unreported_usage_is_null():
    """Tokens that nobody reported are null."""
    found = diff.compare(record(), record(usage=Usage()), None, None)
    assert found.tokens["completion_tokens"] == diff.Figure(3, None, None, None)


def test_missing_bodies_are_not_equal():
    """Without both bodies nothing claims that the answers are equal."""
    found = diff.compare(record(), record(), Said("Hi"), None)
    assert (found.content, found.equal, found.text, found.tool_calls_equal) == (False, False, None, None)


def test_tool_calls_by_structure():
    """The order of an object's members does not count; a value that differs is named by its pointer."""
    a = ToolCall("f", {"x": 1, "y": {"a/b": [1, 2]}})
    assert diff.tool_calls((a,), (ToolCall("f", {"y": {"a/b": [1, 2]}, "x": 1}),)) == ()
    [found] = diff.tool_calls((a,), (ToolCall("f", {"x": True, "y": {"a/b": [1]}}),))
    assert found.fields == ("/x", "/y/a~1b/1")


def test_audio_differs_by_digest():
    """Two answers without text differ when their bytes do."""
    assert not diff.compare(record(), record(), Said(digest="a"), Said(digest="b")).equal


def test_long_texts_are_compared_within_bounds():
    """Texts beyond the bound are compared by line, then only for equality."""
    many = " ".join(str(n) for n in range(diff.WORDS_MAX)) + "\nend"
    assert diff.text(many, many + "!").method is diff.Method.LINES
    lines = "x\n" * (diff.LINES_MAX + 1)
    assert diff.text(lines, lines + "y").method is diff.Method.EQUALITY
