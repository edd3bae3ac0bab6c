"""The record of a served call, field by field, as the contract has it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from counterfoil.demo.processes import free_port
from emulators.gateway import HOST, Answer, Gateway
from emulators.scripted import Reset, ScriptedUpstream, Seen, Step, Wait, answer, chat_answer, chat_frames, chunked

CHAT = "/v1/chat/completions"
BODY = {"model": "local/gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
FIELDS = {
    "created_at": str,
    "request_id": str,
    "team_id": str,
    "app_id": (str, type(None)),
    "endpoint": str,
    "model_id": str,
    "provider": str,
    "native_response_id": (str, type(None)),
    "stream": bool,
    "byok": bool,
    "status_code": int,
    "success": bool,
    "error_code": (str, type(None)),
    "error_message": (str, type(None)),
    "latency_ms": (int, float),
    "generation_ms": (int, float),
    "usage": dict,
    "cost_nanos": int,
    "currency": str,
    "pricing_lines": list,
    "key_id": str,
    "throughput": (int, float, type(None)),
    "replay_supported": bool,
}


MESSAGE = [
    b"event: %b\ndata: %b\n\n" % (json.loads(data)["type"].encode(), data)
    for data in (
        b'{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":9,"output_tokens":1}}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"one"}}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}',
        b'{"type":"message_stop"}',
    )
]
LATE_SECONDS = 0.3
BEYOND = {
    "cost_state": str,
    "attempts": list,
    "finish_reason": (str, type(None)),
    "gateway_ms": (int, float, type(None)),
    "replay_of": (str, type(None)),
    "session_id": (str, type(None)),
    "end_user": (str, type(None)),
    "tags": dict,
    "capture": dict,
    "chain": dict,
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider that answers in one piece or in frames, as it is asked."""
    with ScriptedUpstream() as running:
        running.script = play
        yield running


def play(seen: Seen) -> list[Step]:
    """Answer in frames, in one piece, or not at all."""
    if seen.json["model"] == "reset":
        return [Reset()]
    if seen.json["model"] == "late":
        *before, last = chunked(*chat_frames("one") if seen.path.endswith("completions") else MESSAGE)
        split = len(before) - (2 if seen.path.endswith("completions") else 1)
        return [*before[:split], Wait(LATE_SECONDS), *before[split:], last]
    return chunked(*chat_frames("one", "two")) if seen.json.get("stream") else answer(chat_answer())


