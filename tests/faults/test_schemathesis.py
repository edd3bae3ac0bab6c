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


def things(gateway: Gateway, admin: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Parameters that name things that exist: those of every operation, and those of the paths that begin in a way."""
    body = {"model": "local/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello."}]}
    call = gateway.request("POST", "/v1/chat/completions", body, key=gateway.key(), headers={"Idempotency-Key": "one"})
    gateway.request("POST", "/v1/chat/completions", body, key=gateway.key(), headers={"Idempotency-Key": "one"})
    generation = call.headers["x-request-id"]
    run = gateway.request("POST", "/v1/replays?team=acme", {"ids": [generation], "sample": 1}, key=admin)
    assert run.status == 201, run.body
    manager = gateway.command("keys", "create", "--scopes", "keys:read").stdout.strip()
    gateway.command("apps", "create", "--team", "acme", "web")
    everywhere = {
        "path.id": generation,
        "query.id": generation,
        "query.a": generation,
        "query.b": generation,
        "path.key_id": gateway.key().split("_")[2],
        "path.team_id": "acme",
        "path.app_id": "web",
        "path.provider": "local",
        "path.name": "local/gpt-4o-mini",
    }
    return everywhere, {
        "/v1/replays": {"path.id": run.json()["run_id"]},
        "/v1/management-keys": {"path.key_id": manager.split("_")[2]},
    }


def settings(folder: Path, everywhere: dict[str, str], below: dict[str, dict[str, str]]) -> Path:
    """What schemathesis needs to know: the ids of things that exist."""
    lines = ["[parameters]", *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in everywhere.items())]
    for path, named in below.items():
        lines += ["[[operations]]", f"include-path-regex = {json.dumps('^' + path)}", "[operations.parameters]"]
        lines += [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in named.items()]
    file = folder / "schemathesis.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize("known", [True, False], ids=["things that exist", "anything"])
def test_the_control_plane_is_as_documented(gateway: Gateway, tmp_path: Path, *, known: bool) -> None:
    """No undocumented status, type or header, no 500, and nothing accepted that the document forbids."""
    admin = gateway.command("keys", "create", "--scopes", "admin").stdout.strip()
    everywhere, below = things(gateway, admin)
    # It finds the keys that there are by itself, and would revoke the one it uses.
    spare = {path: named for path, named in below.items() if "key" in path}
    config = settings(tmp_path, everywhere, below) if known else settings(tmp_path, {}, spare)
    command = [
        *(str(Path(sys.executable).parent / "st"), *("--config-file", str(config)), "run"),
        *(f"{gateway.url}/openapi.json", "-H", f"Authorization: Bearer {admin}"),
        *("--checks", "all", "--exclude-checks", ",".join(EXCLUDED)),
        *("--max-examples", str(EXAMPLES), "--seed", "1", "--workers", "1", "--no-color"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    print("\n".join(done.stdout.splitlines()[-12:]))
    assert gateway.request("GET", "/v1/teams", key=admin).status == 200, "it asked in vain: its key was gone"
    log = gateway.process.log.read_text()
    assert "Traceback" not in log, log[-5000:]
