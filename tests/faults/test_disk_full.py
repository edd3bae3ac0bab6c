"""A full disk: no call is sent that could not be recorded, those under way end well, and space is all that heals it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, Seen, Step, Until, answer, chat_answer
from emulators.waiting import PATIENCE_S, wait_until
from faults import checker
from faults.checker import Sent

DISK_MIB = 48


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 48 MiB in a private folder; unmounted at the end whatever happened."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "counterfoil-test", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def gateway(
    start_gateway: Any, local_config: dict[str, Any], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Gateway]:
    """Give a gateway whose data folder lies on the small disk."""
    data = small_disk / "data"
    running = start_gateway({**local_config, "data": str(data)})
    monkeypatch.setattr(running, "data", data)
    yield running
    running.stop()


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    path = disk / "filler"
    with path.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    return path


def early_ones_until(free: threading.Event, seen: Seen) -> list[Step]:
    """Answer at once, but the first calls only when told."""
    early = int(seen.json["user"].removeprefix("call-")) < 4
    return [*([Until(free)] if early else []), *answer(chat_answer())]


def test_a_full_disk_refuses_before_dispatch_and_heals(
    gateway: Gateway, upstream: ScriptedUpstream, small_disk: Path
) -> None:
    """503 and nothing sent; calls in flight are answered and recorded; lookups work; space alone brings it back."""
    free = threading.Event()
    upstream.script = partial(early_ones_until, free)
    sent, key = Sent(), gateway.key()
    statuses: list[int | None] = []
    early = [threading.Thread(target=lambda: statuses.append(sent.call(gateway, key))) for _ in range(4)]
    for thread in early:
        thread.start()
    wait_until(lambda: len(upstream.seen) == 4)
    filler = fill(small_disk)
    wait_until(lambda: gateway.request("GET", "/health/ready").status == 503)
    reached = len(upstream.seen)
    for stream in (False, True, False):
        assert sent.call(gateway, key, stream=stream) == 503
    assert len(upstream.seen) == reached, "a call was dispatched that cannot be recorded"
    free.set()
    for thread in early:
        thread.join(PATIENCE_S)
    assert statuses == [200] * 4, "a call in flight was lost"
    for generation_id, status in sent.acknowledged.values():
        if status == 200:
            assert gateway.record(generation_id)["success"]
    assert gateway.request("GET", "/health/live").status == 200
    filler.unlink()
    took = wait_until(lambda: gateway.request("GET", "/health/ready").status == 200)
    print(f"taking calls {took:.2f} s after there was space again")
    assert sent.call(gateway, key) == 200
    refused = {mark: one for mark, one in sent.acknowledged.items() if one[1] == 503}
    records = {record["request_id"]: record for record in checker.records_of(gateway)}
    for generation_id, _ in refused.values():
        if generation_id in records:
            assert records[generation_id]["error_code"] == "gateway:ledger_unavailable"
            assert records[generation_id]["provider"] in ("none", "local")
    for mark in refused:
        del sent.acknowledged[mark]  # a refusal may go unrecorded while there is no room: nothing was dispatched
    checker.check(gateway, upstream, sent)
