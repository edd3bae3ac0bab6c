"""Providers that misbehave: the client gets a clear answer, the record the truth, and the gateway goes on."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

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
    Until,
    Wait,
    answer,
    chat_answer,
    chat_frames,
    chunked,
)
from emulators.waiting import PATIENCE_S, wait_until

CHAT = "/v1/chat/completions"
UNARY = b'{"model":"local/gpt-4o-mini","messages":[]}'
STREAM = b'{"model":"local/gpt-4o-mini","messages":[],"stream":true}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
IMPATIENT = {"upstream:timeout": "silent", "upstream:idle_timeout": "stalled"}
"""Which provider is given up on with which error."""
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway in front of it, with a short time for the first byte or between two or not, and of nobody."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
    running = start_gateway(
        {
            "providers": {
                "local": one,
                "silent": {**one, "timeouts": {"first_byte_seconds": 0.6}},
                "stalled": {**one, "timeouts": {"idle_seconds": 1.5}},
                "drained": {**one, "on_disconnect": "drain", "drain_seconds": PATIENCE_S},
                "nobody": {**one, "base_url": "http://127.0.0.1:9/v1"},
            },
            "models": {
                "safe": ["nobody/gpt-4o-mini", "local/gpt-4o-mini"],
                "twice": ["local/first", "local/gpt-4o-mini"],
            },
        }
    )
    yield running
    running.stop()


def call(gateway: Gateway, body: bytes = UNARY) -> Reply:
    """One call and its answer."""
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, body, gateway.key()))
        return client.reply()


def frames_of(*frames: bytes) -> bytes:
    """The bytes of an event stream."""
    return b"".join(frames)


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        pytest.param([Reset()], 502, "upstream:connection_reset", id="reset"),
        pytest.param([Close()], 502, "upstream:connection_reset", id="close"),
        pytest.param([Hang()], 504, "upstream:timeout", id="silent"),
        pytest.param([Send(HEAD), Hang()], 504, "upstream:timeout", id="half-a-head"),
        pytest.param([Send(HEAD + b"content-length: 9\r\n\r\n"), Hang()], 504, "upstream:timeout", id="head-only"),
        pytest.param([Send(HEAD + b"content-length: 99\r\n\r\n{"), Hang()], 504, "upstream:idle_timeout", id="stall"),
        pytest.param(
            [Send(HEAD + b"content-length: 99\r\n\r\n{"), Close()], 502, "upstream:truncated", id="short-body"
        ),
        pytest.param([Send(b"SSH-2.0-OpenSSH\r\n\r\n"), Close()], 502, "upstream:invalid_response", id="not-http"),
        pytest.param(
            [Send(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"), Close()],
            502,
            "upstream:invalid_response",
            id="bad-chunk",
        ),
        pytest.param(
            [Send(HEAD + b"x: " + b"a" * (300 << 10)), Close()], 502, "upstream:response_too_large", id="huge-head"
        ),
        pytest.param(answer(b"", 302, location="http://127.0.0.1:1/"), 502, "upstream:error", id="redirect"),
        pytest.param(
            answer(gzip.compress(bytes(32 << 20)), content_encoding="gzip"), 502, "upstream:invalid_response", id="bomb"
        ),
        pytest.param(
            answer(b"<html>Bad gateway</html>", 502, "text/html"), 502, "upstream:error", id="page-instead-of-json"
        ),
        pytest.param(answer(b"", 503), 503, "upstream:overloaded", id="empty-503"),
    ],
)
def test_a_broken_answer_becomes_a_clear_error(
    gateway: Gateway, upstream: ScriptedUpstream, script: list[Step], status: int, code: str
) -> None:
    """The client gets an error in its own shape, never half an answer; the record names the fault and the attempt."""
    upstream.script = script
    body = UNARY.replace(b"local/", IMPATIENT.get(code, "local").encode() + b"/")
    reply = call(gateway, body)
    assert reply.status == status
    assert reply.json()["error"]["code"] == code
    record = gateway.record(reply.generation_id)
    assert (record["status_code"], record["error_code"], record["success"]) == (status, code, False)
    assert record["attempts"][0]["error_code"] == code
    assert record["latency_ms"] <= record["generation_ms"]
    assert record["cost_nanos"] == 0
    told = record["attempts"][0]["status_code"] or 0
    assert record["cost_state"] == ("free" if told >= 300 else "unknown")  # silence may have been charged for
    assert record["replay_request"] == json.loads(body)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "user:provider_rejected"),
        (401, "upstream:unauthorized"),
        (404, "user:provider_rejected"),
        (422, "user:provider_rejected"),
        (429, "upstream:rate_limited"),
        (500, "upstream:error"),
        (503, "upstream:overloaded"),
        (529, "upstream:overloaded"),
    ],
)
@pytest.mark.parametrize("body", [UNARY, STREAM], ids=["unary", "stream"])
def test_a_providers_own_error_passes_verbatim(
    gateway: Gateway, upstream: ScriptedUpstream, status: int, code: str, body: bytes
) -> None:
    """Status, body and Retry-After are the provider's; the record says who is to blame."""
    said = b'{"error": {"message": "no",  "type": "x", "code": null}}'
    upstream.script = answer(said, status, retry_after="7")
    reply = call(gateway, body)
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (status, said, "7")
    record = gateway.record(reply.generation_id)
    assert (record["status_code"], record["error_code"], record["stream"]) == (status, code, body is STREAM)
    assert "no" in record["error_message"]


