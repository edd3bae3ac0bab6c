"""Bad input: a clear error in the surface's shape, a record where the key is known, and nothing sent to a provider."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.raw import RawClient, Reply, post
from emulators.scripted import ScriptedUpstream, answer, chat_answer

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
GEMINI = "/v1beta/models/gemini-2.5-flash:generateContent"
GOOD = b'{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"Hi"}]}'


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider that answers every chat call."""
    with ScriptedUpstream(answer(chat_answer())) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give one gateway in front of it for the whole module."""
    running = start_gateway(
        {
            "providers": {
                "openai": {"base_url": upstream.base_url, "api_key": "k"},
                "anthropic": {"base_url": upstream.base_url, "api_key": "k"},
                "google": {"base_url": upstream.base_url.replace("/v1", "/v1beta"), "api_key": "k"},
            },
            "limits": {"body_bytes": 1 << 20, "header_bytes": 16 << 10},
        }
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def impatient(start_gateway: Any) -> Iterator[Gateway]:
    """Give one that waits a second at the most for the rest of a request."""
    running = start_gateway({"providers": {}, "limits": {"header_seconds": 1, "body_seconds": 1}})
    yield running
    running.stop()


def ask(gateway: Gateway, request: bytes, *, half_close: bool = False) -> Reply:
    """One request on a connection of its own, and its answer."""
    with RawClient(gateway.port) as client:
        client.send(request)
        if half_close:
            client.half_close()
        return client.reply()


def check_shape(path: str, reply: Reply) -> str:
    """The error has the shape of its surface and carries the request id; gives its message."""
    body = reply.json()
    if path.startswith(MESSAGES):
        assert body["type"] == "error"
        assert body["request_id"] == reply.generation_id
        return body["error"]["message"]
    error = body["error"]
    if path.startswith("/v1beta"):
        assert error["code"] == reply.status
        assert error["status"].isupper()
        assert reply.generation_id in json.dumps(error)
    else:
        assert {"message", "type", "code", "param"} <= error.keys()
        assert error["request_id"] == reply.generation_id
    return error["message"]


DEEP = b'{"model":"openai/gpt-4o-mini","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
BAD_BODIES = {
    "empty": (b"", "user:invalid_json"),
    "not-json": (b"hello", "user:invalid_json"),
    "cut": (GOOD[:-3], "user:invalid_json"),
    "trailing": (GOOD + b"x", "user:invalid_json"),
    "not-utf8": (GOOD.replace(b"Hi", b"\xff\xfe"), "user:invalid_json"),
    "array": (b"[]", "user:not_an_object"),
    "string": (b'"model"', "user:not_an_object"),
    "null": (b"null", "user:not_an_object"),
    "duplicate": (b'{"model":"openai/a","model":"openai/b","messages":[]}', "user:duplicate_key"),
    "duplicate-escaped": (b'{"model":"openai/a","mod\\u0065l":"openai/b","messages":[]}', "user:duplicate_key"),
    "deep": (DEEP, "user:nested_too_deeply"),
}
BAD_MODELS = {
    "no-model": (b'{"messages":[]}', "user:model_required"),
    "empty-model": (b'{"model":"","messages":[]}', "user:model_required"),
    "model-type": (b'{"model":7,"messages":[]}', "user:invalid_field"),
    "model-control": (b'{"model":"openai/a\\r\\nx: y","messages":[]}', "user:invalid_field"),
    "model-surrogate": (b'{"model":"openai/\\ud800","messages":[]}', "user:invalid_field"),
    "model-long": (b'{"model":"openai/' + b"m" * 300 + b'","messages":[]}', "user:invalid_field"),
    "stream-type": (b'{"model":"openai/a","stream":"yes","messages":[]}', "user:invalid_field"),
    "unknown": (b'{"model":"nowhere/a","messages":[]}', "user:model_not_found"),
    "bare": (b'{"model":"gpt-4o-mini","messages":[]}', "user:model_not_found"),
}


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        *(
            pytest.param(CHAT, body, code, id=f"chat-{name}")
            for name, (body, code) in (BAD_BODIES | BAD_MODELS).items()
        ),
        *(
            pytest.param(MESSAGES, body, code, id=f"messages-{n}")
            for n, (body, code) in (BAD_BODIES | BAD_MODELS).items()
        ),
        *(pytest.param(GEMINI, body, code, id=f"gemini-{name}") for name, (body, code) in BAD_BODIES.items()),
    ],
)
def test_a_bad_body_is_refused_and_recorded(
    gateway: Gateway, upstream: ScriptedUpstream, path: str, body: bytes, code: str
) -> None:
    """The error names what is wrong in the surface's shape, the record says the same, and no provider was asked."""
    if path == GEMINI and code == "user:duplicate_key":
        body = b'{"contents":[],"contents":[]}'
    seen = len(upstream.seen)
    reply = ask(gateway, post(path, body, gateway.key()))
    assert 400 <= reply.status < 500
    assert check_shape(path, reply)
    record = gateway.record(reply.generation_id)
    assert record["error_code"] == code
    assert record["status_code"] == reply.status
    assert record["success"] is False
    assert record["endpoint"] == path
    assert record["provider"] == "none"
    assert record["latency_ms"] == record["generation_ms"] >= 0
    assert record["cost_nanos"] == 0
    assert record["pricing_lines"] == []
    assert len(upstream.seen) == seen


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        pytest.param(CHAT, b'{"messages":[],"stream":true}', "unknown", id="no-model"),
        pytest.param(CHAT, b'{"model":"openai/a","stream":"yes"}', "openai/a", id="wrong-type"),
        pytest.param(MESSAGES, b'{ "model":"nowhere/a", "stream": true }', "nowhere/a", id="unknown-model"),
        pytest.param("/v1/nothing", b'{"model":"openai/a"}', "openai/a", id="no-such-endpoint"),
    ],
)
def test_a_refused_object_is_kept_and_can_be_posted_again(gateway: Gateway, path: str, body: bytes, model: str) -> None:
    """The record has the request as it arrived and what of it could be read; posted again, it is refused alike."""
    reply = ask(gateway, post(path, body, gateway.key()))
    record = gateway.record(reply.generation_id)
    assert record["replay_supported"] is True
    assert record["replay_request"] == json.loads(body)
    assert record["model_id"] == model
    assert record["requested_model"] == (None if model == "unknown" else model)
    assert record["stream"] is (b"true" in body)
    again = ask(gateway, post(record["endpoint"], json.dumps(record["replay_request"]).encode(), gateway.key()))
    assert gateway.record(again.generation_id)["error_code"] == record["error_code"]


