"""Integer nano-dollars and the one rounding they ever see.

One US dollar is 1,000,000,000 nanos. A rate is a whole number of nanos per ``unit_size`` units; an amount is rounded
once, to the nearest nano with halves to the even neighbour, where a line is made. Sums are integer sums, so a total
does not depend on the order of its parts and can be compared, hashed and signed.
"""

from __future__ import annotations

NANOS_PER_DOLLAR = 1_000_000_000
CURRENCY = "USD"


def amount_nanos(quantity: int, unit_size: int, unit_price_nanos: int) -> int:
    """The price of ``quantity`` units at ``unit_price_nanos`` per ``unit_size`` units, half-even to the nano.

    ``unit_size`` must be positive. Exact for every integer, of either sign.
    """
    whole, rest = divmod(quantity * unit_price_nanos, unit_size)
    twice = rest * 2
    if twice > unit_size or (twice == unit_size and whole & 1):
        return whole + 1
    return whole


def dollars(nanos: int) -> str:
    """``nanos`` as exact US dollars, for people: no exponent, at least two decimals, trailing zeros cut after that."""
    sign = "-" if nanos < 0 else ""
    whole, rest = divmod(abs(nanos), NANOS_PER_DOLLAR)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole}.{decimals}"