@pytest.fixture(scope="module", params=[1, 2], ids=["one-worker", "two-workers"])
def gateway(request: pytest.FixtureRequest, start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway with one worker, and one with two."""
    running = start_gateway(
        {
            "providers": {
                "local": {
                    "type": "openai",
                    "base_url": upstream.base_url,
                    "api_key": "sk-operator",
                    "prices": "openai",
                },
                "other": {"type": "openai", "base_url": upstream.base_url, "api_key": "none"},
                "away": {"type": "openai", "base_url": f"http://127.0.0.1:{free_port(HOST)}/v1", "api_key": "none"},
            },
            "models": {"fast": ["local/gpt-4o-mini"]},
        },
        workers=request.param,
    )
    yield running
    running.stop()


def call(gateway: Gateway, key: str | None = None, body: dict[str, Any] = BODY, **headers: str) -> Answer:
    """One call; headers' underscores are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    got = gateway.request("POST", CHAT, body, key=key or gateway.key(), headers=named)
    assert got.status == 200, got.body
    return got


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_served_call_has_every_field_with_its_type(gateway: Gateway, stream: bool) -> None:
    """The 24 fields of the contract, each of its type, readable the moment the answer has ended."""
    before = gateway.key()
    got = call(gateway, before, BODY | {"stream": stream})
    record = gateway.record(got.headers["x-request-id"])
    for name, kind in (FIELDS | BEYOND).items():
        assert isinstance(record[name], kind), (name, record[name])
    assert re.fullmatch(r"gen_[0-9A-HJKMNP-TV-Z]{26}", record["request_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["created_at"])
    assert record["endpoint"] == CHAT
    assert (record["model_id"], record["provider"]) == ("local/gpt-4o-mini", "local")
    assert record["native_response_id"] == "chatcmpl-scripted"
    assert (record["stream"], record["status_code"], record["success"]) == (stream, 200, True)
    assert record["error_code"] is record["error_message"] is None
    assert 0 < record["latency_ms"] <= record["generation_ms"]
    tokens = record["usage"]["completion_tokens"]
    assert record["throughput"] == pytest.approx(tokens / record["generation_ms"] * 1000, rel=0.01)
    assert record["usage"]["total_tokens"] == record["usage"]["prompt_tokens"] + tokens
    assert (record["cost_state"], record["currency"]) == ("exact", "USD")
    assert record["cost_nanos"] == sum(line["amount_nanos"] for line in record["pricing_lines"]) > 0
    assert record["replay_supported"] is True
    assert record["replay_request"] == BODY | {"stream": stream}
    assert (got.headers["request-id"], got.headers["x-generation-id"]) == (record["request_id"],) * 2
    if not stream:
        assert int(got.headers["x-cost-nanos"]) == record["cost_nanos"]
    timing = dict(part.strip().split(";dur=") for part in got.headers["server-timing"].split(","))
    assert timing.keys() == {"gw", "upstream", "ledger"}
    assert all(float(ms) >= 0 for ms in timing.values())


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_what_follows_the_output_is_no_part_of_its_time(gateway: Gateway, path: str) -> None:
    """Usage and the end marker may be late: generation_ms ends with the finish reason, whatever waits for them."""
    key = gateway.key()
    began = time.monotonic()
    got = gateway.request("POST", path, BODY | {"model": "local/late", "stream": True}, key=key)
    seconds = time.monotonic() - began
    record = gateway.record(got.headers["x-request-id"])
    assert (record["success"], record["finish_reason"] in ("stop", "end_turn")) == (True, True)
    assert record["latency_ms"] <= record["generation_ms"] <= (seconds - LATE_SECONDS) * 1000
    assert record["throughput"] == pytest.approx(
        record["usage"]["completion_tokens"] / record["generation_ms"] * 1000, rel=0.01
    )
    assert record["gateway_ms"] < (seconds - LATE_SECONDS) * 1000


def test_the_lookup_takes_the_providers_id_too(gateway: Gateway) -> None:
    """The newest record with that id, of the caller's own team."""
    got = call(gateway)
    assert gateway.record("chatcmpl-scripted")["request_id"] == got.headers["x-request-id"]


def test_a_foreign_id_and_an_unknown_one_are_the_same_bytes(gateway: Gateway) -> None:
    """Another team cannot tell a record that exists from one that does not."""
    generation_id = call(gateway).headers["x-request-id"]
    stranger = gateway.key("strangers")
    foreign = gateway.look_up(generation_id, stranger)
    unknown = gateway.look_up(generation_id[:-1] + ("0" if generation_id[-1] != "0" else "1"), stranger)
    assert foreign.status == unknown.status == 404
    assert foreign.body == unknown.body
    assert foreign.headers["cache-control"] == "no-store"


def test_an_alias_is_recorded_as_what_it_led_to_and_replayed_as_it_was_written(gateway: Gateway) -> None:
    """model_id is the billed model; the captured request keeps the client's word."""
    record = gateway.record(call(gateway, body=BODY | {"model": "fast"}).headers["x-request-id"])
    assert (record["model_id"], record["requested_model"]) == ("local/gpt-4o-mini", "fast")
    assert record["replay_request"]["model"] == "fast"


def test_an_unpriced_model_is_unknown_never_free(gateway: Gateway) -> None:
    """A provider in no catalogue gives unpriced lines, and says so."""
    record = gateway.record(call(gateway, body=BODY | {"model": "other/private"}).headers["x-request-id"])
    assert (record["cost_nanos"], record["cost_state"]) == (0, "unknown")
    assert {line["state"] for line in record["pricing_lines"]} == {"unpriced"}


def test_the_app_comes_from_the_key_or_the_headers(gateway: Gateway) -> None:
    """A key's own app wins; without one the client names it."""
    assert (
        gateway.record(call(gateway, gateway.key(app="web"), X_App_Id="x").headers["x-request-id"])["app_id"] == "web"
    )
    assert gateway.record(call(gateway, X_App_Id="batch").headers["x-request-id"])["app_id"] == "batch"
    assert gateway.record(call(gateway).headers["x-request-id"])["app_id"] is None


def test_a_teams_own_provider_key_is_used_first_and_reported(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """BYOK: the provider gets the team's key, the record says so, and no key is ever stored in it."""
    call(gateway)
    assert upstream.seen[-1].headers["authorization"] == "Bearer sk-operator"
    key = gateway.key("owners")
    gateway.command("provider-keys", "set", "--team", "owners", "local", stdin="sk-teams-own\n")
    got = call(gateway, key)
    assert upstream.seen[-1].headers["authorization"] == "Bearer sk-teams-own"
    look_up = gateway.look_up(got.headers["x-request-id"], key)
    record = look_up.json()
    assert record["byok"] is True
    assert record["attempts"][0]["key_source"] == "team"
    assert b"sk-teams-own" not in look_up.body
    assert b"sk-teams-own" not in gateway.process.log.read_bytes()


@pytest.mark.parametrize(
    ("method", "asked", "status", "error"),
    [
        ("POST", BODY | {"model": "nobody/x"}, 404, "user:model_not_found"),
        ("POST", BODY | {"stream": 1}, 400, "user:invalid_field"),
        ("POST", {}, 400, "user:model_required"),
        ("POST", BODY | {"model": "away/x"}, 502, "upstream:connect_failed"),
        ("POST", BODY | {"model": "local/reset"}, 502, "upstream:connection_reset"),
        ("GET", None, 405, "user:method_not_allowed"),
    ],
    ids=["model", "field", "empty", "away", "reset", "method"],
)
def test_an_error_of_ours_has_every_field_and_header_too(
    gateway: Gateway, method: str, asked: dict[str, Any] | None, status: int, error: str
) -> None:
    """A call that nobody answered is recorded like any other, and its answer says the same of cost and time."""
    got = gateway.request(method, CHAT, asked, key=gateway.key())
    record = gateway.record(got.headers["x-request-id"])
    for name, kind in (FIELDS | BEYOND).items():
        assert isinstance(record[name], kind), (name, record[name])
    assert (got.status, record["status_code"], record["error_code"]) == (status, status, error)
    assert (record["success"], record["throughput"], record["tags"]) == (False, None, {})
    assert 0 < record["latency_ms"] <= record["generation_ms"]
    told = (int(got.headers["x-cost-nanos"]), got.headers["x-cost-state"])
    assert told == (record["cost_nanos"], record["cost_state"])
    assert record["cost_nanos"] == sum(line["amount_nanos"] for line in record["pricing_lines"]) == 0
    timing = dict(part.strip().split(";dur=") for part in got.headers["server-timing"].split(","))
    assert timing.keys() == {"gw", "upstream", "ledger"}
    assert all(float(ms) >= 0 for ms in timing.values())


@pytest.mark.parametrize("policy", ["metadata", "off"])
def test_a_request_may_ask_for_less_to_be_kept(gateway: Gateway, policy: str) -> None:
    """The strictest policy wins: the record stays, the bodies do not."""
    got = call(gateway, body=BODY | {"user": "someone"}, x_counterfoil_capture=policy)
    record = gateway.record(got.headers["x-request-id"])
    assert record["capture"]["policy"] == policy
    assert (record["replay_supported"], record["replay_unavailable_reason"]) == (False, "policy")
    assert "replay_request" not in record
    assert record["end_user"] == ("someone" if policy == "metadata" else None)


def test_a_key_may_be_kept_to_metadata(gateway: Gateway) -> None:
    """A key's policy counts for every call made with it."""
    made = json.loads(gateway.command("keys", "create", "--team", "acme", "--capture", "metadata", "--json").stdout)
    record = gateway.record(call(gateway, made["key"]).headers["x-request-id"])
    assert record["replay_supported"] is False


def test_posting_the_captured_request_to_its_endpoint_reruns_it(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Byte for byte the same request reaches the provider, and the new record is linked when the header says so."""
    first = call(gateway)
    sent = upstream.seen[-1].body
    raw = gateway.look_up(first.headers["x-request-id"]).body
    replayed = raw[raw.index(b'"replay_request":') + len(b'"replay_request":') : -1]
    record = gateway.record(first.headers["x-request-id"])
    again = gateway.request(
        "POST",
        record["endpoint"],
        replayed,
        key=gateway.key(),
        headers={"x-counterfoil-replay-of": record["request_id"]},
    )
    assert upstream.seen[-1].body == sent
    assert gateway.record(again.headers["x-request-id"])["replay_of"] == record["request_id"]


def test_models_lists_what_the_team_may_call(gateway: Gateway) -> None:
    """Aliases and the priced models of each provider, in OpenAI's shape."""
    listed = gateway.request("GET", "/v1/models", key=gateway.key()).json()
    ids = {entry["id"] for entry in listed["data"]}
    assert {"fast", "local/gpt-4o-mini"} <= ids
