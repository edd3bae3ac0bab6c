"""What the bundled book knows, and how it says what it does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.catalog import FORMAT, Catalog, Source
from counterfoil.pricing.rates import Entry, Model, Provider, Rate
from counterfoil.record.charge import CostState, LineState
from counterfoil.record.usage import ABSENT, Usage, UsageSource

NOON = 1_769_947_200_000  # 2026-02-01T12:00:00Z
DAY = 86_400_000
MAY_2025, JULY_2025 = 1_746_100_800_000, 1_751_371_200_000
NOVEMBER_2026 = 1_793_880_000_000
MakeUsage = Callable[..., Usage]

KNOWN = {
    "gpt-4o-mini, cached": (
        "openai",
        "gpt-4o-mini",
        NOON,
        None,
        {"prompt": 1000, "completion": 500, "inside": {"cached_tokens": 400}},
        420_000,
    ),
    "sonnet, 5 minutes": (
        "anthropic",
        "claude-sonnet-4-5",
        NOON,
        None,
        {
            "prompt": 1000,
            "completion": 500,
            "inside": {"cached_tokens": 300, "cache_write_tokens": 200, "cache_write_5m_tokens": 200},
        },
        9_840_000,
    ),
    "sonnet, 1 hour": (
        "anthropic",
        "claude-sonnet-4-5",
        NOON,
        None,
        {
            "prompt": 1000,
            "completion": 500,
            "inside": {"cached_tokens": 300, "cache_write_tokens": 200, "cache_write_1h_tokens": 200},
        },
        10_290_000,
    ),
    "gemini below the cliff": (
        "google",
        "gemini-2.5-pro",
        NOON,
        None,
        {"prompt": 150_000, "completion": 500},
        192_500_000,
    ),
    "gemini above the cliff": (
        "google",
        "gemini-2.5-pro",
        NOON,
        None,
        {"prompt": 250_000, "completion": 500},
        632_500_000,
    ),
    "gemini above, cached": (
        "google",
        "gemini-2.5-pro",
        NOON,
        None,
        {"prompt": 250_000, "completion": 500, "inside": {"cached_tokens": 100_000}},
        407_500_000,
    ),
    "o3 before its price fell": ("openai", "o3", MAY_2025, None, {"prompt": 1000, "completion": 500}, 30_000_000),
    "o3 after": ("openai", "o3", JULY_2025, None, {"prompt": 1000, "completion": 500}, 6_000_000),
    "deepseek at peak": (
        "deepseek",
        "deepseek-chat",
        NOON - 2 * 3_600_000,
        None,
        {"prompt": 1000, "completion": 500},
        820_000,
    ),
    "deepseek off peak": (
        "deepseek",
        "deepseek-chat",
        NOON + 6 * 3_600_000,
        None,
        {"prompt": 1000, "completion": 500},
        410_000,
    ),
    "gpt-5 flex": ("openai", "gpt-5", NOVEMBER_2026, "flex", {"prompt": 1000, "completion": 500}, 3_125_000),
    "whisper, half a minute": ("openai", "whisper-1", NOON, None, {"meters": {"input_audio_ms": 30_000}}, 3_000_000),
    "groq bills ten seconds at least": (
        "groq",
        "whisper-large-v3",
        NOON,
        None,
        {"meters": {"input_audio_ms": 3_500}},
        308_333,
    ),
    "speech by characters": ("openai", "tts-1", NOON, None, {"meters": {"characters": 1000}}, 15_000_000),
    "pages": ("mistral", "mistral-ocr-2503", NOON, None, {"meters": {"pages": 3}}, 3_000_000),
}


@pytest.mark.parametrize(("provider", "model", "at_ms", "tier", "used", "nanos"), KNOWN.values(), ids=KNOWN)
def test_known_price(
    provider: str,
    model: str,
    at_ms: int,
    tier: str | None,
    used: dict[str, Any],
    nanos: int,
    book: PriceBook,
    make_usage: MakeUsage,
) -> None:
    """Well-known models cost what their providers publish, exactly."""
    charge = book.price(provider, model, make_usage(**used), at_ms, service_tier=tier)
    assert charge.nanos == nanos
    assert charge.nanos == sum(line.amount_nanos for line in charge.lines)
    assert charge.state is CostState.EXACT, charge.reason
    assert all(line.book == book.digest and line.state is LineState.PRICED for line in charge.lines)


def test_a_variant_ends_when_it_ends(make_usage: MakeUsage) -> None:
    """A call after the end of a service tier's price has the standard one, also right after a call before that end."""
    flex = Entry({"input_tokens": Rate(1_000_000_000)}, until=NOON, when=("service_tier", "flex"))
    model = Model("m", ["=", "m"], (Entry({"input_tokens": Rate(4_000_000_000)}),), variants=(flex,))
    listed = msgspec.json.encode(Provider("p", (), (model,)))
    catalog = Catalog(FORMAT, Source("made", "1", "", "", ""), {"p": msgspec.Raw(listed)})
    book = PriceBook.build(msgspec.json.encode(catalog))
    charges = [book.price("p", "m", make_usage(1), at_ms, service_tier="flex").nanos for at_ms in (NOON - 1, NOON)]
    assert charges == [1000, 4000]


