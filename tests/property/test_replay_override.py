"""What must hold for every body that is changed, and every pair of texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.replay import diff
from counterfoil.replay.override import Overrides, Sendable, apply, merge, parse, write
from counterfoil.surfaces import registry
from emulators import captures

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(), part, max_size=4),
    max_leaves=12,
)
CHAT = registry.find("/v1/chat/completions")


@given(VALUES)
def test_parse_and_write_lose_nothing(value):
    """A value written and read again is the same value, and writing is stable."""
    written = write(parse(json.dumps(value).encode()))
    assert json.loads(written) == value
    assert write(parse(written)) == written


@given(VALUES, VALUES)
def test_merging_twice_is_merging_once(target, patch):
    """A merge patch is idempotent."""
    once = merge(target, patch)
    assert merge(once, patch) == once


@given(st.text(), st.text())
def test_texts_come_back_from_their_difference(a, b):
    """Both texts can be put together from the changes, and equal means equal."""
    found = diff.text(a, b)
    assert "".join(change.text for change in found.changes if change.op != "insert") == a
    assert "".join(change.text for change in found.changes if change.op != "delete") == b
    assert found.equal == (a == b)


@given(st.text("abc/-.", min_size=1, max_size=20).filter(str.strip), VALUES)
def test_another_model_changes_nothing_else(model, rest):
    """Exchanging the model and exchanging it back gives the captured bytes."""
    body = json.dumps({"messages": rest, "model": "openai/first", "x": 1}, separators=(",", ":")).encode()
    asked = Sendable("/v1/chat/completions", "application/json", body)
    there = apply(asked, CHAT, Overrides(model=f"p/{model}"), "openai/first")
    assert apply(there, CHAT, Overrides(model="openai/first"), "p/x").body == body


@pytest.mark.skipif(not captures.load(), reason=captures.ABSENT)
def test_every_recorded_request_survives_being_written():
    """Every recorded request means the same after parse and write, and is itself without overrides."""
    for capture in captures.load():
        if isinstance(capture.request, dict):
            body = json.dumps(capture.request, ensure_ascii=False).encode()
            assert json.loads(write(parse(body))) == capture.request, capture.name
            asked = Sendable("/v1/chat/completions", "application/json", body)
            assert apply(asked, CHAT, Overrides(), "a/b").body is body
