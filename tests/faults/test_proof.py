"""The proof of one record, checked by a script that shares no code with the gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream
from emulators.waiting import PATIENCE_S
from faults import checker
from faults.checker import Sent

SCRIPT = Path(__file__).with_name("check_proof.py")
CALLS = 70
"""More than one group of digests."""


@pytest.fixture(scope="module")
def proof(start_gateway: Any) -> Iterator[dict[str, Any]]:
    """Give the proof of the 67th of 70 records, made by the command line while nothing else runs."""
    with ScriptedUpstream(checker.mixed) as upstream:
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
        gateway: Gateway = start_gateway({"providers": {"local": one}})
        sent = Sent()
        for _ in range(CALLS):
            assert sent.call(gateway, gateway.key()) == 200
        assert gateway.stop() == 0
        generation_id = list(sent.acknowledged.values())[66][0]
        yield json.loads(gateway.command("generations", "show", generation_id, "--proof").stdout)


def check(proof: Any, folder: Path, *key: str) -> subprocess.CompletedProcess[str]:
    """Run the script, isolated from everything that the tests import."""
    path = folder / "proof.json"
    path.write_text(json.dumps(proof))
    command = [sys.executable, "-I", str(SCRIPT), str(path), *key]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_proof_holds_offline(proof: dict[str, Any], tmp_path: Path) -> None:
    """With the public key noted beforehand, the file alone proves the record; the script imports nothing of ours."""
    done = check(proof, tmp_path, proof["public_key"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert proof["request_id"] in done.stdout
    assert proof["group_number"] + proof["place"] > 0
    assert "counterfoil." not in SCRIPT.read_text().replace("docs/guarantees.md", "")


def flipped(text: str) -> str:
    """``text`` with its last hex digit changed."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("record", lambda value: value.replace('"cost_nanos":', '"cost_nanos":1')),
        ("record", lambda value: value.replace('"status_code":200', '"status_code":201')),
        ("previous", flipped),
        ("place", lambda value: value - 1),
        ("group", lambda value: [*value[:-1], flipped(value[-1])]),
        ("group", lambda value: value[::-1]),
        ("groups", lambda value: value[::-1]),
        ("group_number", lambda value: 1 - value),
        ("statement", lambda value: value.replace('"version":1', '"version":2')),
        ("signature", flipped),
        ("public_key", flipped),
        ("request_id", flipped),
    ],
    ids=lambda value: value if isinstance(value, str) else "changed",
)
def test_a_changed_proof_does_not_hold(proof: dict[str, Any], tmp_path: Path, part: str, change: Any) -> None:
    """Whatever is changed, in the record or around it, the script says no."""
    changed = {**proof, part: change(proof[part])}
    assert changed != proof
    done = check(changed, tmp_path, proof["public_key"])
    assert (done.returncode, done.stdout.startswith("NOT PROVEN")) == (1, True)


def test_a_proof_with_another_key_does_not_hold(proof: dict[str, Any], tmp_path: Path) -> None:
    """Whoever noted the operator's key does not believe another one."""
    assert check(proof, tmp_path, "00" * 32).returncode == 1
