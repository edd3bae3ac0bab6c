"""From a name and a moment to the sheets that price it: the one place where a book's rules are chosen.

A plan holds for a period: from the last moment before the call at which any rule began or ended to the next one. The
book keeps plans and looks at the clock only to see whether a plan still holds.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

from counterfoil.pricing import meters as m
from counterfoil.pricing.catalog import Lists
from counterfoil.pricing.overlay import Adjustment, Overlay, OwnPrice
from counterfoil.pricing.rates import DAY_MS, MINUTE_MS, Entry, Model, Rate, Window, in_force, multiplied
from counterfoil.pricing.sheet import Ruled, Sheet, Slot
from counterfoil.record.charge import LineState

FOREVER: Final = 1 << 62
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_STANDARD = frozenset({"", "default", "standard", "on_demand", "on-demand"})
_TIER_NAMES = {"on_demand_priority": "priority", "on_demand_flex": "flex"}
_TIER_CONTEXT = {"batch": ("processing", "batch"), "fast": ("speed", "fast")}


class Query(NamedTuple):
    """What a plan is for. ``tier`` is the service tier as served, ``native`` the model the provider says it served."""

    provider: str
    model: str
    tier: str | None = None
    team: str | None = None
    native: str | None = None
    region: str | None = None


class Plan(NamedTuple):
    """Sheets by input length, ascending; the first starts at -1. Holds for ``start`` ≤ time < ``until`` (Unix ms)."""

    start: int
    until: int
    sheets: tuple[tuple[int, Sheet], ...]

    def sheet(self, prompt_tokens: int) -> Sheet:
        """The sheet for a call with so many input tokens: a threshold reprices the whole call once it is exceeded."""
        chosen = self.sheets[0][1]
        for above, sheet in self.sheets:
            if prompt_tokens <= above:
                break
            chosen = sheet
        return chosen


class Period:
    """Narrows the period around one moment to that between two changes of any rule looked at."""

    __slots__ = ("at_ms", "start", "until")

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms
        self.start = -FOREVER
        self.until = FOREVER

    def meets(self, start: int | None, until: int | None, windows: tuple[Window, ...] = ()) -> bool:
        """Whether a rule of these times is in force at the moment; when that changes is taken note of."""
        for moment in (start, until):
            if moment is not None:
                self._bound(moment)
        midnight = self.at_ms // DAY_MS * DAY_MS
        for window in windows:
            for edge in (window.start, window.end, *((0,) if window.days else ())):  # at midnight the day changes
                for day in (-DAY_MS, 0, DAY_MS):
                    self._bound(midnight + day + edge * MINUTE_MS)
        return in_force(start, until, self.at_ms, windows)

    def _bound(self, moment: int) -> None:
        if moment <= self.at_ms:
            self.start = max(self.start, moment)
        else:
            self.until = min(self.until, moment)


class _Draft:
    """Rules being gathered for one plan."""

    def __init__(self, at_ms: int, listed: str) -> None:
        self.period = Period(at_ms)
        self.rules: dict[str, Ruled] = {}
        self.free = ""
        self.reason = ""
        self.reported = Ruled(Rate(1, 1), f"{listed}:{m.PROVIDER_COST}")


def make_plan(lists: Lists, overlay: Overlay, query: Query, at_ms: int) -> Plan:
    """The plan for ``query`` around ``at_ms``. Never fails: what is unknown becomes a sheet that says so."""
    serves = overlay.providers.get(query.provider)
    listed = query.provider if serves is None else serves.prices
    region = query.region or (serves.region if serves else None)
    tier = _tier(query.tier)
    draft = _Draft(at_ms, listed)
    _from_catalog(draft, lists, listed, query, tier, region)
    scope = (query.provider, listed)
    _from_overlay(draft, overlay.prices, query, scope, tier, region)
    _adjust(draft, overlay.adjustments, query, scope)
    fees = [
        Slot(m.REQUEST_FEE, fee.nanos, 1, f"{fee.name}:{m.REQUEST_FEE}", LineState.PRICED)
        for fee in overlay.fees
        if fee.covers(scope, query.model, query.team) and draft.period.meets(fee.start, fee.until)
    ]
    return Plan(draft.period.start, draft.period.until, _sheets(draft, fees))


def _tier(served: str | None) -> str:
    name = (served or "").lower()
    name = _TIER_NAMES.get(name, name)
    return "" if name in _STANDARD else name


def _from_catalog(draft: _Draft, lists: Lists, listed: str, query: Query, tier: str, region: str | None) -> None:
    listed, name = lists.routed(listed, query.model)
    found = lists.find(listed, name)
    reasons: list[str] = []
    if found is None and query.native and query.native != query.model:
        found = lists.find(listed, query.native)
        if found is not None:
            reasons.append(f"no price is listed for {query.model}; that of the served model {query.native} applies")
    if found is None:
        known = lists.provider(listed) is not None
        draft.reason = (
            f"{listed} lists no price for {query.model}" if known else f"no price list is known for provider {listed}"
        )
        return
    owner, model = found
    if owner != listed:
        reasons.append(f"{listed} lists no price for {query.model}; the list of {owner} applies")
    entry = _entry_in_force(model, draft.period)
    rule = f"{owner}/{model.id}{_entry_label(entry)}"
    overrides = _variant(draft, model, rule, tier, region) if owner == listed else {}
    factor = model.regions.get(query.region or "") if owner == listed else None
    if query.region and factor is None and not any(entry.when == ("route", query.region) for entry in model.variants):
        reasons.append(f"no price is listed for region {query.region}; the standard rate applies")
    if tier and not overrides:
        reasons.append(f"no price is listed for service tier {tier}; the standard rate applies")
    if model.free:
        draft.free = f"{rule}:*"
    elif not entry.rates:
        draft.reason = f"the list of {owner} names no rate for {model.id}"
    reason = "; ".join(reasons) or None
    for meter, rate in entry.rates.items():
        why = reason
        if tier and overrides and meter in m.TOKEN_METERS and meter not in overrides:
            why = f"no {tier} rate is listed for {meter}; its standard rate applies"
        draft.rules[meter] = Ruled(rate, f"{rule}:{meter}", why)
    draft.rules.update(overrides)
    if factor is not None:
        _multiply(draft, query.region or "", *factor)


def _multiply(draft: _Draft, region: str, numerator: int, denominator: int) -> None:
    """Make the rates of tokens those of a region; its name goes into the rule's."""
    for meter, ruled in draft.rules.items():
        if meter in m.TOKEN_METERS:
            rule = f"{ruled.rule.rpartition(':')[0]}+{region}:{meter}"
            draft.rules[meter] = ruled._replace(rate=multiplied(ruled.rate, numerator, denominator), rule=rule)


