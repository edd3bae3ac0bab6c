"""Unary answers and error bodies are read for what a record needs; errors of ours have the protocol's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET

from counterfoil.errors import CallerFault, GatewayFault, UpstreamFault
from counterfoil.record.usage import UsageSource
from counterfoil.surfaces import registry
from counterfoil.surfaces.base import Request
from counterfoil.surfaces.complaint import MESSAGE_MAX, complaint_of

CHAT = "/v1/chat/completions"
GEMINI = "/v1beta/models/x:generateContent"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def test_a_chat_completion(bench):
    """Ids, model, tier, finish reason, usage and the provider's own cost."""
    body = {
        "id": "c1",
        "model": "gpt-x",
        "service_tier": "priority",
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}, {"finish_reason": "length"}],
        "usage": USAGE | {"cost": 0.25},
    }
    reading = bench.whole(CHAT, body)
    assert (reading.native_response_id, reading.native_model, reading.service_tier) == ("c1", "gpt-x", "priority")
    assert (reading.finish_reason, reading.usage.total_tokens) == ("stop", 15)
    assert (reading.provider_cost_nanos, reading.complete, reading.has_output) == (250_000_000, True, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"[1,2]",
        b'"x"',
        b"nope",
        b"{",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"choices":5,"usage":[]}',
        b'{"id":5,"model":[],"choices":[1,null,{"message":3,"finish_reason":{}}],"usage":"x","service_tier":1}',
        b'{"content":[1,null,{"type":5}],"usage":7,"stop_reason":[]}',
        b'{"output":[null],"status":5,"usage":1}',
        b'{"candidates":[null,{"content":{"parts":[1]}}],"usageMetadata":3,"responseId":9}',
        b'{"data":5}',
        b'{"id":"a\\u0000b","model":"\\ud800"}',
        b'{"usage":{"seconds":"x","type":"duration"},"duration":[]}',
    ],
)
@pytest.mark.parametrize("path", [*registry._FIXED, *(f"/v1beta/models/x:{name}" for name in registry.METHODS)])
def test_no_answer_breaks_a_meter(bench, path: str, body: bytes):
    """Whatever a provider sends, as an answer, an error or a stream, is read without an exception."""
    for status in (200, 400, 503):
        reading = bench.whole(path, body, status)
        assert (reading.error_code is not None) is (status >= 400)
    stream = b"data: " + body + b"\n\n"
    for size in (0, 1):
        assert bench.play(path, stream, size).delivered == stream


def test_a_message(bench):
    """Anthropic's tier is the one served, and fast mode is a tier."""
    usage = {"input_tokens": 4, "cache_read_input_tokens": 6, "output_tokens": 5, "service_tier": "standard"}
    body = {"id": "m1", "model": "c", "stop_reason": "tool_use", "content": [{"type": "tool_use"}], "usage": usage}
    reading = bench.whole("/v1/messages", body)
    assert (reading.finish_reason, reading.service_tier, reading.usage.prompt_tokens) == ("tool_use", "standard", 10)
    assert bench.whole("/v1/messages", body | {"usage": usage | {"speed": "fast"}}).service_tier == "fast"
    for geography, region in (("us", "us"), ("global", None), ("not_available", None), (None, None)):
        assert bench.whole("/v1/messages", body | {"usage": usage | {"inference_geo": geography}}).region == region
    assert bench.whole("/v1/messages", body | {"content": [{"type": "text", "text": ""}]}).has_output is False


