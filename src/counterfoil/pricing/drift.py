"""What the provider says a call cost, beside what the book says.

The two are never mixed: the record's cost is ours, because its lines can be recomputed; the provider's figure is kept
to show where the book and the bill come apart.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from counterfoil.record.charge import Charge, CostState

_COMPARABLE: Final = frozenset({CostState.EXACT, CostState.ESTIMATED, CostState.FREE})
PARTS: Final = 1_000_000


class Drift(Struct, frozen=True):
    """The provider's figure less ours. ``parts_per_million`` is relative to ours, null where ours is zero.

    ``comparable`` is False where our own sum is known not to be the whole cost, so that a drift says nothing about the
    book.
    """

    provider_nanos: int
    our_nanos: int
    nanos: int
    parts_per_million: int | None
    comparable: bool


def drift(charge: Charge, provider_cost_nanos: int | None) -> Drift | None:
    """How far the provider's own figure is from ``charge``; None when the provider gave none."""
    if provider_cost_nanos is None:
        return None
    difference = provider_cost_nanos - charge.nanos
    relative = difference * PARTS // charge.nanos if charge.nanos else None
    return Drift(provider_cost_nanos, charge.nanos, difference, relative, charge.state in _COMPARABLE)
