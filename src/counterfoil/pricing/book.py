"""The price book: one catalogue and one overlay, immutable, named by the SHA-256 of its canonical bytes.

Everything that decides a price is in those bytes, so a record that names the digest can be priced again for ever. The
moment that decides is the record's ``created_at``; the service tier is the one that was served; the team matters only
where a rule of the operator names teams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from counterfoil.pricing import advice
from counterfoil.pricing import meters as m
from counterfoil.pricing.catalog import Lists
from counterfoil.pricing.charging import price_reported, price_usage, total
from counterfoil.pricing.overlay import NO_OVERLAY, Overlay, Serves
from counterfoil.pricing.plan import Plan, Query, make_plan
from counterfoil.pricing.rates import encoder
from counterfoil.record.charge import Charge, CostState
from counterfoil.record.usage import Usage, served_instead

FORMAT: Final = 1
PLANS_MAX: Final = 4096
"""Plans kept; beyond it the book forgets them all and starts again. A plan is a few kilobytes."""


class _Stored(Struct, frozen=True):
    format: int
    catalog: msgspec.Raw
    overlay: Overlay


_decoder = msgspec.json.Decoder(_Stored)


class PriceBook:
    """Prices calls. Safe to share between threads: all it changes is what it remembers."""

    __slots__ = ("_by_team", "_earlier", "_plans", "data", "digest", "lists", "overlay")

    def __init__(self, data: bytes) -> None:
        """``data`` is a book's canonical bytes. Raises :class:`msgspec.DecodeError` when they are not a book."""
        stored = _decoder.decode(data)
        if stored.format != FORMAT:
            raise msgspec.ValidationError(f"price book format {stored.format} is not known to this version")
        self.data = data
        self.digest = hashlib.sha256(data).hexdigest()
        self.overlay = stored.overlay
        self.lists = Lists(stored.catalog)
        self._by_team = stored.overlay.by_team
        self._plans: dict[tuple[str | None, ...], Plan] = {}
        self._earlier: dict[tuple[str | None, ...], list[Plan]] = {}

    @classmethod
    def build(
        cls, catalog: bytes, overlay: Overlay = NO_OVERLAY, providers: Mapping[str, str] | None = None
    ) -> PriceBook:
        """The book of a catalogue's canonical bytes and an operator's rules.

        ``providers`` says whose list each configured provider charges (the configuration's ``prices:``); it becomes
        part of the book, so that a record can be priced again from its provider's own name. The overlay's word wins.
        """
        serves = {name: Serves(prices) for name, prices in (providers or {}).items() if prices != name}
        if serves:
            overlay = msgspec.structs.replace(overlay, providers=serves | overlay.providers)
        return cls(encoder.encode(_Stored(FORMAT, msgspec.Raw(catalog), overlay)))

    def price(
        self,
        provider: str,
        model: str,
        usage: Usage,
        at_ms: int,
        *,
        service_tier: str | None = None,
        team_id: str | None = None,
        native_model: str | None = None,
        region: str | None = None,
        provider_cost_nanos: int | None = None,
    ) -> Charge:
        """What ``usage`` of ``model`` at ``provider`` costs at ``at_ms`` (Unix ms).

        ``provider_cost_nanos`` is what the provider says; it counts only where the book has no rate at all.

        Never raises for what it does not know: an unknown provider, model or meter gives lines that say so.
        ``provider`` is the provider's own name in the configuration (the book knows whose list it uses) or a list's.
        """
        key = (provider, model, service_tier, team_id if self._by_team else None, native_model, region)
        plan = self._plans.get(key)
        if plan is None or not plan.start <= at_ms < plan.until:
            plan = self._plan(key, Query(*key), at_ms)
        sheets = plan.sheets
        sheet = sheets[0][1] if len(sheets) == 1 else plan.sheet(usage.prompt_tokens)
        if provider_cost_nanos is not None and sheet.reported is not None and provider_cost_nanos >= 0:
            return price_reported(sheet, sheet.reported, provider_cost_nanos, self.digest)
        if usage.meters and advice.holds(usage.meters):
            return self._with_others(Query(*key), usage, usage.meters, at_ms)
        charge = price_usage(sheet, usage, self.digest)
        if self.overlay.suppress_empty and charge.nanos and not usage.completion_tokens and m.OUTPUT in sheet.priced:
            return suppressed(charge, "the answer has no output")
        return charge

    def _with_others(self, query: Query, usage: Usage, meters: Mapping[str, int], at_ms: int) -> Charge:
        """The charge of a call in which other models than the one that was asked took part."""
        own, others = advice.apart(usage, meters)
        served = served_instead(meters)
        charges = [self._of(query if served is None else query._replace(model=served, native=None), own, at_ms)]
        for (who, model), used in others.items():
            charge = self._of(query._replace(model=model, native=None), used, at_ms)
            charges.append(advice.named(charge, who, model))
        return total(charges)

    def _of(self, query: Query, usage: Usage, at_ms: int) -> Charge:
        return self.price(
            query.provider,
            query.model,
            usage,
            at_ms,
            service_tier=query.tier,
            team_id=query.team,
            native_model=query.native,
            region=query.region,
        )

    def plan(
        self,
        provider: str,
        model: str,
        at_ms: int,
        *,
        service_tier: str | None = None,
        team_id: str | None = None,
        region: str | None = None,
    ) -> Plan:
        """The rates that would price such a call, for people who want to read them."""
        return make_plan(self.lists, self.overlay, Query(provider, model, service_tier, team_id, None, region), at_ms)

    def _plan(self, key: tuple[str | None, ...], query: Query, at_ms: int) -> Plan:
        """Another plan for ``key``, and the one to look at first from now on."""
        earlier = self._earlier.setdefault(key, [])
        plan = next((plan for plan in earlier if plan.start <= at_ms < plan.until), None)
        if plan is None:
            if len(self._plans) >= PLANS_MAX or len(earlier) >= PLANS_MAX:
                self._plans.clear()
                self._earlier.clear()
                earlier = self._earlier.setdefault(key, [])
            plan = make_plan(self.lists, self.overlay, query, at_ms)
            earlier.append(plan)
        self._plans[key] = plan
        return plan


def suppressed(charge: Charge, reason: str) -> Charge:
    """A charge that is not made: no lines, and the reason with the amount that was forgone."""
    return Charge((), 0, CostState.SUPPRESSED, f"{reason}; {charge.nanos} nanos were not charged")
