"""Price books for people: the rates of a model, the models of a book, and what differs between two books."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from counterfoil.pricing import meters as m
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.rates import Band, Model
from counterfoil.pricing.sheet import Slot
from counterfoil.record.charge import LineState
from counterfoil.record.money import dollars


class ListedRate(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One rate in force. ``above``: it applies to calls with more input tokens than this, and then to all of them.

    ``price`` is the rate in dollars, exactly, as text. ``steps`` are graduated prices: each for the units above it.
    """

    meter: str
    price: str
    unit_price_nanos: int
    unit_size: int
    rule_id: str
    state: LineState
    reason: str | UnsetType = UNSET
    above: int | None = None
    included: int = 0
    minimum: int = 0
    maximum: int = 0
    steps: tuple[Band, ...] = ()


class ListedModel(Struct, frozen=True, kw_only=True):
    """A model and its rates at one moment. ``reason`` says why there are none."""

    provider: str
    model: str
    name: str | None
    context_tokens: int | None
    deprecated: bool
    free: bool
    rates: list[ListedRate]
    reason: str | None


class Change(Struct, frozen=True, kw_only=True):
    """What differs for one model: ``added``, ``removed``, ``repriced`` now, or only at ``other_times``."""

    provider: str
    model: str
    what: str
    rates: list[dict[str, Any]]


def names(book: PriceBook, provider: str | None = None) -> list[tuple[str, str]]:
    """Provider and model of everything ``book`` prices by name, the catalogue's and the operator's own, sorted."""
    found: set[tuple[str, str]] = set()
    for name in book.lists.names if provider is None else [provider]:
        listed = book.lists.provider(name)
        found.update((name, model.id) for model in (listed.models if listed else ()))
    found.update(
        (own.provider, own.model)
        for own in book.overlay.prices
        if "*" not in own.provider + own.model and provider in (None, own.provider)
    )
    return sorted(found)


def listed(
    book: PriceBook,
    provider: str,
    model: str,
    at_ms: int,
    *,
    tier: str | None = None,
    team: str | None = None,
    region: str | None = None,
) -> ListedModel:
    """``model`` of ``provider`` with the rates that hold at ``at_ms`` for a service tier, a team and a region."""
    entry = _entry(book, provider, model)
    plan = book.plan(provider, model, at_ms, service_tier=tier, team_id=team, region=region)
    rates: list[ListedRate] = []
    seen: dict[str, Slot] = {}
    for above, sheet in plan.sheets:
        for meter in sorted(sheet.priced, key=_reading_order):
            slot = sheet.slot(meter)
            if seen.get(meter) != slot:
                rates.append(_rate(slot, None if above < 0 else above))
                seen[meter] = slot
        if above < 0:
            rates += [_rate(fee, None) for fee in sheet.fees]
    first = plan.sheets[0][1]
    return ListedModel(
        provider=provider,
        model=model,
        name=entry.name if entry else None,
        context_tokens=entry.context_tokens if entry else None,
        deprecated=entry.deprecated if entry else False,
        free=first.costs_nothing,
        rates=rates,
        reason=first.reason or None,
    )


def changes(old: PriceBook, new: PriceBook, at_ms: int) -> Iterator[Change]:
    """Every model whose prices differ between two books, sorted by provider and model."""
    same_overlay = old.overlay == new.overlay
    before, after = set(names(old)), set(names(new))
    for provider, model in sorted(before | after):
        raw = [book.lists.catalog.providers.get(provider) for book in (old, new)]
        if same_overlay and raw[0] is not None and raw[1] is not None and bytes(raw[0]) == bytes(raw[1]):
            continue
        was = _prices(old, provider, model, at_ms) if (provider, model) in before else {}
        now = _prices(new, provider, model, at_ms) if (provider, model) in after else {}
        if (provider, model) not in after:
            what = "removed"
        elif (provider, model) not in before:
            what = "added"
        elif was != now:
            what = "repriced"
        elif _entry(old, provider, model) != _entry(new, provider, model):
            what = "other_times"
        else:
            continue
        keys = sorted({key for key in was | now if was.get(key) != now.get(key)}, key=str)
        rows = [
            {"meter": meter, "above": above, "old": was.get((meter, above)), "new": now.get((meter, above))}
            for meter, above in keys
        ]
        yield Change(provider=provider, model=model, what=what, rates=rows)


def price_text(meter: str, price: int, size: int) -> str:
    """A rate in dollars per so many units: ``$2.50 / 1M``, ``$0.006 / minute``."""
    names = _DURATIONS if m.base(meter).endswith("_ms") else _SIZES
    return f"{dollars(price)} / {names.get(size, f'{size:,}')}"


_SIZES = {1: "1", 1_000: "1k", 1_000_000: "1M", 1_000_000_000: "1G"}
_DURATIONS = {1: "ms", 1_000: "second", 60_000: "minute", 3_600_000: "hour"}


def _prices(book: PriceBook, provider: str, model: str, at_ms: int) -> dict[tuple[str, int | None], str]:
    found = listed(book, provider, model, at_ms)
    return {(rate.meter, rate.above): _whole_text(rate) for rate in found.rates}


def _whole_text(rate: ListedRate) -> str:
    text = price_text(rate.meter, rate.unit_price_nanos, rate.unit_size)
    extras = [f"above {step.above:,}: {price_text(rate.meter, step.price, step.size)}" for step in rate.steps]
    extras += [f"{rate.included:,} included"] if rate.included else []
    extras += [f"at least {rate.minimum:,}"] if rate.minimum else []
    extras += [f"at most {rate.maximum:,}"] if rate.maximum else []
    return f"{text} ({'; '.join(extras)})" if extras else text


def _rate(slot: Slot, above: int | None) -> ListedRate:
    return ListedRate(
        meter=slot.meter,
        price=price_text(slot.meter, slot.price, slot.size),
        unit_price_nanos=slot.price,
        unit_size=slot.size,
        rule_id=slot.rule,
        state=slot.state,
        reason=slot.reason,
        above=above,
        included=slot.included,
        minimum=slot.minimum,
        maximum=slot.maximum,
        steps=slot.steps,
    )


def _entry(book: PriceBook, provider: str, model: str) -> Model | None:
    serves = book.overlay.providers.get(provider)
    found = book.lists.find(*book.lists.routed(serves.prices if serves else provider, model))
    return found[1] if found else None


def _reading_order(meter: str) -> tuple[int, str]:
    order = (*m.INPUT_CELLS, *m.OUTPUT_CELLS)
    return (order.index(meter) if meter in order else len(order), meter)


def history(book: PriceBook, provider: str, model: str) -> list[dict[str, Any]]:
    """Every dated and time-of-day price the catalogue knows of a model, oldest first, as plain values."""
    entry = _entry(book, provider, model)
    if entry is None:
        return []
    rows = [*entry.entries, *entry.variants]
    return [
        {
            "from_ms": row.start,
            "until_ms": row.until,
            "windows": [window.label() for window in row.windows],
            "when": "=".join(row.when) if row.when else None,
            "rates": {meter: msgspec.to_builtins(rate) for meter, rate in row.rates.items()},
        }
        for row in rows
    ]
