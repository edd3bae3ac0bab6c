"""Text from outside in what we write: heads, frames, records, log lines, the terminal. It stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from emulators.gateway import Gateway
from emulators.oracle import frames
from emulators.raw import RawClient, post
from emulators.scripted import Close, ScriptedUpstream, Send, Step, answer, chat_answer, chat_frames, chunked

CHAT = "/v1/chat/completions"
EVIL = "x\r\nset-cookie: evil=1\r\n\r\ndata: [DONE]\n\n\x00\x1b[2J\x1b]0;owned\x07\u2028\u202e"
"""A header's end, an event's end, a terminal's title, a line separator and a direction override."""

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]")


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider that answers with what each test puts in."""
    with ScriptedUpstream(answer(chat_answer())) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway that logs all it can, one JSON object a line."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
    google = {"type": "google", "base_url": upstream.base_url.replace("/v1", "/v1beta"), "api_key": "none"}
    log = {"level": "debug", "format": "json"}
    running = start_gateway({"providers": {"local": one, "goo": google}, "log": log, "server": {"access_log": True}})
    yield running
    running.stop()


def call(gateway: Gateway, body: Any = None, path: str = CHAT, **headers: str) -> Any:
    """A call; ``body`` is added to a good one."""
    good = {"model": "local/gpt-4o-mini", "messages": []}
    with RawClient(gateway.port) as client:
        client.send(post(path, json.dumps(good | (body or {})).encode(), gateway.key(), **headers))
        return client.reply()


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names of members too."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize(
    ("body", "path"),
    [
        pytest.param({"model": f"local/{EVIL}"}, CHAT, id="model"),
        pytest.param({"model": EVIL}, CHAT, id="model without provider"),
        pytest.param({}, f"/v1beta/models/goo/{quote(EVIL)}:generateContent", id="model in the path"),
        pytest.param({}, "/v1beta/models/goo/x%2F..%2F..%2Ffiles:generateContent", id="a model that steps up"),
    ],
)
def test_a_model_that_is_no_name(gateway: Gateway, upstream: ScriptedUpstream, body: Any, path: str) -> None:
    """400; nothing of it goes to a provider, into a head of ours, or unescaped into the record."""
    before = len(upstream.seen)
    reply = call(gateway, body, path)
    assert reply.status == 400
    assert len(upstream.seen) == before
    assert "set-cookie" not in reply.headers
    record = gateway.record(reply.generation_id)
    assert record["model_id"] in ("unknown", "") or not UNPRINTABLE.search(record["model_id"])


def test_names_in_bodies(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """What only the record keeps is left out when it is no identifier, and the provider gets it as it came."""
    upstream.script = answer(chat_answer())
    body = {"user": EVIL, "session_id": EVIL, "service_tier": EVIL, "metadata": {EVIL: EVIL}}
    reply = call(gateway, body)
    assert reply.status == 200
    record = gateway.record(reply.generation_id)
    assert (record["end_user"], record["session_id"]) == (None, None)
    assert upstream.seen[-1].json["user"] == EVIL
    assert record["replay_request"]["user"] == EVIL


@pytest.mark.parametrize("header", ["x-app-id", "x-title", "referer", "http-referer", "x-session-id", "user-agent"])
def test_names_in_headers(gateway: Gateway, upstream: ScriptedUpstream, header: str) -> None:
    """Bytes that HTTP allows and a page or a terminal must not get: none stands in the record."""
    upstream.script = answer(chat_answer())
    value = "https://example.org/<script>\u2028\u202e\x85\u200b".encode().decode("latin-1")
    reply = call(gateway, **{header.replace("-", "_"): value})
    assert reply.status == 200
    record = gateway.record(reply.generation_id)
    assert not [text for text in texts({**record, "replay_request": None}) if UNPRINTABLE.search(text)]


def test_what_a_provider_calls_things(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Ids, models, tiers and reasons of an answer are kept only when they are printable."""
    body = chat_answer() | {"id": EVIL, "model": EVIL, "service_tier": EVIL}
    body["choices"][0]["finish_reason"] = EVIL
    upstream.script = answer(body)
    reply = call(gateway)
    assert reply.json() == body
    record = gateway.record(reply.generation_id)
    assert (record["native_response_id"], record["native_model"], record["service_tier"]) == (None, None, None)
    assert not [text for text in texts({**record, "replay_request": None}) if UNPRINTABLE.search(text)]


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_what_a_provider_complains(gateway: Gateway, upstream: ScriptedUpstream, status: int, *, stream: bool) -> None:
    """An error's message is one printable line in the record, and frames stay frames."""
    error = {"error": {"message": EVIL, "type": EVIL, "code": EVIL}}
    if stream and status == 200:
        upstream.script = chunked(
            *chat_frames("a", usage=False, done=False), b"data: %b\n\n" % json.dumps(error).encode()
        )
    else:
        upstream.script = answer(error, status)
    reply = call(gateway, {"stream": stream})
    record = gateway.record(reply.generation_id)
    assert record["error_message"]
    assert not UNPRINTABLE.search(record["error_message"] + record["attempts"][0]["error_message"])
    assert "set-cookie" not in reply.headers
    for frame in frames(reply.body) if stream and status == 200 else ():
        assert frame.startswith((b"data: ", b"event: "))


