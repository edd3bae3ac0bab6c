"""A recording answers in a provider's place: which one, how, to whom, and what its record says."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import StartGateway, providers
from counterfoil.folder import DataFolder
from counterfoil.tenancy.admin import Admin
from emulators.cassette import Cassette, Take
from emulators.gateway import Answer, Gateway

MODEL = "openai/gpt-4o-mini"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway, cassette: Cassette) -> Iterator[Gateway]:
    """Give a gateway in front of the cassette; each test has a team of its own."""
    running = start_gateway({"providers": providers(cassette.url)})
    yield running
    running.stop()


@pytest.fixture
def team(request: pytest.FixtureRequest) -> str:
    """Give a team that no other test uses."""
    return f"team-{zlib.crc32(request.node.name.encode()):08x}"


def key(gateway: Gateway, team: str) -> str:
    """A key of ``team``, made on first use."""
    if (team, None) not in gateway._keys:
        admin = Admin(DataFolder.existing(gateway.data))
        gateway._keys[team, None] = admin.create_key(team, make_missing=True).key
        admin.close()
    return gateway.key(team)


def asked(text: str, **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


def said(text: str) -> bytes:
    """A provider's whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    answer = {"id": f"chatcmpl-{text}", "object": "chat.completion", "model": "gpt-4o-mini", "choices": [choice]}
    return json.dumps({**answer, "usage": USAGE}).encode()


def frames(*texts: str) -> bytes:
    """A provider's stream, with the usage frame that the gateway asks for."""
    parts = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    parts += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE}]
    return b"".join(b"data: %b\n\n" % json.dumps({"id": "c", **part}).encode() for part in parts) + b"data: [DONE]\n\n"


def call(gateway: Gateway, team: str, body: Any, mode: str | None = None, **headers: str) -> Answer:
    """One chat call of ``team``."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    fields |= {"x-counterfoil-playback": mode} if mode else {}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return gateway.request("POST", "/v1/chat/completions", data, key=key(gateway, team), headers=fields)


def record(gateway: Gateway, team: str, answer: Answer) -> dict[str, Any]:
    """The record of an answered call."""
    return gateway.record(answer.headers["x-generation-id"], key(gateway, team))


def test_a_recording_answers_and_nothing_is_spent(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """The bytes are the recorded ones, no provider is called, and the record says what was played and that it was."""
    spoof = (("x-counterfoil-playback-of", "gen_theirs"),)
    cassette.play(Take(said("hello"), content_type="application/json; charset=UTF-8", headers=spoof))
    recorded = call(gateway, team, asked("hi"))
    assert "x-counterfoil-playback-of" not in recorded.headers
    cassette.play(Take(b"never"))

    played = call(gateway, team, asked("hi"), "strict")

    assert cassette.requests == []
    assert (played.status, played.body) == (200, recorded.body)
    assert played.headers["content-type"] == "application/json; charset=UTF-8"
    assert played.headers["x-counterfoil-playback-of"] == recorded.headers["x-generation-id"]
    assert played.headers["x-request-id"] != recorded.headers["x-request-id"]
    assert played.headers["x-cost-nanos"] == "0"
    first, second = record(gateway, team, recorded), record(gateway, team, played)
    assert second["playback_of"] == first["request_id"]
    assert (second["cost_nanos"], second["cost_state"], second["pricing_lines"]) == (0, "playback", [])
    assert (second["provider"], second["attempts"], second["success"]) == ("none", [], True)
    assert (second["model_id"], second["usage"]) == (first["model_id"], first["usage"])
    assert second["throughput"] is None
    assert 0 <= second["latency_ms"] <= second["generation_ms"]
    assert second["replay_request"] == asked("hi")
    assert first["cost_nanos"] > 0
    shown = gateway.command("generations", "show", second["request_id"]).stdout
    assert "played back" in shown
    assert f"played from {first['request_id']}" in " ".join(shown.replace("│", " ").split())
    assert "playback_of" not in first


def test_a_stream_is_played_in_its_recorded_chunks(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """A stream comes byte for byte, and the usage frame that only the gateway asked for is withheld again."""
    cassette.play(Take(frames("a", "b", "ü"), content_type="text/event-stream", cut=50))
    recorded = call(gateway, team, asked("hi", stream=True))
    cassette.play(Take(b"never"))

    played = call(gateway, team, asked("hi", stream=True), "strict")
    curious = call(
        gateway, team, asked("hi", stream=True, stream_options={"include_usage": True}), "strict",
        x_counterfoil_playback_ignore="/stream_options",
    )  # fmt: skip

    assert cassette.requests == []
    assert played.body == recorded.body == frames("a", "b", "ü").replace(_usage_frame(), b"")
    assert curious.body == frames("a", "b", "ü")
    entry = record(gateway, team, played)
    assert entry["usage"]["total_tokens"] == 12
    assert entry["replay_request"] == asked("hi", stream=True)


def _usage_frame() -> bytes:
    return b"data: %b\n\n" % json.dumps({"id": "c", "choices": [], "usage": USAGE}).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            b'{"messages":[{"content":"h\\u00e9","role":"user"}],"model":"openai/gpt-4o-mini","n":1}', id="order"
        ),
        pytest.param(
            b'{ "model": "openai/gpt-4o-mini",\n "n" : 1.0, "messages": [ {"role":"user", "content":"h\xc3\xa9"} ] }',
            id="white space and numbers",
        ),
    ],
)
def test_spelling_does_not_matter(gateway: Gateway, cassette: Cassette, team: str, body: bytes) -> None:
    """The match is by what the body says: not by white space, order, escapes or the spelling of a number."""
    cassette.play(Take(said("x")))
    call(gateway, team, asked("hé", n=1))

    assert call(gateway, team, body, "strict").status == 200


def test_a_strict_miss_names_the_nearest_recording(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """Nothing is sent; the error is a 404 in the surface's shape, with a record, and says what differs."""
    cassette.play(Take(said("x")))
    near = call(gateway, team, asked("hi", temperature=0.5))
    call(gateway, team, asked("other", temperature=1, top_p=0.3))
    cassette.play(Take(b"never"))

    missed = call(gateway, team, asked("hi", temperature=0.7, seed=1), "strict")

    assert cassette.requests == []
    assert missed.status == 404
    error = missed.json()["error"]
    assert error["code"] == "user:no_recording"
    assert near.headers["x-generation-id"] in error["message"]
    assert error["message"].endswith("differs in: /temperature, /seed.")
    entry = record(gateway, team, missed)
    assert (entry["status_code"], entry["error_code"]) == (404, "user:no_recording")
    assert (entry["cost_nanos"], entry["cost_state"], entry["provider"]) == (0, "free", "none")


