"""Idempotency keys: one call to the provider and the same answer for all who repeat it, and a record for each."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Answer, Gateway
from emulators.raw import RawClient, Reply, post
from emulators.scripted import (
    Close,
    Hang,
    Reset,
    ScriptedUpstream,
    Send,
    Step,
    Until,
    answer,
    chat_answer,
    chat_frames,
    chunked,
)
from emulators.waiting import PATIENCE_S, wait_until

CHAT = "/v1/chat/completions"
UNARY = b'{"model":"local/gpt-4o-mini","messages":[]}'
HASTY = UNARY.replace(b"local/", b"hasty/")
STREAM = b'{"model":"local/gpt-4o-mini","messages":[],"stream":true}'
FRAMES = chat_frames("one", "two", "three")
DELIVERED = b"".join((*FRAMES[:-2], FRAMES[-1]))  # without the usage that only we asked for


def settings(upstream: ScriptedUpstream) -> dict[str, Any]:
    """A gateway in front of ``upstream``, once with a short patience, and of a provider that is not there."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
    return {
        "providers": {
            "local": one,
            "hasty": {**one, "timeouts": {"first_byte_seconds": 2}},
            "nobody": {**one, "base_url": "http://127.0.0.1:9/v1"},
        },
        "idempotency": {"wait_seconds": PATIENCE_S},
    }


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway of one process."""
    running = start_gateway(settings(upstream))
    running.key()
    yield running
    assert running.stop() == 0, running.process.log_tail(30)


@pytest.fixture(scope="module")
def pair(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway of two workers."""
    running = start_gateway(settings(upstream), workers=2)
    running.key()  # one, before many threads ask for it
    yield running
    assert running.stop() == 0, running.process.log_tail(30)


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> str:
    """Give an idempotency key that no other test uses."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


def call(
    gateway: Gateway,
    idempotency_key: str,
    body: bytes = UNARY,
    key: str | None = None,
    sent: list[str] | None = None,
    **headers: str,
) -> Reply:
    """One call with an idempotency key, on a connection of its own; ``sent`` is told when all of it is under way."""
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, body, key or gateway.key(), idempotency_key=idempotency_key, **headers))
        if sent is not None:
            sent.append(idempotency_key)
        return client.reply()


def is_repeat(reply: Reply, first: Reply) -> bool:
    """Whether ``reply`` is the answer of ``first`` again, and says so."""
    return (
        (reply.status, reply.body) == (first.status, first.body)
        and reply.headers.get("idempotent-replayed") == "true"
        and reply.headers["x-counterfoil-repeat-of"] == first.generation_id != reply.generation_id
    )


def head_of(client: RawClient) -> dict[str, str]:
    """The header fields of the answer that begins."""
    lines = client.read_until(b"\r\n\r\n").decode().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("body", [UNARY, STREAM], ids=["unary", "stream"])
def test_a_repeat_gives_the_same_answer_from_the_ledger(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str, body: bytes
) -> None:
    """One call to the provider; status and bytes as the first had them; a free record that names the first."""
    upstream.script = chunked(*FRAMES) if body is STREAM else answer(chat_answer())
    seen = len(upstream.seen)
    first = call(gateway, mark, body)
    assert "idempotent-replayed" not in first.headers
    assert first.body == (DELIVERED if body is STREAM else json.dumps(chat_answer()).encode())
    for _ in range(3):
        again = call(gateway, mark, body)
        assert is_repeat(again, first)
        assert again.headers["content-type"] == first.headers["content-type"]
        assert again.headers["x-cost-nanos"] == "0"
    assert len(upstream.seen) == seen + 1
    assert "idempotency-key" not in upstream.seen[-1].headers
    paid, free = gateway.record(first.generation_id), gateway.record(again.generation_id)
    assert paid["idempotency"] == {"key": mark, "repeat_of": None, "retry_of": None}
    assert paid["cost_nanos"] > 0
    assert free["idempotency"] == {"key": mark, "repeat_of": first.generation_id, "retry_of": None}
    assert (free["status_code"], free["success"], free["provider"]) == (200, True, "none")
    assert (free["cost_nanos"], free["cost_state"], free["pricing_lines"]) == (0, "free", [])
    assert (free["stream"], free["model_id"]) == (body is STREAM, "local/gpt-4o-mini")
    assert (free["replay_supported"], free["attempts"]) == (False, [])


def test_the_same_key_stands_for_other_calls_elsewhere(gateway: Gateway, upstream: ScriptedUpstream, mark: str) -> None:
    """Another API key, another team, another path: nobody gets anybody else's answer."""
    upstream.script = answer(chat_answer())
    first = call(gateway, mark)
    seen = len(upstream.seen)
    others = [call(gateway, mark, key=gateway.key("globex")), call(gateway, mark, key=gateway.key(app="web"))]
    with RawClient(gateway.port) as client:
        client.send(post("/v1/responses", UNARY, gateway.key(), idempotency_key=mark))
        others.append(client.reply())
    assert len(upstream.seen) == seen + 3
    assert all("idempotent-replayed" not in other.headers for other in others)
    assert is_repeat(call(gateway, mark), first)


