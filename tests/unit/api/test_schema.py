"""The published schema of a record says everything about every field."""

from __future__ import annotations

import msgspec

from counterfoil.api import schema


def test_every_field_is_described() -> None:
    """A field added to a record without a meaning fails here."""
    components = schema.components()
    for name in schema.MEANINGS:
        for field, prop in components[name]["properties"].items():
            assert prop.get("description"), f"{name}.{field} has no description"


def test_the_contract_has_its_24_fields() -> None:
    """The contract's fields are all in the schema, and only the request may be absent."""
    record = schema.components()["GenerationRecord"]
    assert len(schema.CONTRACT) == 24
    assert set(schema.CONTRACT) <= set(record["properties"])
    assert set(schema.CONTRACT) - set(record["required"]) == {"replay_request"}


def test_contract_fields_are_null_only_where_it_says_so() -> None:
    """Five fields may be null; every other one keeps its type, whatever happened."""
    record = schema.components()["GenerationRecord"]["properties"]
    nullable = {field for field in schema.CONTRACT if b'"null"' in msgspec.json.encode(record[field])}
    assert nullable == {"app_id", "native_response_id", "error_code", "error_message", "throughput"}
