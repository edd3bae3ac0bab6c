"""The operator's price file: what it can say, and what it is told when it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from counterfoil.errors import ConfigError
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay_file import parse_overlay, read_overlay
from counterfoil.record.charge import CostState
from counterfoil.record.usage import Usage

NOON = 1_769_947_200_000  # 2026-02-01T12:00:00Z, a Sunday
DAY = 86_400_000
MakeBook = Callable[[str], PriceBook]
MakeUsage = Callable[..., Usage]

WRONG = {
    "not YAML": ("prices: ]", 1, "not YAML"),
    "not a mapping": ("- 1", 1, "expected a mapping"),
    "unknown key": ("prices: []\nprcies: []", 2, "did you mean prices"),
    "duplicate key": ("prices: []\nprices: []", 2, "already given on line 1"),
    "not a list": ("prices: 3", 1, "expected a list"),
    "no rates": ("prices:\n  - model: m", 2, "needs rates"),
    "misspelt meter": ("prices:\n  - model: m\n    rates: {input_tokns: 1}", 3, "did you mean input_tokens"),
    "no price": ("prices:\n  - rates:\n      input_tokens: cheap", 3, "expected a price in dollars"),
    "negative price": ("prices:\n  - rates: {input_tokens: -1}", 2, "expected a price in dollars"),
    "not a number": ("prices:\n  - rates: {input_tokens: .nan}", 2, "expected a price in dollars"),
    "endless number": (f"prices:\n  - rates: {{input_tokens: {'9' * 50}}}", 2, "too long"),
    "milliseconds without a unit": ("prices:\n  - rates: {input_audio_ms: 1}", 2, "per: second"),
    "strange unit": ("prices:\n  - rates: {pages: {price: 1, per: fortnight}}", 2, "per must be one of"),
    "both kinds of tiers": (
        "prices:\n  - rates:\n      input_tokens: {price: 1, above: {1: 2}, graduated: {1: 2}}",
        3,
        "not both",
    ),
    "falling thresholds": ("prices:\n  - rates: {input_tokens: {price: 1, above: {9: 2, 3: 4}}}", 2, "must ascend"),
    "no threshold": ("prices:\n  - rates: {input_tokens: {price: 1, above: {many: 2}}}", 2, "expected a threshold"),
    "a meter twice": (
        "prices:\n  - rates:\n      input_audio_seconds: 1\n      input_audio_minutes: 2",
        4,
        "priced twice",
    ),
    "no date": ("prices:\n  - {from: tomorrow, free: true}", 2, "expected a date"),
    "end before beginning": ("prices:\n  - {from: 2026-02-01, to: 2026-01-01, free: true}", 2, "later than"),
    "half a window": ("prices:\n  - {rates: {pages: 1}, windows: [{from: '01:00', times: 2}]}", 2, "a window needs"),
    "no time of day": (
        "prices:\n  - {rates: {pages: 1}, windows: [{from: 1am, to: '02:00', times: 2}]}",
        2,
        "expected a time of day",
    ),
    "no weekday": (
        "prices:\n  - {rates: {pages: 1}, windows: [{from: '01:00', to: '02:00', days: [friday], times: 2}]}",
        2,
        "expected one of mon",
    ),
    "adjustment of nothing": ("adjust:\n  - team: acme", 2, "needs percent"),
    "more than all": ("adjust:\n  - percent: -101", 2, "cannot exceed 100"),
    "fee of nothing": ("fees:\n  - team: acme", 2, "needs request"),
    "less than a nano": ("fees:\n  - request: 0.0000000001", 2, "nine decimals"),
    "two of one name": ("adjust:\n  - {name: a, percent: 1}\n  - {name: a, percent: 2}", 1, "more than one rule"),
    "odd name": ("adjust:\n  - {name: 'a b', percent: 1}", 2, "a name holds"),
    "no list to use": ("providers:\n  local: {region: eu}", 2, "whose prices apply"),
    "neither true nor false": ("prices:\n  - {free: yes}", 2, "true or false"),
}


@pytest.mark.parametrize(("text", "line", "what"), WRONG.values(), ids=WRONG)
def test_an_error_names_its_line(text: str, line: int, what: str) -> None:
    """Whatever is wrong in the file is said with the file's name and the line where it is."""
    with pytest.raises(ConfigError) as caught:
        parse_overlay(text, "prices.yaml")
    assert f"prices.yaml:{line}: " in str(caught.value)
    assert what in str(caught.value)