def test_an_unknown_provider_prices_nothing_and_says_so(book: PriceBook, make_usage: MakeUsage) -> None:
    """Every nonzero meter of an unknown provider is an unpriced line of amount 0, and the state is unknown."""
    charge = book.price("local", "m", make_usage(10, 5, inside={"cached_tokens": 4}, meters={"web_searches": 1}), NOON)
    assert [(line.meter, line.quantity) for line in charge.lines] == [
        ("input_tokens", 6),
        ("cache_read_tokens", 4),
        ("output_tokens", 5),
        ("web_searches", 1),
    ]
    assert {line.state for line in charge.lines} == {LineState.UNPRICED}
    assert all(line.rule_id == "" and line.amount_nanos == 0 and "local" in str(line.reason) for line in charge.lines)
    assert charge.nanos == 0
    assert charge.state is CostState.UNKNOWN


def test_usage_that_nobody_reported_is_unknown_not_zero(book: PriceBook) -> None:
    """Absent usage has no lines and the state unknown, with the reason."""
    charge = book.price("openai", "gpt-4o", ABSENT, NOON)
    assert (charge.lines, charge.nanos, charge.state) == ((), 0, CostState.UNKNOWN)
    assert charge.reason == "the provider reported no usage"


def test_a_reported_zero_is_free(book: PriceBook, make_usage: MakeUsage) -> None:
    """A provider that reports that nothing was consumed charged nothing, and the reason says who says so."""
    charge = book.price("openai", "gpt-4o", make_usage(), NOON)
    assert charge.state is CostState.FREE
    assert "reported" in str(charge.reason)


def test_a_free_model_is_free_without_usage_too(book: PriceBook, make_usage: MakeUsage) -> None:
    """A model published as free costs nothing whatever it consumed, line by line."""
    used = book.price("openrouter", "google/gemini-2.0-flash-exp:free", make_usage(10, 5), NOON)
    unused = book.price("openrouter", "google/gemini-2.0-flash-exp:free", ABSENT, NOON)
    assert (used.state, unused.state) == (CostState.FREE, CostState.FREE)
    assert [line.state for line in used.lines] == [LineState.PRICED, LineState.PRICED]


def test_a_list_without_rates_is_unknown_not_free(book: PriceBook, make_usage: MakeUsage) -> None:
    """A model that is listed without any rate, and is not published as free, is not priced."""
    charge = book.price("cerebras", "qwen-3-coder-480b", make_usage(10, 5), NOON)
    assert charge.state is CostState.UNKNOWN


@pytest.mark.parametrize(
    ("source", "state"),
    [(UsageSource.ESTIMATED, CostState.ESTIMATED), (UsageSource.PARTIAL, CostState.PARTIAL)],
    ids=["estimated", "partial"],
)
def test_the_state_follows_the_usage(
    source: UsageSource, state: CostState, book: PriceBook, make_usage: MakeUsage
) -> None:
    """An estimated or partial usage is priced and its cost is called so."""
    charge = book.price("openai", "gpt-4o", make_usage(10, 5, source=source), NOON)
    assert charge.nanos > 0
    assert charge.state is state


def test_a_tool_without_a_price_makes_the_cost_partial(book: PriceBook, make_usage: MakeUsage) -> None:
    """A nonzero meter that no rule prices is an unpriced line beside the priced ones."""
    charge = book.price("openai", "gpt-4o-mini-tts", make_usage(10, 5, meters={"moon_landings": 2}), NOON)
    assert [line.meter for line in charge.lines if line.state is LineState.UNPRICED] == ["moon_landings"]
    assert charge.state is CostState.PARTIAL
    assert "moon_landings" in str(charge.reason)


