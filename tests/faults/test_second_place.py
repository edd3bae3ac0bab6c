"""A ledger that is put back to last week's is perfect in itself; the second place knows better."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from emulators import sink
from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream
from emulators.waiting import wait_until
from faults import checker
from faults.checker import Sent


def verify(gateway: Gateway, *options: str) -> tuple[int, set[str]]:
    """The exit status of ``ledger verify`` and the kinds of problems it found."""
    said = gateway.command("ledger", "verify", "--json", *options, check=False)
    return said.returncode, {problem["kind"] for problem in json.loads(said.stdout)["problems"]}


def test_a_roll_back_shows_against_both_second_places(
    start_gateway: Any, local_config: dict[str, Any], upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Signed checkpoints reach a folder and an address while calls go on; either reveals the older copy."""
    upstream.script = checker.mixed
    folder = tmp_path / "second"
    folder.mkdir()
    with sink.running() as address:
        places = {"checkpoint_folder": str(folder), "checkpoint_url": address.url, "checkpoint_token": "t0ken"}
        ledger = {"checkpoint_seconds": 0.2, **places}
        gateway: Gateway = start_gateway({**local_config, "ledger": ledger}, workers=2)
        sent = Sent()
        for number in range(8):
            assert sent.call(gateway, gateway.key(), stream=number % 2 == 0) == 200
        wait_until(lambda: len(address.lines) >= 1)
        assert gateway.stop() == 0
        older = gateway.data.with_name("older")
        shutil.copytree(gateway.data, older)
        gateway.start()
        assert sent.call(gateway, gateway.key()) == 200
        checker.check(gateway, upstream, sent)
        assert gateway.stop() == 0
        lines = b"\n".join(address.lines) + b"\n"
    assert address.headers[0]["authorization"] == "Bearer t0ken"
    kept = tmp_path / "checkpoints.jsonl"
    kept.write_bytes(lines)
    assert set(lines.splitlines()) == {line for path in folder.iterdir() for line in path.read_bytes().splitlines()}
    for place in (folder, kept):
        assert verify(gateway, "--checkpoints", str(place)) == (0, set())
    for path in gateway.data.glob("ledger.db*"):
        path.unlink()
    shutil.copyfile(older / "ledger.db", gateway.data / "ledger.db")
    assert verify(gateway) == (0, set())
    for place in (folder, kept):
        status, kinds = verify(gateway, "--checkpoints", str(place))
        assert (status, kinds) == (1, {"truncated", "witness"})
    assert b"Say" not in lines
    assert b"acme" not in lines
