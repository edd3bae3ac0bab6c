"""From one usage and one sheet to a charge: exact lines, their integer sum, and what the sum is worth.

The order of the lines is fixed (input, output, meters by name, fees), whatever the order of the usage's details, and
every line is rounded exactly once. The state of a charge is the worst thing that is true of it:

``unknown``    nothing could be priced
``partial``    something could not be priced, or the usage is only part of what was consumed
``estimated``  the usage is an estimate, a rate stands in for one that is not published, or details were contradictory
``free``       the price of everything is zero by rule, or the provider reported that nothing was consumed
``exact``      none of the above
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import UNSET, UnsetType

from counterfoil.pricing import meters as m
from counterfoil.pricing.sheet import FELL_BACK, PRICED, UNPRICED, Sheet, Slot
from counterfoil.record.charge import NOTHING_SERVED, Charge, CostState, Line, LineState
from counterfoil.record.money import amount_nanos
from counterfoil.record.usage import Usage, UsageSource

_Parts = list[tuple[Slot, int]]
_REPORTED = UsageSource.REPORTED
_EXACT = CostState.EXACT


def price_usage(sheet: Sheet, usage: Usage, book: str) -> Charge:
    """What ``usage`` costs under ``sheet``. ``book`` is the digest that every line names."""
    parts, cut = _parts(sheet, usage)
    lines: list[Line] = []
    nanos = 0
    weight = 0
    for slot, quantity in parts:
        size, price = slot.size, slot.price
        amount, rest = divmod(quantity * price, size)
        if rest:
            amount = amount_nanos(quantity, size, price)
        nanos += amount
        weight |= slot.weight
        # By place, not by name: this runs for every line of every call, and takes a third of the time so.
        lines.append(Line(slot.meter, quantity, size, price, amount, slot.rule, book, slot.state, slot.reason))
    if weight == PRICED and nanos and not cut and usage.source is _REPORTED:
        return Charge(tuple(lines), nanos, _EXACT)
    state, why = _verdict(sheet, usage, lines, weight, cut=cut)
    return Charge(tuple(lines), nanos, state, why)


def total(charges: Sequence[Charge]) -> Charge:
    """Several attempts' charges as one: all lines in order, their sum, and the worst state.

    Where one attempt is wholly unknown and another is priced, the whole is partial.
    """
    if len(charges) == 1:
        return charges[0]
    lines = tuple(line for charge in charges for line in charge.lines)
    worst = min(charges, key=lambda charge: _WORST_FIRST.index(charge.state), default=NOTHING_SERVED)
    state = worst.state
    if state is CostState.UNKNOWN and any(charge.nanos for charge in charges):
        state = CostState.PARTIAL
    return Charge(lines, sum(line.amount_nanos for line in lines), state, worst.reason)


_WORST_FIRST = (
    CostState.UNKNOWN,
    CostState.PARTIAL,
    CostState.ESTIMATED,
    CostState.EXACT,
    CostState.SUPPRESSED,
    CostState.FREE,
    CostState.PLAYBACK,
)


def _parts(sheet: Sheet, usage: Usage) -> tuple[_Parts, bool]:
    """What is billed: slots and quantities, and whether contradictory details had to be cut."""
    parts: _Parts = []
    meters = usage.meters
    if meters or sheet.only_requests:
        return _all_parts(sheet, usage, {} if meters is UNSET else meters)
    cut = False
    if usage.prompt_tokens:
        cut = _input(sheet, usage.prompt_tokens, usage.prompt_tokens_details, parts)
    if usage.completion_tokens:
        cut |= _output(sheet, usage.completion_tokens, usage.completion_tokens_details, parts)
    if m.REQUESTS in sheet.priced:
        _add(parts, sheet.slot(m.REQUESTS), 1)
    if sheet.fees:
        parts += [(fee, 1) for fee in sheet.fees]
    return parts, cut


def _all_parts(sheet: Sheet, usage: Usage, meters: Mapping[str, int]) -> tuple[_Parts, bool]:
    """As :func:`_parts`, where something beside tokens was measured.

    Two meters of one side of a call measure the same content, so a side that some rate prices leaves no other meter of
    it unpriced; tools and requests belong to no side and are never measured by anything else.
    """
    exclusive = _exclusive(meters)
    beside: _Parts = []
    sides: set[str] = set()
    for meter, quantity in exclusive:
        slot = sheet.slot(meter)
        if slot.state is not LineState.UNPRICED:
            _add(beside, slot, quantity)
            sides.add(slot.side)
    tokens: _Parts = []
    cut = False
    if not sheet.only_requests:
        if usage.prompt_tokens and not ("input" in sides and sheet.input.weight == UNPRICED):
            cut = _input(sheet, usage.prompt_tokens, usage.prompt_tokens_details, tokens)
        if usage.completion_tokens and not ("output" in sides and sheet.output.weight == UNPRICED):
            cut |= _output(sheet, usage.completion_tokens, usage.completion_tokens_details, tokens)
        if len(beside) < len(exclusive):
            reported = {slot.side for slot, _ in tokens}
            sides |= {slot.side for slot, _ in tokens if slot.weight != UNPRICED}
            beside += _uncovered(sheet, exclusive, sides, reported)
    if m.REQUESTS in sheet.priced and not meters.get(m.REQUESTS):
        _add(beside, sheet.slot(m.REQUESTS), 1)
    tokens += beside
    if sheet.fees:
        tokens += [(fee, 1) for fee in sheet.fees]
    return tokens, cut


def _uncovered(
    sheet: Sheet, meters: Iterable[tuple[str, int]], covered: set[str], reported: set[str]
) -> Iterable[tuple[Slot, int]]:
    """The meters without a rate that nothing else prices."""
    for meter, quantity in meters:
        slot = sheet.slot(meter)
        if slot.state is not LineState.UNPRICED or meter == m.REQUESTS:
            continue
        side = slot.side
        if side and (side in covered or (meter == m.EMBEDDINGS and side in reported)):
            continue
        yield slot, quantity


def _exclusive(meters: Mapping[str, int]) -> list[tuple[str, int]]:
    """The nonzero meters by name, each less what more qualified names say (``images.high`` is in ``images``)."""
    if len(meters) == 1:
        return [item for item in meters.items() if item[1] > 0]
    found: list[tuple[str, int]] = []
    for name in sorted(meters):
        quantity = meters[name]
        if "." not in name:
            prefix = name + "."
            quantity -= sum(value for other, value in meters.items() if other.startswith(prefix))
        if quantity > 0:
            found.append((name, quantity))
    return found


def _input(sheet: Sheet, total: int, details: dict[str, int] | UnsetType, parts: _Parts) -> bool:
    """Add the input's parts; tell whether the details exceeded it.

    Nearly every call is plain, or reads and writes a cache; those are split here, in the order and with the result of
    :func:`~counterfoil.pricing.meters.split_input`, which splits all the others.
    """
    if not details:
        _add(parts, sheet.input, total)
        return False
    read = parts_read = write = write_5m = write_1h = 0
    matters = sheet.input_details
    simple = True
    for name, quantity in details.items():
        if quantity and name in matters:
            if name == "cached_tokens":
                read = quantity
            elif name == "cache_write_tokens":
                write = quantity
            elif name == "cache_write_5m_tokens":
                write_5m = quantity
            elif name == "cache_write_1h_tokens":
                write_1h = quantity
            elif name in sheet.plain_reads:
                parts_read += quantity
            else:
                simple = False
    read = max(read, parts_read)
    write = max(write - write_5m - write_1h, 0)
    plain = total - read - write - write_5m - write_1h
    if not simple or plain < 0:
        split = m.split_input(total, details, sheet.own)
        _merge(sheet, split.cells, parts)
        return split.cut
    if plain:
        _add(parts, sheet.input, plain)
    if write or write_5m or write_1h:
        _writes(sheet, write, write_5m, write_1h, parts)
    if read:
        _add(parts, sheet.slot(m.CACHE_READ), read)
    return False


def _writes(sheet: Sheet, write: int, write_5m: int, write_1h: int, parts: _Parts) -> None:
    slot = sheet.slot(m.CACHE_WRITE)
    if write_5m:
        slot_5m = sheet.slot(m.CACHE_WRITE_5M)
        if slot_5m is slot:
            write += write_5m
        else:
            if write:
                _add(parts, slot, write)
            slot, write = slot_5m, write_5m
    if write:
        _add(parts, slot, write)
    if write_1h:
        _add(parts, sheet.slot(m.CACHE_WRITE_1H), write_1h)


def _output(sheet: Sheet, total: int, details: dict[str, int] | UnsetType, parts: _Parts) -> bool:
    if details:
        matters = sheet.output_details
        for name, quantity in details.items():
            if quantity and name in matters:
                split = m.split_output(total, details, sheet.own)
                _merge(sheet, split.cells, parts)
                return split.cut
    _add(parts, sheet.output, total)
    return False


def _merge(sheet: Sheet, cells: list[tuple[str, int]], parts: _Parts) -> None:
    """Cells billed on the same line are added up first, so that each line is rounded once."""
    slots = sheet.slots
    sums: dict[str, int] = {}
    by_meter: dict[str, Slot] = {}
    for cell, quantity in reversed(cells):  # the plain cell was split last and reads first
        slot = slots[cell]
        meter = slot.meter
        sums[meter] = sums.get(meter, 0) + quantity
        by_meter[meter] = slot
    for meter, quantity in sums.items():
        _add(parts, by_meter[meter], quantity)


def _add(parts: _Parts, slot: Slot, quantity: int) -> None:
    if slot.special:
        parts += _special(slot, quantity)
    else:
        parts.append((slot, quantity))


def _special(slot: Slot, quantity: int) -> Iterable[tuple[Slot, int]]:
    """Included units and graduated steps as parts of their own, each at its own price; minimums as billed."""
    plain = slot._replace(special=False)
    if quantity < slot.minimum:
        plain = plain._replace(reason=f"billed as the minimum of {slot.minimum}; {quantity} were used")
        quantity = slot.minimum
    if slot.included:
        inside = min(slot.included, quantity)
        yield plain._replace(price=0, rule=f"{slot.rule}#included"), inside
        quantity -= inside
    floor = 0
    price, size, rule = slot.price, slot.size, slot.rule
    for step in slot.steps:
        part = min(quantity, step.above - floor)
        if part > 0:
            yield plain._replace(price=price, size=size, rule=rule), part
            quantity -= part
        floor, price, size, rule = step.above, step.price, step.size, f"{slot.rule}>{step.above}"
    if quantity > 0:
        yield plain._replace(price=price, size=size, rule=rule), quantity


def _verdict(sheet: Sheet, usage: Usage, lines: list[Line], weight: int, *, cut: bool) -> tuple[CostState, str | None]:
    """The state and the reason in words, where the sum is not simply exact."""
    free, source = sheet.costs_nothing, usage.source
    if source is UsageSource.ABSENT and not (free or sheet.only_requests):
        return (CostState.PARTIAL if weight & PRICED else CostState.UNKNOWN), "the provider reported no usage"
    if free and not weight & UNPRICED:
        return CostState.FREE, "every rate of this model is zero by rule"
    if weight & UNPRICED:
        why = sheet.reason or "the price list has no rate for it"
        state = CostState.PARTIAL if weight & PRICED else CostState.UNKNOWN
        return state, f"not priced: {_named(lines, LineState.UNPRICED)} ({why})"
    if not lines:
        if sheet.reason:
            return CostState.UNKNOWN, sheet.reason
        return CostState.FREE, "the provider reported that nothing was consumed"
    if source is UsageSource.PARTIAL:
        ours = f"; {_estimated(usage)}" if usage.estimated else ""
        return CostState.PARTIAL, f"only part of the usage is known{ours}"
    if source is UsageSource.ESTIMATED:
        return CostState.ESTIMATED, _estimated(usage)
    if cut:
        return CostState.ESTIMATED, "the reported details exceed their total; they were cut to it"
    if weight & FELL_BACK:
        return CostState.ESTIMATED, f"charged at a fallback rate: {_named(lines, LineState.FALLBACK)}"
    return CostState.EXACT, None


def _estimated(usage: Usage) -> str:
    """What of the usage is an estimate: never a part of it without saying that the rest is not."""
    ours = usage.estimated
    if not ours or len(ours) == 2:
        return "the usage is an estimate"
    return f"the usage is an estimate in {ours[0]}; the rest is as the provider reported it"


def _named(lines: list[Line], state: LineState) -> str:
    return ", ".join(line.meter for line in lines if line.state is state)
