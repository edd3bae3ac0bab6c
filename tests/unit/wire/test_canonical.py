"""The canonical form: equal for what says the same, different for what does not."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.wire import canonical
from counterfoil.wire.canonical import pointer, pointers
from counterfoil.wire.pointer import joined

JSON = "application/json"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def form(body: str | bytes, ignored: str = "") -> bytes:
    """The canonical bytes of a JSON body."""
    data = body.encode() if isinstance(body, str) else body
    return canonical.canonical(data, JSON, pointers(ignored))


@given(VALUES, st.integers(0, 4))
def test_spelling_and_order_do_not_count(value: Any, indent: int) -> None:
    """White space, escapes and the order of members change nothing."""
    plain = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    spelled = json.dumps(value, ensure_ascii=True, indent=indent, sort_keys=True).encode()
    assert form(plain) == form(spelled)


@given(VALUES, VALUES)
def test_what_differs_differs(one: Any, other: Any) -> None:
    """Two values have one form exactly when they are the same JSON, and a difference is named exactly then."""
    same = _exact(one) == _exact(other)
    left, right = (canonical.parse(json.dumps(value).encode(), JSON) for value in (one, other))
    assert (canonical.encode(left) == canonical.encode(right)) is same
    assert (list(canonical.differences(left, right)) == []) is same


def _exact(value: Any) -> Any:
    """A value in which True is not 1, and 1.0 is."""
    if isinstance(value, dict):
        return {"dict": {name: _exact(member) for name, member in value.items()}}
    if isinstance(value, list):
        return {"list": [_exact(element) for element in value]}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"number": Decimal(repr(value))}
    return {"other": repr(value)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("100", "1e2"),
        ("0", "-0.0"),
        ("0.70", "0.7"),
        ("123456789012345678901234567890", "123456789012345678901234567890.0"),
        ("1e400", "10e399"),
        ('{"a":1,"a":2}', '{"a":2}'),
    ],
)
def test_numbers_are_compared_by_value(one: str, other: str) -> None:
    """However a number is spelled, it is the same number; of two equal names the last counts."""
    assert form(one) == form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("123456789012345678901234567890", "123456789012345678901234567891"),
        ("0.1", "0.1000000000000000055511151231257827"),
        ("1", "true"),
        ("1", '"1"'),
        ("[1,2]", "[2,1]"),
        ('{"a":null}', "{}"),
        ("1e99999999999999999999", "1e99999999999999999998"),
    ],
)
def test_nothing_else_is(one: str, other: str) -> None:
    """Digits beyond what a float holds count, and so do types, the order of a list, and a null."""
    assert form(one) != form(other)


def test_members_can_be_left_out() -> None:
    """A pointer names a member, an element, or with ``*`` all of them; one that leads nowhere changes nothing."""
    body = '{"a":{"b":1,"c":2},"d":[{"x":1,"y":2},{"x":3,"y":4}],"e/f":5}'
    assert form(body, "/a/b") == form('{"a":{"c":2},"d":[{"x":1,"y":2},{"x":3,"y":4}],"e/f":5}')
    assert form(body, "/d/*/x,/e~1f") == form('{"a":{"b":1,"c":2},"d":[{"y":2},{"y":4}]}')
    assert form(body, "/d/0") == form('{"a":{"b":1,"c":2},"d":[{"x":3,"y":4}],"e/f":5}')
    assert form(body, "/d/7,/nothing/here,/a/b/c") == form(body)


@pytest.mark.parametrize("text", ["a", "#/a", "a/b", "/" + "x" * 300, ",".join(f"/{n}" for n in range(40))])
def test_what_is_no_pointer_is_refused(text: str) -> None:
    """A pointer begins with a slash, and lists have an end."""
    with pytest.raises(ValueError, match="JSON pointer"):
        pointers(text)


@given(st.lists(st.text(st.characters(exclude_characters=",", exclude_categories=["Cs"]), max_size=8), min_size=1))
def test_pointers_are_written_as_they_are_read(segments: list[str]) -> None:
    """A pointer survives being written and read."""
    written = joined(tuple(segments))
    if len(written) <= canonical.POINTER_CHARACTERS_MAX:
        assert pointer(written) == tuple(segments)


@given(st.binary(max_size=64))
def test_any_bytes_have_a_form(data: bytes) -> None:
    """Bytes that are no JSON are their own form; nothing raises."""
    assert canonical.canonical(data, JSON) == canonical.canonical(data, JSON)
    assert canonical.canonical(data, "multipart/form-data; boundary=x")


def test_a_body_nested_beyond_reason_has_a_form() -> None:
    """A body too deep for the parser is compared by its bytes."""
    deep = b"[" * 200_000
    assert form(deep) != form(deep + b" ")
