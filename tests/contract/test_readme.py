"""What the README tells a newcomer to do works as it is written, but for the gateway's address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, Seen, Step, answer, chat_answer

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
ADDRESS = "http://127.0.0.1:8080"


def reply(seen: Seen) -> list[Step]:
    """An answer in the protocol of the path."""
    if seen.path.endswith("/messages"):
        usage = {"input_tokens": 9, "output_tokens": 3}
        text = [{"type": "text", "text": "Hello."}]
        return answer({"id": "msg_1", "type": "message", "role": "assistant", "content": text, "usage": usage})
    if "generateContent" in seen.path:
        part = {"content": {"parts": [{"text": "Hello."}]}, "finishReason": "STOP"}
        return answer({"candidates": [part], "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3}})
    return answer(chat_answer())


@pytest.fixture(scope="module")
def gateway(start_gateway: Any) -> Iterator[Gateway]:
    """Give a gateway with the three providers that the README calls."""
    with ScriptedUpstream(reply) as upstream:
        named = {
            name: {"base_url": upstream.base_url.replace("/v1", path), "api_key": "k"}
            for name, path in (("openai", "/v1"), ("anthropic", "/v1"), ("google", "/v1beta"))
        }
        running = start_gateway({"providers": named})
        yield running
        running.stop()


@pytest.mark.parametrize("example", EXAMPLES, ids=["openai", "anthropic", "google"])
def test_an_example_runs_and_leaves_a_record(gateway: Gateway, example: str) -> None:
    """Each SDK's lines, run in a process of their own, print something, and the call is in the ledger."""
    assert ADDRESS in example
    key = gateway.key()
    before = gateway.request("GET", "/v1/generations/summary", key=key).json()["successes"]
    done = subprocess.run(
        [sys.executable, "-c", example.replace(ADDRESS, gateway.url)],
        env={**os.environ, "KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"gen_[0-9A-Z]{26}", done.stdout)
    if printed:
        assert gateway.record(printed[0])["success"] is True
    else:
        assert "exact" in done.stdout
    assert gateway.request("GET", "/v1/generations/summary", key=key).json()["successes"] == before + 1