def test_audio_without_its_own_rate_falls_back_and_says_so(book: PriceBook, make_usage: MakeUsage) -> None:
    """Audio tokens of a model listed without an audio rate are charged as text, on lines that say so."""
    charge = book.price(
        "openai",
        "gpt-4o-audio-preview",
        make_usage(1000, 500, inside={"audio_tokens": 300}, output={"audio_tokens": 200}),
        NOON,
    )
    states = {line.meter: line.state for line in charge.lines}
    assert states["input_audio_tokens"] is LineState.FALLBACK
    assert states["output_audio_tokens"] is LineState.FALLBACK
    assert charge.state is CostState.ESTIMATED


def test_reasoning_is_output_by_publication(book: PriceBook, make_usage: MakeUsage) -> None:
    """Reasoning tokens are inside the output line, priced, because providers publish that they are billed as output."""
    charge = book.price("openai", "gpt-5", make_usage(10, 100, output={"reasoning_tokens": 80}), NOON)
    assert [(line.meter, line.quantity) for line in charge.lines] == [("input_tokens", 10), ("output_tokens", 100)]
    assert charge.state is CostState.EXACT


def test_images_measured_in_tokens_are_not_billed_twice(book: PriceBook, make_usage: MakeUsage) -> None:
    """An image that its tokens already pay for is no further line, and leaves the cost exact."""
    charge = book.price("openai", "gpt-5", make_usage(10, 100, meters={"images": 1, "requests": 1}), NOON)
    assert [line.meter for line in charge.lines] == ["input_tokens", "output_tokens"]
    assert charge.state is CostState.EXACT


@pytest.mark.parametrize("tier", [None, "default", "standard", "on_demand", "ON_DEMAND"])
def test_the_standard_tier_has_many_names(tier: str | None, book: PriceBook, make_usage: MakeUsage) -> None:
    """Every provider's word for the standard tier means the standard price."""
    charge = book.price("openai", "gpt-5", make_usage(1000, 500), NOVEMBER_2026, service_tier=tier)
    assert (charge.nanos, charge.state) == (6_250_000, CostState.EXACT)


def test_a_tier_before_its_published_prices_falls_back(book: PriceBook, make_usage: MakeUsage) -> None:
    """A flex call from before the first published flex price is charged at the standard rate and says so."""
    charge = book.price("openai", "gpt-5", make_usage(1000, 500), NOON, service_tier="flex")
    assert {line.state for line in charge.lines} == {LineState.FALLBACK}


def test_a_tier_that_prices_only_some_meters_falls_back_for_the_others(book: PriceBook, make_usage: MakeUsage) -> None:
    """Where a tier publishes no rate for cached input, cached input keeps the standard rate as a fallback."""
    charge = book.price(
        "openai", "gpt-4.1", make_usage(1000, 10, inside={"cached_tokens": 500}), NOVEMBER_2026, service_tier="batch"
    )
    states = {line.meter: line.state for line in charge.lines}
    assert states == {
        "input_tokens": LineState.PRICED,
        "cache_read_tokens": LineState.FALLBACK,
        "output_tokens": LineState.PRICED,
    }


def test_the_served_model_prices_a_name_that_no_list_has(book: PriceBook, make_usage: MakeUsage) -> None:
    """A deployment's private name is priced by the model the provider says it served, as a fallback."""
    charge = book.price("openai", "my-deployment", make_usage(1000), NOON, native_model="gpt-4o-mini-2024-07-18")
    assert charge.nanos == 150_000
    assert "gpt-4o-mini-2024-07-18" in str(charge.lines[0].reason)


def test_a_resold_model_is_priced_by_its_makers_list_as_a_fallback(book: PriceBook, make_usage: MakeUsage) -> None:
    """Azure without a price of its own is charged at the maker's, and the line names that list."""
    charge = book.price("azure", "gpt-4o", make_usage(1000), NOON)
    assert charge.lines[0].state is LineState.FALLBACK
    assert charge.lines[0].rule_id.startswith("openai/gpt-4o")


def test_an_operator_can_say_whose_list_holds(make_book: Callable[[str], PriceBook], make_usage: MakeUsage) -> None:
    """``providers`` in the price file makes another provider's list this one's own: priced, no fallback."""
    book = make_book("providers: {local: openai, azure: {prices: openai, region: eu}}")
    for provider in ("local", "azure"):
        charge = book.price(provider, "gpt-4o", make_usage(1000), NOON)
        assert (charge.nanos, charge.state) == (2_500_000, CostState.EXACT)


