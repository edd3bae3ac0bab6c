"""The access log, where it is asked for: a line for every request, calls and the control plane's alike."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

from emulators.gateway import Gateway
from emulators.ports import HOST
from emulators.scripted import Hang, ScriptedUpstream, answer, chat_answer
from emulators.waiting import wait_until

BODY = {"model": "local/gpt-4o-mini", "messages": [{"role": "user", "content": "canary"}]}


def lines(log: Path) -> list[str]:
    """Give what the access log says of requests, without the peer."""
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [one["event"].partition(" - ")[2] for one in entries if one["logger"] == "uvicorn.access"]


def test_every_request_has_its_line(start_gateway: Callable[..., Gateway]) -> None:
    """Calls that were served, refused and given up, and what the control plane was asked; and no query and no text."""
    with ScriptedUpstream(lambda _: answer(chat_answer()) if len(upstream.seen) == 1 else [Hang()]) as upstream:
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none"}
        gateway = start_gateway(
            {"providers": {"local": one}, "server": {"access_log": True}, "log": {"format": "json"}}
        )
        gateway.request("POST", "/v1/chat/completions?secret=1", BODY, key=gateway.key())
        gateway.request("POST", "/v1/chat/completions", BODY)
        gateway.request("GET", "/v1/generations?id=gen_x", key=gateway.key())
        gateway.request("POST", "/v1/not%0Athere", BODY, key=gateway.key())
        text = json.dumps(BODY)
        with socket.create_connection((HOST, gateway.port)) as client:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key()}\r\n"
            client.sendall(f"{head}content-length: {len(text)}\r\n\r\n{text}".encode())
            wait_until(lambda: len(upstream.seen) == 2)
        wait_until(lambda: lines(gateway.process.log)[-1].endswith("499"))
        gateway.stop()
        found = [line for line in lines(gateway.process.log) if "/health" not in line]
        assert found == [
            '"POST /v1/chat/completions HTTP/1.1" 200',
            '"POST /v1/chat/completions HTTP/1.1" 401',
            '"GET /v1/generations HTTP/1.1" 404',
            '"POST (unknown) HTTP/1.1" 404',
            '"POST /v1/chat/completions HTTP/1.1" 499',
        ]
        assert "canary" not in gateway.process.log.read_text()
