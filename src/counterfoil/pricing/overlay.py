"""The operator's own rules on top of the catalogue, in the form a book stores them.

``overlay_file`` reads them from YAML; here is what they mean:

- *Prices* override the catalogue meter by meter; ``only`` drops every rate the price does not name. Where several
  apply, the more particular wins: a team's over everybody's, then a service tier's, a region's, an exact model's over
  a pattern's, an exact provider's over a pattern's, and between equals the later one in the file.
- *Adjustments* (discounts and mark-ups) multiply the rates that result, in file order, exactly.
- *Fees* add a line per request.
- *Providers* say whose list a provider of the configuration uses and in which region it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

from counterfoil.pricing.rates import Rate, Window


class Serves(Struct, frozen=True, omit_defaults=True):
    """Whose prices one configured provider charges, and where it is."""

    prices: str
    region: str | None = None


class Scope(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Which calls a rule is for. ``provider`` and ``model`` may hold ``*``; ``start`` ≤ time < ``until``, Unix ms."""

    name: str
    provider: str = "*"
    model: str = "*"
    team: str | None = None
    start: int | None = None
    until: int | None = None

    def covers(self, providers: tuple[str, ...], model: str, team: str | None) -> bool:
        """Whether this rule is for such a call, leaving its time aside."""
        if self.team is not None and self.team != team:
            return False
        return any(_matches(self.provider, name) for name in providers) and _matches(self.model.lower(), model.lower())


def _matches(pattern: str, name: str) -> bool:
    """Whether ``name`` is ``pattern``, where ``*`` stands for any text and nothing else is special."""
    return pattern in ("*", name) or ("*" in pattern and _compiled(pattern).fullmatch(name) is not None)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


class OwnPrice(Scope, frozen=True, omit_defaults=True, kw_only=True):
    """The operator's rates for some model. ``free`` makes every meter free; ``source`` says who set them."""

    rates: dict[str, Rate] = {}
    tier: str | None = None
    region: str | None = None
    windows: tuple[Window, ...] = ()
    only: bool = False
    free: bool = False
    source: str | None = None

    @property
    def particularity(self) -> tuple[bool, bool, bool, bool, bool]:
        """Orders prices that apply to one call, the most particular last."""
        return (
            self.team is not None,
            self.tier is not None,
            self.region is not None,
            "*" not in self.model,
            "*" not in self.provider,
        )


class Adjustment(Scope, frozen=True, omit_defaults=True, kw_only=True):
    """Rates times ``numerator`` ÷ ``denominator``: 9/10 is a discount of 10 %. No ``meters`` means all of them."""

    numerator: int
    denominator: int
    meters: tuple[str, ...] = ()


class Fee(Scope, frozen=True, omit_defaults=True, kw_only=True):
    """``nanos`` per request, as a line of its own."""

    nanos: int


class ByokFee(Scope, frozen=True, omit_defaults=True, kw_only=True):
    """What the operator charges for a call that the team's own provider key paid for.

    ``numerator`` ÷ ``denominator`` of what the provider charged, plus ``request_nanos``; at least ``minimum_nanos`` and
    at most ``maximum_nanos``.
    """

    numerator: int = 0
    denominator: int = 1
    request_nanos: int = 0
    minimum_nanos: int = 0
    maximum_nanos: int | None = None

    @property
    def particularity(self) -> tuple[bool, bool, bool]:
        """Orders rules that apply to one call, the most particular last."""
        return self.team is not None, "*" not in self.model, "*" not in self.provider


class Overlay(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Everything an operator's price file says. ``suppress_empty``: answers without any output cost nothing."""

    providers: dict[str, Serves] = {}
    prices: tuple[OwnPrice, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()
    fees: tuple[Fee, ...] = ()
    byok: tuple[ByokFee, ...] = ()
    suppress_empty: bool = False

    @property
    def by_team(self) -> bool:
        """Whether any rule depends on the team, so that prices must be kept apart by team."""
        return any(rule.team is not None for rule in (*self.prices, *self.adjustments, *self.fees))


NO_OVERLAY = Overlay()
