"""The shape of a price list: exact rates, when they hold, and what they belong to.

A rate is a whole number of nanos per ``size`` units; where a decimal price does not fit, ``size`` is multiplied by ten
until it does, so no price is ever rounded. Times are Unix milliseconds, windows are minutes of the UTC day.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from counterfoil.pricing.meters import TOKENS_PER_PRICE
from counterfoil.record.money import NANOS_PER_DOLLAR

DAY_MS: Final = 86_400_000
MINUTE_MS: Final = 60_000
DIGITS_MAX: Final = 40
"""The longest price text that is read: beyond it a typing error is likelier than a price."""


class Band(Struct, frozen=True, omit_defaults=True):
    """The price of what lies above a threshold."""

    above: int
    price: int
    size: int = TOKENS_PER_PRICE


class Rate(Struct, frozen=True, omit_defaults=True):
    """``price`` nanos per ``size`` units.

    ``bands`` ascend. Without ``graduated`` a band reprices the whole call once its input tokens exceed ``above``; with
    it the band prices only the units of this meter above the threshold. The first ``included`` units of a call cost
    nothing; fewer than ``minimum`` units are billed as ``minimum``, more than ``maximum`` as ``maximum``.
    """

    price: int
    size: int = TOKENS_PER_PRICE
    bands: tuple[Band, ...] = ()
    graduated: bool = False
    included: int = 0
    minimum: int = 0
    maximum: int = 0  # none

    def of(self, price: int, size: int, bands: tuple[Band, ...] = ()) -> Rate:
        """Another price under the same conditions."""
        return Rate(price, size, bands, self.graduated and bool(bands), self.included, self.minimum, self.maximum)


class Window(Struct, frozen=True, omit_defaults=True):
    """A part of the UTC day: ``start`` inclusive, ``end`` exclusive, both in minutes; it may wrap past midnight.

    ``days`` (Monday is 0) are those on which the window *starts*; none given means every day. Equal ends never match.
    """

    start: int
    end: int
    days: tuple[int, ...] = ()

    def holds(self, at_ms: int) -> bool:
        """Whether ``at_ms`` lies in the window."""
        day, in_day = divmod(at_ms, DAY_MS)
        minute = in_day // MINUTE_MS
        if self.start <= self.end:
            inside = self.start <= minute < self.end
        else:
            inside = minute >= self.start or minute < self.end
            day -= minute < self.end
        return inside and (not self.days or (day + 3) % 7 in self.days)

    def label(self) -> str:
        """``01:00-04:00``, with the days where they matter."""
        clock = "-".join(f"{minute // 60:02d}:{minute % 60:02d}" for minute in (self.start, self.end))
        return clock + "".join(f",{DAY_NAMES[day]}" for day in self.days)


DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Entry(Struct, frozen=True, omit_defaults=True):
    """Rates by meter and when they hold: from ``start`` (inclusive) to ``until`` (exclusive), inside any window.

    ``when`` is the catalogue's own condition for a variant, such as ``("service_tier", "flex")``.
    """

    rates: dict[str, Rate]
    start: int | None = None
    until: int | None = None
    windows: tuple[Window, ...] = ()
    when: tuple[str, str] | None = None


class Model(Struct, frozen=True, omit_defaults=True):
    """One model's prices. Of ``entries`` the last in force wins, else the first; ``match`` is a clause (see ``match``).

    ``variants`` override single rates for a service tier or route; the first in force wins for each meter. A ``free``
    model is published as free; a model without rates that is not is a model whose price is unknown. ``regions``
    multiply the rates of tokens by numerator ÷ denominator where the call was served in that region.
    """

    id: str
    match: list[Any]
    entries: tuple[Entry, ...]
    variants: tuple[Entry, ...] = ()
    name: str | None = None
    context_tokens: int | None = None
    deprecated: bool = False
    free: bool = False
    regions: dict[str, tuple[int, int]] = {}


class Provider(Struct, frozen=True, omit_defaults=True):
    """One provider's list. ``lists`` names the providers whose lists apply to models this one does not price itself."""

    name: str
    urls: tuple[str, ...]
    models: tuple[Model, ...]
    lists: tuple[str, ...] = ()


def in_force(start: int | None, until: int | None, at_ms: int, windows: tuple[Window, ...] = ()) -> bool:
    """Whether ``start`` ≤ ``at_ms`` < ``until`` and, where there are ``windows``, ``at_ms`` lies in one of them."""
    if (start is not None and at_ms < start) or (until is not None and at_ms >= until):
        return False
    return not windows or any(window.holds(at_ms) for window in windows)


def multiplied(rate: Rate, numerator: int, denominator: int) -> Rate:
    """``rate`` times a fraction, in every band, exactly."""
    price, size = times(rate.price, rate.size, numerator, denominator)
    bands = tuple(Band(band.above, *times(band.price, band.size, numerator, denominator)) for band in rate.bands)
    return rate.of(price, size, bands)


def exact(text: str, size: int) -> tuple[int, int]:
    """A decimal price in dollars per ``size`` units as whole nanos and the size that makes them whole.

    Raises :class:`ValueError` for anything but a plain or exponent decimal number that is not negative.
    """
    digits, scale = _decimal(text)
    nanos = digits * NANOS_PER_DOLLAR
    while scale < 0:
        nanos *= 10
        scale += 1
    while scale > 0:
        if nanos % 10 == 0:
            nanos //= 10
        else:
            size *= 10
        scale -= 1
    return nanos, size


def _decimal(text: str) -> tuple[int, int]:
    """``text`` as an integer and the number of its decimals."""
    if len(text) > DIGITS_MAX:
        raise ValueError("the number is too long")
    mantissa, _, exponent = text.strip().replace("_", "").lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("+").partition(".")
    digits = whole + fraction
    if not digits.isascii() or not digits.isdigit():
        raise ValueError("not a number of dollars")
    power = int(exponent) if exponent else 0
    if abs(power) > DIGITS_MAX:
        raise ValueError("the number is out of range")
    return int(digits), len(fraction) - power


def plain_dollars(nanos: int, size: int) -> str:
    """``nanos`` ÷ ``size`` in dollars as a plain decimal number, exactly. ``size`` must be a power of ten."""
    decimals = len(str(size)) - 1 + 9
    digits = str(nanos).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}".rstrip("0").removesuffix(".")


def times(price: int, size: int, numerator: int, denominator: int) -> tuple[int, int]:
    """A rate multiplied by a fraction, exactly: the size grows when the price would not stay whole."""
    price *= numerator
    if price % denominator == 0:
        return price // denominator, size
    return price, size * denominator


encoder = msgspec.json.Encoder(order="deterministic")
