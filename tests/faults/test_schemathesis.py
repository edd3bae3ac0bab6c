"""The control plane does what its document says: schemathesis calls every operation with data of every kind."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, answer, chat_answer

EXAMPLES = 40
"""Of each kind of data for each operation."""

EXCLUDED = {
    "positive_data_acceptance": "a document cannot say that a name is printable, a scope is the key's own to give, or "
    "an edit fits the body it edits: such requests are valid by the document and refused with 400",
}
"""Checks that do not hold here, and why; every other one does."""

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        importlib.util.find_spec("schemathesis") is None,
        reason="schemathesis is not installed (make faults installs it)",
    ),
]


@pytest.fixture
def gateway(start_gateway: Any) -> Any:
    """Give a gateway that has served a call."""
    with ScriptedUpstream(answer(chat_answer())) as upstream:
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
        running = start_gateway({"providers": {"local": one}})
        yield running
        running.stop()


def settings(folder: Path, call: str, key: str) -> Path:
    """What schemathesis needs to know: who it is, and the ids of things that exist."""
    known = json.dumps({"path.id": call, "query.id": call, "query.a": call, "query.b": call, "path.key_id": key})
    file = folder / "schemathesis.toml"
    lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in json.loads(known).items()]
    file.write_text("[parameters]\n" + "\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize("known", [True, False], ids=["things that exist", "anything"])
def test_the_control_plane_is_as_documented(gateway: Gateway, tmp_path: Path, *, known: bool) -> None:
    """No undocumented status, type or header, no 500, and nothing accepted that the document forbids."""
    body = {"model": "local/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello."}]}
    call = gateway.request("POST", "/v1/chat/completions", body, key=gateway.key()).headers["x-request-id"]
    admin = gateway.command("keys", "create", "--scopes", "admin").stdout.strip()
    config = settings(tmp_path, call, gateway.key().split("_")[2]) if known else None
    command = [
        *(str(Path(sys.executable).parent / "st"), *(("--config-file", str(config)) if config else ()), "run"),
        *(f"{gateway.url}/openapi.json", "-H", f"Authorization: Bearer {admin}"),
        *("--checks", "all", "--exclude-checks", ",".join(EXCLUDED)),
        *("--max-examples", str(EXAMPLES), "--seed", "1", "--workers", "1", "--no-color"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    print("\n".join(done.stdout.splitlines()[-12:]))
    log = gateway.process.log.read_text()
    assert "Traceback" not in log, log[-5000:]