def _entry_in_force(model: Model, period: Period) -> Entry:
    """The last entry in force, else the first: a call before the first date has the oldest price known."""
    met = [entry for entry in model.entries if period.meets(entry.start, entry.until, entry.windows)]
    return met[-1] if met else model.entries[0]


def _entry_label(entry: Entry) -> str:
    label = "" if entry.start is None else f"@{dt.date.fromordinal(_EPOCH_DAY + entry.start // DAY_MS)}"
    return label + "".join(f"~{window.label()}" for window in entry.windows)


def _variant(draft: _Draft, model: Model, rule: str, tier: str, region: str | None) -> dict[str, Ruled]:
    """The rates of the first variant in force for each meter, for a tier or a route."""
    context = {("service_tier", tier), _TIER_CONTEXT.get(tier, ("service_tier", tier)), ("route", region or "")}
    rules: dict[str, Ruled] = {}
    for entry in model.variants:
        if entry.when in context and draft.period.meets(entry.start, entry.until, entry.windows):
            label = f"{rule}+{entry.when[1]}{_entry_label(entry)}" if entry.when else rule
            for meter, rate in entry.rates.items():
                rules.setdefault(meter, Ruled(rate, f"{label}:{meter}"))
    return rules


def _from_overlay(
    draft: _Draft, prices: tuple[OwnPrice, ...], query: Query, scope: tuple[str, ...], tier: str, region: str | None
) -> None:
    chosen: list[OwnPrice] = []
    for own in prices:
        if (own.tier is not None and own.tier != tier) or (own.region is not None and own.region != region):
            continue
        if own.covers(scope, query.model, query.team) and draft.period.meets(own.start, own.until, own.windows):
            chosen.append(own)
    for own in sorted(chosen, key=lambda own: own.particularity):
        if own.only or own.free:
            draft.rules.clear()
            draft.free = ""
            draft.reason = f"{own.name} names no rate for it"
        if own.free:
            draft.free = f"{own.name}:*"
        why = (
            f"no price is set for service tier {tier}; the standard rate applies" if tier and own.tier is None else None
        )
        for meter, rate in own.rates.items():
            draft.rules[meter] = Ruled(rate, f"{own.name}:{meter}", why)
        if own.rates:
            draft.reason = draft.reason if own.only else ""


def _adjust(draft: _Draft, adjustments: tuple[Adjustment, ...], query: Query, scope: tuple[str, ...]) -> None:
    for rule in adjustments:
        if not rule.covers(scope, query.model, query.team) or not draft.period.meets(rule.start, rule.until):
            continue
        for meter, ruled in draft.rules.items():
            if not rule.meters or meter in rule.meters:
                draft.rules[meter] = _by(ruled, rule)
        if not rule.meters or m.PROVIDER_COST in rule.meters:
            draft.reported = _by(draft.reported, rule)


def _by(ruled: Ruled, rule: Adjustment) -> Ruled:
    rate = multiplied(ruled.rate, rule.numerator, rule.denominator)
    return ruled._replace(rate=rate, rule=f"{ruled.rule}*{rule.name}")


def _sheets(draft: _Draft, fees: list[Slot]) -> tuple[tuple[int, Sheet], ...]:
    """One sheet for each range of input length that some rate tells apart."""
    thresholds = {-1}
    for ruled in draft.rules.values():
        if not ruled.rate.graduated:
            thresholds.update(band.above for band in ruled.rate.bands)
    return tuple(
        (
            above,
            Sheet(
                {meter: _for_length(ruled, above) for meter, ruled in draft.rules.items()},
                fees=fees,
                free=draft.free,
                reason=draft.reason,
                reported=draft.reported,
            ),
        )
        for above in sorted(thresholds)
    )


def _for_length(ruled: Ruled, above: int) -> Ruled:
    """The rate of a call longer than ``above``, without the other bands."""
    rate = ruled.rate
    if rate.graduated or not rate.bands:
        return ruled
    chosen = Ruled(rate.of(rate.price, rate.size), ruled.rule, ruled.reason)
    for band in rate.bands:
        if band.above <= above:
            stem, _, meter = ruled.rule.rpartition(":")
            chosen = Ruled(rate.of(band.price, band.size), f"{stem}>{band.above}:{meter}", ruled.reason)
    return chosen
