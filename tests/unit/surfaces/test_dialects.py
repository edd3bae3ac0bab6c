"""What providers make of a protocol that is not theirs, or write in another way than its reference says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from counterfoil.record.usage import UsageSource

CHAT = "/v1/chat/completions"
GEMINI = "/v1beta/models/x:streamGenerateContent"
RESPONSES = "/v1/responses"


def frames(*bodies: dict[str, Any], end: bytes = b"data: [DONE]\n\n") -> bytes:
    """An event stream of ``bodies``."""
    return b"".join(b"data: %b\n\n" % json.dumps(body).encode() for body in bodies) + end


def test_a_message_beside_an_empty_delta_is_output(bench):
    """Perplexity gives whole answers with both; what was said, and what was cited, stands in the message."""
    note = {"type": "url_citation", "url_citation": {"url": "https://a.test"}}
    choice = {"message": {"content": "hi", "annotations": [note]}, "delta": {"role": "assistant", "content": ""}}
    reading = bench.whole(CHAT, {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    assert (reading.has_output, reading.usage.meters) == (True, {"web_searches": 1})
    empty = {"message": {"content": ""}, "delta": {"role": "assistant", "content": ""}}
    assert not bench.whole(CHAT, {"choices": [empty]}).has_output


@pytest.mark.parametrize("size", ["low", "medium", "high"])
@pytest.mark.parametrize("asked", [b"{}", b'{"web_search_options":{"search_type": "pro"}}'])
def test_a_request_is_metered_by_how_much_was_searched(bench, size: str, asked: bytes):
    """Perplexity says how large the search was; that it was a Pro Search stands in the request, for streams alone."""
    used = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "search_context_size": size}
    whole = bench.whole(CHAT, {"choices": [], "usage": used}).usage
    streamed = bench.play(CHAT, frames({"choices": [], "usage": used}), body=asked).reading.usage
    kind = "requests.pro" if b"pro" in asked else "requests"
    assert (whole.meters, streamed.meters) == ({f"requests.{size}": 1}, {f"{kind}.{size}": 1})
    odd = bench.whole(CHAT, {"choices": [], "usage": used | {"search_context_size": ["low"]}}).usage
    assert not odd.meters
    assert odd.source is UsageSource.REPORTED


@pytest.mark.parametrize(
    ("number", "name"), [(1, "STOP"), (2, "MAX_TOKENS"), (3, "SAFETY"), (4, "RECITATION"), (5, "OTHER"), (9, "9")]
)
@pytest.mark.parametrize("pad", [0, 2_000_000], ids=["short", "long"])
def test_gemini_may_write_its_words_as_numbers(bench, number: int, name: str, pad: int):
    """With ``$alt=json;enum-encoding=int`` an end is a number, and so is what kind of content a token holds."""
    part = {"text": "a" * pad or "hi"}
    body = {
        "candidates": [{"content": {"parts": [part]}, "finishReason": number}],
        "usageMetadata": {
            "promptTokenCount": 7,
            "candidatesTokenCount": 5,
            "promptTokensDetails": [{"modality": 1, "tokenCount": 4}, {"modality": 4, "tokenCount": 3}],
            "candidatesTokensDetails": [{"modality": 2, "tokenCount": 5}],
            "trafficType": 2,
        },
        "modelVersion": "gem",
        "responseId": "g1",
    }
    for stream in (frames(body, end=b""), json.dumps([body]).encode()):
        reading = bench.play(GEMINI, stream, 4096).reading
        assert (reading.complete, reading.finish_reason) == (True, name)
        assert (reading.native_response_id, reading.native_model) == ("g1", "gem")
        assert reading.usage.prompt_tokens_details == {"text_tokens": 4, "audio_tokens": 3}
        assert reading.usage.completion_tokens_details == {"image_tokens": 5}
        assert reading.service_tier == "PROVISIONED_THROUGHPUT"


def test_an_unspecified_number_says_nothing(bench):
    """Zero stands for *unspecified* in each of Google's enumerations: no end, no modality, no reason to block."""
    body = {
        "candidates": [{"finishReason": 0}],
        "promptFeedback": {"blockReason": 0},
        "usageMetadata": {"promptTokenCount": 7, "promptTokensDetails": [{"modality": 0, "tokenCount": 7}]},
    }
    reading = bench.play(GEMINI, frames(body, end=b"")).reading
    assert (reading.complete, reading.finish_reason) == (False, None)
    assert not reading.usage.prompt_tokens_details
    blocked = bench.play(GEMINI, frames({"promptFeedback": {"blockReason": 4}}, end=b"")).reading
    assert (blocked.complete, blocked.finish_reason) == (True, "PROHIBITED_CONTENT")


def test_the_tier_may_stand_in_the_usage(bench):
    """Mistral says there which tier served; a tier beside the usage is believed first."""
    used = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "service_tier": "flex"}
    assert bench.whole(CHAT, {"choices": [], "usage": used}).service_tier == "flex"
    assert bench.whole(CHAT, {"choices": [], "usage": used, "service_tier": "default"}).service_tier == "default"
    assert bench.whole(CHAT, {"choices": [], "usage": used | {"service_tier": None}}).service_tier is None
    google = {"extra_properties": {"google": {"traffic_type": "PROVISIONED_THROUGHPUT"}}}
    assert bench.whole(CHAT, {"choices": [], "usage": used | google}).service_tier == "PROVISIONED_THROUGHPUT"


