"""A price list made ready to charge: for every cell a slot with its exact rate, or the reason why there is none.

Compiling happens once per model, tier and period; charging is a table look-up per cell. The rules that decide which
rate a cell gets, nearest first:

- Its own rate.
- The rate of the meter it is *published* to be billed as, on that meter's line (``_SAME``): reasoning as output, image
  and video input as input, a provider's own tool prompt as input, a 5-minute cache write as a cache write.
- An ancestor's rate, as a ``fallback`` line that names the rule and says why (``_FALLBACK``): audio as text, a cache
  read or write as plain input, a 1-hour write as a write. Of two possible ancestors the dearer: an assumption must not
  flatter.
- None: an ``unpriced`` line, unless the list prices the same side of the call by another measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Final, NamedTuple

from msgspec import UNSET, UnsetType

from counterfoil.pricing import meters as m
from counterfoil.pricing.rates import Band, Rate
from counterfoil.pricing.shapes import Shapes
from counterfoil.record.charge import LineState

_SAME: Final[dict[str, tuple[str, ...]]] = {
    m.INPUT_TEXT: (m.INPUT,),
    m.INPUT_IMAGE: (m.INPUT,),
    m.INPUT_VIDEO: (m.INPUT,),
    m.INPUT_TOOL: (m.INPUT_TEXT, m.INPUT),
    m.CACHE_READ_TEXT: (m.CACHE_READ,),
    m.CACHE_WRITE_5M: (m.CACHE_WRITE,),
    m.CACHE_WRITE: (m.CACHE_WRITE_5M,),
    m.OUTPUT_TEXT: (m.OUTPUT,),
    m.OUTPUT_REASONING: (m.OUTPUT,),
}
"""Cells published to be billed as another meter: no line of their own, and nothing to explain."""

_FALLBACK: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    m.INPUT: ((m.INPUT_TEXT,),),
    m.INPUT_AUDIO: ((m.INPUT,), (m.INPUT_TEXT,)),
    m.INPUT_IMAGE: ((m.INPUT_TEXT,),),
    m.INPUT_VIDEO: ((m.INPUT_TEXT,),),
    m.CACHE_READ: ((m.CACHE_READ_TEXT,), (m.INPUT,)),
    m.CACHE_READ_AUDIO: ((m.CACHE_READ, m.INPUT_AUDIO), (m.INPUT,)),
    m.CACHE_READ_IMAGE: ((m.CACHE_READ, m.INPUT_IMAGE), (m.INPUT,)),
    m.CACHE_READ_VIDEO: ((m.CACHE_READ, m.INPUT_VIDEO), (m.INPUT,)),
    m.CACHE_READ_TEXT: ((m.INPUT,),),
    m.CACHE_WRITE: ((m.CACHE_WRITE_1H,), (m.INPUT,)),
    m.CACHE_WRITE_5M: ((m.CACHE_WRITE_1H,), (m.INPUT,)),
    m.CACHE_WRITE_1H: ((m.CACHE_WRITE, m.CACHE_WRITE_5M), (m.INPUT,)),
    m.OUTPUT: ((m.OUTPUT_TEXT,), (m.OUTPUT_IMAGE, m.OUTPUT_AUDIO, m.OUTPUT_VIDEO)),
    m.OUTPUT_AUDIO: ((m.OUTPUT,), (m.OUTPUT_TEXT,)),
    m.OUTPUT_IMAGE: ((m.OUTPUT,), (m.OUTPUT_TEXT,)),
    m.OUTPUT_VIDEO: ((m.OUTPUT,), (m.OUTPUT_TEXT,)),
    m.OUTPUT_REASONING: ((m.OUTPUT_TEXT,),),
    m.OUTPUT_CITATION: ((m.OUTPUT,), (m.OUTPUT_TEXT,)),
}
"""Where a cell's rate comes from when none is published: groups in order, the dearest of the first that has any."""

_IMAGE_READS = {m.CACHE_READ_IMAGE: m.INPUT_IMAGE, m.CACHE_READ_VIDEO: m.INPUT_VIDEO}


PRICED: Final = 1
FELL_BACK: Final = 2
UNPRICED: Final = 4


class Ruled(NamedTuple):
    """A rate with the id of the rule it came from; ``reason`` is set when that rule is already a stand-in."""

    rate: Rate
    rule: str
    reason: str | None = None


class Rung(NamedTuple):
    """The next ``width`` units of a meter and their price; the last rung has no width and takes what is left."""

    width: int | None
    size: int
    price: int
    rule: str


class Slot(NamedTuple):
    """How one line is made: its meter and the rate in force for this call.

    ``steps`` are graduated prices. ``weight`` says in bits what a line like this does to the charge: it is priced, it
    is priced by a fallback, it is not priced; ``side`` is which side of the call the meter measures. ``special`` slots
    make several lines, one for each of their ``rungs`` that is reached, or another quantity.
    """

    meter: str
    price: int
    size: int
    rule: str
    state: LineState
    reason: str | UnsetType = UNSET
    weight: int = PRICED
    side: str = ""
    special: bool = False
    included: int = 0
    minimum: int = 0
    maximum: int = 0
    steps: tuple[Band, ...] = ()
    rungs: tuple[Rung, ...] = ()


