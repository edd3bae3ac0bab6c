"""Providers at their worst: storms of refusals, answers before the question is read, lines without end, lying usage."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from emulators.gateway import Gateway
from emulators.raw import RawClient, Reply, post
from emulators.scripted import (
    Close,
    Hang,
    Reset,
    ScriptedUpstream,
    Send,
    Step,
    answer,
    chat_answer,
    chat_frames,
    chunked,
)
from emulators.waiting import wait_until

CHAT = "/v1/chat/completions"
UNARY = b'{"model":"local/gpt-4o-mini","messages":[]}'
STREAM = b'{"model":"local/gpt-4o-mini","messages":[],"stream":true}'
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
INVALID = "upstream:invalid_response"
FRAMES = chat_frames("one", "zw\u00f6lf \u2713 \U0001f980", "three")
MIB = 1 << 20


@pytest.fixture(scope="module")
def hasty() -> Iterator[ScriptedUpstream]:
    """Give a provider that answers as soon as it has read the head of a request."""
    with ScriptedUpstream(early=True) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream, hasty: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway in front of both. It estimates nothing: what counts here is what was said."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
    providers = {
        "local": one,
        "silent": {**one, "timeouts": {"first_byte_seconds": 1.5}},
        "stalled": {**one, "timeouts": {"idle_seconds": 1.5}},
        "hasty": {**one, "base_url": hasty.base_url},
    }
    models = {"safe": ["local/down", "local/gpt-4o-mini"]}
    running = start_gateway({"providers": providers, "models": models, "estimates": {"tokens": False}})
    running.key()
    yield running
    running.stop()


def call(gateway: Gateway, body: bytes = UNARY, path: str = CHAT) -> Reply:
    """One call and its answer."""
    with RawClient(gateway.port) as client:
        client.send(post(path, body, gateway.key()))
        return client.reply()


def memory_bytes(gateway: Gateway) -> int:
    """The most memory that the gateway's process has had in use."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


# Storms ---------------------------------------------------------------------------------------------------------------


def test_a_storm_of_refusals_is_recorded_call_by_call(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Four hundred calls from twenty clients at once, four kinds of refusal: each passes, each has its own record."""
    numbers = itertools.count()
    kinds = [
        (429, "upstream:rate_limited"),
        (500, "upstream:error"),
        (503, "upstream:overloaded"),
        (0, "upstream:connection_reset"),
    ]

    def script(_: Any) -> list[Step]:
        status, _ = kinds[next(numbers) % len(kinds)]
        return answer(b'{"error":{"message":"no"}}', status) if status else [Reset()]

    upstream.script = script
    seen = len(upstream.seen)
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: call(gateway), range(400)))
    assert len(upstream.seen) == seen + 400
    said = Counter(reply.status for reply in replies)
    assert said == {429: 100, 500: 100, 503: 100, 502: 100}
    exported = gateway.request("GET", "/v1/generations/export", key=gateway.key())
    records = {record["request_id"]: record for record in map(json.loads, exported.body.splitlines()[:-1])}
    codes = Counter(records[reply.generation_id]["error_code"] for reply in replies)
    assert codes == {code: 100 for _, code in kinds}
    assert all(records[reply.generation_id]["cost_nanos"] == 0 for reply in replies)
    upstream.script = answer(chat_answer())
    assert call(gateway).status == 200


def test_a_storm_costs_each_call_one_try_of_each_target(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A fallback multiplies a storm by the number of targets, never by more: nothing is retried on its own."""
    upstream.script = lambda seen: (
        answer(b'{"error":{}}', 429) if seen.json["model"] == "down" else answer(chat_answer())
    )
    body, seen = UNARY.replace(b"local/gpt-4o-mini", b"safe"), len(upstream.seen)
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: call(gateway, body), range(200)))
    assert {reply.status for reply in replies} == {200}
    assert len(upstream.seen) == seen + 400


LIMITS = {
    "retry-after": "7",
    "retry-after-ms": "6500",
    "x-ratelimit-limit-requests": "100",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-requests": "1s",
    "anthropic-ratelimit-tokens-reset": "2026-11-02T10:00:00Z",
}


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (200, json.dumps(chat_answer()).encode(), "application/json"),
        (429, b'{"error":{"message":"slow down"}}', "application/json"),
        (503, b"<html>busy</html>", "text/html"),
        (429, b"", "text/plain"),
    ],
    ids=["answer", "refusal", "page", "empty"],
)
def test_a_providers_limits_reach_the_client(
    gateway: Gateway, upstream: ScriptedUpstream, status: int, body: bytes, content_type: str
) -> None:
    """Retry-After and the rate-limit headers pass, also beside an error that we had to put into words ourselves."""
    upstream.script = answer(body, status, content_type, **LIMITS)
    reply = call(gateway)
    assert reply.status == status
    assert {name: reply.headers.get(name) for name in LIMITS} == LIMITS


