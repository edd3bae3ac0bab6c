"""What docs/pricing.md shows is true: its price file is one, and its rules are rules of a book."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from counterfoil.ledger.books import bundled_catalog
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay_file import parse_overlay
from counterfoil.record.usage import Usage

DOCUMENT = (Path(__file__).parents[3] / "docs/pricing.md").read_text()
NOON = 1_769_947_200_000  # 2026-02-01T12:00:00Z
NOVEMBER = 1_793_880_000_000
[EXAMPLE] = re.findall(r"```yaml\n(providers:.*?)```", DOCUMENT, re.DOTALL)

EXAMPLES = {
    "house": ("local", "llama-3-70b", None, {"prompt": 1000}, 235_000),
    "a team's": ("local", "llama-3-70b", "acme", {"prompt": 1000}, 208_000),
    "an image": ("openai", "dall-e-3", None, {"meters": {"images.hd.1792x1024": 1}}, 108_100_000),
    "another image": ("openai", "dall-e-3", None, {"meters": {"images.standard.512x512": 1}}, 36_100_000),
    "a minute heard": ("local", "listener", None, {"meters": {"input_audio_ms": 60_000}}, 5_500_000),
    "a request": ("local", "oracle", None, {"prompt": 5}, 9_100_000),
}


@pytest.mark.parametrize(("provider", "model", "team", "used", "nanos"), EXAMPLES.values(), ids=EXAMPLES)
def test_the_example_prices_as_it_says(
    provider: str, model: str, team: str | None, used: dict[str, int], nanos: int, make_usage: Callable[..., Usage]
) -> None:
    """The price file of the document charges what its comments say."""
    book = PriceBook.build(
        bundled_catalog(), parse_overlay(EXAMPLE.replace("empty_answers: true", "empty_answers: false"))
    )
    charge = book.price(provider, model, make_usage(**used), NOON, team_id=team)
    assert charge.nanos == nanos, charge


@pytest.mark.parametrize(
    ("rule", "tier", "prompt", "at_ms"),
    [
        ("openai/gpt-5+flex@2026-10-12:input_tokens", "flex", 1, NOVEMBER),
        ("google/gemini-2.5-pro>200000:output_tokens", None, 200_001, NOON),
        ("deepseek/deepseek-chat~00:30-16:30:input_tokens", None, 1, NOON),
    ],
    ids=["tier", "threshold", "window"],
)
def test_the_rules_it_names_are_rules(
    rule: str, tier: str | None, prompt: int, at_ms: int, book: PriceBook, make_usage: Callable[..., Usage]
) -> None:
    """Each rule of the catalogue that the document shows is one that a line of the book names."""
    assert rule in DOCUMENT
    provider, _, model = re.split(r"[+>~:]", rule)[0].partition("/")
    charge = book.price(provider, model, make_usage(prompt, 1), at_ms, service_tier=tier)
    assert rule in {line.rule_id for line in charge.lines}