@pytest.mark.parametrize("body", [b"hello", b"[]", b"", GOOD[:-3], DEEP], ids=["text", "array", "empty", "cut", "deep"])
def test_what_is_no_object_is_kept_and_is_no_replay_request(gateway: Gateway, body: bytes) -> None:
    """The bytes are there for whoever may read bodies; the record says why they cannot be run again."""
    generation_id = ask(gateway, post(CHAT, body, gateway.key())).generation_id
    record = gateway.record(generation_id)
    assert (record["replay_supported"], record["replay_unavailable_reason"]) == (False, "not_an_object")
    assert "replay_request" not in record
    assert record["model_id"] == "unknown"
    path = f"/v1/generations/{generation_id}/content?part=request"
    assert gateway.request("GET", path, key=gateway.key()).body == body


def test_a_refused_body_is_not_kept_where_the_policy_says_so(gateway: Gateway) -> None:
    """A refusal is no way around the capture policy."""
    reply = ask(gateway, post(CHAT, b'{"messages":[]}', gateway.key(), x_counterfoil_capture="metadata"))
    record = gateway.record(reply.generation_id)
    assert (record["replay_supported"], record["replay_unavailable_reason"]) == (False, "policy")


def test_a_refused_form_is_kept_as_the_object_that_stands_for_it(gateway: Gateway) -> None:
    """A form without a model can be posted again in its wrapping, and is refused alike."""
    form = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nHi\r\n--x--\r\n'
    request = post("/v1/images/edits", form, gateway.key(), content_type="multipart/form-data; boundary=x")
    record = gateway.record(ask(gateway, request).generation_id)
    assert record["error_code"] == "user:model_required"
    assert record["replay_request"]["multipart"]["content_type"] == "multipart/form-data; boundary=x"
    again = post(record["endpoint"], json.dumps(record["replay_request"]).encode(), gateway.key())
    assert gateway.record(ask(gateway, again).generation_id)["error_code"] == "user:model_required"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/v1/files", "/v1/responses/resp_1", "/v1/messages/batches", "/v1beta/files", "/v1beta/models/m:predict"]
)
def test_what_we_do_not_serve_is_refused_in_the_shape_its_clients_know(
    gateway: Gateway, method: str, path: str
) -> None:
    """Whatever the method, an SDK that asks for stored objects or batches can show its user a message."""
    request = post(path, b"{}", gateway.key()).replace(b"POST", method.encode(), 1)
    reply = ask(gateway, request)
    assert reply.status == 404
    assert "no such endpoint" in check_shape(path, reply)
    assert gateway.record(reply.generation_id)["error_code"] == "user:unsupported_endpoint"


