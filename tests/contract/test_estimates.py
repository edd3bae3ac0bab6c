"""Where a provider reports no usage the tokens are counted here, and every reader is told that they are an estimate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import Close, ScriptedUpstream, answer, chat_answer, chat_frames, chunked

pytest.importorskip("bpe_openai", reason="the extra `tokenizer` is not installed")

PRICES = "prices: [{provider: local, model: m, rates: {input_tokens: 2, output_tokens: 10}}]"
HELLO = [{"role": "user", "content": "hello"}]
ASKED = 1 + 4 + 3  # one token, the frame of a message, the opening of the answer
WORDS = ("The", " quick", " brown", " fox")


class Place:
    """A provider that says what a test wants, and a gateway before it."""

    def __init__(self, gateway: Gateway, upstream: ScriptedUpstream) -> None:
        self.gateway, self.upstream = gateway, upstream

    def call(self, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> dict[str, Any]:
        """Give the record of one call."""
        key = self.gateway.key()
        got = self.gateway.request("POST", path, {"model": "local/m", **body}, key=key, headers=headers)
        return self.gateway.record(got.headers["x-request-id"], key)


@pytest.fixture(scope="module")
def place(start_gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give both."""
    prices = tmp_path_factory.mktemp("prices") / "prices.yaml"
    prices.write_text(PRICES)
    with ScriptedUpstream() as upstream:
        one = {"base_url": upstream.base_url, "api_key": "none", "surfaces": ["chat", "messages"]}
        started = start_gateway(
            {
                "providers": {"local": {"type": "openai", **one}},
                "prices_file": str(prices),
                "estimates": {"tokens": True},
            }
        )
        yield Place(started, upstream)
        started.stop()


def told(record: dict[str, Any]) -> tuple[str, list[str], int, int, str]:
    """Give what a record says of its usage and its cost."""
    used = record["usage"]
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
    assert record["cost_nanos"] == used["prompt_tokens"] * 2000 + used["completion_tokens"] * 10_000
    return (
        used["source"],
        used.get("estimated", []),
        used["prompt_tokens"],
        used["completion_tokens"],
        record["cost_state"],
    )


BOTH = ["prompt_tokens", "completion_tokens"]


def test_an_old_server_reports_nothing(place: Place) -> None:
    """The text of the request and of the answer is counted, exactly for this tokenizer's own models."""
    silent = chat_answer("".join(WORDS))
    del silent["usage"]
    place.upstream.script = answer(silent)
    record = place.call({"messages": HELLO})
    assert told(record) == ("estimated", BOTH, ASKED, 4, "estimated")
    assert record["cost_reason"] == "the usage is an estimate"


def test_a_stream_without_its_usage(place: Place) -> None:
    """The pieces are put together before they are counted."""
    place.upstream.script = chunked(*chat_frames(*WORDS, usage=False))
    assert told(place.call({"messages": HELLO, "stream": True})) == ("estimated", BOTH, ASKED, 4, "estimated")


def test_a_stream_cut_short(place: Place) -> None:
    """What had come was generated, and is charged by the provider: the call failed, and its cost is an estimate."""
    place.upstream.script = [*chunked(*chat_frames(*WORDS, done=False)[:4], end=False), Close()]
    record = place.call({"messages": HELLO, "stream": True})
    assert record["success"] is False
    assert told(record) == ("estimated", BOTH, ASKED, 3, "estimated")


def test_what_was_reported_is_kept(place: Place) -> None:
    """Anthropic tells the input when a stream begins; only the output is ours, and the record says which is which."""
    events = [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 77, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "delta": {"type": "text_delta", "text": word}} for word in WORDS),
    ]
    frames = [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events]
    place.upstream.script = [*chunked(*frames, end=False), Close()]
    record = place.call({"messages": HELLO, "max_tokens": 9, "stream": True}, "/v1/messages")
    assert told(record) == ("estimated", ["completion_tokens"], 77, 4, "estimated")
    assert record["cost_reason"].endswith("in completion_tokens; the rest is as the provider reported it")


def test_what_cannot_be_seen_makes_a_lower_bound(place: Place) -> None:
    """Tools are explained to the model in the provider's own words: the count is then part of the truth."""
    silent = chat_answer("".join(WORDS))
    del silent["usage"]
    place.upstream.script = answer(silent)
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    source, ours, prompt, _, state = told(place.call({"messages": HELLO, "tools": tools}))
    assert (source, ours, state) == ("partial", BOTH, "partial")
    assert prompt > ASKED


def test_an_answer_that_was_not_kept_is_not_guessed(place: Place) -> None:
    """Without its text a stream's output stays unknown; the input is counted, and the cost is at least that."""
    place.upstream.script = chunked(*chat_frames(*WORDS, usage=False))
    record = place.call({"messages": HELLO, "stream": True}, **{"x-counterfoil-capture": "metadata"})
    assert record["capture"]["policy"] == "metadata"
    assert told(record) == ("partial", ["prompt_tokens"], ASKED, 0, "partial")


def test_what_was_no_answer_is_not_guessed(place: Place) -> None:
    """A success whose bytes nobody can read is refused: nothing is known of what it cost, and nothing is made up."""
    place.upstream.script = answer(chat_answer("".join(WORDS)), content_encoding="zip")
    record = place.call({"messages": HELLO})
    assert record["error_code"] == "upstream:invalid_response"
    assert (record["usage"]["source"], record["usage"]["prompt_tokens"]) == ("absent", 0)
    assert record["cost_state"] == "unknown"


def test_reported_usage_is_never_touched(place: Place) -> None:
    """Nothing is estimated where the provider says all."""
    place.upstream.script = answer(chat_answer("".join(WORDS)))
    assert told(place.call({"messages": HELLO})) == ("reported", [], 9, 3, "exact")


def test_estimates_are_proved_like_any_usage(place: Place) -> None:
    """The record holds the counts, so its lines follow from it; sums say how many records are estimated."""
    assert place.gateway.command("ledger", "verify").stdout.startswith("Intact")
    summary = place.gateway.request("GET", "/v1/generations/summary", key=place.gateway.key()).json()
    assert summary["estimated_cost"] == summary["by_cost_state"]["estimated"] > 0


def test_nothing_is_estimated_unless_it_is_asked_for(start_gateway: Any) -> None:
    """The usage is absent and the cost unknown."""
    silent = chat_answer()
    del silent["usage"]
    with ScriptedUpstream() as upstream:
        upstream.script = answer(silent)
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none"}
        started = start_gateway({"providers": {"local": one}})
        record = Place(started, upstream).call({"messages": HELLO})
        assert (record["usage"]["source"], record["cost_state"]) == ("absent", "unknown")
        assert "estimated" not in record["usage"]
        started.stop()
