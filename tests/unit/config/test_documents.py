"""The published schema and the configuration's page say what the loader does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from counterfoil import config
from counterfoil.config import reference
from counterfoil.config.schema import document, schema

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "configuration.md").read_text("utf-8")
REGENERATE = "run: python tools/configuration_reference.py"


def test_the_published_schema_is_todays() -> None:
    """The file in the documents is what the structs give."""
    assert (DOCS / "counterfoil.schema.json").read_bytes() == document(), REGENERATE


@pytest.mark.parametrize("table", [reference.keys, reference.providers], ids=["keys", "providers"])
def test_the_tables_are_todays(table: object) -> None:
    """The page's tables are what the structs give."""
    assert callable(table)
    assert f"\n{table()}\n" in PAGE, REGENERATE


def test_every_key_is_described() -> None:
    """Every key of every part has a description, and unknown keys are refused."""
    for name, part in schema()["$defs"].items():
        full = part if "properties" in part else part["anyOf"][-1]
        assert full["additionalProperties"] is False, name
        for key, prop in full["properties"].items():
            assert prop.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(
    "example", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL), ids=["first", "aliases", "byok"]
)
def test_the_examples_are_configurations(example: str) -> None:
    """Every example on the page is accepted."""
    config.parse(example, "page", {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"})


def test_every_part_has_its_place_in_the_tables() -> None:
    """A key is documented wherever its struct stands."""
    assert set(schema()["$defs"]) == {name for name, _ in reference._SECTIONS}


def test_references_lead_somewhere() -> None:
    """Every reference inside the schema names a part that is there."""
    whole = schema()
    for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(whole)):
        assert name in whole["$defs"]
