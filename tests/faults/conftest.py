"""What the fault tests share: one provider, and a gateway in front of it whose folder has seen nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream
from faults import checker, reading


@pytest.fixture(scope="session")
def start_gateway(start_gateway: Any) -> Iterator[Any]:
    """Give the function that starts gateways; when all is over, every folder is held to the invariants once more."""
    started: list[Gateway] = []

    def start(config: Any, **options: Any) -> Gateway:
        gateway: Gateway = start_gateway(config, **options)
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        gateway.stop()
        checker.check_left(gateway)


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


@pytest.fixture(scope="module")
def echoing() -> Iterator[ScriptedUpstream]:
    """Give a provider that answers each request with the mark that it carries."""
    with ScriptedUpstream(reading.echo) as running:
        yield running


@pytest.fixture(scope="module")
def reader(start_gateway: Any, echoing: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway in front of it that has to read what no honest client sends."""
    running = start_gateway(reading.config(echoing.base_url))
    yield running
    running.stop()
