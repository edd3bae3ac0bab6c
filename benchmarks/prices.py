"""How long pricing one call takes, by the shape of its usage, and how many stored records one core reprices.

Run it with ``python -m benchmarks.prices``. Times are the best of many short rounds: what the code takes, not what the
machine was busy with.
"""

from __future__ import annotations

import time
import timeit
from typing import Any

from counterfoil.ledger.books import bundled_catalog
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay_file import parse_overlay
from counterfoil.pricing.reprice import Comparison, decode, refee, reprice
from counterfoil.record import codec
from counterfoil.record.record import Attempt, CaptureInfo, CapturePolicy, CaptureState, Record
from counterfoil.record.usage import Usage, UsageSource
from counterfoil.surfaces.metering import gemini_usage_of, usage_of

AT = 1_795_000_000_000
CREATED = "2026-11-18T11:06:40.000Z"
ROUNDS, CALLS = 150, 500
RECORDS = 20_000

ANTHROPIC: dict[str, Any] = {
    "input_tokens": 10,
    "cache_read_input_tokens": 30_000,
    "cache_creation_input_tokens": 2_000,
    "output_tokens": 500,
}
SHORT, HOUR = "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"
SHAPES: dict[str, tuple[str, str, Usage]] = {
    "plain": ("openai", "gpt-4o-mini", usage_of({"prompt_tokens": 281, "completion_tokens": 101})),
    "cached, reasoning": (
        "openai",
        "gpt-5",
        usage_of(
            {
                "prompt_tokens": 9281,
                "completion_tokens": 1101,
                "prompt_tokens_details": {"cached_tokens": 8192, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 900},
            }
        ),
    ),
    "cache read and written": (
        "anthropic",
        "claude-sonnet-4-5",
        usage_of(ANTHROPIC | {"cache_creation": {SHORT: 2000, HOUR: 0}}),
    ),
    "cache written for 5 minutes and 1 hour": (
        "anthropic",
        "claude-sonnet-4-5",
        usage_of(ANTHROPIC | {"cache_creation": {SHORT: 500, HOUR: 1500}}),
    ),
    "the same with web searches": (
        "anthropic",
        "claude-sonnet-4-5",
        usage_of(
            ANTHROPIC | {"cache_creation": {SHORT: 500, HOUR: 1500}, "server_tool_use": {"web_search_requests": 2}}
        ),
    ),
    "Gemini, cached, thoughts": (
        "google",
        "gemini-2.5-flash",
        gemini_usage_of(
            {
                "promptTokenCount": 500,
                "cachedContentTokenCount": 300,
                "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 300}],
                "candidatesTokenCount": 20,
                "thoughtsTokenCount": 300,
            }
        ),
    ),
    "text and audio": (
        "google",
        "gemini-2.5-flash",
        gemini_usage_of(
            {
                "promptTokenCount": 500,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 100},
                    {"modality": "AUDIO", "tokenCount": 400},
                ],
                "candidatesTokenCount": 20,
            }
        ),
    ),
    "OpenAI audio, cached, at fallback rates": (
        "openai",
        "gpt-4o-audio-preview",
        usage_of(
            {
                "prompt_tokens": 1000,
                "completion_tokens": 300,
                "prompt_tokens_details": {
                    "text_tokens": 400,
                    "audio_tokens": 600,
                    "cached_tokens": 500,
                    "cached_tokens_details": {"text_tokens": 200, "audio_tokens": 300},
                },
                "completion_tokens_details": {"reasoning_tokens": 0, "text_tokens": 100, "audio_tokens": 200},
            }
        ),
    ),
    "an image drawn and one shown": (
        "openai",
        "gpt-image-1",
        usage_of(
            {
                "input_tokens": 50,
                "output_tokens": 1056,
                "total_tokens": 1106,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            }
        ),
    ),
    "deep research: reasoning, citations, searches": (
        "perplexity",
        "sonar-deep-research",
        usage_of(
            {
                "prompt_tokens": 33,
                "completion_tokens": 7163,
                "citation_tokens": 20016,
                "num_search_queries": 18,
                "reasoning_tokens": 193472,
            }
        ),
    ),
    "seven seconds of speech, billed as ten": (
        "groq",
        "whisper-large-v3",
        Usage(meters={"input_audio_ms": 7000}, source=UsageSource.REPORTED),
    ),
    "a tool without a price": (
        "azure",
        "gpt-4o",
        usage_of({"prompt_tokens": 900, "completion_tokens": 30, "total_tokens": 930}, {"web_searches": 1}),
    ),
    "own prices: graduated, included, a fee": (
        "house",
        "llama",
        usage_of(
            {"prompt_tokens": 9000, "completion_tokens": 300, "prompt_tokens_details": {"cached_tokens": 4000}},
            {"web_searches": 3},
        ),
    ),
}
PRICES = """
prices:
  - provider: house
    rates:
      input_tokens: {price: 0.30, graduated: {2000: 0.20}}
      cache_read_tokens: 0.05
      output_tokens: 0.90
      web_searches: {price: 0.01, included: 1}
fees: [{provider: house, request: 0.0001}]
"""


def record_of(book: PriceBook, provider: str, model: str, used: Usage) -> bytes:
    """Give a stored record of one call."""
    charge = book.price(provider, model, used, AT)
    attempt = Attempt(
        number=1, provider=provider, model=model, key_source="operator", status_code=200, error_code=None,
        latency_ms=1.0, generation_ms=2.0, usage=used, cost_nanos=charge.nanos,
    )  # fmt: skip
    record = Record(
        created_at=CREATED, request_id="gen_01KC2D0J5G4Q9W7T3M8XN6PVRB", team_id="acme", app_id=None, key_id="k",
        endpoint="/v1/chat/completions", model_id=f"{provider}/{model}", provider=provider, native_response_id=None,
        stream=True, byok=False, status_code=200, success=True, error_code=None, error_message=None, latency_ms=1.0,
        generation_ms=2.0, throughput=None, usage=used, cost_nanos=charge.nanos, pricing_lines=charge.lines,
        cost_state=charge.state, attempts=(attempt,), book=book.digest,
    )  # fmt: skip
    return codec.encode(record, CaptureInfo(policy=CapturePolicy.FULL, state=CaptureState.STORED))


def repriced(book: PriceBook, rows: list[bytes]) -> None:
    """Reprice ``rows`` as ``counterfoil ledger reprice`` does."""
    comparison = Comparison()
    for row in rows:
        record = decode(row)
        comparison.add(record, reprice(book, record), refee(book, record))


def main() -> None:
    """Print both."""
    book = PriceBook.build(bundled_catalog(), parse_overlay(PRICES))
    for name, (provider, model, used) in SHAPES.items():
        lines = len(book.price(provider, model, used, AT).lines)
        times = timeit.repeat(lambda: book.price(provider, model, used, AT), number=CALLS, repeat=ROUNDS)  # noqa: B023
        print(f"{name:46} {lines} lines  {min(times) / CALLS * 1e6:5.2f} µs")
    rows = [record_of(book, *shape) for shape in SHAPES.values()] * (RECORDS // len(SHAPES))
    best = min(timeit.repeat(lambda: repriced(book, rows), timer=time.process_time, number=1, repeat=7))
    print(f"{'reprice':46} {len(rows) / best:,.0f} records/s on one core")


if __name__ == "__main__":
    main()
