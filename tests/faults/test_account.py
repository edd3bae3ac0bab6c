"""What the gateway says of itself: any worker speaks for all, and the account adds up at every moment."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from counterfoil.cli.doctor import State, account, checkpoint, commits, kept_back, waiting
from emulators.gateway import Gateway
from emulators.scripted import Hang, ScriptedUpstream
from emulators.waiting import wait_until
from faults import checker
from faults.checker import CHAT, Sent

CALLS = 24
SCRAPES = 12


def figures(gateway: Gateway) -> dict[str, float]:
    """A scrape, by name."""
    text = gateway.request("GET", "/metrics").body.decode()
    return {name: float(value) for name, value in re.findall(r"^(counterfoil_\w+) (\S+)$", text, re.MULTILINE)}


def test_any_worker_speaks_for_all(
    start_gateway: Any, local_config: dict[str, Any], upstream: ScriptedUpstream
) -> None:
    """Scrapes on connections of their own, which land on either worker, all give the sum over both."""
    upstream.script = checker.mixed
    gateway: Gateway = start_gateway(local_config, workers=2)
    wait_until(lambda: figures(gateway)["counterfoil_workers_ready"] == 2)
    sent = Sent()
    for number in range(CALLS):
        assert sent.call(gateway, gateway.key(), stream=number % 2 == 0) == 200
    assert gateway.request("POST", CHAT, {}, key="cf_sk_nobody").status == 401

    def all_agree() -> bool:
        scrapes = [figures(gateway) for _ in range(SCRAPES)]
        for now in scrapes:
            named = {name: now[f"counterfoil_calls_{name}"] for name in ("admitted_total", "settled_total", "open")}
            assert named["admitted_total"] == named["settled_total"] + named["open"]
        return all(now["counterfoil_calls_settled_total"] == CALLS for now in scrapes)

    wait_until(all_agree)
    now = figures(gateway)
    assert now["counterfoil_ledger_records_total"] == CALLS
    assert now["counterfoil_calls_unauthorized_total"] == 1
    assert 0 < now["counterfoil_ledger_commits_total"] <= CALLS
    assert now["counterfoil_ledger_commit_wait_seconds_count"] == CALLS
    assert now["counterfoil_ledger_commit_wait_seconds_sum"] > 0
    assert now["counterfoil_disk_reserve_bytes"] == 8 << 20
    wait_until(lambda: figures(gateway)["counterfoil_ledger_last_checkpoint_timestamp_seconds"] > 0)
    checker.check(gateway, upstream, sent)
    before = figures(gateway)
    assert gateway.stop() == 0
    gateway.start()
    after = figures(gateway)
    for name in before:
        assert not name.endswith("_total") or after[name] >= before[name], f"{name} went back"
    gateway.stop()


def test_a_call_in_flight_is_open(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """It stands in the account until it has its record, in the metrics, in ``/health`` and for the doctor."""
    upstream.script = [Hang()]
    key = gateway.key()
    with checker.in_flight(gateway, key, "call-0"):
        wait_until(lambda: figures(gateway)["counterfoil_calls_open"] == 1)
        assert gateway.request("GET", "/health/ready").json()["calls"]["open"] == 1
        said = gateway.command("doctor").stdout
        assert "1 admitted = 0 settled + 1 open + 0 refused" in said
        assert all(
            name in said for name in ("commit wait", "0 records wait", "checkpoint", "8.0 MiB of disk kept back")
        )
    wait_until(lambda: figures(gateway)["counterfoil_calls_open"] == 0)
    assert figures(gateway)["counterfoil_calls_settled_total"] == 1
    remote = gateway.command("doctor", "--url", gateway.url, "--key", key, local=False).stdout
    assert "1 admitted = 1 settled + 0 open + 0 refused" in remote


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        pytest.param(lambda: account(5, 3, 1, 1), State.GOOD, id="adds up"),
        pytest.param(lambda: account(5, 3, 1, 0), State.PROBLEM, id="one is missing"),
        pytest.param(lambda: commits(None, None), State.GOOD, id="no commit"),
        pytest.param(lambda: commits(0.4, 1.0), State.GOOD, id="fast"),
        pytest.param(lambda: commits(90.0, 250.0), State.WARNING, id="slow"),
        pytest.param(lambda: waiting(3), State.GOOD, id="queue"),
        pytest.param(lambda: waiting(5000), State.WARNING, id="long queue"),
        pytest.param(lambda: checkpoint(None, 3, running=True), State.GOOD, id="unsigned"),
        pytest.param(lambda: checkpoint(500_000, 3, running=True), State.GOOD, id="idle"),
        pytest.param(lambda: checkpoint(9_000_000, 3, running=True), State.WARNING, id="late"),
        pytest.param(lambda: checkpoint(9_000_000, 3, running=False), State.GOOD, id="stopped"),
        pytest.param(lambda: kept_back(8 << 20, running=True), State.GOOD, id="reserve"),
        pytest.param(lambda: kept_back(0, running=True), State.PROBLEM, id="no reserve"),
        pytest.param(lambda: kept_back(0, running=False), State.GOOD, id="no gateway"),
    ],
)
def test_the_doctor_judges_the_account(finding: Callable[[], Any], state: State) -> None:
    """What is well is good, what is slow or late a warning, and what does not add up a problem."""
    assert finding().state is state
