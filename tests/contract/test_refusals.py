"""A refusal costs nothing, a fallback what it itself costs; the record says who answered, and can prove it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, answer

BODY = {"model": "anthropic/claude-fable-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
FALLEN = {
    "id": "msg_fallen",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-4-8",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 1000,
        "output_tokens": 100,
        "iterations": [
            {"type": "message", "model": "claude-fable-5", "input_tokens": 900, "output_tokens": 0},
            {"type": "fallback_message", "model": "claude-opus-4-8", "input_tokens": 1000, "output_tokens": 100},
        ],
    },
}
REFUSED = FALLEN | {
    "model": "claude-fable-5",
    "content": [],
    "stop_reason": "refusal",
    "usage": {"input_tokens": 900, "output_tokens": 4},
}


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway in front of it."""
    one = {"type": "anthropic", "base_url": upstream.base_url, "api_key": "none"}
    running = start_gateway({"providers": {"anthropic": one}})
    yield running
    running.stop()


def record_of(gateway: Gateway, upstream: ScriptedUpstream, body: dict[str, Any]) -> dict[str, Any]:
    """Give the record of a call that the provider answered with ``body``."""
    upstream.script = answer(body)
    got = gateway.request("POST", "/v1/messages", BODY, key=gateway.key())
    assert (got.status, got.json()) == (200, body)
    return gateway.record(got.headers["request-id"])


def test_a_fallbacks_call_bears_its_name_and_its_price(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """``model_id`` is the model as billed, ``requested_model`` the one that was asked; no token is paid twice."""
    record = record_of(gateway, upstream, FALLEN)
    assert (record["requested_model"], record["model_id"]) == (BODY["model"], "anthropic/claude-opus-4-8")
    assert (record["native_model"], record["finish_reason"]) == ("claude-opus-4-8", "end_turn")
    assert [(line["meter"], line["quantity"]) for line in record["pricing_lines"]] == [
        ("input_tokens", 1000),
        ("output_tokens", 100),
    ]
    assert all(line["rule_id"].startswith("anthropic/claude-opus-4-8") for line in record["pricing_lines"])
    assert record["cost_state"] == "exact"


def test_a_refusal_before_any_output_is_one_line_at_zero(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Its tokens are in the usage, and no more than that."""
    record = record_of(gateway, upstream, REFUSED)
    assert record["usage"]["total_tokens"] == 904
    assert [(line["meter"], line["amount_nanos"]) for line in record["pricing_lines"]] == [("refusals", 0)]
    assert (record["cost_nanos"], record["cost_state"], record["throughput"]) == (0, "exact", None)


def test_their_lines_follow_from_the_record_and_its_book(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """The ledger proves them like any others."""
    record_of(gateway, upstream, FALLEN)
    record_of(gateway, upstream, REFUSED)
    verified = json.loads(gateway.command("ledger", "verify", "--json").stdout)
    assert verified["ok"] is True
