"""Small bodies that would become large ones: refused or passed on in pieces, in bounded memory, with a record."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import zstandard

from emulators.gateway import Gateway
from emulators.raw import RawClient, post
from emulators.scripted import ScriptedUpstream, Send, Step, answer, chat_answer, chat_frames

CHAT = "/v1/chat/completions"
GROWTH_MAX = 96 << 20
"""How much the gateway's peak memory may have grown after all of this: half of any of the bombs."""

AT_REST: list[int] = []
ZEROS = bytes(192 << 20)
LARGE = (b"".join(b"%07d" % (number * 7919 % 9999991) for number in range(600)) + bytes(120_000)) * 700
HONEST = gzip.compress(b"".join(chat_frames("x", "y")))


@cache
def bomb(data: bytes, coding: str) -> bytes:
    """``data`` in a coding, as small as it gets."""
    match coding:
        case "gzip":
            return gzip.compress(data, 9)
        case "deflate":
            return zlib.compress(data, 9)
        case "gzip, gzip":
            return gzip.compress(gzip.compress(data, 9), 9)
        case _:
            return zstandard.ZstdCompressor(19).compress(data)  # also under the name br: nobody looks inside


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider that answers with what each test puts in."""
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway that holds no more than a megabyte of an answer."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
    running = start_gateway({"providers": {"local": one}, "limits": {"answer_bytes_held": 1 << 20}})
    upstream.script = answer({name: value for name, value in chat_answer("x").items() if name != "usage"})
    call(running, stream=False)  # without usage, so that whatever counts tokens here is loaded
    AT_REST.append(peak_bytes(running))
    yield running
    running.stop()


def peak_bytes(gateway: Gateway) -> int:
    """The most memory that the gateway ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{gateway.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def call(gateway: Gateway, *, stream: bool) -> tuple[int, bytes, dict[str, Any]]:
    """Status, body and record of a call."""
    said = gateway.request(
        "POST", CHAT, {"model": "local/gpt-4o-mini", "messages": [], "stream": stream}, key=gateway.key()
    )
    return said.status, said.body, gateway.record(said.headers["x-request-id"])


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip", "br", "zstd"])
def test_a_bomb_from_a_provider(gateway: Gateway, upstream: ScriptedUpstream, coding: str, *, stream: bool) -> None:
    """200 MB in 200 kB: an invalid answer, said and recorded, and no memory for it."""
    media_type = "text/event-stream" if stream else "application/json"
    upstream.script = answer(bomb(ZEROS, coding), content_type=media_type, content_encoding=coding)
    status, body, record = call(gateway, stream=stream)
    assert status == 502
    assert b"upstream:invalid_response" in body
    assert record["error_code"] == "upstream:invalid_response"
    assert peak_bytes(gateway) < AT_REST[-1] + GROWTH_MAX


def test_a_large_answer_that_is_no_bomb(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Ninety megabytes that compress well, but not beyond reason, pass in pieces."""
    packed = gzip.compress(LARGE, 6)
    assert 40 < len(LARGE) / len(packed) < 190
    upstream.script = answer(packed, content_encoding="gzip")
    status, body, record = call(gateway, stream=False)
    assert status == 200
    assert len(body) == len(LARGE)
    assert record["capture"]["state"] == "too_large"
    assert peak_bytes(gateway) < AT_REST[-1] + GROWTH_MAX


def test_a_connection_that_was_paused_serves_the_next_call(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A provider's last piece that is too much at once for the client pauses its connection; it must not stay so."""
    upstream.script = answer(gzip.compress(LARGE, 6), content_encoding="gzip")
    status, _, _ = call(gateway, stream=False)
    assert status == 200
    upstream.script = answer(chat_answer())
    assert call(gateway, stream=False)[0] == 200


@pytest.mark.parametrize("behind", [b"garbage" * 9, HONEST], ids=["garbage", "a second member"])
@pytest.mark.parametrize("together", [True, False])
def test_what_follows_the_end(gateway: Gateway, upstream: ScriptedUpstream, behind: bytes, *, together: bool) -> None:
    """Behind a coded body's own end nothing may come, whether with its last piece or later."""
    head, coded = answer(gzip.compress(b'{"choices":[]}'), content_encoding="gzip")[0].data.split(b"\r\n\r\n", 1)
    head = re.sub(rb"content-length: \d+", b"content-length: %d" % len(coded + behind), head) + b"\r\n\r\n"
    steps: list[Step] = [Send(head + coded + behind)] if together else [Send(head + coded), Send(behind)]
    upstream.script = steps
    status, body, record = call(gateway, stream=False)
    assert (status, record["error_code"]) == (502, "upstream:invalid_response"), body


def test_an_error_without_end(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Errors are held whole, so they have a bound: beyond it they are ours."""
    piece = b'{"error":' + b"x" * (1 << 16)
    chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
    upstream.script = [Send(b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n"), *[Send(chunk)] * 4000]
    status, body, record = call(gateway, stream=False)
    assert status == 502
    assert b"upstream:response_too_large" in body
    assert record["error_code"] == "upstream:response_too_large"
    assert peak_bytes(gateway) < AT_REST[-1] + GROWTH_MAX


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip"])
def test_a_coded_request(gateway: Gateway, upstream: ScriptedUpstream, coding: str) -> None:
    """It is refused before a byte of it is decoded, and has a record; nothing goes to the provider."""
    upstream.script = answer(chat_answer())
    before = len(upstream.seen)
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, bomb(bytes(1 << 20), coding), gateway.key(), content_encoding=coding))
        reply = client.reply()
    assert reply.status == 415
    assert gateway.record(reply.generation_id)["error_code"] == "user:unsupported_encoding"
    assert len(upstream.seen) == before