class Sheet:
    """Slots for one price list and one range of input length."""

    __slots__ = (
        "costs_nothing",
        "fees",
        "free",
        "input",
        "once",
        "only_requests",
        "only_timed",
        "output",
        "own",
        "priced",
        "reason",
        "reported",
        "shapes",
        "slots",
        "timed",
    )

    def __init__(
        self,
        rules: Mapping[str, Ruled],
        *,
        fees: Iterable[Slot] = (),
        free: str = "",
        reason: str = "",
        reported: Ruled | None = None,
    ) -> None:
        """Compile ``rules`` (by meter, bands already chosen).

        ``free`` is the rule that makes every meter free; ``reason`` says why a meter without a rate has none.
        ``reported`` is what a nano that the provider says it charged costs, where the list has no rate at all.
        """
        self.reason = reason
        self.free = free
        self.fees = tuple(fees)
        self.slots: dict[str, Slot] = {meter: _slot(meter, ruled) for meter, ruled in rules.items()}
        self.priced = frozenset(self.slots)
        self.only_requests = bool(self.priced) and self.priced <= {m.REQUESTS}
        self.timed = not self.priced.isdisjoint(m.AUDIO_TIMES)
        self.only_timed = self.timed and self.priced <= m.AUDIO_TIMES
        for cell in (*m.INPUT_CELLS, *m.OUTPUT_CELLS):
            if cell not in self.slots:
                self.slots[cell] = self._stand_in(cell, rules)
        parents = {cell: self.slots[cell] for cell in (m.INPUT, m.OUTPUT, m.CACHE_READ)}
        self.input, self.output = self.slots[m.INPUT], self.slots[m.OUTPUT]
        self.own = frozenset(
            cell for cell in (*m.INPUT_CELLS, *m.OUTPUT_CELLS) if self.slots[cell] is not parents.get(_parent(cell))
        )
        self.costs_nothing = bool(self.free or self.priced) and not any(
            slot.price or any(step.price for step in slot.steps)
            for slot in (*(self.slots[meter] for meter in self.priced), *self.fees)
        )
        self.reported = None if reported is None or self.priced or free else _slot(m.PROVIDER_COST, reported)
        self.once = (*(self.slots[meter] for meter in (m.REQUESTS,) if meter in self.priced), *self.fees)
        self.shapes = Shapes(self)

    def slot(self, meter: str) -> Slot:
        """The slot of any meter, tokens or not."""
        slot = self.slots.get(meter)
        if slot is None:
            slot = self._beside(meter)
            if len(self.slots) < _METERS_MAX:
                self.slots[meter] = slot
        return slot

    def _beside(self, meter: str) -> Slot:
        for name in m.ancestors(meter):
            if name in self.priced:
                return self.slots[name]._replace(meter=meter, side=m.direction(meter))
        return self._missing(meter)

    def _missing(self, meter: str) -> Slot:
        if self.free:
            return Slot(meter, 0, m.default_size(meter), self.free, LineState.PRICED, side=m.direction(meter))
        reason = self.reason or f"the price list has no rate for {meter}"
        return Slot(meter, 0, m.default_size(meter), "", LineState.UNPRICED, reason, UNPRICED, m.direction(meter))

    def _stand_in(self, cell: str, rules: Mapping[str, Ruled]) -> Slot:
        for name in _SAME.get(cell, ()):
            if name in rules:
                return self.slots[name]
        if cell in _IMAGE_READS and m.CACHE_READ in rules and _IMAGE_READS[cell] not in rules:
            return self.slots[m.CACHE_READ]
        for group in _FALLBACK.get(cell, ()):
            found = [name for name in group if name in rules]
            if found:
                return self._fallback(cell, max(found, key=lambda name: _dearness(rules[name].rate)))
        return self._missing(cell)

    def _fallback(self, cell: str, name: str) -> Slot:
        slot = self.slots[name]
        reason = f"no rate is published for {cell}; charged at the rate of {name}"
        if slot.reason:
            reason = f"{reason}; {slot.reason}"
        return slot._replace(meter=cell, state=LineState.FALLBACK, reason=reason, weight=PRICED | FELL_BACK)


_METERS_MAX = 256
"""Foreign meter names remembered per sheet; more of them are still answered, only not remembered."""


def _parent(cell: str) -> str:
    if cell in _IMAGE_READS or cell in (m.CACHE_READ_TEXT, m.CACHE_READ_AUDIO):
        return m.CACHE_READ
    if cell in (m.INPUT, m.OUTPUT, m.CACHE_READ):
        return ""
    return m.INPUT if cell in m.INPUT_CELLS else m.OUTPUT


def _dearness(rate: Rate) -> Fraction:
    return Fraction(rate.price, rate.size)


def _slot(meter: str, ruled: Ruled) -> Slot:
    rate = ruled.rate
    state, reason, weight = LineState.PRICED, UNSET, PRICED
    if ruled.reason is not None:
        state, reason, weight = LineState.FALLBACK, ruled.reason, PRICED | FELL_BACK
    steps = rate.bands if rate.graduated else ()
    special = bool(rate.included or rate.minimum or rate.maximum or steps)
    return Slot(
        meter,
        rate.price,
        rate.size,
        ruled.rule,
        state,
        reason,
        weight,
        m.direction(meter),
        special=special,
        included=rate.included,
        minimum=rate.minimum,
        maximum=rate.maximum,
        steps=steps,
        rungs=tuple(_rungs(rate, ruled.rule)) if special else (),
    )


def _rungs(rate: Rate, rule: str) -> Iterator[Rung]:
    """Included units, then each graduated step, then what is above the last."""
    if rate.included:
        yield Rung(rate.included, rate.size, 0, f"{rule}#included")
    floor = 0
    price, size, name = rate.price, rate.size, rule
    for step in rate.bands if rate.graduated else ():
        if step.above > floor:
            yield Rung(step.above - floor, size, price, name)
        floor, price, size, name = step.above, step.price, step.size, f"{rule}>{step.above}"
    yield Rung(None, size, price, name)
