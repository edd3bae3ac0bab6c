"""Worked examples: usages and prices whose cost was computed by hand, expressed as an operator's price file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from counterfoil.pricing.book import PriceBook
from counterfoil.record.charge import CostState

NOON = 1_769_947_200_000
TWO_AM = NOON - 10 * 3_600_000


class Example(NamedTuple):
    """``rates`` of a price (YAML), a usage, and the amounts in nanos of its lines."""

    rates: str
    usage: dict[str, Any]
    nanos: tuple[int, ...]


EXAMPLES = {
    "eight tokens at $2": Example("{input_tokens: 2}", {"prompt": 8}, (16_000,)),
    "input and output": Example(
        "{input_tokens: 0.10, output_tokens: 0.40}", {"prompt": 281, "completion": 8}, (28_100, 3_200)
    ),
    "image tokens": Example(
        "{output_tokens: 10, output_image_tokens: 60}",
        {"completion": 2240, "output": {"image_tokens": 2240}},
        (134_400_000,),
    ),
    "pages": Example("{pages: {price: 2, per: 1000}}", {"meters": {"pages": 3}}, (6_000_000,)),
    "searches and extra results": Example(
        "{web_searches: 0.005, web_search_extra_results: 0.001}",
        {"meters": {"web_searches": 2, "web_search_extra_results": 3}},
        (3_000_000, 10_000_000),
    ),
    "an image tool and patches": Example(
        "{image_generations: 0.02, patches: 0.001}",
        {"meters": {"image_generations": 1, "patches": 2}},
        (20_000_000, 2_000_000),
    ),
    "native searches": Example("{web_searches: 0.01}", {"meters": {"web_searches": 3}}, (30_000_000,)),
    "speech": Example(
        "{input_tokens: 0.6, output_audio_tokens: 12, output_tokens: 1}",
        {"prompt": 10, "completion": 71, "output": {"audio_tokens": 71}},
        (6_000, 852_000),
    ),
    "one large image of high quality": Example(
        "{images.high.1024x1024: 0.036, images: 0.01}", {"meters": {"images.high.1024x1024": 1}}, (36_000_000,)
    ),
    "all included": Example("{images: {price: 0.04, included: 5}}", {"meters": {"images": 5}}, (0,)),
    "two beyond the included": Example(
        "{images: {price: 0.04, included: 5}}", {"meters": {"images": 7}}, (0, 80_000_000)
    ),
    "ten seconds of video": Example(
        "{output_video_seconds: 0.13}", {"meters": {"output_video_ms": 10_000}}, (1_300_000_000,)
    ),
    "ten seconds of cheaper video": Example(
        "{output_video_seconds: 0.09}", {"meters": {"output_video_ms": 10_000}}, (900_000_000,)
    ),
    "cached inside input": Example(
        "{input_tokens: 2, cache_read_tokens: 0.2, output_tokens: 6}",
        {"prompt": 123, "completion": 9, "inside": {"cached_tokens": 64}},
        (118_000, 12_800, 54_000),
    ),
    "cached beside input": Example(  # the surface adds what a provider counts beside, so 123 + 64 is the prompt
        "{input_tokens: 2, cache_read_tokens: 0.2, output_tokens: 6}",
        {"prompt": 187, "completion": 9, "inside": {"cached_tokens": 64}},
        (246_000, 12_800, 54_000),
    ),
    "reasoning without its own rate": Example(
        "{output_tokens: 30}", {"completion": 100, "output": {"reasoning_tokens": 80}}, (3_000_000,)
    ),
    "reasoning with its own rate": Example(
        "{output_tokens: 30, output_reasoning_tokens: 40}",
        {"completion": 100, "output": {"reasoning_tokens": 25}},
        (2_250_000, 1_000_000),
    ),
    "long context counts what is cached": Example(
        "{input_tokens: {price: 1, above: {200000: 2}}, cache_read_tokens: {price: 0.1, above: {200000: 0.2}},"
        " cache_write_tokens: {price: 1.25, above: {200000: 2.5}}}",
        {"prompt": 210_000, "inside": {"cached_tokens": 30_000, "cache_write_tokens": 30_000}},
        (300_000_000, 75_000_000, 6_000_000),
    ),
    "at the threshold": Example(
        "{input_tokens: {price: 8, above: {272000: 16}}, output_tokens: {price: 40, above: {272000: 60}}}",
        {"prompt": 272_000, "completion": 100_000},
        (2_176_000_000, 4_000_000_000),
    ),
    "one token over it": Example(
        "{input_tokens: {price: 8, above: {272000: 16}}, output_tokens: {price: 40, above: {272000: 60}}}",
        {"prompt": 272_001, "completion": 100_000},
        (4_352_016_000, 6_000_000_000),
    ),
    "graduated": Example(
        "{input_tokens: {price: 8, graduated: {100: 4, 200: 2}}}", {"prompt": 250}, (800_000, 400_000, 100_000)
    ),
    "a fixed price a request": Example("{requests: 0.003}", {"prompt": 50, "completion": 7}, (3_000_000,)),
    "a third of a second": Example("{input_audio_minutes: 0.006}", {"meters": {"input_audio_ms": 333}}, (33_300,)),
    "characters": Example("{characters: {price: 15, per: 1M}}", {"meters": {"characters": 1234}}, (18_510_000,)),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_worked_example(
    example: Example, make_book: Callable[[str], PriceBook], make_usage: Callable[..., Any]
) -> None:
    """Each line costs what was computed by hand, and the charge is exact."""
    book = make_book(f"prices: [{{provider: acme, model: m, rates: {example.rates}}}]")
    charge = book.price("acme", "m", make_usage(**example.usage), NOON)
    assert tuple(line.amount_nanos for line in charge.lines) == example.nanos
    assert charge.nanos == sum(example.nanos)
    assert charge.state in (CostState.EXACT, CostState.FREE)


@pytest.mark.parametrize(
    ("at_ms", "nanos"), [(NOON, 1_305_000_000), (TWO_AM, 2_610_000_000)], ids=["off-peak", "in a window"]
)
def test_windows_double_the_price(
    at_ms: int, nanos: int, make_book: Callable[[str], PriceBook], make_usage: Callable[..., Any]
) -> None:
    """A price with windows at twice its rates costs double inside them and the base price outside."""
    book = make_book(
        "prices: [{provider: acme, model: m, rates: {input_tokens: 0.435, output_tokens: 0.87},"
        ' windows: [{from: "01:00", to: "04:00", times: 2}, {from: "06:00", to: "10:00", times: 2}]}]'
    )
    assert book.price("acme", "m", make_usage(1_000_000, 1_000_000), at_ms).nanos == nanos


def test_a_tier_without_a_price_is_charged_as_standard_and_says_so(
    make_book: Callable[[str], PriceBook], make_usage: Callable[..., Any]
) -> None:
    """An unknown service tier costs the standard rate as a fallback with a reason, never silently."""
    book = make_book("prices: [{provider: acme, model: m, rates: {input_tokens: 2, output_tokens: 10}}]")
    charge = book.price("acme", "m", make_usage(100_000, 10_000), NOON, service_tier="priority")
    assert charge.nanos == 300_000_000
    assert charge.state is CostState.ESTIMATED
    assert all("priority" in str(line.reason) for line in charge.lines)


def test_a_discount_is_exact_and_rounded_once_a_line(
    make_book: Callable[[str], PriceBook], make_usage: Callable[..., Any]
) -> None:
    """One per cent off 1,000,000,000 is 990,000,000, and off lines of 501 and 500 it is 496 and 495, 991 together."""
    text = "prices: [{provider: acme, model: m, rates: {input_tokens: %s, output_tokens: %s}}]\nadjust: [{percent: -1}]"
    large = make_book(text % ("1", "0")).price("acme", "m", make_usage(1_000_000), NOON)
    small = make_book(text % ("0.001", "0.001")).price("acme", "m", make_usage(501, 500), NOON)
    assert large.nanos == 990_000_000
    assert [line.amount_nanos for line in small.lines] == [496, 495]
    assert small.nanos == 991