@pytest.mark.parametrize("body", [UNARY, STREAM], ids=["unary", "stream"])
def test_repeats_under_way_join_the_one_call(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str, body: bytes
) -> None:
    """Sixty at once: one call, sixty equal answers, sixty records of which one cost something."""
    steps = chunked(*FRAMES) if body is STREAM else answer(chat_answer())
    free = threading.Event()
    upstream.script = [*steps[:2], Until(free), *steps[2:]] if body is STREAM else [Until(free), *steps]
    seen = len(upstream.seen)
    with ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(call, gateway, mark, body) for _ in range(60)]
        wait_until(lambda: len(upstream.seen) > seen)
        free.set()
        replies = [one.result() for one in waiting]
    assert len(upstream.seen) == seen + 1
    firsts = [reply for reply in replies if "idempotent-replayed" not in reply.headers]
    assert len(firsts) == 1
    assert all(is_repeat(reply, firsts[0]) for reply in replies if reply is not firsts[0])
    records = [gateway.record(reply.generation_id) for reply in replies]
    assert sum(record["cost_nanos"] > 0 for record in records) == 1


def test_who_joins_a_stream_gets_what_there_is_and_then_the_rest(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str
) -> None:
    """As it comes, not at its end."""
    steps, free = chunked(*FRAMES), threading.Event()
    upstream.script = [*steps[:3], Until(free), *steps[3:]]
    request = post(CHAT, STREAM, gateway.key(), idempotency_key=mark)
    with RawClient(gateway.port) as first, RawClient(gateway.port) as second:
        first.send(request)
        first.read_until(FRAMES[1])
        second.send(request)
        head = second.read_until(b"\r\n\r\n")
        assert b"idempotent-replayed: true" in head
        second.read_until(FRAMES[1])
        free.set()
        assert b"[DONE]" in first.read_until(b"0\r\n\r\n")
        assert b"[DONE]" in second.read_until(b"0\r\n\r\n")


def test_who_joins_a_stream_reads_its_end_marker_when_the_own_record_is_there(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str
) -> None:
    """Also when the provider takes its time between the marker and the end of its answer."""
    head, *frames, end = chunked(*FRAMES)
    joined, ended = threading.Event(), threading.Event()
    upstream.script = [head, *frames[:2], Until(joined), *frames[2:], Until(ended), end]
    request = post(CHAT, STREAM, gateway.key(), idempotency_key=mark)
    with RawClient(gateway.port) as first, RawClient(gateway.port) as second:
        first.send(request)
        first.read_until(FRAMES[1])
        second.send(request)
        own_id = head_of(second)["x-request-id"]
        second.read_until(FRAMES[1])
        joined.set()
        first.read_until(FRAMES[-1])
        gateway.request("GET", "/health/live")  # what was written before has arrived when this is answered
        if b"[DONE]" in second.arrived():
            gateway.record(own_id)
        ended.set()
        assert second.read_until(b"0\r\n\r\n").count(FRAMES[-1]) == 1
        assert gateway.record(own_id)["success"]


