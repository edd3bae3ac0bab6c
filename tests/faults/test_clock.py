"""A wall clock that steps: the order of records, their durations and their chain do not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream
from faults import checker
from faults.checker import Sent

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
STEPS = ("+0", "+2h", "-3h", "+1s", "-400d", "+0")


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """Give the file that holds how far the gateway's wall clock is off."""
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed (apt-get install faketime)")
    path = tmp_path / "clock"
    path.write_text("+0")
    return path


def test_a_stepping_clock_harms_no_record(
    start_gateway: Any, local_config: dict[str, Any], upstream: ScriptedUpstream, clock: Path
) -> None:
    """Hours forward, hours back, a year back: every call has its record, in the chain's order, with true durations."""
    upstream.script = checker.mixed
    environment = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    gateway: Gateway = start_gateway(local_config, environment=environment)
    sent = Sent()
    for step in STEPS:
        clock.write_text(step)
        for stream in (False, True):
            assert sent.call(gateway, gateway.key(), stream=stream) == 200
    records = checker.check(gateway, upstream, sent)
    order = {record["chain"]["sequence"]: record for record in records}
    assert [order[number]["app_id"] for number in sorted(order)] == [f"call-{n}" for n in range(2 * len(STEPS))]
    for record in records:
        assert 0 <= record["latency_ms"] <= record["generation_ms"] < 60_000
        assert 0 <= record["gateway_ms"] < 60_000
    assert len({record["created_at"][:13] for record in records}) >= 4, "the clock did not step: the test shows nothing"
    gateway.stop()
