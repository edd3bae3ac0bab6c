# ruff: noqa: INP001 - a script, found by its path
"""Regenerate the vendored price catalogue from the genai-prices wheel (a development dependency).

    python tools/build_catalog.py

Only facts are taken: model names, dates, thresholds and prices. Every price becomes an exact integer (nanos per unit
size), every clause a list, every date a Unix millisecond. The result is canonical JSON, so the same wheel always gives
the same bytes and the same hash; review the difference with ``counterfoil prices diff``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import genai_prices.data as source
import msgspec
import zstandard
from genai_prices import types
from genai_prices.data_units import unit_data

from counterfoil.pricing.catalog import FORMAT, Catalog, Source
from counterfoil.pricing.rates import Band, Entry, Model, Provider, Rate, Window, encoder, exact

TARGET = Path(__file__).parent.parent / "src/counterfoil/pricing/catalog.json.zst"

# Our meter for each of the source's price keys, and how many of our units one price of theirs is for.
METERS = {
    "input_mtok": ("input_tokens", 1_000_000),
    "output_mtok": ("output_tokens", 1_000_000),
    "cache_read_mtok": ("cache_read_tokens", 1_000_000),
    "cache_write_mtok": ("cache_write_tokens", 1_000_000),
    "cache_write_5m_mtok": ("cache_write_5m_tokens", 1_000_000),
    "cache_write_1h_mtok": ("cache_write_1h_tokens", 1_000_000),
    "input_text_mtok": ("input_text_tokens", 1_000_000),
    "input_audio_mtok": ("input_audio_tokens", 1_000_000),
    "input_image_mtok": ("input_image_tokens", 1_000_000),
    "input_video_mtok": ("input_video_tokens", 1_000_000),
    "input_tool_mtok": ("input_tool_tokens", 1_000_000),
    "cache_text_read_mtok": ("cache_read_text_tokens", 1_000_000),
    "cache_audio_read_mtok": ("cache_read_audio_tokens", 1_000_000),
    "cache_image_read_mtok": ("cache_read_image_tokens", 1_000_000),
    "cache_video_read_mtok": ("cache_read_video_tokens", 1_000_000),
    "output_text_mtok": ("output_text_tokens", 1_000_000),
    "output_audio_mtok": ("output_audio_tokens", 1_000_000),
    "output_image_mtok": ("output_image_tokens", 1_000_000),
    "output_video_mtok": ("output_video_tokens", 1_000_000),
    "output_reasoning_mtok": ("output_reasoning_tokens", 1_000_000),
    "output_citation_mtok": ("output_citation_tokens", 1_000_000),
    "audio_hours": ("audio_ms", 3_600_000),
    "input_audio_hours": ("input_audio_ms", 3_600_000),
    "output_audio_hours": ("output_audio_ms", 3_600_000),
    "input_mchars": ("characters", 1_000_000),
    "input_text_messages_kcount": ("input_messages", 1_000),
    "input_gpixels": ("input_pixels", 1_000_000_000),
    "input_document_kpages": ("pages", 1_000),
    "input_annotated_document_kpages": ("annotated_pages", 1_000),
    "rerank_searches_kcount": ("search_units", 1_000),
    "web_searches_kcount": ("web_searches", 1_000),
    "social_searches_kcount": ("social_searches", 1_000),
    "storage_searches_kcount": ("file_searches", 1_000),
    "code_executions_kcount": ("code_executions", 1_000),
    "requests_kcount": ("requests", 1_000),
}

# Facts that the source's data does not hold as data, each with the page where its provider publishes it.
MINIMUMS = {
    # Groq bills at least ten seconds a request: console.groq.com/docs/speech-to-text. The source computes it in code.
    ("groq", "whisper-large-v3"): {"input_audio_ms": 10_000, "audio_ms": 10_000},
    ("groq", "whisper-large-v3-turbo"): {"input_audio_ms": 10_000, "audio_ms": 10_000},
}
MAXIMUMS = {
    # Up to Gemini 2.5 Google bills the prompt that was grounded, from Gemini 3 on each query:
    # ai.google.dev/gemini-api/docs/google-search, pricing.
    ("google", model): {"web_searches": 1}
    for model in (
        "gemini-2.0-flash",
        "gemini-2.5-flash",
        "gemini-2.5-flash-lite",
        "gemini-2.5-flash-preview",
        "gemini-2.5-pro",
    )
}
ALIASES = {
    # What the Bedrock Mantle endpoint calls them, where Bedrock's own names end in a version:
    # docs.aws.amazon.com/bedrock, supported models.
    ("aws", "openai.gpt-oss-20b-1:0"): ("openai.gpt-oss-20b",),
    ("aws", "openai.gpt-oss-120b-1:0"): ("openai.gpt-oss-120b",),
}
ZERO_METERS = {
    # A web fetch costs nothing beside its tokens: platform.claude.com, documentation of the web fetch tool. A refusal
    # before any output is not billed: the same, guide to refusals and fallback.
    "anthropic": ("web_fetches", "refusals"),
}
TOOL_RATES = {
    # What a search costs by the version of the tool and the kind of model: developers.openai.com/api/docs/pricing.
    # The earlier version (web_search_preview, and the models that always search with it) is dearer where the model does
    # not reason; the tokens of what it found are free there, and not in the usage.
    **{
        ("openai", model): {"web_searches.preview": ("25", 1_000)}
        for model in ("gpt-4o", "gpt-4o-2024-05-13", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-4o-search-preview")
    },
    ("openai", "gpt-5-search-api"): {"web_searches": ("10", 1_000)},
    # A request's fee by how much is searched for it, and for Pro Search: docs.perplexity.ai, pricing. The list's own
    # price is the highest of the first.
    **{
        ("perplexity", model): {
            f"requests.{size}": (fee, 1_000) for size, fee in zip(("low", "medium", "high"), fees, strict=True)
        }
        for model, fees in (
            ("sonar", ("5", "8", "12")),
            ("sonar-reasoning", ("5", "8", "12")),
            ("sonar-reasoning-pro", ("6", "10", "14")),
        )
    },
    ("perplexity", "sonar-pro"): {
        **{f"requests.{size}": (fee, 1_000) for size, fee in (("low", "6"), ("medium", "10"), ("high", "14"))},
        **{f"requests.pro.{size}": (fee, 1_000) for size, fee in (("low", "14"), ("medium", "18"), ("high", "22"))},
    },
}
PROVIDER_TOOLS = {
    # Tools that run at xAI cost the same with every model: docs.x.ai/developers/pricing.
    "x-ai": {
        "web_searches": ("5", 1_000),
        "social_searches": ("5", 1_000),
        "code_executions": ("5", 1_000),
        "file_searches": ("2.5", 1_000),
        "attachment_searches": ("10", 1_000),
    },
}
REGIONS = {
    # Inference kept in the United States costs a tenth more for tokens, from Opus 4.6 and Sonnet 4.6 on:
    # platform.claude.com, data residency; docs.aws.amazon.com/claude-platform, data residency.
    ("anthropic", model): {"us": (11, 10)}
    for model in (
        "claude-opus-4-6",
        "claude-opus-4-7",
        "claude-opus-4-8",
        "claude-opus-5",
        "claude-opus-5-5",
        "claude-sonnet-4-6",
        "claude-sonnet-5",
        "claude-sonnet-5-5",
        "claude-haiku-5-5",
        "claude-fable-5",
        "claude-fable-5-1",
        "claude-fable-5-2",
        "claude-mythos-5-2",
    )
}
FREE_MODELS = {
    # The moderation endpoint is free: developers.openai.com, guide to moderation.
    ("openai", "moderation"),
    # Gemma has no paid price on the Gemini API: ai.google.dev/gemini-api/docs/pricing.
    ("google", "gemma-3"),
    ("google", "gemma-3n"),
    ("google", "gemma-4-26b-a4b-it"),
    ("google", "gemma-4-31b-it"),
}


def main() -> None:
    """Write the catalogue and say what changed in size and hash."""
    data = build()
    packed = zstandard.ZstdCompressor(level=19).compress(data)
    TARGET.write_bytes(packed)
    sys.stdout.write(f"{len(source.providers)} providers, {len(data)} bytes, {len(packed)} packed\n")
    sys.stdout.write(f"sha256 {hashlib.sha256(data).hexdigest()}\n")


def build() -> bytes:
    """The catalogue's canonical bytes."""
    _check_units()
    catalog = Catalog(
        format=FORMAT,
        source=Source(
            package="genai-prices",
            version=importlib.metadata.version("genai-prices"),
            sha256=hashlib.sha256(Path(source.__file__).read_bytes()).hexdigest(),
            url="https://github.com/pydantic/genai-prices",
            license="MIT, © Pydantic Services Inc.",
        ),
        providers={provider.id: msgspec.Raw(encoder.encode(_provider(provider))) for provider in source.providers},
    )
    return encoder.encode(catalog)