@pytest.mark.parametrize("body", [UNARY, STREAM], ids=["unary", "stream"])
def test_a_client_that_lost_its_connection_gets_the_answer_by_asking_again(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str, body: bytes
) -> None:
    """The call runs on although on_disconnect would cancel it; the second try joins it, and later ones read it."""
    steps, free = (chunked(*FRAMES) if body is STREAM else answer(chat_answer())), threading.Event()
    upstream.script = [*steps[:2], Until(free), *steps[2:]] if body is STREAM else [Until(free), *steps]
    seen = len(upstream.seen)
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, body, gateway.key(), idempotency_key=mark))
        wait_until(lambda: len(upstream.seen) == seen + 1)
        client.reset()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(call, gateway, mark, body)
        free.set()
        reply = second.result()
    third = call(gateway, mark, body)
    assert len(upstream.seen) == seen + 1
    assert reply.body == third.body == (DELIVERED if body is STREAM else json.dumps(chat_answer()).encode())
    record = gateway.record(reply.headers["x-counterfoil-repeat-of"])
    assert (record["status_code"], record["usage"]["source"]) == (200, "reported")


def test_another_request_under_the_same_key_is_a_conflict(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str
) -> None:
    """409 in the surface's shape with a record, during the call and after it; nothing is sent, no SDK tries again."""
    free = threading.Event()
    upstream.script = [Until(free), *answer(chat_answer())]
    seen = len(upstream.seen)
    other = UNARY.replace(b"[]", b'[{"role":"user","content":"x"}]')
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(call, gateway, mark)
        wait_until(lambda: len(upstream.seen) == seen + 1)
        during = call(gateway, mark, other)
        free.set()
        first_id = first.result().generation_id
    for reply in (during, call(gateway, mark, other)):
        assert (reply.status, reply.json()["error"]["code"]) == (409, "user:idempotency_conflict")
        assert first_id in reply.json()["error"]["message"]
        assert reply.headers["x-should-retry"] == "false"
        record = gateway.record(reply.generation_id)
        assert (record["status_code"], record["error_code"]) == (409, "user:idempotency_conflict")
    assert len(upstream.seen) == seen + 1


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (answer(b'{"error":{"message":"slow down"}}', 429), 429),
        (answer(b'{"error":{"message":"busy"}}', 503), 503),
        (answer(b'{"error":{"message":"no"}}', 400), 400),
    ],
    ids=["429", "503", "400"],
)
def test_what_no_provider_served_does_not_stick_to_the_key(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str, script: list[Step], status: int
) -> None:
    """The next try is a call of its own, and nothing says that anything was paid twice."""
    upstream.script = script
    assert call(gateway, mark).status == status
    upstream.script = answer(chat_answer())
    second = call(gateway, mark)
    assert second.status == 200
    assert "x-counterfoil-retry-of" not in second.headers
    assert is_repeat(call(gateway, mark), second)


def test_what_was_never_sent_does_not_stick_to_the_key(gateway: Gateway, upstream: ScriptedUpstream, mark: str) -> None:
    """A provider that cannot be reached, a model that is not known: each try is a try."""
    upstream.script = answer(chat_answer())
    for model, status in ((b"nobody/m", 502), (b"unknown/m", 404)):
        body = UNARY.replace(b"local/gpt-4o-mini", model)
        replies = [call(gateway, mark + str(status), body) for _ in range(2)]
        assert [reply.status for reply in replies] == [status, status]
        assert all("idempotent-replayed" not in reply.headers for reply in replies)


