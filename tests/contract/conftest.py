"""What the contract's tests share: a provider of which each test says what it answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emulators.scripted import ScriptedUpstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider that does what each test says."""
    with ScriptedUpstream() as running:
        yield running