def test_a_miss_says_nothing_of_what_was_said(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """A member's name that no protocol has is text of somebody's, and is not repeated."""
    cassette.play(Take(said("x")))
    call(gateway, team, asked("hi"))

    missed = call(gateway, team, asked("hi", metadata={"my secret plan": 1}), "strict")

    assert "/metadata" in missed.json()["error"]["message"]
    assert b"secret" not in missed.body


def test_prefer_falls_through_and_records(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """Without a recording the provider answers, is recorded, and the recording answers from then on."""
    cassette.play(Take(said("live")))
    first = call(gateway, team, asked("hi"), "prefer")
    assert len(cassette.requests) == 1
    assert record(gateway, team, first)["cost_state"] == "exact"

    second = call(gateway, team, asked("hi"), "prefer")
    assert len(cassette.requests) == 1
    assert second.body == first.body
    assert record(gateway, team, second)["playback_of"] == first.headers["x-generation-id"]


def test_prefer_asks_again_where_only_an_error_was_recorded(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """A provider's error is played where playback is strict, and is no reason not to ask where it is preferred."""
    cassette.play(Take(b'{"error":{"message":"no","type":"x"}}', status=429))
    call(gateway, team, asked("hi"))
    cassette.play(Take(said("live")))

    strict = call(gateway, team, asked("hi"), "strict")
    assert cassette.requests == []
    assert (strict.status, strict.body) == (429, b'{"error":{"message":"no","type":"x"}}')
    entry = record(gateway, team, strict)
    assert (entry["error_code"], entry["cost_state"]) == ("upstream:rate_limited", "playback")

    assert call(gateway, team, asked("hi"), "prefer").body == said("live")
    assert len(cassette.requests) == 1


def test_several_recordings_are_played_in_order(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """The first call gets the first recording, and after the last comes the first; each session has its own turn."""
    for text in ("one", "two", "three"):
        cassette.play(Take(said(text)))
        call(gateway, team, asked("next"))

    turns = [call(gateway, team, asked("next"), "strict").body for _ in range(4)]
    other = [call(gateway, team, asked("next"), "strict", x_session_id="s2").body for _ in range(2)]

    assert turns == [said("one"), said("two"), said("three"), said("one")]
    assert other == [said("one"), said("two")]


def test_a_played_call_is_no_recording(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """What was played is not played again as a recording of its own."""
    cassette.play(Take(said("one")))
    first = call(gateway, team, asked("hi"))

    for _ in range(3):
        played = call(gateway, team, asked("hi"), "strict")
        assert played.headers["x-counterfoil-playback-of"] == first.headers["x-generation-id"]


def test_a_repeat_of_a_keyed_call_is_no_recording(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """What an idempotency key gave back came from another record; a keyed call can be played like any other."""
    cassette.play(Take(said("one")))
    first = call(gateway, team, asked("hi"), Idempotency_Key="a")
    repeat = call(gateway, team, asked("hi"), Idempotency_Key="a")
    assert repeat.headers["x-generation-id"] != first.headers["x-generation-id"]

    played = [call(gateway, team, asked("hi"), "strict", Idempotency_Key=f"b{n}") for n in range(3)]

    assert {one.headers["x-counterfoil-playback-of"] for one in played} == {first.headers["x-generation-id"]}
    assert len(cassette.requests) == 1


def test_another_teams_recordings_do_not_exist(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """A request that another team recorded finds nothing, and the miss does not name it."""
    cassette.play(Take(said("theirs")))
    theirs = call(gateway, team, asked("hi"))
    mine = f"{team}-2"

    missed = call(gateway, mine, asked("hi"), "strict")

    assert missed.status == 404
    assert "has none at this endpoint" in missed.json()["error"]["message"]
    assert theirs.headers["x-generation-id"].encode() not in missed.body


def test_what_was_not_kept_or_was_erased_cannot_be_played(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """Only full captures that are still there answer."""
    cassette.play(Take(said("x")))
    call(gateway, team, asked("hi"), x_counterfoil_capture="metadata")
    assert call(gateway, team, asked("hi"), "strict").status == 404

    kept = call(gateway, team, asked("hi"))
    assert call(gateway, team, asked("hi"), "strict").status == 200
    manager = gateway.command("keys", "create", "--scopes", "admin").stdout.strip()
    erased = gateway.request("DELETE", f"/v1/generations/{kept.headers['x-generation-id']}/content", key=manager)
    assert erased.status < 300, erased.body
    assert call(gateway, team, asked("hi"), "strict").status == 404


def test_fields_can_be_left_out_of_the_match(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """Pointers name what does not count, ``*`` every element; what they do not name still counts."""
    cassette.play(Take(said("x")))
    call(
        gateway, team, asked("hi", user="u1", tools=[{"type": "function", "id": "a"}, {"type": "function", "id": "b"}])
    )
    body = asked("hi", user="u2", tools=[{"type": "function", "id": "c"}, {"type": "function", "id": "d"}])

    assert call(gateway, team, body, "strict").status == 404
    assert call(gateway, team, body, "strict", x_counterfoil_playback_ignore="/user").status == 404
    assert call(gateway, team, body, "strict", x_counterfoil_playback_ignore="/user, /tools/*/id").status == 200
    assert call(gateway, team, body, "strict", x_counterfoil_playback_ignore="user").status == 400


def test_the_pace_is_the_recorded_one_or_none(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """As recorded it takes at least as long as it took, at once it does not wait, and a factor divides."""
    cassette.play(Take(frames(*"abcdefghijkl"), content_type="text/event-stream", cut=20))
    recorded = call(gateway, team, asked("hi", stream=True))
    took = record(gateway, team, recorded)["generation_ms"]

    def play(speed: str) -> float:
        began = time.perf_counter()
        answer = call(gateway, team, asked("hi", stream=True), "strict", x_counterfoil_playback_speed=speed)
        assert answer.body == recorded.body
        return (time.perf_counter() - began) * 1000

    assert play("original") >= took * 0.9
    assert play("0.5") >= took * 1.8
    play("none")
    refused = call(gateway, team, asked("hi", stream=True), "strict", x_counterfoil_playback_speed="0")
    assert (refused.status, refused.json()["error"]["param"]) == (400, "x-counterfoil-playback-speed")


def test_a_key_has_a_default_that_a_call_can_overrule(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """A key made for tests plays by itself, ``off`` asks the provider after all, and the default can be changed."""
    cassette.play(Take(said("x")))
    call(gateway, team, asked("hi"))
    key = gateway.command("keys", "create", "--team", team, "--playback", "strict").stdout.strip()
    kid = key.split("_")[2]
    path = "/v1/chat/completions"
    cassette.play(Take(said("live")))

    assert gateway.request("POST", path, asked("hi"), key=key).body == said("x")
    off = {"x-counterfoil-playback": "off"}
    assert gateway.request("POST", path, asked("new"), key=key, headers=off).body == said("live")
    assert gateway.request("POST", path, asked("newer"), key=key).status == 404
    manager = gateway.command("keys", "create", "--scopes", "admin").stdout.strip()
    shown = gateway.request("PATCH", f"/v1/keys/{kid}", {"playback": None}, key=manager).json()
    assert shown["playback"] is None
    assert gateway.request("POST", path, asked("newer"), key=key).body == said("live")
    gateway.command("keys", "playback", kid, "prefer")
    assert gateway.request("GET", f"/v1/keys/{kid}", key=manager).json()["playback"] == "prefer"


def test_a_mode_that_is_none_is_refused(gateway: Gateway, team: str) -> None:
    """Who misspells the mode must not be taken for somebody who did not ask: a provider would be paid."""
    refused = call(gateway, team, asked("hi"), "stritc")

    assert refused.status == 400
    assert refused.json()["error"]["param"] == "x-counterfoil-playback"


def test_a_model_that_nobody_serves_any_more_can_be_played(
    start_gateway: StartGateway, cassette: Cassette, team: str
) -> None:
    """A recording outlives the provider's place in the configuration, and a restart; the ledger verifies."""
    running = start_gateway({"providers": providers(cassette.url)})
    cassette.play(Take(said("old")))
    call(running, team, asked("hi"))
    running.stop()
    settings = json.loads(running.config.read_text())
    running.config.write_text(json.dumps({**settings, "providers": {}}))
    running.start()

    assert call(running, team, asked("hi"), "strict").body == said("old")
    running.stop()
    assert running.command("ledger", "verify", check=False).returncode == 0


def test_sums_count_what_was_spent(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """A played call is counted, and neither its tokens nor an unknown cost are: nothing was consumed."""
    cassette.play(Take(said("x").replace(b'"total_tokens": 12', b'"total_tokens": 12, "cost": 0.5')))
    paid = record(gateway, team, call(gateway, team, asked("hi")))
    for _ in range(2):
        played = record(gateway, team, call(gateway, team, asked("hi"), "strict"))
        assert (paid["provider_cost_nanos"], played["provider_cost_nanos"]) == (500_000_000, None)

    sums = gateway.request("GET", "/v1/generations/summary", key=key(gateway, team)).json()

    assert (sums["records"], sums["cost_nanos"]) == (3, paid["cost_nanos"])
    assert (sums["prompt_tokens"], sums["completion_tokens"]) == (9, 3)
    assert sums["by_cost_state"] == {"exact": 1, "playback": 2}
    assert sums["cost_complete"] is True


def test_a_form_is_matched_by_its_parts(gateway: Gateway, cassette: Cassette, team: str) -> None:
    """The boundary and the order of other fields do not matter; the file's bytes do."""

    def transcribe(boundary: str, sound: bytes, names: tuple[str, ...], mode: str | None = None) -> Answer:
        values = {"model": b"openai/whisper-1", "language": b"en"}
        parts = [
            b'--%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n'
            % (boundary.encode(), name.encode(), values[name])
            for name in names
        ]
        parts.append(
            b'--%b\r\ncontent-disposition: form-data; name="file"; filename="%b.wav"\r\n\r\n%b\r\n--%b--\r\n'
            % (boundary.encode(), boundary.encode(), sound, boundary.encode())
        )
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        headers |= {"x-counterfoil-playback": mode} if mode else {}
        path = "/v1/audio/transcriptions"
        return gateway.request("POST", path, b"".join(parts), key=key(gateway, team), headers=headers)

    cassette.play(Take(b'{"text":"hello"}'))
    transcribe("aaa", b"\x00\xffsound", ("model", "language"))

    assert transcribe("bbb", b"\x00\xffsound", ("language", "model"), "strict").json() == {"text": "hello"}
    missed = transcribe("bbb", b"\x00\xfeother", ("language", "model"), "strict")
    assert missed.status == 404
    assert "differs in: /file/0/sha256." in missed.json()["error"]["message"]
