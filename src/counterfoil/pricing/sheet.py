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

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from msgspec import UNSET

from counterfoil.pricing import meters as m
from counterfoil.pricing.rates import Band, Rate
from counterfoil.record.charge import Charge, CostState, Line, LineState
from counterfoil.record.money import amount_nanos
from counterfoil.record.usage import Usage, UsageSource

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
    m.OUTPUT_CITATION: (m.OUTPUT,),
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
}
"""Where a cell's rate comes from when none is published: groups in order, the dearest of the first that has any."""

_IMAGE_READS = {m.CACHE_READ_IMAGE: m.INPUT_IMAGE, m.CACHE_READ_VIDEO: m.INPUT_VIDEO}


class Ruled(NamedTuple):
    """A rate with the id of the rule it came from; ``reason`` is set when that rule is already a stand-in."""

    rate: Rate
    rule: str
    reason: str | None = None


class Slot(NamedTuple):
    """How one line is made: its meter and the rate in force for this call. ``steps`` are graduated prices."""

    meter: str
    price: int
    size: int
    rule: str
    state: LineState
    reason: str | None = None
    included: int = 0
    minimum: int = 0
    steps: tuple[Band, ...] = ()


class Sheet:
    """Slots for one price list and one range of input length."""

    __slots__ = ("_slots", "fees", "free", "only_requests", "own", "priced", "reason")

    def __init__(
        self, rules: Mapping[str, Ruled], *, fees: Iterable[Slot] = (), free: str = "", reason: str = ""
    ) -> None:
        """``rules`` by meter, bands already chosen. ``free`` is the rule that makes every meter free; ``reason`` says
        why a meter without a rate has none.
        """
        self.reason = reason
        self.free = free
        self.fees = tuple(fees)
        self._slots: dict[str, Slot] = {meter: _slot(meter, ruled) for meter, ruled in rules.items()}
        self.priced = frozenset(self._slots)
        self.only_requests = bool(self.priced) and self.priced <= {m.REQUESTS}
        for cell in (*m.INPUT_CELLS, *m.OUTPUT_CELLS):
            if cell not in self._slots:
                self._slots[cell] = self._stand_in(cell, rules)
        parents = {
            m.INPUT: self._slots[m.INPUT],
            m.OUTPUT: self._slots[m.OUTPUT],
            m.CACHE_READ: self._slots[m.CACHE_READ],
        }
        self.own = frozenset(
            cell for cell in (*m.INPUT_CELLS, *m.OUTPUT_CELLS) if self._slots[cell] is not parents.get(_parent(cell))
        )

    @property
    def costs_nothing(self) -> bool:
        """Whether every rate is zero by rule."""
        if self.free:
            return not any(slot.price for slot in self.fees)
        return bool(self.priced) and not any(
            slot.price or any(step.price for step in slot.steps)
            for slot in (*(self._slots[meter] for meter in self.priced), *self.fees)
        )

    def slot(self, meter: str) -> Slot:
        """The slot of any meter, tokens or not."""
        slot = self._slots.get(meter)
        if slot is None:
            slot = self._beside(meter)
            if len(self._slots) < _METERS_MAX:
                self._slots[meter] = slot
        return slot

    def _beside(self, meter: str) -> Slot:
        for name in m.ancestors(meter):
            if name in self.priced:
                return self._slots[name]._replace(meter=meter)
        return self._missing(meter)

    def _missing(self, meter: str) -> Slot:
        if self.free:
            return Slot(meter, 0, m.default_size(meter), self.free, LineState.PRICED)
        reason = self.reason or f"the price list has no rate for {meter}"
        return Slot(meter, 0, m.default_size(meter), "", LineState.UNPRICED, reason)

    def _stand_in(self, cell: str, rules: Mapping[str, Ruled]) -> Slot:
        for name in _SAME.get(cell, ()):
            if name in rules:
                return self._slots[name]
        if cell in _IMAGE_READS and m.CACHE_READ in rules and _IMAGE_READS[cell] not in rules:
            return self._slots[m.CACHE_READ]
        for group in _FALLBACK.get(cell, ()):
            found = [name for name in group if name in rules]
            if found:
                return self._fallback(cell, max(found, key=lambda name: _dearness(rules[name].rate)))
        return self._missing(cell)

    def _fallback(self, cell: str, name: str) -> Slot:
        slot = self._slots[name]
        reason = f"no rate is published for {cell}; charged at the rate of {name}"
        if slot.reason:
            reason = f"{reason}; {slot.reason}"
        return slot._replace(meter=cell, state=LineState.FALLBACK, reason=reason)


_METERS_MAX = 256
"""Foreign meter names remembered per sheet; more of them are still answered, only not remembered."""