@pytest.mark.parametrize(
    ("script", "body"),
    [
        ([Reset()], UNARY),
        ([Hang()], HASTY),
        ([Send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"), Close()], UNARY),
        ([*chunked(*FRAMES[:3], end=False), Reset()], STREAM),
    ],
    ids=["reset", "timeout", "cut", "stream"],
)
def test_a_second_payment_is_never_silent(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str, script: list[Step], body: bytes
) -> None:
    """After an end that nobody knows the next try is sent, and its header and record name the first."""
    upstream.script = script
    first = call(gateway, mark, body)
    assert first.status in (200, 502, 504)
    upstream.script = chunked(*FRAMES) if body is STREAM else answer(chat_answer())
    second = call(gateway, mark, body)
    assert second.headers["x-counterfoil-retry-of"] == first.generation_id
    record = gateway.record(second.generation_id)
    assert record["idempotency"] == {"key": mark, "repeat_of": None, "retry_of": first.generation_id}
    assert (record["success"], record["replay_supported"]) == (True, True)
    assert is_repeat(call(gateway, mark, body), second)


def test_who_waited_gets_the_error_that_the_first_got(gateway: Gateway, upstream: ScriptedUpstream, mark: str) -> None:
    """A storm of repeats of a call that fails is one call, not one after the other."""
    free, seen = threading.Event(), len(upstream.seen)
    upstream.script = [Until(free), *answer(b'{"error":{"message":"slow down"}}', 429, retry_after="3")]
    sent: list[str] = []
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(call, gateway, mark, sent=sent) for _ in range(20)]
        wait_until(lambda: len(upstream.seen) > seen and len(sent) == 20)
        all_wait(gateway, mark)
        free.set()
        replies = [one.result() for one in waiting]
    assert len(upstream.seen) == seen + 1
    assert {(reply.status, reply.body, reply.headers["retry-after"]) for reply in replies} == {
        (429, b'{"error":{"message":"slow down"}}', "3")
    }
    for reply in replies:
        record = gateway.record(reply.generation_id)
        assert (record["status_code"], record["error_code"]) == (429, "upstream:rate_limited")


def all_wait(gateway: Gateway, mark: str, workers: int = 1) -> None:
    """Return when everything that was sent has been read, and every worker has looked up what its keys stand for."""
    wait_until(lambda: unread(gateway) == 0)
    answered: set[str] = set()

    def all_have_answered() -> bool:  # a worker looks keys up one after the other: this one comes behind the others
        behind = call(gateway, f"{mark}-behind", UNARY.replace(b"local/", b"nobody/"))
        answered.add(gateway.record(behind.generation_id)["chain"]["writer"])
        return len(answered) == workers

    wait_until(all_have_answered)


def unread(gateway: Gateway) -> int:
    """Connections to the gateway that it has not accepted yet, or on which something waits for it. proc(5), tcp."""
    mine = f"0100007F:{gateway.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    open_ones = [line for line in lines if (line[1], line[3]) == (mine, "01")]
    return sum(line[9] == "0" or line[4].rpartition(":")[2] != "00000000" for line in open_ones)


@pytest.mark.parametrize("policy", ["metadata", "off"])
def test_without_bodies_a_repeat_is_refused_and_nothing_is_bought_again(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str, policy: str
) -> None:
    """409 that names the first call. Under way, a repeat still joins: that needs no body on the disk."""
    free, seen = threading.Event(), len(upstream.seen)
    upstream.script = [Until(free), *answer(chat_answer())]
    sent: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        two = [pool.submit(call, gateway, mark, sent=sent, x_counterfoil_capture=policy) for _ in range(2)]
        wait_until(lambda: len(upstream.seen) > seen and len(sent) == 2)
        all_wait(gateway, mark)
        free.set()
        bodies = {one.result().body for one in two}
    assert len(bodies) == 1
    late = call(gateway, mark, x_counterfoil_capture=policy)
    assert (late.status, late.json()["error"]["code"]) == (409, "user:idempotency_unavailable")
    assert late.headers["x-should-retry"] == "false"
    assert len(upstream.seen) == seen + 1
    records = [gateway.record(one.result().generation_id) for one in two]
    assert {record["idempotency"]["key"] for record in records} == {mark if policy == "metadata" else None}


def test_an_erased_answer_is_not_repeated(gateway: Gateway, upstream: ScriptedUpstream, mark: str) -> None:
    """Erasing the bodies of a generation leaves no copy of them behind."""
    upstream.script = answer(chat_answer())
    first, seen = call(gateway, mark), len(upstream.seen)
    manager = gateway.command("keys", "create", "--scopes", "generations:erase", "--scopes", "generations:read")
    path = f"/v1/generations/{first.generation_id}/content"
    assert gateway.request("DELETE", path, key=manager.stdout.strip()).status == 200
    late = call(gateway, mark)
    assert late.json()["error"]["code"] == "user:idempotency_unavailable"
    assert len(upstream.seen) == seen


def test_without_bodies_a_client_that_leaves_cancels_as_it_does_without_a_key(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str
) -> None:
    """Nobody could come back for the answer: the provider is hung up on."""
    upstream.script = [*chunked(*FRAMES[:3], end=False), Hang()]
    hung_up = upstream.hung_up
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, STREAM, gateway.key(), idempotency_key=mark, x_counterfoil_capture="metadata"))
        head = client.read_until(b"\r\n\r\n").decode()
        client.read_until(b"\n\n")
        client.reset()
    wait_until(lambda: upstream.hung_up == hung_up + 1)
    generation_id = next(line.split(": ")[1] for line in head.split("\r\n") if line.startswith("x-request-id"))
    wait_until(lambda: gateway.look_up(generation_id).status == 200)
    assert gateway.record(generation_id)["status_code"] == 499


