"""A stored record's lines follow from the record and its book, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.charging import total
from counterfoil.pricing.drift import drift
from counterfoil.pricing.fees import byok_fee
from counterfoil.pricing.reprice import Comparison, arithmetic, differences, moment, reprice
from counterfoil.record.charge import Charge, CostState
from counterfoil.record.record import Attempt, Record
from counterfoil.record.usage import ABSENT, Usage

NOON = 1_769_947_200_000
CREATED = "2026-02-01T12:00:00.000Z"
MakeBook = Callable[[str], PriceBook]
MakeUsage = Callable[..., Usage]


def attempt(number: int, provider: str, model: str, used: Usage, charge: Charge | None) -> Attempt:
    """Give an attempt that consumed ``used`` and was charged ``charge``."""
    return Attempt(
        number=number,
        provider=provider,
        model=model,
        key_source="operator",
        status_code=200,
        error_code=None,
        latency_ms=1.0,
        generation_ms=2.0,
        usage=used if used is not ABSENT else msgspec.UNSET,
        pricing_lines=charge.lines if charge else msgspec.UNSET,
        cost_nanos=charge.nanos if charge else msgspec.UNSET,
    )


def record(book: PriceBook, *tries: tuple[str, str, Usage], tier: str | None = None) -> Record:
    """Give the record of a call whose attempts were ``tries``, priced with ``book``."""
    charges = [
        book.price(*tried, NOON, service_tier=tier if number == len(tries) else None, team_id="acme")
        for number, tried in enumerate(tries, 1)
    ]
    charge = total(charges)
    provider, model, used = tries[-1]
    numbered = enumerate(zip(tries, charges, strict=True), 1)
    return Record(
        created_at=CREATED, request_id="gen_1", team_id="acme", app_id=None, key_id="k", endpoint="/v1/responses",
        model_id=f"{provider}/{model}", provider=provider, native_response_id=None, stream=False, byok=False,
        status_code=200, success=True, error_code=None, error_message=None, latency_ms=1.0, generation_ms=2.0,
        throughput=None, usage=used, cost_nanos=charge.nanos, pricing_lines=charge.lines, cost_state=charge.state,
        cost_reason=charge.reason, service_tier=tier, book=book.digest,
        attempts=tuple(attempt(number, *tried, one) for number, (tried, one) in numbered),
    )  # fmt: skip


def test_a_moment_is_read_to_the_millisecond() -> None:
    """The time of a record is the Unix time its text says."""
    assert moment(CREATED) == NOON
    assert moment("2024-02-29T23:59:59.999Z") == 1_709_251_199_999


@pytest.mark.parametrize("tier", [None, "flex", "nonesuch"])
def test_lines_are_recomputed_bit_for_bit(tier: str | None, book: PriceBook, make_usage: MakeUsage) -> None:
    """The stored book gives the stored lines, also for fallbacks, unpriced meters and failed attempts that consumed."""
    stored = record(
        book,
        ("openai", "gpt-4o", make_usage(10, 3)),
        ("openai", "gpt-5", make_usage(1000, 500, inside={"cached_tokens": 7, "audio_tokens": 3}, meters={"moons": 1})),
        tier=tier,
    )
    assert list(differences(book, stored)) == []
    assert reprice(PriceBook(book.data), stored).lines == stored.pricing_lines


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "an amount": lambda line: line.update(amount_nanos=line["amount_nanos"] + 1),
    "a quantity": lambda line: line.update(quantity=line["quantity"] + 1),
    "a price": lambda line: line.update(unit_price_nanos=line["unit_price_nanos"] + 1),
    "a rule": lambda line: line.update(rule_id="openai/gpt-3:input_tokens"),
    "a state": lambda line: line.update(state="fallback"),
    "a meter": lambda line: line.update(meter="output_tokens"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_change_of_a_line_is_found(
    change: Callable[[dict[str, Any]], None], book: PriceBook, make_usage: MakeUsage
) -> None:
    """A line that was altered after the fact does not follow from the book any more."""
    plain = msgspec.to_builtins(record(book, ("openai", "gpt-5", make_usage(1000, 500))))
    change(plain["pricing_lines"][0])
    assert list(differences(book, msgspec.convert(plain, Record)))


def test_a_sum_that_does_not_add_up_is_found_without_a_book(book: PriceBook, make_usage: MakeUsage) -> None:
    """The cost must be the sum of the lines; that needs no book to see."""
    stored = record(book, ("openai", "gpt-5", make_usage(1000, 500)))
    assert list(arithmetic(stored)) == []
    assert list(arithmetic(msgspec.structs.replace(stored, cost_nanos=1))) == ["the lines add up to 6250000, not 1"]


def test_another_book_is_refused_for_proof(book: PriceBook, make_book: MakeBook, make_usage: MakeUsage) -> None:
    """Lines are proved with the book that made them and with no other."""
    stored = record(book, ("openai", "gpt-5", make_usage(1000, 500)))
    other = make_book("adjust: [{percent: 1}]")
    assert "was priced with book" in next(differences(other, stored))


def test_what_if_another_book_had_been_in_force(book: PriceBook, make_book: MakeBook, make_usage: MakeUsage) -> None:
    """Repricing under another book says the difference by model, team and meter, and changes nothing."""
    stored = record(book, ("openai", "gpt-5", make_usage(1000, 500)))
    before = msgspec.json.encode(stored)
    comparison = Comparison()
    comparison.add(stored, reprice(make_book("adjust: [{percent: -10, meters: [output_tokens]}]"), stored))
    assert comparison.all.difference_nanos == -500_000
    assert comparison.by_model["openai/gpt-5"].difference_nanos == -500_000
    assert comparison.by_team["acme"].records == 1
    assert {meter: sums.difference_nanos for meter, sums in comparison.by_meter.items()} == {
        "input_tokens": 0,
        "output_tokens": -500_000,
    }
    assert msgspec.json.encode(stored) == before


def test_a_comparison_counts_what_neither_book_knows(book: PriceBook, make_usage: MakeUsage) -> None:
    """Records whose cost is not wholly known are counted on each side, never taken for zero."""
    comparison = Comparison()
    stored = record(book, ("local", "m", make_usage(10)))
    comparison.add(stored, reprice(book, stored))
    assert (comparison.all.charged_unpriced, comparison.all.repriced_unpriced) == (1, 1)
    assert comparison.by_meter["input_tokens"].charged_unpriced == 1


def test_attempts_add_up(book: PriceBook, make_usage: MakeUsage) -> None:
    """A failed attempt's charge and the last one's are one charge, as certain as the less certain of them."""
    known, unknown = (book.price(provider, "gpt-5", make_usage(1000), NOON) for provider in ("openai", "nowhere"))
    both = total([unknown, known])
    assert both.nanos == known.nanos == sum(line.amount_nanos for line in both.lines)
    assert both.state is CostState.PARTIAL
    assert total([]).state is CostState.FREE


DRIFTS = {
    "the same": (2_500_000, 0, 0),
    "dearer": (2_525_000, 25_000, 10_000),
    "cheaper": (0, -2_500_000, -1_000_000),
}


@pytest.mark.parametrize(("said", "nanos", "ppm"), DRIFTS.values(), ids=DRIFTS)
def test_drift_is_the_providers_figure_less_ours(
    said: int, nanos: int, ppm: int, book: PriceBook, make_usage: MakeUsage
) -> None:
    """The provider's own cost is kept beside ours with the difference, absolute and relative."""
    found = drift(book.price("openai", "gpt-4o", make_usage(1000), NOON), said)
    assert found is not None
    assert (found.nanos, found.parts_per_million, found.comparable) == (nanos, ppm, True)