def test_a_response(bench):
    """Searches are counted from the output items: only those carried out, and only searches."""
    items = [
        {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
        {"type": "web_search_call", "status": "completed", "action": {"type": "open_page"}},
        {"type": "web_search_call", "status": "failed"},
        {"type": "file_search_call", "status": "completed"},
    ]
    body = {
        "id": "r1",
        "model": "g",
        "status": "completed",
        "output": items,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    reading = bench.whole("/v1/responses", body)
    assert reading.usage.meters == {"web_searches": 1, "file_searches": 1}
    queued = bench.whole("/v1/responses", {"id": "r", "status": "queued", "usage": None, "output": []})
    assert (queued.finish_reason, queued.usage.source, queued.has_output) == (None, UsageSource.ABSENT, False)


def test_searches_by_the_version_of_the_tool(bench):
    """The earlier version of the search has a price of its own; the answer says which tools it was given."""
    item = {"type": "web_search_call", "status": "completed", "action": {"type": "search"}}
    body = {"id": "r1", "output": [item, item], "usage": {"input_tokens": 1, "output_tokens": 1}}
    for tool, meter in (
        ("web_search", "web_searches"),
        ("web_search_preview", "web_searches.preview"),
        ("web_search_preview_2025_03_11", "web_searches.preview"),
    ):
        usage = bench.whole("/v1/responses", body | {"tools": [{"type": "function"}, {"type": tool}]}).usage
        assert (usage.meters, usage.source) == ({meter: 2}, UsageSource.REPORTED)


def test_a_search_model_searched_at_least_once(bench):
    """OpenAI's search models search for every answer, and no usage counts it; another model's name means nothing."""
    for model, meter in (
        ("gpt-4o-search-preview-2025-03-11", "web_searches.preview"),
        ("openai/gpt-4o-mini-search-preview", "web_searches.preview"),
        ("gpt-5-search-api", "web_searches"),
    ):
        usage = bench.whole(CHAT, {"model": model, "choices": [{"message": {"content": "hi"}}], "usage": USAGE}).usage
        assert (usage.meters, usage.source, usage.estimated) == ({meter: 1}, UsageSource.PARTIAL, (meter,))
        assert usage.total_tokens == 15
    for model in ("my-search-preview", "gpt-4o-research-preview", "text-search-ada-doc-001"):
        usage = bench.whole(CHAT, {"model": model, "choices": [{"message": {"content": "hi"}}], "usage": USAGE}).usage
        assert (usage.meters, usage.source) == (UNSET, UsageSource.REPORTED)


def test_searches_that_the_usage_counts_are_believed(bench):
    """An answer that cites the web and counts its searches needs no guess; a citation of a file is no search."""
    note = {"type": "url_citation", "url_citation": {"url": "https://a.test"}}
    body = {"model": "m", "choices": [{"message": {"content": "hi", "annotations": [note]}}], "usage": USAGE}
    assert bench.whole(CHAT, body).usage.meters == {"web_searches": 1}
    counted = bench.whole(CHAT, body | {"usage": USAGE | {"server_tool_use": {"web_search_requests": 3}}}).usage
    assert (counted.meters, counted.source) == ({"web_searches": 3}, UsageSource.REPORTED)
    streamed = [
        {"model": "m", "choices": [{"delta": {"content": "", "annotations": [note]}}]},
        {"model": "m", "choices": [{"delta": {"content": "hi"}}]},
        {"model": "m", "choices": [], "usage": USAGE},
    ]
    stream = b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in streamed)
    assert bench.play(CHAT, stream + b"data: [DONE]\n\n").reading.usage.meters == {"web_searches": 1}
    for notes in (None, [], "x", [{"type": "file_citation"}], [5]):
        body["choices"][0]["message"]["annotations"] = notes
        assert bench.whole(CHAT, body).usage.source is UsageSource.REPORTED


def test_tools_of_a_response(bench):
    """Images made are counted, and code and commands by their containers, however often something ran in each."""
    items = [
        {"type": "image_generation_call", "status": "completed"},
        {"type": "code_interpreter_call", "status": "completed", "container_id": "c1"},
        {"type": "code_interpreter_call", "status": "completed", "container_id": "c1"},
        {"type": "code_interpreter_call", "status": "failed", "container_id": "c2"},
        {
            "type": "shell_call",
            "status": "completed",
            "environment": {"type": "container_reference", "container_id": "c1"},
        },
        {
            "type": "shell_call",
            "status": "completed",
            "environment": {"type": "container_reference", "container_id": "c3"},
        },
        {"type": "shell_call", "status": "completed", "environment": {"type": "local"}},
        {"type": "mcp_call", "status": "completed"},
    ]
    body = {"id": "r1", "output": items, "usage": {"input_tokens": 1, "output_tokens": 1}}
    assert bench.whole("/v1/responses", body).usage.meters == {"image_generations": 1, "code_executions": 3}


def test_a_gemini_answer(bench):
    """Grounding queries are counted, tiers read from the usage, and an array answers as well as an object."""
    body: dict[str, Any] = {
        "responseId": "g1",
        "modelVersion": "gem",
        "candidates": [
            {
                "content": {"parts": [{"text": "a"}]},
                "finishReason": "MAX_TOKENS",
                "groundingMetadata": {"webSearchQueries": ["x", "y", ""]},
            }
        ],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2, "trafficType": "PROVISIONED_THROUGHPUT"},
    }
    for form in (body, json.dumps([body]).encode()):
        reading = bench.whole(GEMINI, form)
        assert (reading.finish_reason, reading.native_response_id, reading.has_output) == ("MAX_TOKENS", "g1", True)
        assert (reading.usage.meters, reading.service_tier) == ({"web_searches": 2}, "PROVISIONED_THROUGHPUT")