@pytest.mark.parametrize(
    ("model", "meter", "nanos"),
    [
        ("sonar", "requests.low", 5_000_000),
        ("sonar-pro", "requests.medium", 10_000_000),
        ("sonar-pro", "requests.pro.high", 22_000_000),
        ("sonar-reasoning-pro", "requests.high", 14_000_000),
        ("sonar", "requests.pro.low", 12_000_000),
    ],
)
def test_a_request_costs_by_how_much_was_searched(
    model: str, meter: str, nanos: int, book: PriceBook, make_usage: MakeUsage
) -> None:
    """The fee of Perplexity's requests is that of the search that was made, once; unlisted kinds cost the dearest."""
    charge = book.price("perplexity", model, make_usage(0, 0, meters={meter: 1}), NOON)
    assert [(line.meter, line.amount_nanos) for line in charge.lines] == [(meter, nanos)]
    untold = book.price("perplexity", model, make_usage(10), NOON)
    assert [line.meter for line in untold.lines] == ["input_tokens", "requests"]
    elsewhere = book.price("openai", "gpt-4o", make_usage(10, meters={meter: 1}), NOON)
    assert [line.meter for line in elsewhere.lines] == ["input_tokens"]


def test_a_grounded_prompt_is_billed_once_before_gemini_3(book: PriceBook, make_usage: MakeUsage) -> None:
    """However many queries Gemini 2.5 made for a prompt, Google bills the prompt; from Gemini 3 on each query."""
    used = make_usage(10, 5, meters={"web_searches": 4})
    [line] = [line for line in book.price("google", "gemini-2.5-flash", used, NOON).lines if "search" in line.meter]
    assert (line.quantity, line.amount_nanos, line.state) == (1, 35_000_000, LineState.PRICED)
    assert "4 were used" in str(line.reason)
    [line] = [line for line in book.price("google", "gemini-3.5-flash", used, NOON).lines if "search" in line.meter]
    assert (line.quantity, line.amount_nanos) == (4, 56_000_000)


def test_xai_bills_its_tools_by_the_call(book: PriceBook, make_usage: MakeUsage) -> None:
    """Searches, code and files have a price for every model that runs them; it is the whole of what xAI says."""
    meters = {"web_searches": 2, "social_searches": 1, "code_executions": 1, "file_searches": 1}
    used = make_usage(1000, 100, meters={**meters, "attachment_searches": 1})
    charge = book.price("x-ai", "grok-4.3", used, NOON)
    assert charge.nanos == 1_250_000 + 250_000 + 10_000_000 + 5_000_000 + 5_000_000 + 2_500_000 + 10_000_000
    assert charge.state is CostState.EXACT


def test_sound_is_billed_by_its_length_or_by_its_tokens_but_once(book: PriceBook, make_usage: MakeUsage) -> None:
    """A price by the minute leaves the tokens of sound alone, and every token where the list has no other price."""
    used = make_usage(384, 20, inside={"audio_tokens": 375, "cached_tokens": 0}, meters={"input_audio_ms": 60_000})
    charge = book.price("mistral", "voxtral-small-latest", used, NOON)
    assert [(line.meter, line.quantity, line.amount_nanos) for line in charge.lines] == [
        ("input_tokens", 9, 900),
        ("output_tokens", 20, 6000),
        ("input_audio_ms", 60_000, 4_000_000),
    ]
    assert charge.state is CostState.EXACT
    transcribed = book.price("mistral", "voxtral-mini-latest", used, NOON)
    assert [(line.meter, line.amount_nanos) for line in transcribed.lines] == [("input_audio_ms", 3_000_000)]
    assert transcribed.state is CostState.EXACT
    unheard = book.price("mistral", "voxtral-mini-latest", make_usage(384, 20), NOON)
    assert unheard.state is CostState.UNKNOWN


def test_contradictory_details_are_cut_to_the_total(book: PriceBook, make_usage: MakeUsage) -> None:
    """More cached tokens than input tokens cannot be; the lines add up to the input, and the state is estimated."""
    charge = book.price("openai", "gpt-4o", make_usage(50, inside={"cached_tokens": 80}), NOON)
    assert sum(line.quantity for line in charge.lines) == 50
    assert charge.state is CostState.ESTIMATED


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("GPT-4O", "gpt-4o"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gpt-5.2-20251211", "gpt-5.2"),
        ("google/gemini-2.5-pro", "gemini-2.5-pro"),
        ("openai/gpt-4o-2024-08-06", "gpt-4o"),
    ],
    ids=["dated", "upper case", "path", "compact date", "own name before it", "own name before a dated one"],
)
def test_a_model_goes_by_many_names(name: str, model: str, book: PriceBook, make_usage: MakeUsage) -> None:
    """Dated, differently cased and path-like names find the model they mean."""
    provider = "google" if "gemini" in name else "openai"
    used = make_usage(1000, 500)
    assert book.price(provider, name, used, NOON).nanos == book.price(provider, model, used, NOON).nanos > 0