@pytest.mark.parametrize(
    "key", ["", " ", "a b", "k" * 256, "sch\u00f6n"], ids=["empty", "blank", "space", "long", "accent"]
)
def test_a_text_that_is_no_key_is_refused(gateway: Gateway, upstream: ScriptedUpstream, key: str) -> None:
    """400 that names the header, with a record; guessing what was meant could pay twice."""
    seen = len(upstream.seen)
    reply = call(gateway, key)
    assert (reply.status, reply.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert gateway.record(reply.generation_id)["error_code"] == "user:invalid_field"
    assert len(upstream.seen) == seen


def test_a_repeat_may_come_over_the_same_connection(gateway: Gateway, upstream: ScriptedUpstream, mark: str) -> None:
    """With the very same head, which the gateway need not read twice."""
    upstream.script = answer(chat_answer())
    seen = len(upstream.seen)
    request = post(CHAT, UNARY, gateway.key(), idempotency_key=mark)
    with RawClient(gateway.port) as client:
        replies: list[Reply] = []
        for _ in range(4):
            client.send(request)
            replies.append(client.reply())
    assert all(is_repeat(reply, replies[0]) for reply in replies[1:])
    assert len(upstream.seen) == seen + 1


def test_two_keys_in_one_request_are_ambiguous(gateway: Gateway, mark: str) -> None:
    """As a second authorisation is."""
    with RawClient(gateway.port) as client:
        head, _, body = post(CHAT, UNARY, gateway.key(), idempotency_key=mark).partition(b"\r\n\r\n")
        client.send(head + b"\r\nidempotency-key: other\r\n\r\n" + body)
        assert client.reply().status == 400


def test_without_an_api_key_an_idempotency_key_tells_nothing(
    gateway: Gateway, upstream: ScriptedUpstream, mark: str
) -> None:
    """401 as ever, known key or not."""
    upstream.script = answer(chat_answer())
    call(gateway, mark)
    assert call(gateway, mark, key="cf_sk_nobody").status == 401


def test_a_form_may_be_written_with_another_boundary(gateway: Gateway, upstream: ScriptedUpstream, mark: str) -> None:
    """Clients draw it anew for every try."""
    upstream.script = answer({"text": "hello", "usage": {"type": "duration", "seconds": 1}})
    seen = len(upstream.seen)

    def send(boundary: str, content: str) -> Answer:
        parts = [
            f'--{boundary}\r\ncontent-disposition: form-data; name="model"\r\n\r\nlocal/whisper-1\r\n',
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n{content}\r\n',
            f"--{boundary}--\r\n",
        ]
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Idempotency-Key": mark}
        body = "".join(parts).encode()
        return gateway.request("POST", "/v1/audio/transcriptions", body, key=gateway.key(), headers=headers)

    first, second, other = send("aaaa", "RIFF"), send("bbbb", "RIFF"), send("cccc", "other")
    assert (first.status, second.status, second.body) == (200, 200, first.body)
    assert other.status == 409
    assert len(upstream.seen) == seen + 1


def test_workers_share_what_a_key_stands_for(pair: Gateway, upstream: ScriptedUpstream, mark: str) -> None:
    """Forty repeats over two workers while the call is under way, and forty after it: one call, one answer."""
    free, seen = threading.Event(), len(upstream.seen)
    upstream.script = [Until(free), *answer(chat_answer())]
    sent: list[str] = []
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(call, pair, mark, sent=sent) for _ in range(40)]
        wait_until(lambda: len(upstream.seen) > seen and len(sent) == 40)
        all_wait(pair, mark, 2)
        free.set()
        replies = [one.result() for one in waiting]
        replies += list(pool.map(lambda _: call(pair, mark), range(40)))
    assert len(upstream.seen) == seen + 1
    assert {(reply.status, reply.body) for reply in replies} == {(200, json.dumps(chat_answer()).encode())}
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) == 1