def _parent(cell: str) -> str:
    if cell in _IMAGE_READS or cell in (m.CACHE_READ_TEXT, m.CACHE_READ_AUDIO):
        return m.CACHE_READ
    if cell in (m.INPUT, m.OUTPUT, m.CACHE_READ):
        return ""
    return m.INPUT if cell in m.INPUT_CELLS else m.OUTPUT


def _dearness(rate: Rate) -> float:
    return rate.price / rate.size


def _slot(meter: str, ruled: Ruled) -> Slot:
    rate = ruled.rate
    state = LineState.FALLBACK if ruled.reason else LineState.PRICED
    steps = rate.bands if rate.graduated else ()
    return Slot(meter, rate.price, rate.size, ruled.rule, state, ruled.reason, rate.included, rate.minimum, steps)


def price_usage(sheet: Sheet, usage: Usage, book: str) -> Charge:
    """What ``usage`` costs under ``sheet``. ``book`` is the digest that every line names."""
    source = usage.source
    tokens: list[Line] = []
    meters = usage.meters
    beside, measured = _beside(sheet, meters if meters is not UNSET else {}, book) if meters else ([], ())
    cut = False
    if not sheet.only_requests:
        if usage.prompt_tokens and not ("input" in measured and m.INPUT not in sheet.priced):
            cut = _input(sheet, usage, book, tokens)
        if usage.completion_tokens and not ("output" in measured and m.OUTPUT not in sheet.priced):
            cut |= _output(sheet, usage, book, tokens)
        if meters:
            beside += _uncovered(sheet, meters if meters is not UNSET else {}, tokens, measured, book)
    if m.REQUESTS in sheet.priced and not (meters and m.REQUESTS in meters):
        _append(beside, sheet.slot(m.REQUESTS), 1, book)
    for fee in sheet.fees:
        _append(beside, fee, 1, book)
    lines = (*tokens, *beside)
    nanos = 0
    worst = 0
    for line in lines:
        nanos += line.amount_nanos
        worst |= _BITS[line.state]
    if worst == _PRICED and source is UsageSource.REPORTED and not cut and nanos:
        return Charge(lines, nanos, CostState.EXACT)
    return _judged(sheet, usage, lines, nanos, worst, cut)


_PRICED, _FELL_BACK, _UNPRICED = 1, 2, 4
_BITS = {
    LineState.PRICED: _PRICED,
    LineState.FALLBACK: _PRICED | _FELL_BACK,
    LineState.UNPRICED: _UNPRICED,
    LineState.PROVIDER_REPORTED: _PRICED,
    LineState.PLAYBACK: _PRICED,
}


def _judged(sheet: Sheet, usage: Usage, lines: tuple[Line, ...], nanos: int, worst: int, cut: bool) -> Charge:
    """The charge with its state: the worst thing that is true of it, and the reason in words."""
    state, reason = _verdict(sheet, usage, lines, worst, cut)
    return Charge(lines, nanos, state, reason)


def _verdict(
    sheet: Sheet, usage: Usage, lines: tuple[Line, ...], worst: int, cut: bool
) -> tuple[CostState, str | None]:
    source = usage.source
    free = sheet.costs_nothing
    if source is UsageSource.ABSENT and not (free or sheet.only_requests):
        state = CostState.PARTIAL if worst & _PRICED else CostState.UNKNOWN
        return state, "the provider reported no usage"
    if free and not worst & _UNPRICED:
        return CostState.FREE, "every rate of this model is zero by rule"
    if not lines:
        if sheet.reason:
            return CostState.UNKNOWN, sheet.reason
        return CostState.FREE, "the provider reported that nothing was consumed"
    if worst & _UNPRICED:
        names = ", ".join(line.meter for line in lines if line.state is LineState.UNPRICED)
        why = sheet.reason or "the price list has no rate for them"
        return (CostState.PARTIAL if worst & _PRICED else CostState.UNKNOWN), f"not priced: {names} ({why})"
    if source is UsageSource.PARTIAL:
        return CostState.PARTIAL, "the provider reported only part of the usage"
    if source is UsageSource.ESTIMATED:
        return CostState.ESTIMATED, "the usage is an estimate"
    if cut:
        return CostState.ESTIMATED, "the reported details exceed their total; they were cut to it"
    if worst & _FELL_BACK:
        names = ", ".join(line.meter for line in lines if line.state is LineState.FALLBACK)
        return CostState.ESTIMATED, f"charged at a fallback rate: {names}"
    return CostState.EXACT, None


def _input(sheet: Sheet, usage: Usage, book: str, lines: list[Line]) -> bool:
    details = usage.prompt_tokens_details
    if not details:
        _append(lines, sheet.slot(m.INPUT), usage.prompt_tokens, book)
        return False
    split = m.split_input(usage.prompt_tokens, details if details is not UNSET else {}, sheet.own)
    _lines(sheet, split.cells, book, lines)
    return split.cut