def test_a_router_charges_what_the_provider_that_it_was_told_charges(book: PriceBook, make_usage: MakeUsage) -> None:
    """Hugging Face's ``model:provider`` has that provider's price; without one, or with a wish, nobody knows whose."""
    used = make_usage(1000, 500)
    told = book.price("huggingface", "openai/gpt-oss-120b:groq", used, NOON)
    assert (told.nanos, told.state) == (
        book.price("huggingface_groq", "openai/gpt-oss-120b", used, NOON).nanos,
        "exact",
    )
    for name in ("openai/gpt-oss-120b", "openai/gpt-oss-120b:fastest", ":groq", "groq"):
        assert book.price("huggingface", name, used, NOON).state is CostState.UNKNOWN


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai.gpt-oss-20b", "openai.gpt-oss-20b-1:0"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0",
            "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        ),
        ("jp.anthropic.claude-haiku-4-5-20251001-v1:0", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
    ],
    ids=["without its version", "a profile's name in full", "another region"],
)
def test_bedrock_names_one_model_in_many_ways(name: str, model: str, book: PriceBook, make_usage: MakeUsage) -> None:
    """Endpoints, profiles and regions have names of their own for one model and one price; *global* is cheaper."""
    used = make_usage(1000, 500)
    assert book.price("aws", name, used, NOON).nanos == book.price("aws", model, used, NOON).nanos > 0
    worldwide = book.price("aws", "global.anthropic.claude-haiku-4-5-20251001-v1:0", used, NOON)
    assert 0 < worldwide.nanos < book.price("aws", "us.anthropic.claude-haiku-4-5-20251001-v1:0", used, NOON).nanos


def test_the_same_content_has_the_same_digest(catalog: bytes, book: PriceBook) -> None:
    """A book is named by its content alone: built again it has the same digest, and loaded from its bytes too."""
    assert PriceBook.build(catalog).digest == book.digest == PriceBook(book.data).digest
    assert len(book.digest) == 64


def test_the_providers_of_the_configuration_become_part_of_the_book(catalog: bytes, make_usage: MakeUsage) -> None:
    """Whose list a provider charges is in the book's bytes, so its records can be priced again from the book alone."""
    book = PriceBook.build(catalog, providers={"local": "openai", "openai": "openai"})
    again = PriceBook(book.data)
    assert again.price("local", "gpt-4o", make_usage(1000), NOON).nanos == 2_500_000
    assert book.digest != PriceBook.build(catalog).digest


def test_a_plan_ends_where_a_price_changes(book: PriceBook, make_usage: MakeUsage) -> None:
    """Each call is priced at its own moment, in whatever order the calls come."""
    used = make_usage(1000, 500)
    before, after = (book.price("openai", "o3", used, at) for at in (MAY_2025, JULY_2025))
    assert before.nanos != after.nanos
    assert book.price("openai", "o3", used, MAY_2025) == before
    assert book.price("openai", "o3", used, JULY_2025) == after


def test_more_names_than_the_book_remembers_are_still_priced(book: PriceBook, make_usage: MakeUsage) -> None:
    """A flood of invented model names is answered and forgotten, and known ones are priced as before."""
    used = make_usage(1000)
    for number in range(5000):
        book.price("openai", f"invented-{number}", used, NOON)
    assert book.price("openai", "gpt-4o", used, NOON).nanos == 2_500_000
    assert len(book._plans) <= 4096


