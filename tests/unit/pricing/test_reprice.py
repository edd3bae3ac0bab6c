"""A stored record's lines follow from the record and its book, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.charging import total
from counterfoil.pricing.fees import byok_fee
from counterfoil.pricing.reprice import Comparison, arithmetic, differences, refee, reprice
from counterfoil.record.charge import Charge, CostState
from counterfoil.record.money import amount_nanos
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


def test_what_the_provider_said_is_recomputed_too(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """Where no rate is known the provider's figures, of failed attempts too, are in the record and prove its lines."""
    book = make_book("adjust: [{name: resale, percent: 5}]")
    plain = record(book, ("house", "m", make_usage(10, 3)), ("house", "m", make_usage(10, 3)))
    charges = [book.price("house", "m", make_usage(10, 3), NOON, provider_cost_nanos=said) for said in (700, 1001)]
    charge = total(charges)
    assert [line.amount_nanos for line in charge.lines] == [735, 1051]
    first, last = (
        msgspec.structs.replace(one, pricing_lines=each.lines, cost_nanos=each.nanos)
        for one, each in zip(plain.attempts, charges, strict=True)
    )
    stored = msgspec.structs.replace(
        plain,
        cost_nanos=charge.nanos,
        pricing_lines=charge.lines,
        cost_state=charge.state,
        provider_cost_nanos=1001,
        attempts=(msgspec.structs.replace(first, provider_cost_nanos=700), last),
    )
    assert list(differences(book, stored)) == []
    assert list(differences(book, msgspec.structs.replace(stored, provider_cost_nanos=1002)))
    priced = make_book("prices: [{provider: house, rates: {input_tokens: 1, output_tokens: 1}}]")
    assert (reprice(priced, stored).nanos, reprice(priced, stored).state) == (26_000, CostState.EXACT)


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


FEES = {
    "2.5 % of $2": ("byok: {percent: 2.5}", 2_000_000_000, 50_000_000),
    "2.5 % of $3": ("byok: {percent: 2.5}", 3_000_000_000, 75_000_000),
    "a fixed fee as well": ("byok: {percent: 2.5, request: 0.0001}", 2_000_000_000, 50_100_000),
    "raised to the minimum": ("byok: {percent: 1, minimum: 0.05}", 2_000_000_000, 50_000_000),
    "above the minimum": ("byok: {percent: 10, minimum: 0.05}", 2_000_000_000, 200_000_000),
    "cut to the maximum": ("byok: {percent: 10, request: 0.1, maximum: 0.25}", 2_000_000_000, 250_000_000),
    "the team's own rule": ("byok: [{team: acme, request: 0.2}, {percent: 2.5}]", 2_000_000_000, 200_000_000),
    "another team's rule": ("byok: [{team: other, request: 0.2}, {percent: 2.5}]", 2_000_000_000, 50_000_000),
    "the model's over the provider's": (
        "byok: [{model: m, request: 0.3}, {provider: p, request: 0.2}]",
        2_000_000_000,
        300_000_000,
    ),
    "the later of equals": ("byok: [{request: 0.3}, {request: 0.2}]", 2_000_000_000, 200_000_000),
    "not yet": ("byok: [{request: 0.3}, {request: 0.2, from: 2026-03-01}]", 2_000_000_000, 300_000_000),
    "no longer": ("byok: [{request: 0.3}, {request: 0.2, to: 2026-01-01}]", 2_000_000_000, 300_000_000),
}
PLAIN = "prices: [{model: m, rates: {input_tokens: 1}}]"


