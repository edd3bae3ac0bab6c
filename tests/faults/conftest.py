"""What the fault tests share: one provider, and a gateway in front of it whose folder has seen nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider that does what each test says."""
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def local_config(upstream: ScriptedUpstream) -> dict[str, Any]:
    """Give the configuration of a gateway in front of it, as the provider ``local``."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
    return {"providers": {"local": one}, "ledger": {"checkpoint_seconds": 1}}


@pytest.fixture
def gateway(start_gateway: Any, local_config: dict[str, Any]) -> Iterator[Gateway]:
    """Give a gateway of one process."""
    running = start_gateway(local_config)
    yield running
    running.stop()
