"""Every stored input of every fuzz target, once: what once broke something stays fixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
INPUTS = [(name, path) for name in TARGETS for path in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize(("name", "path"), INPUTS, ids=[f"{name}-{path.name}" for name, path in INPUTS])
def test_a_stored_input(name: str, path: Path) -> None:
    """It breaks nothing."""
    TARGETS[name](path.read_bytes())


def test_every_target_has_inputs() -> None:
    """And every folder of inputs a target."""
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()
    assert {name for name, _ in INPUTS} == TARGETS.keys()