@pytest.mark.parametrize(("rule", "paid", "fee"), FEES.values(), ids=FEES)
def test_the_operators_fee_is_not_what_the_provider_charged(
    rule: str, paid: int, fee: int, make_book: MakeBook, make_usage: MakeUsage
) -> None:
    """A call with the team's own key has two amounts: the provider's, and a fee with its own exact lines."""
    book = make_book(f"{PLAIN}\n{rule}")
    charge = book.price("p", "m", make_usage(paid // 1000), NOON)
    assert charge.nanos == paid
    found = byok_fee(book, charge, "p", "m", "acme", NOON)
    assert found is not UNSET
    assert found.nanos == fee == sum(line.amount_nanos for line in found.lines)
    assert found.state is CostState.EXACT
    for line in found.lines:
        assert line.amount_nanos == amount_nanos(line.quantity, line.unit_size, line.unit_price_nanos)


def test_without_a_rule_there_is_no_fee(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """No rule, or none for this team, makes no fee: not one of zero."""
    for rule in ("", "byok: {team: other, percent: 2}"):
        book = make_book(f"{PLAIN}\n{rule}")
        charge = book.price("p", "m", make_usage(10), NOON)
        assert byok_fee(book, charge, "p", "m", "acme", NOON) is UNSET


STATES = {
    "a share of an unknown amount": ("byok: {percent: 2.5}", "nowhere", CostState.UNKNOWN, 0),
    "a fixed part is known": ("byok: {percent: 2.5, request: 0.1}", "nowhere", CostState.PARTIAL, 100_000_000),
    "a fixed fee is known": ("byok: {request: 0.1}", "nowhere", CostState.EXACT, 100_000_000),
    "a share of nothing": ("byok: {percent: 2.5}", "free", CostState.FREE, 0),
}


@pytest.mark.parametrize(("rule", "model", "state", "nanos"), STATES.values(), ids=STATES)
def test_a_fee_is_as_certain_as_what_it_is_a_share_of(
    rule: str, model: str, state: CostState, nanos: int, make_book: MakeBook, make_usage: MakeUsage
) -> None:
    """A fee in per cent of a cost that could not be priced is as unknown as the cost; a fixed one is not."""
    book = make_book(f"prices: [{{model: free, free: true}}]\n{rule}")
    found = byok_fee(book, book.price("p", model, make_usage(10), NOON), "p", model, "acme", NOON)
    assert found is not UNSET
    assert (found.state, found.nanos) == (state, nanos)


def own(book: PriceBook, used: Usage) -> Record:
    """A call that a team's own key paid, with its fee, as the gateway makes it."""
    plain = record(book, ("p", "m", used))
    attempts = tuple(msgspec.structs.replace(attempt, key_source="team") for attempt in plain.attempts)
    mine = msgspec.structs.replace(plain, attempts=attempts, byok=True)
    return msgspec.structs.replace(mine, byok_fee=refee(book, mine))


def test_a_fee_follows_from_the_record_and_its_book(make_book: MakeBook, make_usage: MakeUsage) -> None:
    """The stored fee is proved like the lines; a changed one is found; another book has another fee."""
    book = make_book(f"{PLAIN}\nbyok: {{percent: 2.5, request: 0.001}}")
    stored = own(book, make_usage(1_000_000))
    assert isinstance(stored.byok_fee, Charge)
    assert (stored.cost_nanos, stored.byok_fee.nanos) == (1_000_000_000, 26_000_000)
    assert not list(differences(book, stored))
    forged = Charge(stored.byok_fee.lines, 1, stored.byok_fee.state, None)
    assert len(list(differences(book, msgspec.structs.replace(stored, byok_fee=forged)))) == 2
    assert list(differences(book, msgspec.structs.replace(stored, byok_fee=UNSET)))
    other = make_book(f"{PLAIN}\nbyok: {{percent: 5}}")
    comparison = Comparison()
    comparison.add(stored, reprice(other, stored), refee(other, stored))
    assert (comparison.all.charged_nanos, comparison.all.repriced_nanos) == (1_000_000_000, 1_000_000_000)
    assert (comparison.all.charged_fee_nanos, comparison.all.repriced_fee_nanos) == (26_000_000, 50_000_000)