def _provider(provider: types.Provider) -> Provider:
    return Provider(
        name=provider.name,
        urls=tuple(provider.pricing_urls or ()),
        lists=tuple(provider.fallback_model_providers or ()),
        models=tuple(_model(provider.id, model) for model in provider.models),
    )


def _model(provider: str, model: types.ModelInfo) -> Model:
    prices = model.prices if isinstance(model.prices, list) else [types.ConditionalPrice(prices=model.prices)]
    kinds = _kinds(model)
    entries = tuple(_entry(provider, model.id, item.prices, item.constraint, kinds=kinds) for item in prices)
    empty = not any(entry.rates for entry in entries)
    return Model(
        id=model.id,
        match=_named(_clause(model.match), ALIASES.get((provider, model.id), ())),
        name=model.name,
        context_tokens=model.context_window,
        deprecated=bool(model.deprecated),
        free=empty and (model.id.endswith(":free") or (provider, model.id) in FREE_MODELS),
        entries=entries,
        regions=REGIONS.get((provider, model.id), {}),
        variants=tuple(
            _entry(provider, model.id, item.prices, item.constraint, when)
            for item in model.price_variants or ()
            for when in [_only(item.when)]
            if when[0] != "search_type"
        ),
    )


def _kinds(model: types.ModelInfo) -> dict[str, Rate]:
    """Rates by the kind of search, as qualified meters: one call may make searches of several kinds."""
    return {
        f"{METERS[key][0]}.{kind}": _rate(value, METERS[key][1])
        for variant in model.price_variants or ()
        for name, kind in [_only(variant.when)]
        if name == "search_type"
        for key, value in vars(variant.prices).items()
        if value is not None
    }