@pytest.mark.parametrize("path", [CHAT, MESSAGES, GEMINI])
@pytest.mark.parametrize(
    ("request_key", "reason"),
    [(None, "missing"), ("sk-openai", "not a Counterfoil"), ("cf_sk_abcdefghijkl_" + "x" * 40, "mistyped")],
    ids=["missing", "foreign", "damaged"],
)
def test_an_unknown_key_is_refused_without_a_record(
    gateway: Gateway, path: str, request_key: str | None, reason: str
) -> None:
    """401 in the surface's shape; nobody's record."""
    del reason
    before = stats(gateway)["records"]
    reply = ask(gateway, post(path, GOOD, request_key))
    assert reply.status == 401
    assert check_shape(path, reply)
    assert gateway.look_up(reply.generation_id).status == 404
    assert stats(gateway)["records"] == before


def stats(gateway: Gateway) -> dict[str, int]:
    """``ledger stats``, as the command line gives it."""
    return json.loads(gateway.command("ledger", "stats", "--json").stdout)


@pytest.mark.parametrize(
    ("how", "error"),
    [(("revoke",), "revoked"), (("expire", "2020-01-01"), "expired")],
    ids=["revoked", "expired"],
)
def test_a_key_that_was_good_is_refused_at_once_and_recorded(
    gateway: Gateway, how: tuple[str, ...], error: str
) -> None:
    """A revoked or expired key is known, so its call has a record that its team can read."""
    made = json.loads(gateway.command("keys", "create", "--team", "acme", "--json").stdout)
    assert ask(gateway, post(CHAT, GOOD, made["key"])).status == 200
    gateway.command("keys", how[0], made["key_id"], *how[1:])
    reply = ask(gateway, post(CHAT, GOOD, made["key"]))
    assert reply.status == 401
    assert error in check_shape(CHAT, reply)
    record = gateway.record(reply.generation_id)
    assert (record["key_id"], record["error_code"]) == (made["key_id"], "user:unauthorized")


@pytest.mark.parametrize(
    "header", [{"x_api_key": ""}, {"x_goog_api_key": ""}, {"api_key": ""}], ids=["anthropic", "google", "azure"]
)
def test_the_key_may_come_in_any_sdks_header(gateway: Gateway, header: dict[str, str]) -> None:
    """Each SDK sends the key its own way, and all are the same key."""
    named = {name: gateway.key() for name in header}
    assert ask(gateway, post(CHAT, GOOD, None, **named)).status == 200


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        (lambda key: post(CHAT, b"x" * (2 << 20), key), 413, "user:payload_too_large"),
        (lambda key: post(CHAT, GOOD, key, content_encoding="gzip"), 415, "user:unsupported_encoding"),
        (lambda key: post(CHAT, GOOD, key, content_type="multipart/form-data"), 415, "user:unsupported_media_type"),
        (lambda key: post("/v1/nothing", GOOD, key), 404, "user:unsupported_endpoint"),
        (lambda key: post(CHAT, GOOD, key, x_counterfoil_capture="all"), 400, "user:invalid_field"),
        (lambda key: post(CHAT, b"", key).replace(b"POST", b"GET", 1), 405, "user:method_not_allowed"),
        (lambda key: post(CHAT, b"", key).replace(b"POST", b"DELETE", 1), 405, "user:method_not_allowed"),
    ],
    ids=["too-large", "encoding", "media-type", "path", "capture", "get", "delete"],
)
def test_a_request_that_cannot_be_served_is_refused_and_recorded(
    gateway: Gateway, request_of: Any, status: int, code: str
) -> None:
    """Each refusal has its own status and code, and a record."""
    reply = ask(gateway, request_of(gateway.key()))
    assert reply.status == status
    assert gateway.record(reply.generation_id)["error_code"] == code


