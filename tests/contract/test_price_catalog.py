"""The vendored catalogue is what its source says: every model, at many moments and tiers, costs what it computes.

The source, genai-prices, is a development dependency; its calculator is the judge here and no part of the product.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import importlib.util
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest

from counterfoil.ledger.books import bundled_catalog
from counterfoil.pricing import meters as m
from counterfoil.pricing.book import PriceBook
from counterfoil.record.usage import Usage, UsageSource

genai_prices = pytest.importorskip("genai_prices", reason="the source of the catalogue is not installed")
data = pytest.importorskip("genai_prices.data")
types = pytest.importorskip("genai_prices.types")

BOOK = PriceBook.build(bundled_catalog())
MOMENTS = [
    dt.datetime(2024, 3, 1, 12, 0, tzinfo=dt.UTC),
    dt.datetime(2025, 6, 10, 0, 0, tzinfo=dt.UTC),
    dt.datetime(2026, 8, 17, 3, 59, 59, tzinfo=dt.UTC),
    dt.datetime(2026, 10, 13, 20, 30, tzinfo=dt.UTC),
    dt.datetime(2027, 2, 1, 9, 59, 59, tzinfo=dt.UTC),
]
TIERS = {
    None: {},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "batch": {"service_tier": "batch", "processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}
USAGES = {
    "short": ({"input_tokens": 1000, "output_tokens": 500}, {}),
    "cached": (
        {"input_tokens": 9000, "output_tokens": 70, "cache_read_tokens": 4000, "cache_write_tokens": 1000},
        {"cached_tokens": 4000, "cache_write_tokens": 1000},
    ),
    "an hour": (
        {"input_tokens": 9000, "output_tokens": 7, "cache_write_tokens": 1000, "cache_write_1h_tokens": 600,
         "cache_write_5m_tokens": 400},
        {"cache_write_tokens": 1000, "cache_write_1h_tokens": 600, "cache_write_5m_tokens": 400},
    ),
    "long": ({"input_tokens": 272_001, "output_tokens": 500}, {}),
    "at a threshold": ({"input_tokens": 200_000, "output_tokens": 500}, {}),
}  # fmt: skip


def builder() -> ModuleType:
    """Give ``tools/build_catalog.py`` as a module."""
    path = Path(__file__).parents[2] / "tools/build_catalog.py"
    spec = importlib.util.spec_from_file_location("build_catalog", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_catalogue_is_what_the_tool_makes() -> None:
    """Made again from the source's same version, the catalogue has the same bytes."""
    installed, vendored = importlib.metadata.version("genai-prices"), BOOK.lists.catalog.source.version
    if installed != vendored:
        pytest.skip(f"genai-prices {installed} is installed; the catalogue was made from {vendored}")
    assert builder().build() == bundled_catalog()


@pytest.mark.parametrize("provider", data.providers, ids=lambda provider: provider.id)
def test_every_model_costs_what_the_source_computes(provider: object) -> None:
    """Input and output of every model equal the source's own calculation, but for half a nano a line."""
    for model in provider.models:  # type: ignore[attr-defined]
        if provider._match_model(model.id.lower()) is not model:  # type: ignore[attr-defined]
            continue  # its own name means an earlier model
        dated = isinstance(model.prices, list) or model.price_variants
        for moment in MOMENTS if dated else MOMENTS[:1]:
            for tier in TIERS if model.price_variants else [None]:
                for extracted, details in USAGES.values():
                    wanted = model.calc_price(
                        types.Usage(**extracted), provider, genai_request_timestamp=moment, price_context=TIERS[tier]
                    )
                    used = Usage(
                        extracted["input_tokens"], extracted["output_tokens"], 0, details, source=UsageSource.REPORTED
                    )
                    at_ms = round(moment.timestamp() * 1000)
                    charge = BOOK.price(provider.id, model.id, used, at_ms, service_tier=tier)  # type: ignore[attr-defined]
                    for side, price in (("input", wanted.input_price), ("output", wanted.output_price)):
                        amounts = [line.amount_nanos for line in charge.lines if m.direction(line.meter) == side]
                        assert abs(sum(amounts) - price * Decimal(10**9)) * 2 <= len(amounts), (model.id, moment, tier)