def test_an_advisors_tokens_cost_what_its_own_model_costs(make_book: Callable[[str], PriceBook], make_usage: MakeUsage):
    """A model consulted inside a call has lines of its own, at its own rates; a fee for the request is taken once."""
    book = make_book("""
prices:
  - {model: cheap, rates: {input_tokens: 1, output_tokens: 2}}
  - {model: dear, rates: {input_tokens: 10, output_tokens: 20, cache_read_tokens: 1}}
fees: [{name: platform, request: 0.0001}]
""")
    meters = {
        "advisor_input_tokens.dear": 100,
        "advisor_cached_tokens.dear": 40,
        "advisor_output_tokens.dear": 5,
        "web_searches": 1,
    }
    charge = book.price("any", "cheap", make_usage(1000, 50, meters=meters), NOON)
    amounts = {line.meter: line.amount_nanos for line in charge.lines}
    assert amounts == {
        "input_tokens": 1_000_000,
        "output_tokens": 100_000,
        "web_searches": 0,
        "request_fee": 100_000,
        "advisor_input_tokens.dear": 600_000,
        "advisor_cache_read_tokens.dear": 40_000,
        "advisor_output_tokens.dear": 100_000,
    }
    assert (charge.nanos, charge.state) == (1_940_000, CostState.PARTIAL)
    unknown = book.price("any", "cheap", make_usage(1000, meters={"advisor_input_tokens.nobody": 7}), NOON)
    assert (unknown.nanos, unknown.state) == (1_100_000, CostState.PARTIAL)
    assert unknown.lines[-1].state is LineState.UNPRICED


def test_a_fallback_costs_what_its_own_model_costs(book: PriceBook, make_usage: MakeUsage):
    """The answer's tokens have the prices of the model that answered; what was written before, those of its writer."""
    used = make_usage(430, 100, inside={"cached_tokens": 0})
    alone = book.price("anthropic", "claude-opus-4-8", used, NOON)
    meters = {"fallbacks.claude-opus-4-8": 1}
    fallen = book.price("anthropic", "claude-fable-5", make_usage(430, 100, meters=meters), NOON)
    assert (fallen.nanos, fallen.state) == (alone.nanos, CostState.EXACT)
    assert all(line.rule_id.startswith("anthropic/claude-opus-4-8") for line in fallen.lines)
    begun = {"declined_input_tokens.claude-fable-5": 408, "declined_output_tokens.claude-fable-5": 20}
    both = book.price("anthropic", "claude-fable-5", make_usage(430, 100, meters=meters | begun), NOON)
    declined = book.price("anthropic", "claude-fable-5", make_usage(408, 20), NOON)
    assert both.nanos == alone.nanos + declined.nanos
    assert [line.meter for line in both.lines[-2:]] == [*begun]


def test_a_refusal_before_any_output_is_not_billed(make_book: Callable[[str], PriceBook], make_usage: MakeUsage):
    """One line at zero says so; where no list says it, the tokens are charged, and fees of the operator's always."""
    book = make_book("fees: [{request: 0.5}]")
    used = make_usage(18, 5, meters={"refusals": 1})
    charge = book.price("anthropic", "claude-fable-5", used, NOON)
    assert [(line.meter, line.amount_nanos) for line in charge.lines] == [("refusals", 0), ("request_fee", 500_000_000)]
    assert charge.state is CostState.EXACT
    elsewhere = book.price("aws", "us.anthropic.claude-haiku-4-5-20251001-v1:0", used, NOON)
    assert [line.meter for line in elsewhere.lines] == ["input_tokens", "output_tokens", "request_fee"]


def test_a_region_costs_what_its_provider_lists_for_it(book: PriceBook, make_usage: MakeUsage):
    """Anthropic's inference kept in the US costs a tenth more for tokens, in every tier; tools cost the same."""
    used = make_usage(1000, 100, inside={"cached_tokens": 400}, meters={"web_searches": 1})
    for tier in (None, "batch"):
        plain, us = (
            book.price("anthropic", "claude-opus-4-8", used, NOVEMBER_2026, service_tier=tier, region=region)
            for region in (None, "us")
        )
        assert us.state is plain.state is CostState.EXACT
        assert [line.amount_nanos * 10 for line in us.lines[:3]] == [line.amount_nanos * 11 for line in plain.lines[:3]]
        assert us.lines[3] == plain.lines[3]
        assert all("+us:" in line.rule_id for line in us.lines[:3])


def test_a_region_without_a_price_is_charged_at_the_standard_rate(book: PriceBook, make_usage: MakeUsage):
    """And the line says that it is a stand-in."""
    charge = book.price("anthropic", "claude-opus-4-8", make_usage(1000), NOVEMBER_2026, region="eu")
    assert (charge.lines[0].state, charge.state) == (LineState.FALLBACK, CostState.ESTIMATED)
    assert charge.lines[0].reason == "no price is listed for region eu; the standard rate applies"