def test_a_provider_cannot_speak_in_our_name(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """What we say of repeats comes from us, or under another name."""
    upstream.script = answer(chat_answer(), idempotent_replayed="true", x_counterfoil_repeat_of="gen_x")
    reply = call(gateway)
    assert not {"idempotent-replayed", "x-counterfoil-repeat-of"} & reply.headers.keys()
    assert reply.headers["x-upstream-idempotent-replayed"] == "true"


# Answers before the question is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("then", [Close(), Reset(), Hang()], ids=["close", "reset", "hang"])
@pytest.mark.parametrize("size", [4 << 10, 24 * MIB], ids=["small", "large"])
def test_an_answer_that_comes_while_we_still_send_reaches_the_client(
    gateway: Gateway, hasty: ScriptedUpstream, size: int, then: Step
) -> None:
    """413 before the body was read, then the connection is gone: the client gets the 413, not a broken pipe.

    Where a reset destroys what was not read yet, as Linux does not, it is a reset, cleanly told.
    """
    said = b'{"error":{"message":"too large for me"}}'
    hasty.script = [*answer(said, 413, connection="close"), then]
    body = b'{"model":"hasty/gpt-4o-mini","messages":[{"role":"user","content":"%b"}]}' % (b"x" * size)
    reply = call(gateway, body)
    told = [(413, "user:provider_rejected")]
    told += [(502, "upstream:connection_reset")] if then == Reset() and size > MIB and sys.platform != "linux" else []
    record = gateway.record(reply.generation_id)
    assert (record["status_code"], record["error_code"]) in told
    assert reply.status == record["status_code"]
    assert reply.body == said or reply.status == 502
    hasty.script = answer(chat_answer())
    assert call(gateway, UNARY.replace(b"local/", b"hasty/")).status == 200


# Heads and bodies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "then", "code"),
    [
        pytest.param(OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!", Close(), INVALID, id="two-lengths"),
        pytest.param(
            OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Close(),
            INVALID,
            id="both-framings",
        ),
        pytest.param(OK + b"content-length: -1\r\n\r\nx", Close(), INVALID, id="negative-length"),
        pytest.param(OK + b"bad header\r\n\r\n", Close(), INVALID, id="bad-header"),
        pytest.param(b"HTTP/1.1 200 OK\nno: cr\n\n{}", Close(), INVALID, id="bare-lf"),
        pytest.param(b"HTTP/7.7 200 OK\r\n\r\n", Close(), INVALID, id="version"),
        pytest.param(b"HTTP/1.1 99999 What\r\n\r\n", Close(), INVALID, id="status"),
        pytest.param(b"{}", Close(), INVALID, id="no-http"),
        pytest.param(b"\x16\x03\x01\x00\x05hello", Close(), INVALID, id="tls"),
        pytest.param(b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", Hang(), INVALID, id="101"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", Hang(), "upstream:timeout", id="100-silence"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", Close(), "upstream:connection_reset", id="100-close"),
        pytest.param(SSE_HEAD, Hang(), "upstream:timeout", id="head-silence"),
        pytest.param(SSE_HEAD + b"-1\r\n", Close(), INVALID, id="negative-chunk"),
        pytest.param(SSE_HEAD + b"fffffffffffffffff\r\n", Close(), INVALID, id="huge-chunk"),
        pytest.param(SSE_HEAD + b"3\r\nabcdef", Close(), INVALID, id="long-chunk"),
    ],
)
@pytest.mark.parametrize("body", [UNARY, STREAM], ids=["unary", "stream"])
def test_what_is_no_answer_is_a_clean_error(
    gateway: Gateway, upstream: ScriptedUpstream, said: bytes, then: Step, code: str, body: bytes
) -> None:
    """502 or 504 in the client's own protocol, whatever bytes came; the next call works."""
    upstream.script = [Send(said), then]
    reply = call(gateway, body.replace(b"local/", b"silent/") if code == "upstream:timeout" else body)
    assert (reply.status, reply.json()["error"]["code"]) == (504 if code == "upstream:timeout" else 502, code)
    record = gateway.record(reply.generation_id)
    assert (record["error_code"], record["usage"]["source"], record["cost_nanos"]) == (code, "absent", 0)
    upstream.script = answer(chat_answer())
    assert call(gateway).status == 200


# Event streams --------------------------------------------------------------------------------------------------------

CRLF_FRAMES = [frame.replace(b"\n", b"\r\n") for frame in FRAMES]
WHOLE = b"".join(FRAMES)


def cut(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of ``size``."""
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize(
    ("pieces", "withheld"),
    [
        (cut(WHOLE, 1), FRAMES[-2]),
        (cut(WHOLE, 7), FRAMES[-2]),
        ([WHOLE], FRAMES[-2]),
        (CRLF_FRAMES, CRLF_FRAMES[-2]),
        (cut(b"".join(CRLF_FRAMES), 3), CRLF_FRAMES[-2]),
        ([b"\xef\xbb\xbf" + FRAMES[0], *FRAMES[1:]], FRAMES[-2]),
        ([b": keep-alive\n\n", *FRAMES[:2], b": again\n\n", *FRAMES[2:]], FRAMES[-2]),
        ([b"retry: 10\nid: 1\n" + FRAMES[0], *FRAMES[1:]], FRAMES[-2]),
    ],
    ids=["bytes", "sevens", "one", "crlf", "crlf-threes", "bom", "comments", "fields"],
)
def test_however_a_stream_is_cut_it_arrives_and_is_metered(
    gateway: Gateway, upstream: ScriptedUpstream, pieces: list[bytes], withheld: bytes
) -> None:
    """Characters, frames and line ends split anywhere: the same bytes for the client, the same usage in the record."""
    upstream.script = chunked(*pieces)
    reply = call(gateway, STREAM)
    assert reply.body == b"".join(pieces).replace(withheld, b"")
    record = gateway.record(reply.generation_id)
    assert (record["success"], record["finish_reason"]) == (True, "stop")
    assert (record["usage"]["source"], record["usage"]["total_tokens"]) == ("reported", 12)


@pytest.mark.parametrize(
    "junk",
    [
        b"data: {not json}\n\n",
        b"data: \xff\xfe\xff\n\n",
        b"data: [1,2,3]\n\n",
        b"data: null\n\n",
        b"event: \x00\n\n",
        b'data: {"choices":"none"}\n\n',
        b'data: {"choices":[null,{"delta":7}],"usage":"many"}\n\n',
        b"data: " + b"[" * 5000 + b"\n\n",
        b"\n\n\n\n",
        b"nonsense\n\n",
    ],
    ids=["no-json", "no-utf8", "list", "null", "nul", "text", "types", "deep", "blank", "no-field"],
)
def test_frames_that_mean_nothing_pass_and_hurt_nothing(
    gateway: Gateway, upstream: ScriptedUpstream, junk: bytes
) -> None:
    """The bytes are the provider's to send; the meter goes on with the next frame."""
    upstream.script = chunked(*FRAMES[:2], junk, *FRAMES[2:])
    reply = call(gateway, STREAM)
    assert reply.body == b"".join([*FRAMES[:2], junk, *FRAMES[2:-2], FRAMES[-1]])
    record = gateway.record(reply.generation_id)
    assert (record["success"], record["usage"]["total_tokens"]) == (True, 12)


def test_a_line_of_64_mib_passes_in_bounded_memory(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """It is relayed as it comes; the capture gives up at its own bound, the meter holds no more than a megabyte."""
    call(gateway)
    before = memory_bytes(gateway)
    line = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * (64 * MIB))
    upstream.script = chunked(*FRAMES[:2], *cut(line, MIB), *FRAMES[2:])
    reply = call(gateway, STREAM)
    assert len(reply.body) == len(b"".join([*FRAMES[:2], line, *FRAMES[2:-2], FRAMES[-1]]))
    assert reply.body.endswith(FRAMES[-1])
    record = gateway.record(reply.generation_id)
    assert (record["success"], record["usage"]["total_tokens"]) == (True, 12)
    assert record["replay_unavailable_reason"] == "too_large"
    assert memory_bytes(gateway) - before < 48 * MIB
    # The connection was paused for the reader when the answer ended on it, and is good for the next call all the same.
    connections = upstream.connections
    upstream.script = answer(chat_answer())
    assert call(gateway).status == 200
    assert upstream.connections == connections


def test_a_line_without_end_is_cut_when_its_provider_falls_silent(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A line is no frame until it ends: the client has what came, and an error frame."""
    upstream.script = [*chunked(*FRAMES[:2], b"data: " + b"x" * (3 * MIB), end=False), Hang()]
    reply = call(gateway, STREAM.replace(b"local/", b"stalled/"))
    assert reply.status == 200
    assert b"upstream:idle_timeout" in reply.body[-400:]
    assert gateway.record(reply.generation_id)["error_code"] == "upstream:idle_timeout"


# Usage that contradicts itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "counts", "source"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}, (9, 3, 12), "reported"),
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 7}, (9, 3, 12), "reported"),
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 0}, (9, 3, 12), "reported"),
        ({"prompt_tokens": 9, "completion_tokens": -3, "total_tokens": 6}, (9, 0, 9), "partial"),
        ({"prompt_tokens": -1, "completion_tokens": 3, "total_tokens": 2}, (0, 3, 3), "partial"),
        ({"prompt_tokens": 9.5, "completion_tokens": 3, "total_tokens": 12}, (0, 3, 3), "partial"),
        ({"prompt_tokens": "9", "completion_tokens": 3, "total_tokens": 12}, (0, 3, 3), "partial"),
        ({"prompt_tokens": True, "completion_tokens": 3, "total_tokens": 4}, (0, 3, 3), "partial"),
        ({"prompt_tokens": 10**30, "completion_tokens": 3, "total_tokens": 4}, (0, 3, 3), "partial"),
        ({"prompt_tokens": 9, "completion_tokens": 10**30, "total_tokens": 12}, (9, 3, 12), "partial"),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": "none"}, (9, 3, 12), "reported"),
        ([9, 3], (0, 0, 0), "absent"),
        ("plenty", (0, 0, 0), "absent"),
        ({}, (0, 0, 0), "absent"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_usage_that_cannot_be_is_never_taken_for_whole(
    gateway: Gateway, upstream: ScriptedUpstream, usage: Any, counts: tuple[int, int, int], source: str, stream: bool
) -> None:
    """The record's total is prompt plus completion, always; a count that is none makes the usage partial."""
    if stream:
        frame = b'data: {"id":"x","object":"chat.completion.chunk","choices":[],"usage":%b}\n\n'
        upstream.script = chunked(*FRAMES[:-2], frame % json.dumps(usage).encode(), FRAMES[-1])
    else:
        upstream.script = answer({**chat_answer(), "usage": usage})
    reply = call(gateway, STREAM if stream else UNARY)
    assert reply.status == 200
    record = gateway.record(reply.generation_id)
    said = record["usage"]
    assert (said["prompt_tokens"], said["completion_tokens"], said["total_tokens"]) == counts
    assert said["source"] == source
    assert record["cost_nanos"] == sum(line["amount_nanos"] for line in record["pricing_lines"])
    known = {"reported": ("exact", "estimated"), "partial": ("partial", "unknown"), "absent": ("unknown", "estimated")}
    assert record["cost_state"] in known[source]


def test_a_provider_that_talks_on_behind_the_end_is_hung_up_on(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """While the record waits for the disk only so much is held of what comes behind the end marker."""
    behind = b": " + b"x" * 65_536 + b"\n\n"
    head, *frames = chunked(*FRAMES, end=False)
    upstream.script = [head, *frames, *chunked(*[behind] * 2000, end=False)[1:], Hang()]
    hung_up = upstream.hung_up
    with RawClient(gateway.port) as client, closing(apsw.Connection(str(gateway.data / "ledger.db"))) as other:
        other.execute("BEGIN IMMEDIATE")
        client.send(post(CHAT, STREAM, gateway.key()))
        wait_until(lambda: upstream.hung_up > hung_up)
        other.execute("ROLLBACK")
        reply = client.reply()
    assert reply.body.startswith(b"".join(FRAMES[:-2]) + FRAMES[-1] + behind)
    record = gateway.record(reply.generation_id)
    assert (record["success"], record["usage"]["source"]) == (True, "reported")


def test_of_two_usage_frames_the_later_counts(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Providers that report as they go report the sum so far."""
    frame = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}\n\n'
    upstream.script = chunked(*FRAMES[:-2], frame % (1, 10), frame % (5, 14), FRAMES[-1])
    reply = call(gateway, STREAM)
    assert gateway.record(reply.generation_id)["usage"]["completion_tokens"] == 5
