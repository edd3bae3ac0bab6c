"""LiteLLM's price file becomes a price file of ours, digit by digit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from counterfoil.errors import ConfigError
from counterfoil.ledger.books import bundled_catalog
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.litellm import convert
from counterfoil.pricing.overlay_file import parse_overlay
from counterfoil.record.usage import Usage, UsageSource

NOON = 1_769_947_200_000

MODELS: dict[str, Any] = {
    "sample_spec": {"litellm_provider": "one of many", "input_cost_per_token": 0.0},
    "house-model": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07,
        "cache_read_input_token_cost": 7.5e-08,
        "input_cost_per_token_flex": 7.5e-08,
        "output_cost_per_token_flex": 3e-07,
        "search_context_cost_per_query": {"search_context_size_medium": 0.0275, "search_context_size_low": 0.02},
        "max_tokens": 128000,
        "supports_vision": True,
    },
    "gemini/long-model": {
        "litellm_provider": "gemini",
        "input_cost_per_token": 1.25e-06,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token": 1e-05,
    },
    "image-model": {"litellm_provider": "openai", "output_cost_per_image": 0.04},
    "hearing-model": {"litellm_provider": "openai", "input_cost_per_second": 0.0001},
    "xai/odd": {"litellm_provider": "xai", "input_cost_per_token": 1e-06, "tea_cost_per_cup": 3},
}


def book_of(text: str) -> PriceBook:
    """Give the book of an imported price file."""
    return PriceBook.build(bundled_catalog(), parse_overlay(text))


CASES = {
    "tokens": ("openai", "house-model", None, Usage(1000, 500, source=UsageSource.REPORTED), 450_000),
    "cached": (
        "openai",
        "house-model",
        None,
        Usage(1000, 0, 0, {"cached_tokens": 1000}, source=UsageSource.REPORTED),
        75_000,
    ),
    "flex": ("openai", "house-model", "flex", Usage(1000, 500, source=UsageSource.REPORTED), 225_000),
    "short": ("google", "long-model", None, Usage(1000, source=UsageSource.REPORTED), 1_250_000),
    "long": ("google", "long-model", None, Usage(200_001, source=UsageSource.REPORTED), 500_002_500),
    "images": ("openai", "image-model", None, Usage(meters={"images": 2}, source=UsageSource.REPORTED), 80_000_000),
    "seconds": (
        "openai",
        "hearing-model",
        None,
        Usage(meters={"input_audio_ms": 1500}, source=UsageSource.REPORTED),
        150_000,
    ),
    "searches": (
        "openai",
        "house-model",
        None,
        Usage(meters={"web_searches": 2}, source=UsageSource.REPORTED),
        55_000_000,
    ),
}


@pytest.mark.parametrize(("provider", "model", "tier", "used", "nanos"), CASES.values(), ids=CASES)
def test_an_imported_price_is_exact(provider: str, model: str, tier: str | None, used: Usage, nanos: int) -> None:
    """What the file says a unit costs is what our book charges for it, with no float in between."""
    book = book_of(convert(json.dumps(MODELS).encode()))
    assert book.price(provider, model, used, NOON, service_tier=tier).nanos == nanos


def test_what_has_no_counterpart_is_listed() -> None:
    """A cost that no meter of ours stands for is named at the end, not dropped silently."""
    assert "#   tea_cost_per_cup: 1" in convert(json.dumps(MODELS).encode())


def test_only_wanted_models_are_imported() -> None:
    """The caller chooses by provider and model, as this project names them."""
    text = convert(json.dumps(MODELS).encode(), lambda provider, model: provider == "x-ai" and model == "odd")
    overlay = parse_overlay(text)
    assert [(own.provider, own.model) for own in overlay.prices] == [("x-ai", "odd")]
    assert parse_overlay(convert(b"{}")).prices == ()


@pytest.mark.parametrize("data", [b"", b"[]", b"nonsense", b'{"a": 3}'], ids=["empty", "list", "no JSON", "no models"])
def test_another_file_is_refused(data: bytes) -> None:
    """A file that is not LiteLLM's is a configuration error."""
    with pytest.raises(ConfigError, match="not LiteLLM"):
        convert(data)


def test_a_price_that_is_no_number_is_refused() -> None:
    """A text where a price should be is an error that shows it."""
    with pytest.raises(ConfigError, match="a lot"):
        convert(b'{"m": {"litellm_provider": "p", "input_cost_per_token": "a lot"}}')