FRAMES = chat_frames("one", "two", "three")


@pytest.mark.parametrize(
    ("script", "code", "source"),
    [
        pytest.param([*chunked(*FRAMES[:3], end=False), Reset()], "upstream:truncated", "absent", id="reset"),
        pytest.param([*chunked(*FRAMES[:3], end=False), Close()], "upstream:truncated", "absent", id="close"),
        pytest.param([*chunked(*FRAMES[:3], end=False), Hang()], "upstream:idle_timeout", "absent", id="stall"),
        pytest.param(
            [*chunked(*FRAMES[:3], end=False), Send(b"zz\r\n")], "upstream:invalid_response", "absent", id="bad-chunk"
        ),
    ],
)
def test_a_stream_that_breaks_ends_in_an_error_frame(
    gateway: Gateway, upstream: ScriptedUpstream, script: list[Step], code: str, source: str
) -> None:
    """What came is delivered, then one error frame that the SDK raises; the record counts no tokens it did not see."""
    upstream.script = script
    reply = call(gateway, STREAM.replace(b"local/", IMPATIENT.get(code, "local").encode() + b"/"))
    delivered = frames_of(*FRAMES[:3])
    assert reply.status == 200
    assert reply.body.startswith(delivered)
    error = json.loads(reply.body[len(delivered) :].removeprefix(b"data: "))["error"]
    assert error["code"] == code
    record = gateway.record(reply.generation_id)
    assert (record["status_code"], record["error_code"]) == (200, code)
    assert record["usage"]["source"] == source
    assert record["cost_state"] in ("unknown", "partial")