def test_all_errors_are_told_at_once() -> None:
    """Several mistakes are several lines of one error, and thousands are cut short."""
    with pytest.raises(ConfigError) as caught:
        parse_overlay("bogus: 1\nprices:\n  - {model: m, free: maybe}\n  - {model: n}")
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["1", "3", "4"]
    with pytest.raises(ConfigError) as caught:
        parse_overlay("prices:\n" + "  - {model: m}\n" * 5000)
    assert len(str(caught.value).splitlines()) == 21


def test_a_file_that_cannot_be_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    """A missing file and one that is not text are both configuration errors."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_overlay(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_overlay(tmp_path / "binary.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "prices: []"], ids=["empty", "comment", "no prices"])
def test_a_file_that_says_nothing_changes_nothing(text: str, make_book: MakeBook, book: PriceBook) -> None:
    """An empty price file gives the book of the catalogue alone."""
    assert make_book(text).digest == book.digest


def test_a_price_overrides_meter_by_meter(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """An own rate replaces the catalogue's for its meter and leaves the others; ``only`` drops them."""
    used = make_usage(1000, 1000)
    some = make_book("prices: [{provider: openai, model: gpt-4o, rates: {input_tokens: 1}}]")
    alone = make_book("prices: [{provider: openai, model: gpt-4o, only: true, rates: {input_tokens: 1}}]")
    charge = some.price("openai", "gpt-4o", used, NOON)
    assert [(line.amount_nanos, line.rule_id) for line in charge.lines] == [
        (1_000_000, "own/price-1:input_tokens"),
        (10_000_000, "openai/gpt-4o:output_tokens"),
    ]
    assert alone.price("openai", "gpt-4o", used, NOON).state is CostState.PARTIAL