def _output(sheet: Sheet, usage: Usage, book: str, lines: list[Line]) -> bool:
    details = usage.completion_tokens_details
    if not details:
        _append(lines, sheet.slot(m.OUTPUT), usage.completion_tokens, book)
        return False
    split = m.split_output(usage.completion_tokens, details if details is not UNSET else {}, sheet.own)
    _lines(sheet, split.cells, book, lines)
    return split.cut


def _lines(sheet: Sheet, cells: list[tuple[str, int]], book: str, lines: list[Line]) -> None:
    """One line per slot: cells billed on the same line are added up first, so each line is rounded once."""
    if len(cells) == 1:
        _append(lines, sheet.slot(cells[0][0]), cells[0][1], book)
        return
    sums: dict[str, int] = {}
    for cell, quantity in reversed(cells):  # the plain cell was split last and reads first
        meter = sheet.slot(cell).meter
        sums[meter] = sums.get(meter, 0) + quantity
    for meter, quantity in sums.items():
        _append(lines, sheet.slot(meter), quantity, book)


def _beside(sheet: Sheet, meters: Mapping[str, int], book: str) -> tuple[list[Line], set[str]]:
    """Lines of the meters beside tokens that have a rate, and the sides of the call that they measure."""
    lines: list[Line] = []
    measured: set[str] = set()
    for meter, quantity in _exclusive(meters):
        slot = sheet.slot(meter)
        if slot.state is not LineState.UNPRICED:
            _append(lines, slot, quantity, book)
            measured.add(m.direction(meter))
    return lines, measured


def _uncovered(
    sheet: Sheet, meters: Mapping[str, int], tokens: list[Line], measured: Iterable[str], book: str
) -> list[Line]:
    """Unpriced lines for meters that nothing else measures: a tool call always, an image unless its tokens are priced."""
    covered = {m.direction(line.meter) for line in tokens if line.state is not LineState.UNPRICED} | set(measured)
    reported = {m.direction(line.meter) for line in tokens}
    lines: list[Line] = []
    for meter, quantity in _exclusive(meters):
        slot = sheet.slot(meter)
        side = m.direction(meter)
        if slot.state is not LineState.UNPRICED or meter == m.REQUESTS or (side and side in covered):
            continue
        if meter == "embeddings" and side in reported:
            continue
        _append(lines, slot, quantity, book)
    return lines


def _exclusive(meters: Mapping[str, int]) -> list[tuple[str, int]]:
    """The nonzero meters by name, each less what a more qualified name already says (``images.high`` is in ``images``)."""
    found: list[tuple[str, int]] = []
    for name in sorted(meters):
        quantity = meters[name]
        if "." not in name:
            prefix = name + "."
            quantity -= sum(value for other, value in meters.items() if other.startswith(prefix))
        if quantity > 0:
            found.append((name, quantity))
    return found


def _append(lines: list[Line], slot: Slot, quantity: int, book: str) -> None:
    """The line or lines of one slot. Included units and graduated steps are lines of their own, at their own price."""
    meter, price, size, rule, state, reason, included, minimum, steps = slot
    if included or minimum or steps:
        lines.extend(_special(slot, quantity, book))
        return
    lines.append(
        Line(
            meter=meter,
            quantity=quantity,
            unit_size=size,
            unit_price_nanos=price,
            amount_nanos=amount_nanos(quantity, size, price),
            rule_id=rule,
            book=book,
            state=state,
            reason=UNSET if reason is None else reason,
        )
    )


def _special(slot: Slot, quantity: int, book: str) -> list[Line]:
    lines: list[Line] = []
    plain = slot._replace(included=0, minimum=0, steps=())
    if quantity < slot.minimum:
        plain = plain._replace(reason=f"billed as the minimum of {slot.minimum}; {quantity} were used")
        quantity = slot.minimum
    if slot.included and quantity:
        inside = min(slot.included, quantity)
        _append(lines, plain._replace(price=0, rule=f"{slot.rule}#included"), inside, book)
        quantity -= inside
    floor = 0
    price, size, rule = slot.price, slot.size, slot.rule
    for step in slot.steps:
        part = min(quantity, step.above - floor)
        if part > 0:
            _append(lines, plain._replace(price=price, size=size, rule=rule), part, book)
        quantity -= max(part, 0)
        floor, price, size, rule = step.above, step.price, step.size, f"{slot.rule}>{step.above}"
    if quantity > 0:
        _append(lines, plain._replace(price=price, size=size, rule=rule), quantity, book)
    return lines