def _only(when: dict[str, str]) -> tuple[str, str]:
    [(key, value)] = when.items()
    return key, value


def _entry(
    provider: str,
    model: str,
    prices: types.ModelPrice,
    constraint: types.StartDateConstraint | types.TimeOfDateConstraint | None,
    when: tuple[str, str] | None = None,
    kinds: dict[str, Rate] | None = None,
) -> Entry:
    minimums, maximums = MINIMUMS.get((provider, model), {}), MAXIMUMS.get((provider, model), {})
    rates = {
        METERS[key][0]: _rate(value, METERS[key][1], minimums.get(METERS[key][0], 0), maximums.get(METERS[key][0], 0))
        for key, value in vars(prices).items()
        if value is not None
    }
    if rates and when is None:
        rates.update(dict.fromkeys(ZERO_METERS.get(provider, ()), Rate(price=0, size=1)))
    if when is None:
        tools = PROVIDER_TOOLS.get(provider, {}) if "output_tokens" in rates else {}
        for meter, (price, size) in {**tools, **TOOL_RATES.get((provider, model), {})}.items():
            rates[meter] = Rate(*exact(price, size))
    rates.update(kinds or {})
    start, windows = None, ()
    if isinstance(constraint, types.StartDateConstraint):
        midnight = dt.datetime.combine(constraint.start_date, dt.time(), dt.UTC)
        start = int(midnight.timestamp()) * 1000
    elif constraint is not None:
        windows = (Window(_minute(constraint.start_time), _minute(constraint.end_time)),)
    return Entry(rates=rates, start=start, windows=windows, when=when)


def _minute(time: dt.time) -> int:
    if time.utcoffset() or time.second:
        raise ValueError(f"{time} is not a whole minute of UTC")
    return time.hour * 60 + time.minute


def _rate(value: Any, size: int, minimum: int = 0, maximum: int = 0) -> Rate:
    if not isinstance(value, types.TieredPrices):
        price, size = exact(str(value), size)
        return Rate(price, size, minimum=minimum, maximum=maximum)
    price, base_size = exact(str(value.base), size)
    bands = tuple(Band(tier.start, *exact(str(tier.price), size)) for tier in value.tiers)
    return Rate(price, base_size, bands, minimum=minimum, maximum=maximum)


_HEADS = {
    types.ClauseEquals: ("=", "equals"),
    types.ClauseStartsWith: ("^", "starts_with"),
    types.ClauseEndsWith: ("$", "ends_with"),
    types.ClauseContains: ("*", "contains"),
}


def _clause(clause: Any) -> list[Any]:
    if isinstance(clause, types.ClauseOr):
        return ["|", *map(_clause, clause.or_)]
    if isinstance(clause, types.ClauseAnd):
        return ["&", *map(_clause, clause.and_)]
    if isinstance(clause, types.ClauseRegex):
        return ["~", clause.regex]
    head, attribute = _HEADS[type(clause)]
    return [head, getattr(clause, attribute).lower()]


def _named(clause: list[Any], aliases: tuple[str, ...]) -> list[Any]:
    return ["|", clause, *(["=", alias] for alias in aliases)] if aliases else clause


def _check_units() -> None:
    """Every price key the source knows is mapped or has no price in it; the unit sizes agree."""
    for unit in unit_data.values():
        mapped = METERS.get(unit["price_key"])
        scale = 1000 if unit["dimensions"]["family"] == "durations" else 1
        if mapped is not None and mapped[1] != unit["per"] * scale:
            raise ValueError(f"{unit['price_key']} is per {unit['per']}, not {mapped[1]}")


if __name__ == "__main__":
    main()
