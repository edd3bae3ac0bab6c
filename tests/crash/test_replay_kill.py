"""A bulk run whose gateway is killed in the middle pays for nothing twice, and says what it cannot know."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.ports import HOST
from emulators.scripted import Hang, ScriptedUpstream, Seen, Step, answer, chat_answer
from emulators.waiting import PATIENCE_S, wait_until

ITEMS = 500
CONCURRENCY = 8


class Provider:
    """Counts what it is asked. From the ``hang_after``-th call on it says nothing, until as many hang as can."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.hang_after = 1 << 30
        self.hanging = 0
        self.full = threading.Event()

    def __call__(self, seen: Seen) -> list[Step]:
        text = seen.json["messages"][0]["content"]
        self.hits[text] += 1
        if self.hits.total() > self.hang_after:
            self.hanging += 1
            if self.hanging == CONCURRENCY:
                self.full.set()
            return [Hang()]
        return answer(chat_answer(f"Hello, {text}."))


@pytest.fixture
def provider() -> Provider:
    """Give the provider's manners."""
    return Provider()


@pytest.fixture
def upstream(provider: Provider) -> Iterator[ScriptedUpstream]:
    """Give the provider."""
    with ScriptedUpstream(provider) as running:
        yield running


def called(gateway: Gateway, key: str, count: int) -> None:
    """Make ``count`` calls over one connection."""
    connection = http.client.HTTPConnection(HOST, gateway.port, timeout=PATIENCE_S)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    for at in range(count):
        body = {"model": "openai/gpt-4o-mini", "max_tokens": 9, "messages": [{"role": "user", "content": f"n{at}"}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        assert (response.status, response.read()[:1]) == (200, b"{")
    connection.close()


def until(gateway: Gateway, key: str, run_id: str, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Give the run once it is ``right``."""
    found: dict[str, Any] = {}

    def is_right() -> bool:
        found.update(gateway.request("GET", f"/v1/replays/{run_id}", key=key).json())
        return right(found)

    wait_until(is_right)
    return found


def all_results(gateway: Gateway, key: str, run_id: str) -> list[dict[str, Any]]:
    """Give what came of every item."""
    return gateway.request("GET", f"/v1/replays/{run_id}/results?limit=1000", key=key).json()["data"]


def exact(gateway: Gateway, provider: Provider, key: str, run_id: str, items: int = ITEMS) -> None:
    """Every item ran once; those in flight at the kill twice, and both calls are told apart and have records."""
    hung = CONCURRENCY
    done = until(gateway, key, run_id, lambda found: found["state"] != "running")
    assert done["state"] == "finished"
    progress = done["progress"]
    assert (progress["done"], progress["failed"], progress["skipped"]) == (items, 0, 0)
    assert (progress["interrupted"], progress["calls"]) == (hung, items + hung)
    assert provider.hits.total() == 2 * items + hung  # the originals, the reruns, and those in flight at the kill
    assert Counter(provider.hits.values()) == Counter({2: items - hung, 3: hung})
    found = all_results(gateway, key, run_id)
    assert Counter(len(one["tries"]) for one in found) == Counter({1: items - hung, 2: hung})
    ids = [tried["request_id"] for one in found for tried in one["tries"]]
    assert len(set(ids)) == len(ids) == items + hung
    report = gateway.request("GET", f"/v1/replays/{run_id}/report", key=key).json()
    lost = report["in_flight_at_a_kill"]
    assert len(lost) == hung
    originals = {tried["request_id"]: one["a"]["request_id"] for one in found for tried in one["tries"]}
    for request_id in lost:
        record = gateway.record(request_id, key)
        assert record["replay_of"] == originals[request_id]  # which only the journal still knew
        assert (record["error_code"], record["cost_state"]) == ("gateway:interrupted", "unknown")
    assert progress["spent_nanos"] == sum(one["b"]["cost_nanos"] for one in found)
    assert progress["held_nanos"] > 0  # what the lost calls may have cost stays reserved
    stats = json.loads(gateway.command("ledger", "stats", "--json").stdout)
    assert stats["records"] == 2 * items + hung
    assert stats["open_intents"] == 0
    assert gateway.command("ledger", "verify").returncode == 0


def test_a_killed_run_goes_on_by_itself(start_gateway, upstream, provider):
    """Killed with half done and eight in flight, a run of 500 goes on at the next start, with exact counts."""
    gateway = start_gateway({"providers": {"openai": {"base_url": upstream.base_url, "api_key": "sk-1"}}})
    key = gateway.key()
    called(gateway, key, ITEMS)
    provider.hang_after = ITEMS + ITEMS // 2
    asked = {"filter": {"model": "openai/gpt-4o-mini"}, "concurrency": CONCURRENCY, "budget_nanos": 10**12}
    run_id = gateway.request("POST", "/v1/replays", asked, key=key).json()["run_id"]
    assert provider.full.wait(PATIENCE_S)
    gateway.process.kill()
    provider.hang_after = 1 << 30
    gateway.start()
    exact(gateway, provider, key, run_id)
    again = gateway.request("POST", f"/v1/replays/{run_id}/resume", {}, key=key)
    assert again.status == 200
    exact(gateway, provider, key, run_id)  # a finished run that is resumed pays nothing
    gateway.stop()


def holder_of(lock: Path, root: int) -> int:
    """Give the process, a child of ``root``, that has the run's lock open."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != root:
            try:
                parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                if parent == root and any(fd.readlink() == lock for fd in entry.joinpath("fd").iterdir()):
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError("nobody drives the run")


def test_a_killed_worker_s_run_is_taken_up_by_the_next(start_gateway, upstream, provider):
    """Of two workers exactly one drives a run; killed, its replacement goes on, and nothing is paid twice."""
    settings = {"providers": {"openai": {"base_url": upstream.base_url, "api_key": "sk-1"}}}
    gateway = start_gateway(settings, workers=2)
    key = gateway.key()
    called(gateway, key, 120)
    provider.hang_after = 120 + 60
    asked = {"filter": {"model": "openai/gpt-4o-mini"}, "concurrency": CONCURRENCY}
    run_id = gateway.request("POST", "/v1/replays", asked, key=key).json()["run_id"]
    assert provider.full.wait(PATIENCE_S)
    assert provider.hanging == CONCURRENCY  # a second driver would have sent more
    driver = holder_of(gateway.data / "replays" / f"{run_id}.lock", gateway.process.pid)
    os.kill(driver, signal.SIGKILL)
    provider.hang_after = 1 << 30
    exact(gateway, provider, key, run_id, 120)
    gateway.stop()


def test_a_gateway_that_stops_leaves_the_run_to_the_next(start_gateway, upstream, provider):
    """Stopped in order, the gateway breaks off what is in flight after its time; the run goes on at the next start."""
    settings = {"providers": {"openai": {"base_url": upstream.base_url, "api_key": "sk-1"}}}
    gateway = start_gateway({**settings, "server": {"shutdown_seconds": 1}})
    key = gateway.key()
    called(gateway, key, 40)
    provider.hang_after = 40 + 20
    asked = {"filter": {"model": "openai/gpt-4o-mini"}, "concurrency": CONCURRENCY}
    run_id = gateway.request("POST", "/v1/replays", asked, key=key).json()["run_id"]
    assert provider.full.wait(PATIENCE_S)
    assert gateway.stop() == 0
    provider.hang_after = 1 << 30
    gateway.start()
    exact(gateway, provider, key, run_id, 40)
    gateway.command("backup", str(gateway.folder / "copy"))
    gateway.stop()
