"""Clients that leave: every protocol, streamed or not, before and after the first byte, cancelled and drained."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from counterfoil.config.known import KNOWN_PROVIDERS
from counterfoil.providers.disconnect import BILLS_AFTER_CANCEL, stops_billing_on_cancel
from emulators.gateway import Gateway
from emulators.raw import RawClient, post
from emulators.scripted import (
    Close,
    Hang,
    Reset,
    ScriptedUpstream,
    Send,
    Step,
    Until,
    chat_answer,
    chat_frames,
    chunked,
)
from emulators.waiting import PATIENCE_S, wait_until


def sse(*events: dict[str, Any]) -> list[bytes]:
    """Frames as Anthropic (named) and Google (not) write them."""
    named = (b"event: %b\n" % event["type"].encode() if "type" in event else b"" for event in events)
    return [name + b"data: " + json.dumps(event).encode() + b"\n\n" for name, event in zip(named, events, strict=True)]


CLAUDE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5", "stop_reason": "end_turn"}
CLAUDE_TEXT = {"content": [{"type": "text", "text": "Hello."}]}
CLAUDE_FRAMES = sse(
    {"type": "message_start", "message": {**CLAUDE, "content": [], "usage": {"input_tokens": 9, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
)
GEMINI = {"responseId": "g1", "modelVersion": "gemini-2.5-flash"}
GEMINI_TEXT = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hello."}]}, "index": 0}]}
GEMINI_STOP = {"candidates": [{**GEMINI_TEXT["candidates"][0], "finishReason": "STOP"}]}
GEMINI_FRAMES = sse(
    {**GEMINI, **GEMINI_TEXT, "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}},
    {**GEMINI, **GEMINI_TEXT},
    {
        **GEMINI,
        **GEMINI_STOP,
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12},
    },
)


class Protocol(NamedTuple):
    """One way to speak to a provider. ``early`` is what a stream's first frames say of its usage."""

    provider: str
    model: str
    path: str
    stream_path: str
    frames: list[bytes]
    body: bytes
    early: str


PROTOCOLS = {
    "openai": Protocol(
        "openai",
        "gpt-4o-mini",
        "/v1/chat/completions",
        "/v1/chat/completions",
        chat_frames("one", "two", "three"),
        json.dumps(chat_answer()).encode(),
        "absent",
    ),
    "anthropic": Protocol(
        "anthropic",
        "claude-haiku-4-5",
        "/v1/messages",
        "/v1/messages",
        CLAUDE_FRAMES,
        json.dumps({**CLAUDE, **CLAUDE_TEXT, "usage": {"input_tokens": 9, "output_tokens": 3}}).encode(),
        "partial",
    ),
    "google": Protocol(
        "google",
        "gemini-2.5-flash",
        "/v1beta/models/{model}:generateContent",
        "/v1beta/models/{model}:streamGenerateContent?alt=sse",
        GEMINI_FRAMES,
        json.dumps(
            {
                **GEMINI,
                **GEMINI_STOP,
                "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12},
            }
        ).encode(),
        "partial",
    ),
}


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway with each provider twice: hung up on, and read to its end."""
    providers: dict[str, Any] = {}
    for name in PROTOCOLS:
        base_url = upstream.base_url.replace("/v1", "/v1beta") if name == "google" else upstream.base_url
        one = {"type": name, "base_url": base_url, "api_key": "k", "prices": name}
        providers[f"{name}-cancel"] = {**one, "on_disconnect": "cancel"}
        providers[f"{name}-drain"] = {**one, "on_disconnect": "drain", "drain_seconds": PATIENCE_S}
        providers[f"{name}-brief"] = {**one, "on_disconnect": "drain", "drain_seconds": 0.5}
    running = start_gateway({"providers": providers, "estimates": {"tokens": False}})
    running.key()
    yield running
    running.stop()


def steps_of(protocol: Protocol, *, stream: bool) -> list[Step]:
    """The whole answer, its first bytes in the first two steps."""
    if stream:
        return chunked(*protocol.frames)
    body = protocol.body
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    return [Send(head), Send(body[:9]), Send(body[9:])]


def leave(
    gateway: Gateway,
    upstream: ScriptedUpstream,
    protocol: Protocol,
    policy: str,
    *,
    stream: bool,
    late: bool,
    rest: list[Step],
) -> dict[str, Any]:
    """Call, leave before the first byte or after it, then let the provider go on with ``rest``; give the record."""
    name = f"{protocol.provider}-{policy}/{protocol.model}"
    left = threading.Event()
    steps = steps_of(protocol, stream=stream)
    upstream.script = [*(steps[:2] if late else []), Until(left), *rest]
    body: dict[str, Any] = {"messages": [], "model": name, "max_tokens": 9, "stream": stream, "user": "x"}
    if protocol.provider == "google":
        body = {"contents": []}
    path = (protocol.stream_path if stream else protocol.path).format(model=name)
    before, seen = newest(gateway), len(upstream.seen)
    with RawClient(gateway.port) as client:
        client.send(post(path, json.dumps(body).encode(), gateway.key()))
        wait_until(lambda: len(upstream.seen) == seen + 1)
        if late and stream:
            client.read_until(protocol.frames[0])
        socket = served_socket(gateway, client.socket.getsockname()[1])
        client.reset()
    wait_until(lambda: socket not in open_sockets(gateway))
    left.set()
    wait_until(lambda: newest(gateway) != before)
    return gateway.record(newest(gateway))


def served_socket(gateway: Gateway, port: int) -> str:
    """The gateway's end of the connection from a client's ``port``, as its process names it."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    pair = (f"0100007F:{gateway.port:04X}", f"0100007F:{port:04X}")
    return next(f"socket:[{line[9]}]" for line in lines if (line[1], line[2]) == pair)