def test_workers_share_an_error_too(pair: Gateway, upstream: ScriptedUpstream, mark: str) -> None:
    """Who waited in another worker gets the same status and code, in the gateway's words."""
    free, seen = threading.Event(), len(upstream.seen)
    upstream.script = [Until(free), *answer(b'{"error":{"message":"slow down"}}', 429)]
    sent: list[str] = []
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(call, pair, mark, sent=sent) for _ in range(40)]
        wait_until(lambda: len(upstream.seen) > seen and len(sent) == 40)
        all_wait(pair, mark, 2)
        free.set()
        replies = [one.result() for one in waiting]
    assert {reply.status for reply in replies} == {429}
    assert len(upstream.seen) == seen + 1


def test_a_restart_forgets_no_key(start_gateway: Any, upstream: ScriptedUpstream, mark: str) -> None:
    """Stop and start: the answer is the same. Kill in the middle: the next try says what may have been paid for."""
    gateway: Gateway = start_gateway(settings(upstream))
    upstream.script = answer(chat_answer())
    first, seen = call(gateway, mark), len(upstream.seen)
    gateway.stop()
    gateway.start()
    assert is_repeat(call(gateway, mark), first)
    assert len(upstream.seen) == seen
    upstream.script = [Hang()]
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, UNARY, gateway.key(), idempotency_key=mark + "-killed"))
        wait_until(lambda: len(upstream.seen) == seen + 1)
        gateway.process.kill()
    gateway.start()
    upstream.script = lambda _: answer(chat_answer())
    second = call(gateway, mark + "-killed")
    interrupted = gateway.record(second.headers["x-counterfoil-retry-of"])
    assert interrupted["error_code"] == "gateway:interrupted"
    assert gateway.record(second.generation_id)["idempotency"]["retry_of"] == interrupted["request_id"]
    assert is_repeat(call(gateway, mark + "-killed"), second)
    said = gateway.command("ledger", "verify", "--json")
    assert said.returncode == 0
    gateway.stop()


def test_a_request_without_a_key_leaves_no_trace_of_any_of_this(start_gateway: Any, upstream: ScriptedUpstream) -> None:
    """No file, no field."""
    gateway: Gateway = start_gateway(settings(upstream))
    upstream.script = answer(chat_answer())
    reply = gateway.request("POST", CHAT, UNARY, key=gateway.key())
    assert "idempotency" not in gateway.record(reply.headers["x-request-id"])
    assert not list(gateway.data.glob("idempotency*"))
    gateway.stop()
