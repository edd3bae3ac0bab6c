"""What the gateway makes is for its owner alone, whatever the umask of whoever starts it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, answer, chat_answer


@pytest.fixture
def careless() -> Iterator[None]:
    """Give a umask that keeps nothing from anybody."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless")
def test_everything_is_private(start_gateway: Any) -> None:
    """Folders 0700 and files 0600: after calls, commands, an erasure, a stop and another start."""
    with ScriptedUpstream(answer(chat_answer())) as upstream:
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
        gateway: Gateway = start_gateway({"providers": {"local": one}}, workers=2)
        for _ in range(3):
            body = {"model": "local/gpt-4o-mini", "messages": []}
            answered = gateway.request("POST", "/v1/chat/completions", body, key=gateway.key())
            assert answered.status == 200
        gateway.command("generations", "list")
        gateway.command("ledger", "verify")
        gateway.command("ledger", "checkpoint")
        assert not open_to_others(gateway)
        gateway.stop()
        gateway.start()
        assert not open_to_others(gateway)
        gateway.stop()
    assert not open_to_others(gateway)


def open_to_others(gateway: Gateway) -> list[str]:
    """What anybody but the owner may read, write or enter."""
    found = [gateway.data, *gateway.data.rglob("*")]
    assert len(found) > 10
    return [f"{path} {path.stat().st_mode:o}" for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]