def test_a_chunked_body_over_the_limit_is_refused_while_it_is_sent(gateway: Gateway) -> None:
    """The answer comes before the body's end, and the client can read it."""
    head = post(CHAT, b"", gateway.key()).replace(b"content-length: 0", b"transfer-encoding: chunked")
    with RawClient(gateway.port) as client:
        client.send(head)
        for _ in range(24):
            client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        reply = client.reply()
    assert (reply.status, gateway.record(reply.generation_id)["error_code"]) == (413, "user:payload_too_large")


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("seconds", [0.0, 0.5], ids=["at-once", "slowly"])
def test_a_refused_upload_may_go_on_to_its_end(gateway: Gateway, framing: str, seconds: float) -> None:
    """A client that sends all of its 24 MiB before it reads gets the answer, and no reset, however long that takes."""
    piece, count, pace = b"x" * (4 << 20), 6, threading.Event()
    head = post(CHAT, b"", gateway.key(), content_length=str(len(piece) * count))
    if framing == "chunked":
        head = post(CHAT, b"", gateway.key()).replace(b"content-length: 0", b"transfer-encoding: chunked")
    with RawClient(gateway.port) as client:
        client.socket.sendall(head)
        for _ in range(count):
            pace.wait(seconds)
            client.socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
        reply = client.reply()
        if seconds or "connection" in reply.headers:
            assert reply.headers["connection"] == "close"
            assert client.closed()
        else:  # all of it had come before the refusal was recorded, so the connection is good for the next request
            client.send(post(CHAT, GOOD, gateway.key()))
            assert client.reply().status == 200
    assert (reply.status, gateway.record(reply.generation_id)["error_code"]) == (413, "user:payload_too_large")


def test_a_body_shorter_than_its_length_is_said_and_recorded(gateway: Gateway) -> None:
    """A client that stops in the middle of its body still reads why that does not work."""
    request = post(CHAT, GOOD, gateway.key(), content_length=str(len(GOOD) + 10))
    reply = ask(gateway, request, half_close=True)
    assert (reply.status, gateway.record(reply.generation_id)["error_code"]) == (400, "user:incomplete_body")


def test_a_body_that_never_ends_times_out(impatient: Gateway) -> None:
    """408 after body_seconds, recorded."""
    reply = ask(impatient, post(CHAT, GOOD, impatient.key(), content_length=str(len(GOOD) + 10)))
    assert (reply.status, impatient.record(reply.generation_id)["error_code"]) == (408, "user:request_timeout")


def test_bytes_behind_a_body_are_no_part_of_it(gateway: Gateway) -> None:
    """The request is served as its length says; what follows is no request, and the connection ends with 400."""
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, GOOD, gateway.key()) + b"garbage\r\n\r\n")
        assert client.reply().status == 200
        assert client.reply().status == 400
        assert client.closed()


@pytest.mark.parametrize(
    "request_of",
    [
        lambda _: b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
        lambda key: post(CHAT, GOOD, key).replace(b"HTTP/1.1", b"HTTP/9.9"),
        lambda key: post(CHAT, GOOD, key).replace(b"host: gateway\r\n", b""),
        lambda key: post(CHAT, GOOD, key, transfer_encoding="chunked"),
        lambda key: post(CHAT, GOOD, key).replace(b"content-length: ", b"content-length: 5\r\ncontent-length: "),
        lambda key: post(CHAT, GOOD, key, x="a\r\n b"),
        lambda key: post(CHAT, GOOD, key).replace(b"content-length: 74", b"content-length: +74"),
    ],
    ids=["tls", "version", "no-host", "two-framings", "two-lengths", "folded", "signed-length"],
)
def test_an_ambiguous_head_gives_400_and_closes(gateway: Gateway, request_of: Any) -> None:
    """What two parsers could read in two ways is read by nobody."""
    with RawClient(gateway.port) as client:
        client.send(request_of(gateway.key()))
        reply = client.reply()
        assert (reply.status, reply.headers["cache-control"]) == (400, "no-store")
        assert client.closed()


def test_an_ambiguous_lookup_is_not_cached_either(gateway: Gateway) -> None:
    """A refusal that the control plane never sees carries what all its answers carry."""
    lookup = b"GET /v1/generations?id=x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"
    reply = ask(gateway, lookup)
    assert (reply.status, reply.headers["cache-control"]) == (400, "no-store")