def test_a_choice_may_have_failed(bench):
    """OpenRouter answers with status 200 and says inside the choice what its upstream answered, in a stream as well."""
    error = {"code": 502, "message": "Upstream hung up", "metadata": {}}
    whole = bench.whole(CHAT, {"id": "g", "choices": [{"message": {"content": ""}, "error": error}]})
    told = frames({"id": "g", "choices": [{"delta": {}, "finish_reason": "error", "error": error}]})
    streamed = bench.play(CHAT, told)
    assert not streamed.before  # the record is made before the client learns of it
    for reading in (whole, streamed.reading):
        assert (reading.error_code, reading.error_message) == ("upstream:stream_error", "502: Upstream hung up")
    limited = bench.whole(CHAT, {"choices": [{"error": error | {"code": 429}}]})
    assert limited.error_code == "upstream:rate_limited"
    nothing = bench.whole(CHAT, {"choices": [{"message": {"content": "hi"}, "error": None}]})
    assert nothing.error_code is None
    assert bench.whole(CHAT, {"object": "error", "message": "no"}).error_message == "no"


@pytest.mark.parametrize("end", [b"data: [DONE] \n\n", b"data:[DONE]\n\n", b"data: [DONE] \n", b"data:  [DONE]\t\n\n"])
@pytest.mark.parametrize("size", [0, 1, 5])
def test_the_end_marker_may_have_blanks_around_it(bench, end: bytes, size: int):
    """Some servers write a blank behind the end marker; it ends the stream all the same."""
    stream = frames({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}, end=end)
    played = bench.play(CHAT, stream, size)
    assert (played.delivered, played.reading.complete) == (stream, True)


def test_a_stream_that_calls_itself_json_is_read_as_a_stream(bench):
    """Events are events, whatever their content type says."""
    chunk = {"id": "c1", "model": "m", "choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}
    used = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    for end in (b"data: [DONE]\n\n", b"data: [DONE]", b""):
        reading = bench.whole(CHAT, frames(chunk, used, end=end))
        assert (reading.native_response_id, reading.finish_reason, reading.has_output) == ("c1", "stop", True)
        assert (reading.usage.total_tokens, reading.usage.source) == (7, UsageSource.REPORTED)
        assert reading.complete


@pytest.mark.parametrize(
    ("block", "refused"),
    [
        (None, True),
        ({"type": "text", "text": ""}, True),
        ({"type": "text", "text": "So"}, False),
        ({"type": "thinking", "thinking": "", "signature": "s"}, False),
        ({"type": "tool_use", "id": "t", "name": "n", "input": {}}, False),
    ],
)
def test_a_refusal_counts_only_before_any_output(bench, block: dict[str, Any] | None, refused: bool):
    """Anthropic bills what was written, thought or called before it refused; a refusal before all that is a meter."""
    used = {"input_tokens": 18, "output_tokens": 5}
    body = {"id": "m1", "type": "message", "model": "claude", "stop_reason": "refusal", "usage": used}
    whole = bench.whole("/v1/messages", body | {"content": [block] if block else []})
    told = frames(
        {"type": "message_start", "message": body | {"content": [], "stop_reason": None}},
        *([{"type": "content_block_start", "index": 0, "content_block": block}] if block else []),
        {"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": used},
        {"type": "message_stop"},
        end=b"",
    )
    for reading in (whole, bench.play("/v1/messages", told).reading):
        assert reading.usage.total_tokens == 23
        assert (reading.usage.meters or {}) == ({"refusals": 1} if refused else {})
    other = bench.whole("/v1/messages", body | {"content": [], "stop_reason": "end_turn"})
    assert not other.usage.meters


def test_the_model_of_a_fallback_is_the_one_that_served(bench):
    """A stream begins in the name of the model that was asked; the last counts say who answered."""
    served = {"type": "fallback_message", "model": "claude-b", "input_tokens": 12, "output_tokens": 3}
    told = frames(
        {"type": "message_start", "message": {"id": "m1", "model": "claude-a", "usage": {"input_tokens": 9}}},
        {"type": "content_block_start", "content_block": {"type": "fallback", "to": {"model": "claude-b"}}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": 12, "output_tokens": 3, "iterations": [served]},
        },
        {"type": "message_stop"},
        end=b"",
    )
    reading = bench.play("/v1/messages", told, 7).reading
    assert reading.native_model == "claude-b"
    assert (reading.usage.total_tokens, reading.usage.meters) == (15, {"fallbacks.claude-b": 1})


def test_places_of_the_map_are_grounding_too(bench):
    """An answer grounded in Google Maps is billed once a prompt, which no usage counts; queries of the web as ever."""
    place = {"maps": {"uri": "https://maps.test", "placeId": "p"}}
    grounding = {"webSearchQueries": ["a", "b"], "groundingChunks": [place, place, {"web": {}}]}
    body = {
        "candidates": [
            {"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP", "groundingMetadata": grounding}
        ],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5},
    }
    assert bench.whole(GEMINI, body).usage.meters == {"web_searches": 2, "map_searches": 1}
    body["candidates"] = [{"groundingMetadata": {"groundingChunks": [{"web": {}}]}}, {"groundingMetadata": None}]
    assert not bench.whole(GEMINI, body).usage.meters


def test_an_image_that_is_there_was_made(bench):
    """An image call may stay at *generating* to the end; what tells is whether the image came."""
    items = [
        {"type": "image_generation_call", "status": "generating", "result": "iVBO"},
        {"type": "image_generation_call", "status": "generating"},
        {"type": "image_generation_call", "status": "failed", "result": None},
    ]
    used = {"input_tokens": 1, "output_tokens": 1}
    assert bench.whole(RESPONSES, {"output": items, "usage": used}).usage.meters == {"image_generations": 1}