def test_the_more_particular_price_wins(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """A team's price beats everybody's, an exact model a pattern, wherever they stand in the file."""
    book = make_book(
        "prices:\n"
        "  - {team: acme, model: m, rates: {input_tokens: 1}}\n"
        "  - {model: m, rates: {input_tokens: 2}}\n"
        "  - {model: '*', rates: {input_tokens: 3}}\n"
    )
    prices = [
        book.price("p", model, make_usage(1_000_000), NOON, team_id=team).nanos
        for model, team in (("m", "acme"), ("m", "other"), ("n", "acme"))
    ]
    assert prices == [1_000_000_000, 2_000_000_000, 3_000_000_000]


def test_prices_hold_from_their_beginning_to_their_end(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """``from`` is inclusive and ``to`` exclusive, to the millisecond."""
    book = make_book("prices: [{model: m, from: 2026-02-01, to: 2026-02-02T00:00:00Z, rates: {input_tokens: 1}}]")
    start = NOON - DAY // 2
    states = [
        book.price("p", "m", make_usage(1000), at).state for at in (start - 1, start, start + DAY - 1, start + DAY)
    ]
    assert states == [CostState.UNKNOWN, CostState.EXACT, CostState.EXACT, CostState.UNKNOWN]


@pytest.mark.parametrize(
    ("hour", "inside"),
    [(22.999, False), (23, True), (24, True), (25.99, True), (26, False)],
    ids=["before", "start", "midnight", "after midnight", "end"],
)
def test_a_window_wraps_past_midnight(hour: float, inside: bool, make_book: MakeBook, make_usage: MakeUsage) -> None:
    """A window from 23:00 to 02:00 on Sundays holds into Monday's first two hours and not into Sunday's."""
    book = make_book(
        "prices: [{model: m, rates: {input_tokens: 1},"
        " windows: [{from: '23:00', to: '02:00', days: [sun], times: 0.5}]}]"
    )
    sunday = NOON - DAY // 2
    charge = book.price("p", "m", make_usage(1_000_000), sunday + int(hour * 3_600_000))
    assert charge.nanos == (500_000_000 if inside else 1_000_000_000)
    early = book.price("p", "m", make_usage(1_000_000), sunday + 3_600_000)
    assert early.nanos == 1_000_000_000


def test_a_mark_up_multiplies_exactly_and_is_named(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """A mark-up of 5 % on one team is in the rate, and the rule says so; others pay the list."""
    book = make_book("adjust: [{name: acme, team: acme, percent: 5}]")
    ours = book.price("openai", "gpt-4o-mini", make_usage(1000), NOON, team_id="acme")
    theirs = book.price("openai", "gpt-4o-mini", make_usage(1000), NOON, team_id="other")
    assert ours.lines[0].amount_nanos == 157_500
    assert ours.lines[0].rule_id == "openai/gpt-4o-mini:input_tokens*own/acme"
    assert theirs.nanos == 150_000


def test_a_request_fee_is_a_line_of_its_own(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """A fee adds its line to every priced call."""
    book = make_book("fees: [{name: platform, request: 0.0001}]")
    charge = book.price("openai", "gpt-4o-mini", make_usage(1000), NOON)
    assert [(line.meter, line.amount_nanos) for line in charge.lines] == [
        ("input_tokens", 150_000),
        ("request_fee", 100_000),
    ]


def test_a_region_has_its_own_price(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """The region of a provider chooses among its prices."""
    book = make_book(
        "providers: {near: {prices: openai, region: eu}}\n"
        "prices: [{provider: openai, model: gpt-4o, region: eu, rates: {input_tokens: 3}}]"
    )
    used = make_usage(1_000_000)
    assert book.price("near", "gpt-4o", used, NOON).nanos == 3_000_000_000
    assert book.price("openai", "gpt-4o", used, NOON).nanos == 2_500_000_000
    assert book.price("openai", "gpt-4o", used, NOON, region="eu").nanos == 3_000_000_000


def test_a_meter_without_a_price_is_said_beside_one_with_included_units(
    make_book: MakeBook, make_usage: MakeUsage
) -> None:
    """The two lines that included units make do not hide that another meter has none."""
    book = make_book(
        "prices: [{provider: p, model: m, rates: {input_tokens: 1, web_searches: {price: 1, included: 1}}}]"
    )
    used = make_usage(1000, meters={"web_searches": 3, "moons": 2})
    charge = book.price("p", "m", used, NOON)
    assert [(line.meter, line.quantity, line.amount_nanos) for line in charge.lines] == [
        ("input_tokens", 1000, 1_000_000),
        ("web_searches", 1, 0),
        ("web_searches", 2, 2_000_000_000),
        ("moons", 2, 0),
    ]
    assert charge.state is CostState.PARTIAL


def test_free_models_cost_nothing_line_by_line(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """``free: true`` prices every meter at zero, so the record says free and not unknown."""
    book = make_book("prices: [{provider: local, free: true}]")
    charge = book.price("local", "anything", make_usage(10, 5, meters={"web_searches": 2}), NOON)
    assert charge.state is CostState.FREE
    assert {line.amount_nanos for line in charge.lines} == {0}
    assert {line.rule_id for line in charge.lines} == {"own/price-1:*"}


def test_empty_answers_can_be_suppressed(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """An operator who does not charge for empty answers has a suppressed cost that says what was forgone."""
    book = make_book("suppress: {empty_answers: true}")
    charge = book.price("openai", "gpt-4o", make_usage(1000, 0), NOON)
    assert (charge.lines, charge.nanos, charge.state) == ((), 0, CostState.SUPPRESSED)
    assert "2500000 nanos" in str(charge.reason)
    assert book.price("openai", "text-embedding-3-small", make_usage(1000, 0), NOON).nanos == 20_000


@pytest.mark.parametrize(
    ("pattern", "model", "matches"),
    [
        ("llama-*", "llama-3", True),
        ("llama-*-instruct", "llama-3-instruct", True),
        ("llama-*", "ollama-3", False),
        ("m[1]", "m[1]", True),
        ("m[1]", "m1", False),
        ("m?", "m1", False),
        ("LLAMA", "llama", True),
    ],
)
def test_only_a_star_is_special(
    pattern: str, model: str, matches: bool, make_book: MakeBook, make_usage: MakeUsage
) -> None:
    """A pattern's ``*`` stands for any text; brackets and question marks are letters like others."""
    book = make_book(f"prices: [{{model: '{pattern}', rates: {{input_tokens: 1}}}}]")
    assert (book.price("p", model, make_usage(1000), NOON).nanos == 1_000_000) == matches