@pytest.mark.parametrize(
    "line",
    [
        b"x-a: b\nset-cookie: e=1",
        b"x-a: b\rset-cookie: e=1",
        b"x-a: b\x00c",
        b"x-a: b\x1b[2J",
        b"x a: b",
        b"x-a : b",
        b" x-a: b",
        b"x-a: b\r\n c",
        b"x\x00-a: b",
        b"no colon",
        b": empty",
        b"x-a\xe2\x80\xa8: b",
    ],
    ids=repr,
)
def test_a_providers_head(gateway: Gateway, upstream: ScriptedUpstream, line: bytes) -> None:
    """A head that could be read in two ways is an invalid answer; no line of it leaves."""
    body = json.dumps(chat_answer()).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%b\r\ncontent-length: %d\r\n\r\n" % (line, len(body))
    upstream.script = [Send(head + body), Close()]
    reply = call(gateway)
    assert (reply.status, reply.json()["error"]["code"]) == (502, "upstream:invalid_response")
    assert "set-cookie" not in reply.headers
    assert "x-a" not in reply.headers


def test_a_provider_that_speaks_for_us(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Our ids and our cost are in the answer once, and are ours."""
    ours = (
        "x-request-id",
        "request-id",
        "x-generation-id",
        "x-cost-nanos",
        "x-cost-state",
        "server-timing",
        "content-length",
        "connection",
    )
    evil = {name.replace("-", "_"): "1" for name in ours if name not in ("content-length", "connection")}
    upstream.script = answer(chat_answer(), **evil, connection="x-hidden", x_hidden="1", transfer_coding="x")
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, b'{"model":"local/gpt-4o-mini","messages":[]}', gateway.key()))
        lines = client.read_until(b"\r\n\r\n").decode("latin-1").lower().split("\r\n")
    names = [line.partition(":")[0] for line in lines]
    assert all(names.count(name) <= 1 for name in ours), names
    assert next(line for line in lines if line.startswith("x-generation-id:")).startswith("x-generation-id: gen_")
    assert "x-cost-nanos: 1" not in lines


def broken_streams() -> Iterator[Any]:
    """Ways for a stream to break after it began."""
    begun = chat_frames("a", "b", usage=False, done=False)[:2]
    yield pytest.param([*chunked(*begun, end=False), Close()], id="closed")
    yield pytest.param([*chunked(*begun, end=False), Send(b"zz\r\n"), Close()], id="no chunk")
    yield pytest.param([*chunked(*begun, b"data: {half", end=False), Close()], id="in a frame")
    yield pytest.param([*chunked(*begun, b"data: {half\r", end=False), Close()], id="at a carriage return")


@pytest.mark.parametrize("script", list(broken_streams()))
def test_our_own_frame(gateway: Gateway, upstream: ScriptedUpstream, script: list[Step]) -> None:
    """Behind a stream that broke stands one frame of ours, which no half frame before it swallows."""
    upstream.script = script
    reply = call(gateway, {"stream": True})
    last = reply.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip().split(b"\n\n")[-1]
    assert last.startswith(b"data: "), reply.body
    said = json.loads(last.removeprefix(b"data: "))
    assert said["error"]["code"].startswith("upstream:")
    assert said["error"]["request_id"] == reply.generation_id


def test_the_log_is_lines_of_json(gateway: Gateway) -> None:
    """Whatever was asked: a line of the log is an object, and holds neither a query nor a control character."""
    for target in (
        f"/v1/{quote(EVIL)}",
        f"/{quote(EVIL)}?key=canary-query",
        "/metrics?key=canary-query",
        "/docs?a\x80",
    ):
        with RawClient(gateway.port) as client:
            line = f"GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            client.send(line.encode("latin-1"))
            client.read_all()
    log = gateway.process.log.read_text().splitlines()
    lines = [line for line in log if not line.startswith("Counterfoil listens")]
    assert any("/metrics" in line for line in lines), "the access log is off"
    assert "canary-query" not in "".join(log)
    for line in lines:
        json.loads(line)
        assert not UNPRINTABLE.search(line), line


def test_the_terminal_gets_no_escapes(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """What the command line prints of records with odd paths and names holds nothing that a terminal obeys."""
    upstream.script = answer(chat_answer())
    gateway_path = f"/v1/{quote(EVIL)}"
    call(gateway, path=gateway_path)
    reply = call(gateway, {"metadata": {EVIL: EVIL}, "user": EVIL})
    for arguments in (("list",), ("list", "--limit", "50"), ("show", reply.generation_id)):
        shown = gateway.command("generations", *arguments).stdout
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown), shown


def test_no_page_repeats_what_was_asked(gateway: Gateway) -> None:
    """No answer of the control plane is a page with anything of the request in it."""
    for path in ("/<script>alert(1)</script>", "/v1/<script>", "/docs?<script>alert(1)", "/v1/generations?id=<script>"):
        said = gateway.request("GET", quote(path, safe="/?="), key=gateway.key())
        assert b"<script>alert" not in said.body
        assert said.headers["content-type"].startswith(("application/json", "text/html"))
    page = gateway.request("GET", "/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_captured_page_is_no_page_of_ours(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A provider's HTML, given back from the ledger, cannot run in a browser that asks for it."""
    upstream.script = answer(b"<script>alert(1)</script>", 500, "text/html")
    reply = call(gateway)
    assert reply.headers["content-type"] == "application/json"
    said = gateway.request("GET", f"/v1/generations/{reply.generation_id}/content?part=response", key=gateway.key())
    assert said.headers["content-security-policy"].startswith("sandbox")
    assert said.headers["content-disposition"] == "attachment"
    assert said.headers["x-content-type-options"] == "nosniff"
