"""Every provider's way of counting becomes one usage: all input, all output, and what lies inside them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from counterfoil.record.usage import Usage, UsageSource
from counterfoil.surfaces.foreign import parse
from counterfoil.surfaces.metering import cost_nanos_of, gemini_usage_of, milliseconds, partial, usage_of


def flat(usage: Usage) -> dict[str, Any]:
    """A usage as one flat table: p/c/t, details with i. and o., meters with m., the source unless reported."""
    table: dict[str, Any] = {"p": usage.prompt_tokens, "c": usage.completion_tokens}
    for prefix, details in (
        ("i.", usage.prompt_tokens_details),
        ("o.", usage.completion_tokens_details),
        ("m.", usage.meters),
    ):
        table |= {prefix + name: value for name, value in (details or {}).items() if value}
    if usage.source is not UsageSource.REPORTED:
        table["source"] = usage.source.value
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return table


USAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "openai": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 5, "rejected_prediction_tokens": 7},
        },
        {
            "p": 100,
            "c": 50,
            "i.cached_tokens": 40,
            "i.audio_tokens": 3,
            "o.reasoning_tokens": 20,
            "o.audio_tokens": 5,
            "o.rejected_prediction_tokens": 7,
        },
    ),
    "responses": (
        {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
            "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 20},
            "total_tokens": 150,
        },
        {"p": 100, "c": 50, "i.cached_tokens": 40, "i.cache_write_tokens": 10, "o.reasoning_tokens": 20},
    ),
    "null-details": (
        {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": None, "completion_tokens_details": None},
        {"p": 1, "c": 2},
    ),
    "anthropic": (
        {
            "input_tokens": 10,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 2},
            "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 9},
        },
        {
            "p": 140,
            "c": 5,
            "i.cached_tokens": 100,
            "i.cache_write_tokens": 30,
            "i.cache_write_5m_tokens": 20,
            "i.cache_write_1h_tokens": 10,
            "o.reasoning_tokens": 2,
            "m.web_searches": 3,
            "m.web_fetches": 9,
        },
    ),
    "anthropic-compaction": (
        {
            "input_tokens": 220,
            "output_tokens": 8,
            "cache_read_input_tokens": 5,
            "iterations": [
                {
                    "type": "compaction",
                    "input_tokens": 55196,
                    "output_tokens": 125,
                    "cache_creation_input_tokens": 7,
                    "cache_creation": {"ephemeral_5m_input_tokens": 7},
                },
                {"type": "message", "input_tokens": 220, "output_tokens": 8, "cache_read_input_tokens": 5},
            ],
        },
        {
            "p": 55428,
            "c": 133,
            "i.cached_tokens": 5,
            "i.cache_write_tokens": 7,
            "i.cache_write_5m_tokens": 7,
        },
    ),
    "anthropic-fallback": (
        {
            "input_tokens": 412,
            "output_tokens": 264,
            "iterations": [
                {"type": "message", "model": "claude-fable-5", "input_tokens": 408, "output_tokens": 0},
                {"type": "fallback_message", "model": "claude-opus-4-8", "input_tokens": 412, "output_tokens": 264},
            ],
        },
        {"p": 412, "c": 264, "m.fallbacks.claude-opus-4-8": 1},
    ),
    "anthropic-fallback-after-a-beginning": (
        {
            "input_tokens": 430,
            "output_tokens": 100,
            "iterations": [
                {
                    "type": "message",
                    "model": "claude-fable-5",
                    "input_tokens": 8,
                    "cache_read_input_tokens": 400,
                    "output_tokens": 20,
                },
                {"type": "message", "model": "claude-opus-5", "input_tokens": 420, "output_tokens": 0},
                {"type": "fallback_message", "model": "claude-opus-4-8", "input_tokens": 430, "output_tokens": 100},
            ],
        },
        {
            "p": 430,
            "c": 100,
            "m.fallbacks.claude-opus-4-8": 1,
            "m.declined_input_tokens.claude-fable-5": 408,
            "m.declined_cached_tokens.claude-fable-5": 400,
            "m.declined_output_tokens.claude-fable-5": 20,
        },
    ),
    "anthropic-messages-that-name-their-model": (
        {
            "input_tokens": 30,
            "output_tokens": 9,
            "iterations": [
                {"type": "message", "model": "claude-fable-5", "input_tokens": 10, "output_tokens": 4},
                {"type": "message", "model": "claude-fable-5", "input_tokens": 20, "output_tokens": 5},
            ],
        },
        {"p": 30, "c": 9},
    ),
    "anthropic-advisor": (
        {
            "input_tokens": 2390,
            "output_tokens": 121,
            "iterations": [
                {"type": "message", "input_tokens": 1128, "output_tokens": 110},
                {
                    "type": "advisor_message",
                    "model": "claude-opus-4-8",
                    "input_tokens": 2518,
                    "cache_read_input_tokens": 100,
                    "output_tokens": 22,
                },
                {"type": "message", "input_tokens": 1262, "output_tokens": 11},
            ],
        },
        {
            "p": 2390,
            "c": 121,
            "m.advisor_input_tokens.claude-opus-4-8": 2618,
            "m.advisor_output_tokens.claude-opus-4-8": 22,
            "m.advisor_cached_tokens.claude-opus-4-8": 100,
        },
    ),
    "iterations-that-are-none": ({"input_tokens": 3, "output_tokens": 1, "iterations": None}, {"p": 3, "c": 1}),
    "gemini-through-openai": (
        {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109},
        {"p": 35, "c": 74, "o.reasoning_tokens": 62},
    ),
    "total-beyond-belief": (
        {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 1 << 40},
        {"p": 35, "c": 12},
    ),
    "realtime": (
        {
            "input_tokens": 100,
            "output_tokens": 9,
            "input_token_details": {
                "audio_tokens": 80,
                "cached_tokens": 60,
                "cached_tokens_details": {"text_tokens": 20, "audio_tokens": 40},
            },
        },
        {
            "p": 100,
            "c": 9,
            "i.audio_tokens": 80,
            "i.cached_tokens": 60,
            "i.cached_text_tokens": 20,
            "i.cached_audio_tokens": 40,
        },
    ),
    "duration": ({"type": "duration", "seconds": 9.5}, {"p": 0, "c": 0, "m.input_audio_ms": 9500}),
    "pages": ({"pages_processed": 3, "doc_size_bytes": 999}, {"p": 0, "c": 0, "m.pages": 3}),
    "xai-tools": (
        {
            "prompt_tokens": 5,
            "completion_tokens": 5,
            "server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 1, "code_interpreter_calls": 4},
        },
        {"p": 5, "c": 5, "m.web_searches": 2, "m.social_searches": 1, "m.code_executions": 4},
    ),
    "perplexity-agent": (
        {
            "input_tokens": 50,
            "input_tokens_details": {"cache_read_input_tokens": 40},
            "output_tokens": 6,
            "tool_calls_details": {"search_web": {"invocation": 2}, "fetch_url": {"invocation": 1}},
        },
        {"p": 50, "c": 6, "i.cached_tokens": 40, "m.web_searches": 2, "m.web_fetches": 1},
    ),
    "perplexity-without-citations": (
        {
            "prompt_tokens": 3,
            "completion_tokens": 700,
            "total_tokens": 703,
            "num_search_queries": 2,
            "reasoning_tokens": 50,
        },
        {"p": 3, "c": 750, "o.reasoning_tokens": 50, "m.web_searches": 2},
    ),
    "cohere-without-a-bill": (
        {"tokens": {"input_tokens": 70, "output_tokens": 20}, "cached_tokens": 65},
        {"p": 70, "c": 20, "i.cached_tokens": 65},
    ),
    "anthropic-only-split": (
        {"input_tokens": 10, "cache_creation": {"ephemeral_1h_input_tokens": 30}, "output_tokens": 5},
        {"p": 40, "c": 5, "i.cache_write_tokens": 30, "i.cache_write_1h_tokens": 30},
    ),
    "anthropic-through-openai": (
        {"prompt_tokens": 140, "completion_tokens": 5, "total_tokens": 145, "cache_read_input_tokens": 100},
        {"p": 140, "c": 5, "i.cached_tokens": 100},
    ),
    "beside-proved-by-the-total": (
        {"prompt_tokens": 40, "completion_tokens": 5, "total_tokens": 145, "cache_read_input_tokens": 100},
        {"p": 140, "c": 5, "i.cached_tokens": 100},
    ),
    "inside-proved-by-the-total": (
        {"input_tokens": 140, "output_tokens": 5, "total_tokens": 145, "cache_read_input_tokens": 100},
        {"p": 140, "c": 5, "i.cached_tokens": 100},
    ),
    "bedrock": (
        {
            "inputTokens": 3,
            "outputTokens": 7,
            "cacheReadInputTokens": 20,
            "cacheWriteInputTokens": 10,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 4}, {"ttl": "5m", "inputTokens": 6}],
            "totalTokens": 40,
        },
        {
            "p": 33,
            "c": 7,
            "i.cached_tokens": 20,
            "i.cache_write_tokens": 10,
            "i.cache_write_1h_tokens": 4,
            "i.cache_write_5m_tokens": 6,
        },
    ),
    "deepseek": (
        {"prompt_tokens": 100, "prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40, "completion_tokens": 5},
        {"p": 100, "c": 5, "i.cached_tokens": 60},
    ),
    "moonshot": (
        {"prompt_tokens": 100, "completion_tokens": 5, "cached_tokens": 60},
        {"p": 100, "c": 5, "i.cached_tokens": 60},
    ),
    "mistral": (
        {"prompt_tokens": 9, "completion_tokens": 5, "num_cached_tokens": 6, "prompt_audio_seconds": 2},
        {"p": 9, "c": 5, "i.cached_tokens": 6, "m.input_audio_ms": 2000},
    ),
    "mistral-sound-beside": (
        {
            "prompt_audio_seconds": 3,
            "prompt_tokens": 9,
            "completion_tokens": 20,
            "total_tokens": 404,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 375},
        },
        {"p": 384, "c": 20, "i.audio_tokens": 375, "m.input_audio_ms": 3000},
    ),
    "mistral-sound-in-the-total-alone": (
        {"prompt_audio_seconds": 100, "prompt_tokens": 4, "completion_tokens": 20, "total_tokens": 1274},
        {"p": 1254, "c": 20, "i.audio_tokens": 1250, "m.input_audio_ms": 100_000},
    ),
    "sound-inside": (
        {
            "prompt_tokens": 400,
            "completion_tokens": 20,
            "total_tokens": 420,
            "prompt_tokens_details": {"audio_tokens": 375},
        },
        {"p": 400, "c": 20, "i.audio_tokens": 375},
    ),
    "vercel-thoughts-apart": (
        {
            "prompt_tokens": 9,
            "completion_tokens": 2,
            "total_tokens": 11,
            "market_cost": 0.00007,
            "completion_tokens_details": {"reasoning_tokens": 25},
        },
        {"p": 9, "c": 27, "o.reasoning_tokens": 25},
    ),
    "vercel-reasoning-inside": (
        {
            "prompt_tokens": 9,
            "completion_tokens": 100,
            "total_tokens": 109,
            "market_cost": 0.001,
            "completion_tokens_details": {"reasoning_tokens": 64},
        },
        {"p": 9, "c": 100, "o.reasoning_tokens": 64},
    ),
    "xai-attached-files": (
        {
            "input_tokens": 5,
            "output_tokens": 5,
            "server_side_tool_usage_details": {"file_search_calls": 2, "document_search_calls": 1},
        },
        {"p": 5, "c": 5, "m.file_searches": 2, "m.attachment_searches": 1},
    ),
    "xai": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 35,
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        {"p": 10, "c": 25, "o.reasoning_tokens": 20},
    ),
    "reasoning-beyond-the-output": (
        {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 20}},
        {"p": 10, "c": 25, "o.reasoning_tokens": 20},
    ),
    "reasoning-rounded-up": (
        {
            "prompt_tokens": 43,
            "completion_tokens": 10,
            "total_tokens": 53,
            "completion_tokens_details": {"reasoning_tokens": 11},
        },
        {"p": 43, "c": 10, "o.reasoning_tokens": 11},
    ),
    "perplexity": (
        {
            "prompt_tokens": 33,
            "completion_tokens": 7163,
            "total_tokens": 7196,
            "citation_tokens": 20016,
            "num_search_queries": 18,
            "reasoning_tokens": 1000,
        },
        {
            "p": 33,
            "c": 28179,
            "o.reasoning_tokens": 1000,
            "o.citation_tokens": 20016,
            "m.web_searches": 18,
        },
    ),
    "cohere": (
        {
            "billed_units": {"input_tokens": 7, "output_tokens": 2},
            "tokens": {"input_tokens": 70, "output_tokens": 20},
            "cached_tokens": 65,
        },
        {"p": 7, "c": 2},
    ),
    "rerank": ({"billed_units": {"search_units": 1}}, {"p": 0, "c": 0, "m.search_units": 1}),
    "voyage": ({"total_tokens": 12}, {"p": 12, "c": 0}),
    "embeddings": ({"prompt_tokens": 12, "total_tokens": 12}, {"p": 12, "c": 0}),
    "only-the-output-missing": ({"prompt_tokens": 12, "total_tokens": 20}, {"p": 12, "c": 8}),
    "image-tokens": (
        {
            "input_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens": 4000,
            "total_tokens": 4050,
        },
        {"p": 50, "c": 4000, "i.text_tokens": 10, "i.image_tokens": 40},
    ),
    "transcription": (
        {
            "type": "tokens",
            "input_tokens": 14,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
            "output_tokens": 45,
        },
        {"p": 14, "c": 45, "i.audio_tokens": 14},
    ),
    "empty": ({}, {"p": 0, "c": 0, "source": "absent"}),
    "nothing-known": ({"queue_time": 1, "foo": {"bar": 1}}, {"p": 0, "c": 0, "source": "absent"}),
    "negative": ({"prompt_tokens": -1, "completion_tokens": 5}, {"p": 0, "c": 5, "source": "partial"}),
    "text": ({"prompt_tokens": "10", "completion_tokens": 5}, {"p": 0, "c": 5, "source": "partial"}),
    "boolean": ({"prompt_tokens": True, "completion_tokens": 5}, {"p": 0, "c": 5, "source": "partial"}),
    "fraction": ({"prompt_tokens": 1.5, "completion_tokens": 5}, {"p": 0, "c": 5, "source": "partial"}),
    "huge": ({"prompt_tokens": 10**30, "completion_tokens": 5}, {"p": 0, "c": 5, "source": "partial"}),
    "all-lies": ({"prompt_tokens": [], "completion_tokens": {}}, {"p": 0, "c": 0, "source": "partial"}),
    "lying-detail": (
        {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -3}},
        {"p": 5, "c": 5, "source": "partial"},
    ),
    "lying-total": ({"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 3}, {"p": 5, "c": 5}),
    "details-not-an-object": (
        {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": [1]},
        {"p": 5, "c": 5},
    ),
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_of_every_dialect(name: str):
    """The counts mean the same whoever reports them."""
    body, expected = USAGES[name]
    assert flat(usage_of(parse(msgspec.json.encode(body)))) == expected


GEMINI: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "thoughts-and-tools": (
        {
            "promptTokenCount": 10,
            "toolUsePromptTokenCount": 5,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 2,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}, {"modality": "AUDIO", "tokenCount": 6}],
            "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}],
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 3}],
        },
        {
            "p": 15,
            "c": 5,
            "i.text_tokens": 9,
            "i.audio_tokens": 6,
            "i.tool_tokens": 5,
            "o.image_tokens": 3,
            "o.reasoning_tokens": 2,
        },
    ),
    "cached": (
        {
            "promptTokenCount": 10,
            "cachedContentTokenCount": 8,
            "cacheTokensDetails": [{"modality": "VIDEO", "tokenCount": 8}],
            "promptTokensDetails": [{"modality": "VIDEO", "tokenCount": 9}, {"modality": "DOCUMENT", "tokenCount": 1}],
        },
        {
            "p": 10,
            "c": 0,
            "i.cached_tokens": 8,
            "i.cached_video_tokens": 8,
            "i.video_tokens": 9,
            "i.image_tokens": 1,
        },
    ),
    "only-thoughts": ({"promptTokenCount": 10, "thoughtsTokenCount": 2}, {"p": 10, "c": 2, "o.reasoning_tokens": 2}),
    "empty": ({}, {"p": 0, "c": 0, "source": "absent"}),
    "lie": ({"promptTokenCount": -1}, {"p": 0, "c": 0, "source": "partial"}),
    "strange-details": (
        {"promptTokenCount": 1, "promptTokensDetails": [None, 5, {"modality": "SMELL", "tokenCount": 1}]},
        {"p": 1, "c": 0},
    ),
}


@pytest.mark.parametrize("name", GEMINI)
def test_usage_of_gemini(name: str):
    """Thoughts are output, tool prompts are input, cached content is inside the prompt."""
    body, expected = GEMINI[name]
    assert flat(gemini_usage_of(parse(msgspec.json.encode(body)))) == expected


@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        (b'{"cost":0.00216775}', 2_167_750),
        (b'{"cost":1e-9}', 1),
        (b'{"cost":0.0000000005}', 0),
        (b'{"cost":0.0000000015}', 2),
        (b'{"cost":3}', 3_000_000_000),
        (b'{"cost":0}', 0),
        (b'{"cost":"0.5"}', 500_000_000),
        (b'{"cost":{"total_cost":0.006,"request_cost":0.005}}', 6_000_000),
        (b'{"cost":0.01,"is_byok":true,"cost_details":{"upstream_inference_cost":0.2}}', 210_000_000),
        (b'{"cost":0.01,"is_byok":false,"cost_details":{"upstream_inference_cost":0.2}}', 10_000_000),
        (b'{"cost_in_usd_ticks":37756000}', 3_775_600),
        (b'{"cost":-1}', None),
        (b'{"cost":1e999999999}', None),
        (b'{"cost":true}', None),
        (b'{"cost":null}', None),
        (b'{"cost":"NaN"}', None),
        (b"{}", None),
        (b"[]", None),
    ],
)
def test_what_the_provider_says_it_cost(usage: bytes, nanos: int | None):
    """A provider's own cost is taken to the nano from its decimal text, never through a float."""
    assert cost_nanos_of(parse(usage)) == nanos


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (3, 3000),
        ("2.5", 2500),
        (parse(b"8.470000267028809"), 8470),
        (None, None),
        ("x", None),
        (-1, None),
        (True, None),
    ],
)
def test_seconds_become_whole_milliseconds(seconds: object, expected: int | None):
    """Durations are exact milliseconds, or nothing."""
    assert milliseconds(seconds) == expected


def test_a_partial_usage_keeps_its_counts():
    """What was known of a broken answer stays; only the source says that it is not all."""
    usage = usage_of({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}})
    assert flat(partial(usage)) == flat(usage) | {"source": "partial"}
