"""``counterfoil config``: check the configuration, print its schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from counterfoil.cli import output
from counterfoil.cli.where import AsJson
from counterfoil.compose import make_book
from counterfoil.config import Config, load
from counterfoil.config.schema import document

app = App(name="config", help="The configuration: check it, print its schema.")


@app.command
def check(
    file: Annotated[
        Path | None, Parameter(name=("file", "--config"), help="Default: COUNTERFOIL_CONFIG, else ./counterfoil.yaml.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Read the configuration as `serve` would and say what it amounts to, or where its first mistake is."""
    config = load(file, os.environ, {})
    if config.prices_book is None:
        make_book(config)  # reads the price file, and finds every list that prices name
    found = _summary(config)
    if as_json:
        output.json(found)
        return
    output.lines("The configuration can be used.", "")
    output.details({name: value for name, value in found.items() if not isinstance(value, dict)}, as_json=False)
    for name, provider in found["providers"].items():
        output.lines(f"provider {name}: {provider['type']} at {provider['base_url']}, {provider['api_key']}")
    for alias, targets in found["models"].items():
        output.lines(f"model {alias}: {targets}")


@app.command
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    output.lines(document().decode().rstrip("\n"))


def _summary(config: Config) -> dict[str, Any]:
    """What matters of ``config``, without secrets."""
    return {
        "data": str(config.data),
        "listen": f"{config.host}:{config.port}",
        "workers": config.workers,
        "capture": f"{config.capture.default}, {config.capture.retention_days} days",
        "durability": config.ledger.durability,
        "providers": {
            name: {
                "type": provider.type,
                "base_url": provider.base_url,
                "api_key": "no key" if provider.api_key is None else "a key",
                "prices": provider.prices,
            }
            for name, provider in config.providers.items()
        },
        "models": {
            alias: f"{', '.join(target.target for target in route.targets)} ({route.strategy})"
            for alias, route in config.models.items()
        },
    }