def test_an_ambiguous_head_with_one_key_is_recorded(gateway: Gateway) -> None:
    """The key is known, so its team can look the refusal up; two keys are nobody's."""
    once = post(CHAT, GOOD, gateway.key())
    twice = once.replace(b"\r\n\r\n", b"\r\ncontent-type: text/plain\r\n\r\n", 1)
    reply = ask(gateway, twice)
    assert reply.status == 400
    assert gateway.record(reply.generation_id)["error_code"] == "user:invalid_http"
    two_keys = once.replace(b"\r\n\r\n", b"\r\nauthorization: Bearer x\r\n\r\n", 1)
    reply = ask(gateway, two_keys)
    assert reply.status == 400
    assert gateway.look_up(reply.generation_id).status == 404


def test_a_head_too_large_gives_431(gateway: Gateway) -> None:
    """The head is bounded in bytes."""
    with RawClient(gateway.port) as client:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-padding: " + b"a" * (20 << 10))
        assert client.reply().status == 431


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/generations?id=x"])
def test_a_head_too_large_that_comes_whole_gives_431_too(gateway: Gateway, path: str) -> None:
    """However it is cut on the way; a body that comes with a small one does not count."""
    method = "POST" if "chat" in path else "GET"
    padded = {"x-padding": "a" * (20 << 10)}
    assert (
        gateway.request(method, path, b"{}" if method == "POST" else None, key=gateway.key(), headers=padded).status
        == 431
    )
    large = {"model": "nobody/x", "messages": [{"role": "user", "content": "a" * (20 << 10)}]}
    assert gateway.request("POST", "/v1/chat/completions", large, key=gateway.key()).status == 404


def test_a_head_too_slow_gives_408(impatient: Gateway) -> None:
    """The head is bounded in time, counted from its first byte."""
    with RawClient(impatient.port) as client:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        assert client.reply().status == 408


def test_nul_and_surrogates_inside_a_prompt_pass_untouched(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """As escapes they are within JSON's grammar: the provider gets the client's bytes, the record gives them back."""
    body = GOOD.replace(b"Hi", b"a\\u0000b\\ud800c")
    reply = ask(gateway, post(CHAT, body, gateway.key()))
    assert reply.status == 200
    assert upstream.seen[-1].body == body.replace(b"openai/gpt-4o-mini", b"gpt-4o-mini")
    look_up = gateway.look_up(reply.generation_id)
    assert body in look_up.body


def test_two_requests_in_one_write_are_answered_in_order(gateway: Gateway) -> None:
    """A pipelined second request waits for its turn, and each has its record."""
    other = GOOD.replace(b"Hi", b"Ho")
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, GOOD, gateway.key()) + post(CHAT, other, gateway.key()))
        first, second = client.reply(), client.reply()
    assert first.generation_id < second.generation_id
    assert gateway.record(second.generation_id)["replay_request"]["messages"][0]["content"] == "Ho"


def test_each_request_of_a_connection_is_read_by_its_own_head(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Heads that differ in one value, in the order of lines, in the path or in the key are never taken for the last."""
    key, other = gateway.key(), gateway.key()
    asked: list[tuple[bytes, str | None, str]] = [
        (post(CHAT, GOOD, key, x_app_id="one"), "one", key),
        (post(CHAT, GOOD, key, x_app_id="one"), "one", key),
        (post(CHAT, GOOD.replace(b"Hi", b"Hello"), key, x_app_id="one"), "one", key),
        (post(CHAT, GOOD, key, x_app_id="two"), "two", key),
        (post(CHAT, GOOD, key), None, key),
        (post(CHAT, GOOD, other, x_app_id="one"), "one", other),
        (post(CHAT, GOOD, key, x_app_id="one", user_agent="another"), "one", key),
    ]
    with RawClient(gateway.port) as client:
        for request, app, whose in asked:
            client.send(request)
            reply = client.reply()
            assert reply.status == 200
            record = gateway.record(reply.generation_id)
            assert record["app_id"] == app
            assert whose.split("_")[2] == record["key_id"]
        client.send(post(CHAT + "/astray", GOOD, key, x_app_id="one"))
        assert client.reply().status == 404
    agents = [call.headers.get("user-agent") for call in upstream.seen[-len(asked) :]]
    assert agents == [None] * 6 + ["another"]


def test_expect_100_continue_is_honoured(gateway: Gateway) -> None:
    """The client learns that its body is welcome before it sends it."""
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, GOOD, gateway.key(), expect="100-continue")[: -len(GOOD)])
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(GOOD)
        assert client.reply().status == 200
