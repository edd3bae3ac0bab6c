"""What the operator charges for a call that the team's own provider key paid for (BYOK).

Two amounts, never added: what the provider charges the team (the record's cost, priced like any other call's) and the
operator's fee. The fee is a share of the first, a fixed amount a request, or both, raised to a minimum or cut to a
maximum: exact lines of their own, which follow from the record and its book alone.

Rejected: a number of free calls a month. Which call is the first beyond it depends on the order in which several
workers commit, so a record could not be proved by itself; an allowance belongs into the invoice, over exact sums.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from counterfoil.pricing import meters as m
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay import ByokFee
from counterfoil.pricing.rates import in_force
from counterfoil.record.charge import Charge, CostState, Line, LineState
from counterfoil.record.money import amount_nanos

_WHOLE = frozenset({CostState.EXACT, CostState.FREE, CostState.SUPPRESSED})


def byok_fee(book: PriceBook, paid: Charge, provider: str, model: str, team_id: str, at_ms: int) -> Charge | UnsetType:
    """The operator's fee for a call that cost the team ``paid``; UNSET where no rule charges one.

    The state is that of the fee: a share of an amount that is not known is not known either. Of several rules the most
    particular applies: a team's over everybody's, an exact model's, an exact provider's; between equals the later.
    """
    rule = _rule(book, provider, model, team_id, at_ms)
    if rule is None:
        return UNSET
    lines: list[Line] = []
    state, reason = CostState.EXACT, None
    if rule.numerator:
        lines.append(_line(book, rule, m.BYOK_FEE, paid.nanos, rule.denominator, rule.numerator))
        if paid.state not in _WHOLE:
            state, reason = paid.state, f"it is a share of a cost that is {paid.state}"
    if rule.request_nanos:
        lines.append(_line(book, rule, m.REQUEST_FEE, 1, 1, rule.request_nanos))
    nanos = sum(line.amount_nanos for line in lines)
    if nanos < rule.minimum_nanos:
        lines.append(_line(book, rule, m.BYOK_MINIMUM, 1, 1, rule.minimum_nanos - nanos))
    if rule.maximum_nanos is not None and nanos > rule.maximum_nanos:
        lines.append(_line(book, rule, m.BYOK_MAXIMUM, 1, 1, rule.maximum_nanos - nanos))
    nanos = sum(line.amount_nanos for line in lines)
    if state is CostState.UNKNOWN and nanos:
        state = CostState.PARTIAL
    if state is CostState.EXACT and not nanos:
        state, reason = CostState.FREE, "the rule comes to nothing for this call"
    return Charge(tuple(lines), nanos, state, reason)


def _rule(book: PriceBook, provider: str, model: str, team_id: str, at_ms: int) -> ByokFee | None:
    serves = book.overlay.providers.get(provider)
    providers = (provider,) if serves is None else (provider, serves.prices)
    found: ByokFee | None = None
    for rule in book.overlay.byok:
        if not in_force(rule.start, rule.until, at_ms) or not rule.covers(providers, model, team_id):
            continue
        if found is None or rule.particularity >= found.particularity:
            found = rule
    return found


def _line(book: PriceBook, rule: ByokFee, meter: str, quantity: int, size: int, price: int) -> Line:
    return Line(
        meter=meter,
        quantity=quantity,
        unit_size=size,
        unit_price_nanos=price,
        amount_nanos=amount_nanos(quantity, size, price),
        rule_id=f"{rule.name}:{meter}",
        book=book.digest,
        state=LineState.PRICED,
        reason=UNSET,
    )
