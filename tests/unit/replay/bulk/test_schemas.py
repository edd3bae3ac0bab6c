"""JSON Schema, the keywords of structured output."""

from __future__ import annotations

from typing import Any

import pytest

from counterfoil.errors import CallerFault
from counterfoil.replay.bulk import schemas

PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
        "age": {"type": ["integer", "null"], "minimum": 0, "exclusiveMaximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2, "uniqueItems": True},
        "boss": {"$ref": "#"},
        "home": {"$ref": "#/$defs/place"},
    },
    "additionalProperties": False,
    "$defs": {"place": {"anyOf": [{"const": "here"}, {"type": "object", "minProperties": 1}]}},
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"name": "Ann"}, None),
        ({"name": "Ann", "age": None, "tags": ["a", "b"], "boss": {"name": "Bo"}, "home": "here"}, None),
        ([], " type"),
        ({}, " required"),
        ({"name": ""}, "/name minLength"),
        ({"name": "ann"}, "/name pattern"),
        ({"name": "Ann", "age": 1.5}, "/age type"),
        ({"name": "Ann", "age": True}, "/age type"),
        ({"name": "Ann", "age": 150}, "/age exclusiveMaximum"),
        ({"name": "Ann", "tags": ["a", "c"]}, "/tags/1 enum"),
        ({"name": "Ann", "tags": ["a", "a"]}, "/tags uniqueItems"),
        ({"name": "Ann", "more": 1}, "/more false"),
        ({"name": "Ann", "boss": {"name": 1}}, "/boss/name type"),
        ({"name": "Ann", "home": {}}, "/home anyOf"),
    ],
    ids=str,
)
def test_where_it_does_not_fit(value: Any, problem: str | None) -> None:
    """The first problem, as a pointer and a keyword."""
    schemas.check(PERSON)
    assert schemas.problem(value, PERSON) == problem


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        (True, 1, True),
        (False, 1, False),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, 1, False),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, 1.5, True),
        ({"not": {"type": "null"}}, None, False),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, 3, False),
        ({"multipleOf": 3}, 9, True),
        ({"const": 1}, True, False),
        ({"type": "integer"}, 2.0, True),
        ({"prefixItems": [{"type": "string"}], "items": False}, ["a", 1], False),
        ({"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False}, {"x-a": "1"}, True),
        ({"$ref": "#/$defs/nowhere"}, 1, False),
    ],
    ids=str,
)
def test_keywords(schema: Any, value: Any, fits: bool) -> None:
    """Each keyword as the specification has it."""
    schemas.check(schema)
    assert (schemas.problem(value, schema) is None) is fits


@pytest.mark.parametrize(
    "schema",
    [{"propertyNames": {}}, {"properties": {"a": {"typ": "string"}}}, 1, {"items": {"dependentRequired": {}}},
     {"pattern": "("}],
    ids=str,
)  # fmt: skip
def test_what_is_not_checked_is_refused(schema: Any) -> None:
    """A keyword that would be passed over is a fault of the caller, wherever it stands."""
    with pytest.raises(CallerFault):
        schemas.check(schema)