def test_a_stream_without_its_last_frame_is_recorded_as_truncated(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """The client gets the provider's bytes; an SDK would not notice, the record does."""
    cut = FRAMES[:3]
    upstream.script = chunked(*cut)
    reply = call(gateway, STREAM)
    assert reply.body == frames_of(*cut)
    assert gateway.record(reply.generation_id)["error_code"] == "upstream:truncated"


def test_an_error_inside_a_stream_passes_and_is_recorded(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """The provider's own error frame reaches the client unchanged."""
    failed = (*FRAMES[:3], b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n')
    upstream.script = chunked(*failed)
    reply = call(gateway, STREAM)
    assert reply.body == frames_of(*failed)
    record = gateway.record(reply.generation_id)
    assert record["success"] is False
    assert record["error_code"].startswith("upstream:")


def test_a_break_before_the_first_byte_of_a_stream_is_a_clean_error(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The head is not passed on until there is something to pass on, so the client gets a status it understands."""
    upstream.script = [Send(SSE_HEAD + b"transfer-encoding: chunked\r\n\r\n"), Reset()]
    reply = call(gateway, STREAM)
    assert (reply.status, reply.json()["error"]["code"]) == (502, "upstream:truncated")


def test_the_usage_frame_is_withheld_from_who_did_not_ask(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """We ask for it; the client that did not sees the stream without it, the one that did sees it; both are metered."""
    upstream.script = chunked(*FRAMES)
    silent = call(gateway, STREAM)
    assert upstream.seen[-1].json["stream_options"] == {"include_usage": True}
    assert silent.body == frames_of(*FRAMES[:-2], FRAMES[-1])
    asking = call(gateway, STREAM.replace(b'"stream":true', b'"stream":true,"stream_options":{"include_usage":true}'))
    assert asking.body == frames_of(*FRAMES)
    for reply in (silent, asking):
        record = gateway.record(reply.generation_id)
        assert record["usage"]["total_tokens"] == 12
        assert record["usage"]["source"] == "reported"
        assert record["finish_reason"] == "stop"
        assert "stream_options" not in record["replay_request"] or reply is asking


def test_a_fallback_answers_when_the_first_target_is_down(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """The record names who answered and shows the attempt that failed."""
    upstream.script = answer(chat_answer())
    reply = call(gateway, UNARY.replace(b"local/gpt-4o-mini", b"safe"))
    assert reply.status == 200
    record = gateway.record(reply.generation_id)
    assert record["provider"] == "local"
    assert record["model_id"] == "local/gpt-4o-mini"
    assert [(a["number"], a["provider"], a["error_code"]) for a in record["attempts"]] == [
        (1, "nobody", "upstream:connect_failed"),
        (2, "local", None),
    ]
    assert record["replay_request"]["model"] == "safe"


def test_a_fallback_follows_a_rate_limit_but_not_a_bad_request(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """429 is the provider's and may be better elsewhere; 400 is the caller's and would only fail twice.

    But for a 400 that refuses the operator's key, as Google's does.
    """
    body = UNARY.replace(b"local/gpt-4o-mini", b"twice")
    key = b'{"error":{"code":400,"message":"API key not valid. Please pass another.","status":"INVALID_ARGUMENT"}}'
    for status, error, codes in (
        (429, b'{"error":{}}', ["upstream:rate_limited", None]),
        (400, b'{"error":{}}', ["user:provider_rejected"]),
        (400, key, ["upstream:unauthorized", None]),
    ):
        upstream.script = lambda seen, status=status, error=error: (
            answer(error, status) if seen.json["model"] == "first" else answer(chat_answer())
        )
        reply = call(gateway, body)
        assert reply.status == (200 if len(codes) == 2 else 400)
        assert [attempt["error_code"] for attempt in gateway.record(reply.generation_id)["attempts"]] == codes


def test_a_failed_attempts_wait_is_no_time_of_ours(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """What was waited for on the first target stands in its attempt and not in gateway_ms."""
    upstream.script = lambda seen: (
        [Wait(0.5), *answer(b'{"error":{}}', 429)] if seen.json["model"] == "first" else answer(chat_answer())
    )
    record = gateway.record(call(gateway, UNARY.replace(b"local/gpt-4o-mini", b"twice")).generation_id)
    first, last = record["attempts"]
    assert first["generation_ms"] >= 500
    assert record["generation_ms"] == last["generation_ms"]
    assert record["gateway_ms"] < first["generation_ms"]


def test_a_providers_header_never_takes_the_name_of_ours(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Behind another gateway its ids, cost and timing arrive under other names, and ours once."""
    theirs = {"x_generation_id": "gen_theirs", "x_cost_nanos": "7", "server_timing": "gw;dur=1", "x_request_id": "r"}
    upstream.script = answer(chat_answer(), **theirs)
    reply = call(gateway)
    assert reply.headers["x-generation-id"] == reply.headers["x-request-id"] == reply.generation_id
    assert reply.headers["x-cost-nanos"] == str(gateway.record(reply.generation_id)["cost_nanos"])
    assert "upstream" in reply.headers["server-timing"]
    for name, value in theirs.items():
        assert reply.headers[f"x-upstream-{name.removeprefix('x_')}".replace("_", "-")] == value


def test_a_gzip_answer_nobody_asked_for_is_decoded(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Metered and delivered as plain JSON."""
    body = json.dumps(chat_answer()).encode()
    upstream.script = answer(gzip.compress(body), content_encoding="gzip")
    reply = call(gateway)
    assert reply.body == body
    assert "content-encoding" not in reply.headers
    assert gateway.record(reply.generation_id)["usage"]["total_tokens"] == 12


@pytest.mark.parametrize("first", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"])
def test_informational_answers_are_passed_over(gateway: Gateway, upstream: ScriptedUpstream, first: bytes) -> None:
    """1xx before the answer is not the answer."""
    upstream.script = [Send(first), *answer(chat_answer())]
    assert call(gateway).status == 200


def test_an_answer_without_a_length_ends_with_its_connection(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """HTTP/1.0 style servers still exist."""
    body = json.dumps(chat_answer()).encode()
    upstream.script = [
        Send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n" + body),
        Close(),
    ]
    assert call(gateway).body == body


def test_a_connection_the_provider_closed_while_idle_is_not_used_again(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The next call goes over a new connection and succeeds."""
    upstream.script = [*answer(chat_answer()), Close()]
    for _ in range(2):
        assert call(gateway).status == 200
        wait_until(lambda: not connections_to(gateway, upstream.port))


def connections_to(gateway: Gateway, port: int) -> int:
    """How many connections to ``port`` the gateway's process holds, given up by the other side or not."""
    held = {entry.readlink().name for entry in Path(f"/proc/{gateway.process.pid}/fd").iterdir() if entry.is_symlink()}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2] == f"0100007F:{port:04X}" and f"socket:[{line[9]}]" in held for line in lines)


@pytest.mark.parametrize("body", [UNARY, STREAM], ids=["unary", "stream"])
def test_calls_share_a_connection_to_the_provider(gateway: Gateway, upstream: ScriptedUpstream, body: bytes) -> None:
    """One call after another goes over the connection the first one made, unless the provider closes it."""
    upstream.script = lambda seen: chunked(*FRAMES) if "stream_options" in seen.json else answer(chat_answer())
    call(gateway, body)
    before = upstream.connections
    for _ in range(5):
        assert call(gateway, body).status == 200
    assert upstream.connections == before


def test_a_client_that_leaves_a_stream_ends_it_upstream(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """By default the provider is hung up on, and the record says 499 with what was known."""
    upstream.script = [*chunked(*FRAMES[:3], end=False), Hang()]
    hung_up = upstream.hung_up
    generation_id = leave_after_first_frame(gateway, "local")
    record = wait_for_record(gateway, generation_id)
    assert (record["status_code"], record["error_code"]) == (499, "user:client_disconnected")
    assert record["bytes_delivered"] in accumulate(map(len, FRAMES[:3]))  # it may leave before the later ones come
    assert (record["cost_nanos"], record["cost_state"]) == (0, "unknown")
    wait_until(lambda: upstream.hung_up == hung_up + 1)


def test_a_drained_provider_is_read_to_its_end(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """With on_disconnect: drain the usage is the provider's own, although nobody was there to read the answer."""
    head, *frames = chunked(*FRAMES)
    left = threading.Event()
    upstream.script = [head, *frames[:2], Until(left), *frames[2:]]
    generation_id = leave_after_first_frame(gateway, "drained")
    assert gateway.look_up(generation_id).status == 404  # whoever is answered this came after the reset
    left.set()
    record = wait_for_record(gateway, generation_id)
    assert (record["status_code"], record["error_code"]) == (499, "user:client_disconnected")
    assert record["usage"]["source"] == "reported"
    assert record["usage"]["total_tokens"] == 12
    assert 0 < record["bytes_delivered"] < sum(map(len, FRAMES))
    assert record["cost_nanos"] > 0


def test_a_client_that_leaves_before_the_answer_is_recorded(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A unary call whose client is gone has its record, although nobody ever learned its id."""
    upstream.script = [Hang()]
    before, seen = listed(gateway), len(upstream.seen)
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, UNARY, gateway.key()))
        wait_until(lambda: len(upstream.seen) == seen + 1)
        client.reset()
    wait_until(lambda: len(listed(gateway)) == len(before) + 1)
    assert listed(gateway)[0]["status_code"] == 499


def leave_after_first_frame(gateway: Gateway, provider: str) -> str:
    """Start a stream, read its head and a first frame, and reset the connection; give the generation's id."""
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, STREAM.replace(b"local/", provider.encode() + b"/"), gateway.key()))
        head = client.read_until(b"\r\n\r\n").decode()
        client.read_until(b"\n\n")
        client.reset()
    return next(line.split(": ")[1] for line in head.split("\r\n") if line.startswith("x-request-id"))


def listed(gateway: Gateway) -> list[dict[str, Any]]:
    """The newest records of the team."""
    return json.loads(gateway.command("generations", "list", "--json", "--limit", "1000").stdout)["data"]


def wait_for_record(gateway: Gateway, generation_id: str) -> dict[str, Any]:
    """The record, once it is there."""
    wait_until(lambda: gateway.look_up(generation_id).status == 200)
    return gateway.record(generation_id)