def test_a_compaction_costs_what_it_says(bench):
    """It is no response, but has a response's usage, details included."""
    usage = {"input_tokens": 900, "input_tokens_details": {"cached_tokens": 100}, "output_tokens": 60}
    answer = {"id": "resp_1", "object": "response.compaction", "output": [{"type": "compaction"}], "usage": usage}
    reading = bench.whole("/v1/responses/compact", answer)
    assert (reading.usage.prompt_tokens, reading.usage.completion_tokens) == (900, 60)
    assert reading.usage.prompt_tokens_details == {"cached_tokens": 100}
    assert (reading.native_response_id, reading.has_output, reading.usage.source) == ("resp_1", True, "reported")


@pytest.mark.parametrize(
    "path", ["/v1/messages/count_tokens", "/v1/responses/input_tokens", "/v1beta/models/x:countTokens"]
)
def test_counting_tokens_consumes_none(bench, path: str):
    """A token count is an answer, not a consumption."""
    usage = bench.whole(path, {"input_tokens": 500, "totalTokens": 500}).usage
    assert (usage.total_tokens, usage.source) == (0, UsageSource.REPORTED)


@pytest.mark.parametrize(
    ("path", "body", "tokens", "meters"),
    [
        ("/v1/embeddings", {"data": [{"embedding": [0.1]}], "model": "e", "usage": {"prompt_tokens": 4}}, 4, None),
        ("/v1/embeddings", {"data": "x", "usage": {"total_tokens": 4}}, 4, None),
        ("/v1/rerank", {"results": [], "meta": {"billed_units": {"search_units": 2}}}, 0, {"search_units": 2}),
        ("/v1/rerank", {"results": [], "usage": {"total_tokens": 9}}, 9, None),
        ("/v1/moderations", {"id": "m", "results": []}, 0, None),
        ("/v1/images/generations", {"data": [{}, {}]}, 0, {"images": 2}),
        ("/v1/images/edits", {"data": [{}], "quality": "high", "size": "1024x1024"}, 0, {"images.high.1024x1024": 1}),
        ("/v1/images/generations", {"data": [{}], "usage": {"input_tokens": 3, "output_tokens": 4}}, 7, None),
        (
            "/v1/audio/transcriptions",
            {"text": "x", "usage": {"type": "duration", "seconds": 9}},
            0,
            {"input_audio_ms": 9000},
        ),
        ("/v1/audio/translations", {"text": "x", "duration": 8.47}, 0, {"input_audio_ms": 8470}),
        ("/v1/audio/transcriptions", {"text": "x", "duration": 8, "usage": {"input_tokens": 3}}, 3, None),
        ("/v1/audio/transcriptions", b"1\n00:00:00,000 --> 00:00:01,000\nHi", 0, None),
        (
            "/v1beta/models/x:embedContent",
            {"embedding": {"values": [0.5]}, "usageMetadata": {"promptTokenCount": 4}},
            4,
            None,
        ),
    ],
)
def test_answers_without_text(bench, path: str, body: Any, tokens: int, meters: dict[str, int] | None):
    """Tokens where the provider counts them, else what it bills instead."""
    reading = bench.whole(path, body)
    assert reading.usage.total_tokens == tokens
    assert (reading.usage.meters or None) == meters
    known = tokens or meters
    assert reading.usage.source is (UsageSource.REPORTED if known else UsageSource.ABSENT)
    assert reading.complete