def open_sockets(gateway: Gateway) -> set[str]:
    """The sockets that the gateway's process has open; a client's is closed when it was noticed that it left."""
    found: set[str] = set()
    for entry in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    return found


def newest(gateway: Gateway) -> str:
    """The id of the newest record."""
    listed = gateway.request("GET", "/v1/generations/search?limit=1", key=gateway.key()).json()["data"]
    return listed[0]["request_id"] if listed else ""


@pytest.mark.parametrize("late", [False, True], ids=["before-the-first-byte", "after-it"])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_cancelled_provider_is_hung_up_on(
    gateway: Gateway, upstream: ScriptedUpstream, name: str, stream: bool, late: bool
) -> None:
    """499, with what the frames had said of the usage and nothing more; a cost that is not known never looks known."""
    protocol, hung_up = PROTOCOLS[name], upstream.hung_up
    record = leave(gateway, upstream, protocol, "cancel", stream=stream, late=late, rest=[Hang()])
    wait_until(lambda: upstream.hung_up == hung_up + 1)
    assert (record["status_code"], record["error_code"]) == (499, "user:client_disconnected")
    source = protocol.early if stream and late else "absent"
    assert record["usage"]["source"] == source
    assert record["usage"]["prompt_tokens"] == (9 if source == "partial" else 0)
    assert record["cost_state"] in ("partial", "unknown") or (not late and record["cost_state"] == "free")
    assert record["attempts"][0]["provider"] == f"{name}-cancel"
    if stream and late:
        assert record["bytes_delivered"] >= len(protocol.frames[0])
        assert record["native_response_id"] is not None


@pytest.mark.parametrize("late", [False, True], ids=["before-the-first-byte", "after-it"])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_drained_provider_is_read_to_its_end(
    gateway: Gateway, upstream: ScriptedUpstream, name: str, stream: bool, late: bool
) -> None:
    """499, the provider's own usage, an exact cost, and the whole answer in the capture."""
    protocol, hung_up = PROTOCOLS[name], upstream.hung_up
    steps = steps_of(protocol, stream=stream)
    record = leave(gateway, upstream, protocol, "drain", stream=stream, late=late, rest=steps[2:] if late else steps)
    assert upstream.hung_up == hung_up
    assert (record["status_code"], record["error_code"]) == (499, "user:client_disconnected")
    assert (record["usage"]["source"], record["usage"]["total_tokens"]) == ("reported", 12)
    assert record["cost_state"] == "exact"
    assert record["cost_nanos"] > 0
    assert record["finish_reason"] is not None
    content = gateway.request("GET", f"/v1/generations/{record['request_id']}/content?part=response", key=gateway.key())
    assert content.body == (b"".join(protocol.frames) if stream else protocol.body)


@pytest.mark.parametrize(
    ("rest", "code"),
    [([Reset()], "upstream:"), ([Close()], "upstream:"), ([Send(b"a\r\ndata: {}\n\n\r\n"), Hang()], None)],
    ids=["reset", "close", "endless"],
)
def test_what_happens_while_draining_does_not_change_who_left_first(
    gateway: Gateway, upstream: ScriptedUpstream, rest: list[Step], code: str | None
) -> None:
    """499 also when the provider then broke (the message says so), or took longer than drain_seconds."""
    protocol = PROTOCOLS["anthropic"]
    record = leave(gateway, upstream, protocol, "brief", stream=True, late=True, rest=rest)
    assert (record["status_code"], record["error_code"]) == (499, "user:client_disconnected")
    assert (code is not None) == ("upstream:" in record["error_message"])
    assert record["usage"]["source"] == "partial"


def test_the_default_follows_what_is_known_of_each_provider() -> None:
    """Whoever is known to go on billing is drained; a type google always; everybody else is hung up on."""
    for name, known in KNOWN_PROVIDERS.items():
        assert stops_billing_on_cancel(name, known.type) == (name not in BILLS_AFTER_CANCEL)
    assert not stops_billing_on_cancel("my-own", "google")
    assert stops_billing_on_cancel("my-own", "openai")


def test_the_page_has_the_list_that_the_gateway_has(repository: Any) -> None:
    """Every provider that is drained by default is named in the documents."""
    page = (repository / "docs" / "disconnects.md").read_text("utf-8")
    assert [name for name in BILLS_AFTER_CANCEL if f"`{name}`" not in page] == []
