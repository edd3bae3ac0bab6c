"""What holds for every usage under every price list, whatever the numbers."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfoil.errors import ConfigError
from counterfoil.ledger.books import bundled_catalog
from counterfoil.pricing import meters as m
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.charging import price_thoroughly, price_usage
from counterfoil.pricing.overlay_file import parse_overlay
from counterfoil.pricing.rates import Band, Rate, exact, plain_dollars
from counterfoil.pricing.sheet import Ruled, Sheet
from counterfoil.record.charge import Charge, LineState
from counterfoil.record.money import amount_nanos
from counterfoil.record.usage import Usage, UsageSource

BOOK = PriceBook.build(bundled_catalog())
NOON = 1_769_947_200_000
MODELS = [
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-audio-preview"),
    ("openai", "gpt-image-1"),
    ("anthropic", "claude-sonnet-4-5"),
    ("google", "gemini-2.5-flash"),
    ("google", "gemini-2.5-pro"),
    ("groq", "whisper-large-v3"),
    ("perplexity", "sonar-deep-research"),
    ("mistral", "mistral-large-latest"),
    ("azure", "gpt-4o"),
    ("nowhere", "nothing"),
]

counts = st.integers(0, 3_000_000)
INPUT_KEYS = (
    "cached_tokens", "cache_write_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "text_tokens",
    "audio_tokens", "image_tokens", "video_tokens", "tool_tokens", "cached_text_tokens", "cached_audio_tokens",
    "cached_image_tokens", "cached_video_tokens", "document_tokens",
)  # fmt: skip
OUTPUT_KEYS = (
    "reasoning_tokens", "text_tokens", "audio_tokens", "image_tokens", "video_tokens", "citation_tokens",
    "accepted_prediction_tokens", "rejected_prediction_tokens",
)  # fmt: skip
METERS = ("requests", "images", "images.high", "characters", "pages", "web_searches", "input_audio_ms", "moons")

rates = st.builds(Rate, st.integers(0, 10**12), st.sampled_from([1, 1000, 10**6, 10**9, 3_600_000]))
bands = st.lists(st.builds(Band, st.integers(1, 4000), st.integers(0, 10**12)), max_size=3, unique_by=lambda b: b.above)
special = st.builds(
    lambda rate, steps, included, minimum: Rate(
        rate.price, rate.size, tuple(sorted(steps, key=lambda band: band.above)), True, included, minimum
    ),
    rates,
    bands,
    st.sampled_from([0, 0, 1, 50, 10**6]),
    st.sampled_from([0, 0, 1, 50, 10**6]),
)


def sheets_of(kinds: st.SearchStrategy[Rate]) -> st.SearchStrategy[Sheet]:
    """Draw a sheet with rates of these kinds."""
    return st.dictionaries(st.sampled_from((*m.INPUT_CELLS, *m.OUTPUT_CELLS, *METERS)), kinds, max_size=12).map(
        lambda found: Sheet({meter: Ruled(rate, f"r:{meter}") for meter, rate in found.items()})
    )


sheets = sheets_of(rates)


@st.composite
def usages(draw: st.DrawFn, *, consistent: bool = False) -> Usage:
    """Draw a usage, consistent or not."""
    inside = draw(st.dictionaries(st.sampled_from(INPUT_KEYS), counts, max_size=6))
    outside = draw(st.dictionaries(st.sampled_from(OUTPUT_KEYS), counts, max_size=4))
    least = sum(inside.values()), sum(outside.values())
    prompt, completion = (draw(counts) + (total if consistent else 0) for total in least)
    return Usage(
        prompt,
        completion,
        prompt + completion,
        inside,
        outside,
        draw(st.dictionaries(st.sampled_from(METERS), counts, max_size=3)),
        UsageSource.REPORTED,
    )


def price(model: tuple[str, str], used: Usage) -> Charge:
    """Give what a usage costs in the bundled book."""
    return BOOK.price(*model, used, NOON)


@given(sheets, usages())
def test_the_cost_is_the_sum_of_lines_that_are_each_rounded_once(sheet: Sheet, used: Usage) -> None:
    """Every amount is its quantity times its rate, half-even to the nano, and the cost is their integer sum."""
    charge = price_usage(sheet, used, "b")
    assert charge.nanos == sum(line.amount_nanos for line in charge.lines)
    for line in charge.lines:
        assert line.amount_nanos == round(Fraction(line.quantity * line.unit_price_nanos, line.unit_size))
        assert line.quantity > 0
        assert (line.state is LineState.UNPRICED) == (line.rule_id == "")
        assert line.state is not LineState.UNPRICED or line.amount_nanos == 0


@given(sheets, usages())
def test_no_token_is_billed_twice_or_forgotten(sheet: Sheet, used: Usage) -> None:
    """The quantities of the input lines add up to the input, those of the output lines to the output.

    A side may have no token line at all: where the list prices it by another measure that was reported.
    """
    charge = price_usage(sheet, used, "b")
    for cells, total in ((m.INPUT_CELLS, used.prompt_tokens), (m.OUTPUT_CELLS, used.completion_tokens)):
        billed = [line.quantity for line in charge.lines if line.meter in cells]
        assert sum(billed) == total if billed else total == 0 or charge.lines


@given(st.sampled_from(MODELS), usages(), st.randoms(use_true_random=False))
def test_the_order_of_the_details_does_not_matter(model: tuple[str, str], used: Usage, random: object) -> None:
    """Shuffled details give the same lines in the same order."""

    def shuffled(part: object) -> dict[str, int]:
        items = list(part.items()) if isinstance(part, dict) else []
        random.shuffle(items)  # type: ignore[attr-defined]
        return dict(items)

    other = Usage(
        used.prompt_tokens,
        used.completion_tokens,
        used.total_tokens,
        shuffled(used.prompt_tokens_details),
        shuffled(used.completion_tokens_details),
        shuffled(used.meters),
        used.source,
    )
    assert price(model, other) == price(model, used)


@given(st.sampled_from(MODELS), counts, counts, counts)
def test_more_tokens_never_cost_less(model: tuple[str, str], prompt: int, completion: int, more: int) -> None:
    """The price does not fall when input or output grows, over every threshold too."""
    less = price(model, Usage(prompt, completion, source=UsageSource.REPORTED))
    assert price(model, Usage(prompt + more, completion, source=UsageSource.REPORTED)).nanos >= less.nanos
    assert price(model, Usage(prompt, completion + more, source=UsageSource.REPORTED)).nanos >= less.nanos


@given(
    st.sampled_from([("openai", "gpt-4o"), ("anthropic", "claude-opus-4-1"), ("mistral", "mistral-large-latest")]),
    usages(),
    usages(),
)
def test_two_calls_cost_what_their_sum_does(model: tuple[str, str], one: Usage, two: Usage) -> None:
    """Without thresholds, the whole costs what its parts do, but for one rounding of half a nano a line."""
    parts = [
        price(model, Usage(used.prompt_tokens, used.completion_tokens, source=UsageSource.REPORTED))
        for used in (one, two)
    ]
    whole = price(
        model,
        Usage(
            one.prompt_tokens + two.prompt_tokens,
            one.completion_tokens + two.completion_tokens,
            source=UsageSource.REPORTED,
        ),
    )
    assert abs(whole.nanos - sum(part.nanos for part in parts)) <= sum(len(part.lines) for part in parts)


@given(sheets_of(rates | special), usages())
def test_the_direct_way_is_the_thorough_one(sheet: Sheet, used: Usage) -> None:
    """What is compiled for the names of details gives the lines, in order, that a split of their counts gives."""
    assert price_usage(sheet, used, "b") == price_thoroughly(sheet, used, "b")


@given(st.sampled_from(MODELS), usages(consistent=True))
def test_the_direct_way_is_the_thorough_one_for_usages_that_add_up(model: tuple[str, str], used: Usage) -> None:
    """The same for real lists, and usages whose details lie inside their totals."""
    sheet = BOOK.plan(*model, NOON).sheet(used.prompt_tokens)
    assert price_usage(sheet, used, "b") == price_thoroughly(sheet, used, "b")


@given(st.sampled_from(MODELS), usages())
def test_a_plan_made_anew_prices_the_same(model: tuple[str, str], used: Usage) -> None:
    """What the book remembers never changes what it answers."""
    fresh = BOOK.plan(*model, NOON).sheet(used.prompt_tokens)
    assert price_usage(fresh, used, BOOK.digest) == price(model, used)


@given(st.decimals(0, 10**6, allow_nan=False, allow_infinity=False, places=17), st.sampled_from([1, 1000, 10**6]))
def test_a_decimal_price_is_kept_exactly(dollars: object, size: int) -> None:
    """A price with any number of decimals becomes a whole number of nanos for some size, with nothing lost."""
    price_nanos, price_size = exact(format(dollars, "f"), size)
    assert Fraction(price_nanos, price_size) == Fraction(str(dollars)) * 10**9 / size
    nanos, unit = exact(format(dollars, "f"), 1)
    assert Fraction(plain_dollars(nanos, unit)) == Fraction(str(dollars))


@settings(max_examples=20)
@given(st.integers(-(2**80), 2**80))
@pytest.mark.parametrize("model", [("openai", "o3"), ("deepseek", "deepseek-v4-pro")], ids=lambda model: model[1])
def test_every_moment_has_a_price(model: tuple[str, str], at_ms: int) -> None:
    """No clock, however wrong, leaves a known model without a price, and a plan holds for its own moment."""
    plan = BOOK.plan(*model, at_ms)
    assert plan.sheets[0][1].priced
    if abs(at_ms) < 1 << 61:
        assert plan.start <= at_ms < plan.until


@given(st.integers(0, 10**15), st.integers(1, 10**12), st.integers(0, 10**15))
def test_rounding_is_half_even(quantity: int, size: int, price_nanos: int) -> None:
    """The one rounding is that of the exact fraction to the nearest nano, halves to the even neighbour."""
    assert amount_nanos(quantity, size, price_nanos) == round(Fraction(quantity * price_nanos, size))


def refused(text: str) -> list[str]:
    """Give the lines of the error that ``text`` is as a price file, none when it is one."""
    try:
        parse_overlay(text)
    except ConfigError as error:
        return str(error).splitlines()
    return []


@given(st.text(max_size=200))
def test_any_text_is_a_price_file_or_an_error_that_says_so(text: str) -> None:
    """Reading a price file ends in rules or in a configuration error, whatever the text."""
    assert all("prices.yaml" in line for line in refused(text)[:1])


WORDS = st.sampled_from(
    [
        "prices",
        "rates",
        "input_tokens",
        "adjust",
        "percent",
        "fees",
        "byok",
        "from",
        "above",
        "1",
        "-3",
        "x",
        "2026-01-01",
    ]
)


@given(st.recursive(WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)))
def test_any_tree_of_known_words_is_read_or_refused(tree: object) -> None:
    """Known words in unknown places are errors with lines, never a crash."""
    assert all(line.startswith("prices.yaml:") for line in refused(json.dumps(tree)))


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "a: &a [*a]", "prices: &p [*p, *p]", "a: *b"])
def test_nested_and_endless_price_files_are_refused(text: str) -> None:
    """Nesting without end and aliases of themselves are errors, and quick ones."""
    with pytest.raises(ConfigError):
        parse_overlay(text)