def test_images_are_metered_as_they_were_asked_for(bench):
    """Where the answer does not tell quality and size, the request does."""
    reading = bench.whole("/v1/images/generations", {"data": [{}]}, meters={"images.hd.1024x1024": 1})
    assert reading.usage.meters == {"images.hd.1024x1024": 1}


LONG = "x" * 1000


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (
            429,
            {"error": {"message": "Slow", "type": "rate_limit_error"}},
            "upstream:rate_limited",
            "rate_limit_error: Slow",
        ),
        (
            400,
            {"error": {"message": "No\nway\x1b[31m", "type": "invalid_request_error", "code": "x"}},
            "user:provider_rejected",
            "invalid_request_error: No way [31m",
        ),
        (
            401,
            {"error": {"message": "Incorrect API key: sk-proj-abcdefghijklmnop1234", "type": "x"}},
            "upstream:unauthorized",
            "x: Incorrect API key: [redacted]",
        ),
        (403, {"error": {"message": "Bearer abc.def-ghi refused"}}, "upstream:unauthorized", "[redacted] refused"),
        (
            529,
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "upstream:overloaded",
            "overloaded_error: Overloaded",
        ),
        (
            404,
            {"error": {"code": 404, "message": "no model", "status": "NOT_FOUND"}},
            "user:provider_rejected",
            "NOT_FOUND: no model",
        ),
        (
            400,
            [{"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}],
            "user:provider_rejected",
            "INVALID_ARGUMENT: bad",
        ),
        (
            400,
            {"error": {"code": 400, "message": "API key not valid. Please pass one.", "status": "INVALID_ARGUMENT"}},
            "upstream:unauthorized",
            "INVALID_ARGUMENT: API key not valid. Please pass one.",
        ),
        (
            400,
            {"code": "invalid-argument", "error": "Incorrect API key provided. Get one."},
            "upstream:unauthorized",
            "invalid-argument: Incorrect API key provided. Get one.",
        ),
        (
            400,
            {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
            "upstream:unauthorized",
            "invalid_request_error: Your credit balance is too low",
        ),
        (402, {"error": {"message": "Insufficient Balance"}}, "upstream:unauthorized", "Insufficient Balance"),
        (
            422,
            {"error": {"message": "API key not valid for this field"}},
            "user:provider_rejected",
            "API key not valid for this field",
        ),
        (500, {"error": "it broke"}, "upstream:error", "it broke"),
        (422, {"detail": "unprocessable"}, "user:provider_rejected", "unprocessable"),
        (400, {"object": "error", "message": "m", "type": "t", "code": 3}, "user:provider_rejected", "t: m"),
        (400, {"message": "m"}, "user:provider_rejected", "m"),
        (
            504,
            b"<html><h1>504</h1></html>",
            "upstream:timeout",
            "The provider answered with status 504 and no readable error.",
        ),
        (502, b"upstream connect error", "upstream:error", "upstream connect error"),
        (500, b"", "upstream:error", "The provider answered with status 500 and no readable error."),
        (500, b"\x00\x01", "upstream:error", "The provider answered with status 500 and no readable error."),
        (
            500,
            b"data: " + json.dumps({"error": {"message": "m", "type": "t"}}).encode() + b"\n\n",
            "upstream:error",
            "t: m",
        ),
        (400, {"error": {"message": LONG, "type": "t"}}, "user:provider_rejected", f"t: {LONG}"[:MESSAGE_MAX]),
    ],
)
def test_error_bodies(bench, status: int, body: Any, code: str, message: str):
    """Every shape of error gives its own word and message, short and safe."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reading = bench.whole(CHAT, data, status)
    assert (reading.error_code, reading.error_message) == (code, message)


def test_an_error_without_words_is_still_told():
    """A huge error body is not read at all."""
    assert "no readable error" in complaint_of(500, b'{"error":"' + b"x" * 300_000 + b'"}').message


FAULTS = [CallerFault("invalid_json", param="x"), UpstreamFault("rate_limited"), GatewayFault("ledger_unavailable")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.code)
@pytest.mark.parametrize(
    "surface", [*registry.ALL, registry.UNKNOWN_OPENAI, registry.UNKNOWN_ANTHROPIC, registry.UNKNOWN_GOOGLE]
)
def test_errors_of_ours(surface: Any, fault: Any):
    """An error body and an error frame have the protocol's shape and carry the request id and the code."""
    media_type, body = surface.render_error(fault, "gen_1")
    assert media_type == "application/json"
    error = json.loads(body)
    frame = surface.render_stream_error(fault, "gen_1")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"data: ") == 1
    assert b"gen_1" in frame
    if surface.protocol == "openai":
        assert error["error"].keys() == {"message", "type", "code", "param", "request_id"}
        assert (error["error"]["code"], error["error"]["request_id"]) == (fault.code, "gen_1")
    elif surface.protocol == "anthropic":
        assert (error["type"], error["request_id"]) == ("error", "gen_1")
        assert frame.startswith(b"event: error\n")
    else:
        assert error["error"]["code"] == fault.status
        assert error["error"]["details"][0]["requestId"] == "gen_1"
        assert error["error"]["details"][1]["reason"] == fault.code


