"""Bulk runs as tests ask for them, over HTTP: start, look, wait, read what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulators.inprocess import InProcess
from emulators.waiting import wait_until


def call(gateway: InProcess, key: str, text: str, **headers: str) -> str:
    """Make one call; give its id."""
    body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": text}], "max_tokens": 20}
    done = gateway.request("POST", "/v1/chat/completions", body, key=key, **headers)
    assert done.status == 200, done.body
    return done.headers["x-request-id"]


def started(gateway: InProcess, key: str, status: int = 201, **asked: Any) -> dict[str, Any]:
    """Start a run."""
    done = gateway.request("POST", "/v1/replays", asked, key=key)
    assert done.status == status, done.body
    return done.json()


def shown(gateway: InProcess, key: str, run: dict[str, Any]) -> dict[str, Any]:
    """Look at a run."""
    return gateway.request("GET", f"/v1/replays/{run['run_id']}", key=key).json()


def until(gateway: InProcess, key: str, run: dict[str, Any], right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Give the run once it is ``right``."""
    found: dict[str, Any] = {}

    def is_right() -> bool:
        found.update(shown(gateway, key, run))
        return right(found)

    wait_until(is_right)
    return found


def ended(gateway: InProcess, key: str, run: dict[str, Any]) -> dict[str, Any]:
    """Give the run once nobody drives it."""
    return until(gateway, key, run, lambda found: found["state"] != "running" and found["in_flight"] is None)


def results(gateway: InProcess, key: str, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Give what came of each item, by item and target."""
    done = gateway.request("GET", f"/v1/replays/{run['run_id']}/results?limit=1000", key=key).json()["data"]
    return sorted(done, key=lambda one: (one["item"], one["target"]))


def report(gateway: InProcess, key: str, run: dict[str, Any]) -> dict[str, Any]:
    """Give the report."""
    return gateway.request("GET", f"/v1/replays/{run['run_id']}/report", key=key).json()


def record(gateway: InProcess, key: str, generation: str) -> dict[str, Any]:
    """Give a record."""
    return gateway.request("GET", f"/v1/generations?id={generation}", key=key).json()
