"""What the operator charges for a call that the team's own provider key paid for (BYOK).

Two amounts, never added: what the provider charges the team (the charge, priced like any other call's) and the
operator's fee. The fee is a share of the first, a fixed amount a request, or both, as exact lines of their own.
"""

from __future__ import annotations

from msgspec import UNSET

from counterfoil.pricing import meters as m
from counterfoil.pricing.book import PriceBook
from counterfoil.record.charge import Charge, CostState, Line, LineState
from counterfoil.record.money import amount_nanos

_RULE = "own/byok"


def byok_fee(book: PriceBook, charge: Charge, requests_before: int | None = None) -> Charge:
    """The operator's fee for a call that cost the team ``charge``.

    ``requests_before`` counts the team's own-key calls of the same UTC month before this one; None means that nobody
    counted, and then the free ones do not apply. The fee's state is the charge's where it depends on it: a share of an
    unknown amount is unknown.
    """
    rule = book.overlay.byok
    if rule is None:
        return Charge((), 0, CostState.FREE, "the operator charges no fee for calls with a team's own key")
    if requests_before is not None and requests_before < rule.free_requests:
        return Charge((), 0, CostState.FREE, f"one of the first {rule.free_requests} such calls of the month")
    lines: list[Line] = []
    state, reason = CostState.EXACT, None
    if rule.numerator:
        lines.append(
            _line(book, "share", m.BYOK_FEE, charge.nanos, rule.denominator, rule.numerator),
        )
        state, reason = charge.state, charge.reason
    if rule.request_nanos:
        lines.append(_line(book, "request", m.REQUEST_FEE, 1, 1, rule.request_nanos))
        state = CostState.PARTIAL if state is CostState.UNKNOWN else state
    return Charge(tuple(lines), sum(line.amount_nanos for line in lines), state, reason)


def _line(book: PriceBook, rule: str, meter: str, quantity: int, size: int, price: int) -> Line:
    return Line(
        meter=meter,
        quantity=quantity,
        unit_size=size,
        unit_price_nanos=price,
        amount_nanos=amount_nanos(quantity, size, price),
        rule_id=f"{_RULE}/{rule}:{meter}",
        book=book.digest,
        state=LineState.PRICED,
        reason=UNSET,
    )