def test_a_drift_from_an_unknown_cost_says_nothing_about_the_book(book: PriceBook, make_usage: MakeUsage) -> None:
    """Without a provider's figure there is no drift, and against an unknown cost it is not comparable."""
    charge = book.price("nowhere", "m", make_usage(1000), NOON)
    assert drift(charge, None) is None
    found = drift(charge, 5)
    assert found is not None
    assert (found.parts_per_million, found.comparable) == (None, False)


FEES = {
    "2.5 % of $2": ("byok: {percent: 2.5}", 2_000_000_000, None, 50_000_000),
    "2.5 % of $3": ("byok: {percent: 2.5}", 3_000_000_000, None, 75_000_000),
    "a fixed fee as well": ("byok: {percent: 2.5, request: 0.0001}", 2_000_000_000, None, 50_100_000),
    "within the free ones": ("byok: {percent: 2.5, free_requests: 10}", 2_000_000_000, 9, 0),
    "after the free ones": ("byok: {percent: 2.5, free_requests: 10}", 2_000_000_000, 10, 50_000_000),
    "nobody counted": ("byok: {percent: 2.5, free_requests: 10}", 2_000_000_000, None, 50_000_000),
    "no rule": ("", 2_000_000_000, None, 0),
}


@pytest.mark.parametrize(("rule", "paid", "before", "fee"), FEES.values(), ids=FEES)
def test_the_operators_fee_is_not_what_the_provider_charged(
    rule: str, paid: int, before: int | None, fee: int, make_book: MakeBook, make_usage: MakeUsage
) -> None:
    """A call with the team's own key has two amounts: the provider's, and a fee with its own exact lines."""
    book = make_book(f"prices: [{{model: m, rates: {{input_tokens: 1}}}}]\n{rule}")
    charge = book.price("p", "m", make_usage(paid // 1000), NOON)
    assert charge.nanos == paid
    found = byok_fee(book, charge, before)
    assert found.nanos == fee == sum(line.amount_nanos for line in found.lines)


def test_a_share_of_an_unknown_amount_is_unknown(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """A fee in per cent of a cost that could not be priced is as unknown as the cost."""
    book = make_book("byok: {percent: 2.5}")
    assert byok_fee(book, book.price("p", "m", make_usage(10), NOON)).state is CostState.UNKNOWN