@pytest.mark.parametrize(
    ("fault", "openai", "anthropic", "google"),
    [
        (CallerFault("invalid_json"), "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
        (CallerFault("unauthorized"), "authentication_error", "authentication_error", "UNAUTHENTICATED"),
        (CallerFault("forbidden"), "permission_error", "permission_error", "PERMISSION_DENIED"),
        (UpstreamFault("rate_limited"), "rate_limit_error", "rate_limit_error", "RESOURCE_EXHAUSTED"),
        (CallerFault("payload_too_large"), "invalid_request_error", "request_too_large", "INVALID_ARGUMENT"),
        (CallerFault("unsupported_endpoint"), "invalid_request_error", "not_found_error", "NOT_FOUND"),
        (UpstreamFault("overloaded"), "api_error", "overloaded_error", "UNAVAILABLE"),
        (GatewayFault("internal"), "api_error", "api_error", "INTERNAL"),
        (UpstreamFault("connect_failed"), "api_error", "api_error", "INTERNAL"),
    ],
)
def test_the_kinds_of_errors(fault: Any, openai: str, anthropic: str, google: str):
    """Each protocol's clients find their own word for the kind of fault."""
    assert json.loads(registry.UNKNOWN_OPENAI.render_error(fault, "i")[1])["error"]["type"] == openai
    assert json.loads(registry.UNKNOWN_ANTHROPIC.render_error(fault, "i")[1])["error"]["type"] == anthropic
    assert json.loads(registry.UNKNOWN_GOOGLE.render_error(fault, "i")[1])["error"]["status"] == google


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/messages/count_tokens", "count_tokens"),
        ("/v1/responses/compact", "responses_compact"),
        ("/v1/responses/input_tokens", "responses_input_tokens"),
        ("/v1/audio/translations", "audio_translations"),
        ("/v1beta/models/gemini-2.0-flash:generateContent", "gemini"),
        ("/v1/models/google/gemini:streamGenerateContent", "gemini"),
        ("/v1beta/tunedModels/a:countTokens", "gemini"),
        ("/v1beta/models/a:b:generateContent", "gemini"),
        ("/v1/models", None),
        ("/v1/models/gpt-4o", None),
        ("/v1beta/models/gemini:dance", None),
        ("/v2/models/gemini:generateContent", None),
        ("/v1/chat/completions/", None),
        ("/", None),
        ("", None),
    ],
)
def test_paths_find_their_surface(path: str, name: str | None):
    """A path has one surface or none."""
    surface = registry.find(path)
    assert (surface.name if surface else None) == name


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("/v1/foo", "openai"),
        ("/", "openai"),
        ("/v1/models", "openai"),
        ("/v1/models/gpt-4o", "openai"),
        ("/v1/messages/batches", "anthropic"),
        ("/v1beta/models/x:dance", "google"),
        ("/v1/models/x:dance", "google"),
    ],
)
def test_unknown_paths_answer_in_their_familys_shape(path: str, protocol: str):
    """A mistyped path gets an error its client can read."""
    surface = registry.unknown(path)
    assert surface.protocol == protocol
    with pytest.raises(CallerFault) as caught:
        surface.peek(Request("POST", path, "", {}, b"{}"))
    assert caught.value.short_code == "unsupported_endpoint"
