"""A request body's members are found where they lie, and bodies that cannot be a call are refused by name."""

from __future__ import annotations

import json

import pytest

from counterfoil.errors import CallerFault
from counterfoil.wire import json_object
from counterfoil.wire.json_object import read, tail_object

SPELLINGS = {
    "compact": b'{"a":1,"model":"m","b":[{"model":"no"}]}',
    "spaced": b'{"a": 1, "model": "m", "b": [{"model": "no"}]}',
    "indented": b'{\n\t"a" : 1 ,\r\n "model" : "m" , "b" : [ { "model" : "no" } ] }\n',
    "escaped-key": b'{"a":1,"mod\\u0065l":"m","b":2}',
    "foreign-key": '{"ключ":1,"model":"m"}'.encode(),
    "number-last": b'{"model":"m","n":12}',
    "numbers": b'{"n":1, "model":"m", "k":12}',
    "nested-first": b'{"tools":[{"model":"no","x":"}{\\"model\\":\\"no\\""}],"model":"m"}',
    "in-text": b'{"messages":"say \\"model\\":\\"no\\",","model":"m"}',
}


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_the_model_is_found_in_every_spelling(body: bytes):
    """The span of a top-level value is exact, whatever the whitespace, escapes and nesting around it."""
    found = read(body)
    start, end = found.span("model")
    assert body[start:end] == b'"m"'
    for name in found.values:
        first, last = found.span(name)
        assert json.loads(body[first:last]) == json.loads(body)[name]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"nope", "invalid_json"),
        (b'{"a":1,}', "invalid_json"),
        (b'{"a":1} {"b":2}', "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b'{"a":"\xff"}', "invalid_json"),
        (b'{"a":{"b":"\xed\xa0\x80"}}', "invalid_json"),
        (b'{"\xff":1}', "invalid_json"),
        (b'{"a":NaN}', "invalid_json"),
        (b'{"a":"\x01"}', "invalid_json"),
        (b"[1,", "invalid_json"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"12", "not_an_object"),
        (b"[" * 10_000, "nested_too_deeply"),
        (b'{"a":' * 10_000, "nested_too_deeply"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested_too_deeply"),
        (b'{"a":1,"a":1}', "duplicate_key"),
        (b'{"a":1,"b":2,"a":3}', "duplicate_key"),
        (b'{"a":1,"\\u0061":1}', "duplicate_key"),
        (b'{"model":"x","mod\\u0065l":"x"}', "duplicate_key"),
        (b'{"a":1, "a":12}', "duplicate_key"),
        (b'{"a":12, "a":1}', "duplicate_key"),
        (b'{"":1,"":1}', "duplicate_key"),
        (b'{ "a":"x","b":1,"a":"x" }', "duplicate_key"),
        (b'{"a":{"b":1},"a":{"b":1,"c":2}}', "duplicate_key"),
    ],
)
def test_refused_bodies(body: bytes, code: str):
    """What is not one JSON object with distinct keys is refused with the code that says why."""
    with pytest.raises(CallerFault) as caught:
        read(body)
    assert caught.value.short_code == code


def test_a_refusal_says_where_but_never_what():
    """The message gives the byte and quotes nothing of the body."""
    with pytest.raises(CallerFault) as caught:
        read(b'{"secret":"prompt",oops}')
    assert "byte 19" in caught.value.message
    assert "prompt" not in caught.value.message
    assert "oops" not in caught.value.message


@pytest.mark.parametrize(
    "body", [b"{}", b" { } ", b'{"a":"\\ud800","b":"\\u0000"}', b'{"a":{"x":1,"x":2}}', b'{"\\ud800":1,"\\udc00":2}']
)
def test_accepted_oddities(body: bytes):
    """Empty objects, lone surrogates and NULs in values, and nested duplicates are the provider's to judge."""
    found = read(body)
    assert found.body is body
    for name, value in found.values.items():
        start, end = found.span(name)
        assert bytes(value) == body[start:end]


def test_a_short_duplicate_cannot_hide_behind_spaces():
    """A repeated key is found in every mixture of spacing, where lengths alone could balance out."""
    for space in (b"", b" ", b"  ", b"\n"):
        for value in (b"1", b"12", b'""', b"[]"):
            body = b'{"a":%b1,"b":%b2,"":%b3,"":%b%b}' % (space, space, space, space, value)
            with pytest.raises(CallerFault) as caught:
                read(body)
            assert caught.value.short_code == "duplicate_key"


@pytest.mark.parametrize("document", [{"model": "m"}, {"a": [1, {"b": ", "}], "model": "ü: ", "stream": True, "": {}}])
def test_the_spelling_of_python_is_found_without_a_walk(document: dict[str, object], monkeypatch: pytest.MonkeyPatch):
    """A space after each comma and colon of the top level: every value lies where its span says."""
    monkeypatch.setattr(json_object, "_walk", None)
    body = json.dumps(document).encode()
    found = read(body)
    for name, value in document.items():
        start, end = found.span(name)
        assert json.loads(body[start:end]) == value


def test_a_repetition_as_long_as_the_spaces_is_found():
    """Where a repeated key makes compact JSON just as long as the spaced one would be, it is still a repetition."""
    body = b'{"a":1,"b":2,"a":345678}'
    for size in range(1, 12):
        with pytest.raises(CallerFault) as caught:
            read(body.replace(b"345678", b"3" * size))
        assert caught.value.short_code == "duplicate_key"


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b'xx","usage":{"a":1},"user":null}', b'{"a":1}'),
        (b'"usage": {"a":{"b":"}"}} }', b'{"a":{"b":"}"}}'),
        (b'"usage":{"a":1},"x":{"usage":{"b":2}}', b'{"b":2}'),
        (b'"usage":null}', b""),
        (b'"usage":{"a":1', b""),
        (b'\\"usage\\":{"a":1}', b""),
    ],
)
def test_an_object_is_found_in_the_end_of_a_text(tail: bytes, expected: bytes):
    """The last object under a key is given whole, or nothing."""
    assert tail_object(tail, b"usage") == expected
