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
from counterfoil.pricing.shapes import Part, Shape, Term
from counterfoil.pricing.sheet import FELL_BACK, PRICED, UNPRICED, Sheet, Slot
from counterfoil.record.charge import NOTHING_SERVED, Charge, CostState, Line, LineState
from counterfoil.record.money import amount_nanos
from counterfoil.record.usage import TOTALS, Usage, UsageSource

_Parts = list[tuple[Slot, int]]
_NO_COUNTS: dict[str, int] = {}
_UNDECIDED = -1
"""Instead of the weight of lines, which are bits: stays negative whatever is added to it."""
_REPORTED = UsageSource.REPORTED
_FALLBACK = LineState.FALLBACK
_EXACT, _ESTIMATED = CostState.EXACT, CostState.ESTIMATED
_ESTIMATE = PRICED | FELL_BACK


def price_usage(sheet: Sheet, usage: Usage, book: str) -> Charge:
    """What ``usage`` costs under ``sheet``. ``book`` is the digest that every line names."""
    lines: list[Line] = []
    weight = _direct(sheet, usage, book, lines)
    if weight < 0:
        return price_thoroughly(sheet, usage, book)
    return _charge(sheet, usage, lines, weight, cut=False)


def price_thoroughly(sheet: Sheet, usage: Usage, book: str) -> Charge:
    """The same for any usage, also one whose counts contradict each other; in three times the time."""
    parts, cut = _parts(sheet, usage)
    lines: list[Line] = []
    weight = 0
    for slot, quantity in parts:
        weight |= _line(slot, quantity, book, lines)
    return _charge(sheet, usage, lines, weight, cut=cut)


def _charge(sheet: Sheet, usage: Usage, lines: list[Line], weight: int, *, cut: bool) -> Charge:
    nanos = sum([line.amount_nanos for line in lines])
    if nanos and not cut and usage.source is _REPORTED:
        if weight == PRICED:
            return Charge(tuple(lines), nanos, _EXACT)
        if weight == _ESTIMATE:
            return Charge(tuple(lines), nanos, _ESTIMATED, _fell_back(lines))
    state, why = _verdict(sheet, usage, lines, weight, cut=cut)
    return Charge(tuple(lines), nanos, state, why)


def price_reported(sheet: Sheet, slot: Slot, provider_cost_nanos: int, book: str) -> Charge:
    """What a call costs that no rate prices, by what the provider says it charged.

    The provider's figure is the quantity of the line, which so follows from the record like any other.
    """
    lines: list[Line] = []
    if provider_cost_nanos:
        amount = amount_nanos(provider_cost_nanos, slot.size, slot.price)
        lines.append(
            Line(
                slot.meter, provider_cost_nanos, slot.size, slot.price, amount, slot.rule, book,
                LineState.PROVIDER_REPORTED, sheet.reason,
            )
        )  # fmt: skip
    for fee in sheet.once:
        _line(fee, 1, book, lines)
    nanos = sum([line.amount_nanos for line in lines])
    if nanos:
        return Charge(tuple(lines), nanos, _EXACT, f"{sheet.reason}; it is charged what the provider says it cost")
    return Charge(tuple(lines), 0, CostState.FREE, "the provider says that it charged nothing")


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


def _direct(sheet: Sheet, usage: Usage, book: str, lines: list[Line]) -> int:
    """Add the lines of a usage whose parts are known from the names of its details, and give their weight.

    Negative when only the thorough split can tell, which is rare; lines may then have been added in vain.
    """
    if sheet.only_requests or (sheet.timed and usage.meters and usage.total_tokens):
        return _UNDECIDED
    shapes = sheet.shapes
    weight = 0
    total = usage.prompt_tokens
    if total:
        details = usage.prompt_tokens_details
        if details:
            weight = _side(shapes.input(details), details, total, shapes.plain_input, book, lines)
        else:
            weight = _whole(shapes.plain_input, total, book, lines)
    total = usage.completion_tokens
    if total:
        details = usage.completion_tokens_details
        if details:
            weight |= _side(shapes.output(details), details, total, shapes.plain_output, book, lines)
        else:
            weight |= _whole(shapes.plain_output, total, book, lines)
    if usage.meters:
        weight |= _beside(shapes.meters(usage.meters), usage.meters, book, lines)
    for part in shapes.once:
        weight |= _whole(part, 1, book, lines)
    return weight


def _side(shape: Shape | None, details: Mapping[str, int], rest: int, plain: Part, book: str, lines: list[Line]) -> int:
    """Add the lines of one side of the call, what no detail claims of ``rest`` first; give their weight."""
    if shape is None:
        return _UNDECIDED
    first = len(lines)
    weight = 0
    for name, less, more, each, meter, size, price, rule, state, reason, mark, slot in shape.parts:
        quantity = details[name]
        for other in less:
            quantity -= details[other]
        if more:
            quantity = _with(more, details, quantity)
        if quantity > 0:
            rest -= quantity
            weight |= mark
            if each >= 0:
                # By place, not by name: this runs for every line of every call, and takes a third of the time so.
                lines.append(Line(meter, quantity, size, price, quantity * each, rule, book, state, reason))
            else:
                _line(slot, quantity, book, lines)
        elif quantity:
            return _UNDECIDED
    if rest > 0:
        last = len(lines)
        weight |= _whole(plain, rest, book, lines)
        if last > first:
            lines[first:] = lines[last:] + lines[first:last]
    elif rest:
        return _UNDECIDED
    return _UNDECIDED if shape.inside and not _agree(shape, details) else weight


def _whole(part: Part, quantity: int, book: str, lines: list[Line]) -> int:
    """Add the line of a part whose quantity is known and give its weight."""
    _, _, _, each, meter, size, price, rule, state, reason, mark, slot = part
    if each < 0:
        return _line(slot, quantity, book, lines)
    lines.append(Line(meter, quantity, size, price, quantity * each, rule, book, state, reason))
    return mark


def _agree(shape: Shape, details: Mapping[str, int]) -> bool:
    """Whether the counts that lie inside another do not exceed it."""
    inside = 0
    for name in shape.inside:
        inside += details[name]
    return not inside or inside <= details[shape.around]


def _with(more: tuple[Term, ...], details: Mapping[str, int], quantity: int) -> int:
    """``quantity`` and ``more`` that is billed with it; negative when one of them is."""
    for name, less in more:
        further = details[name]
        for other in less:
            further -= details[other]
        if further < 0 or quantity < 0:
            return _UNDECIDED
        quantity += further
    return quantity


def _beside(shape: Shape | None, meters: Mapping[str, int], book: str, lines: list[Line]) -> int:
    """Add the lines of what was measured beside the tokens; give their weight."""
    if shape is None:
        return _UNDECIDED
    weight = 0
    for part in shape.parts:
        quantity = meters[part[0]]
        for other in part[1]:
            quantity -= meters[other]
        if quantity > 0:
            weight |= _whole(part, quantity, book, lines)
    return weight


def _line(slot: Slot, quantity: int, book: str, lines: list[Line]) -> int:
    """Add the line of ``slot`` and give its weight."""
    if slot.special:
        _lines(slot, quantity, book, lines)
        return slot.weight
    size, price = slot.size, slot.price
    amount, rest = divmod(quantity * price, size)
    if rest:
        amount = amount_nanos(quantity, size, price)
    lines.append(Line(slot.meter, quantity, size, price, amount, slot.rule, book, slot.state, slot.reason))
    return slot.weight


def _lines(slot: Slot, quantity: int, book: str, lines: list[Line]) -> None:
    """Add the lines of a slot with a minimum, a maximum, included units or graduated steps, each at its own price."""
    meter, state, reason = slot.meter, slot.state, slot.reason
    if quantity < slot.minimum:
        reason = f"billed as the minimum of {slot.minimum}; {quantity} were used"
        quantity = slot.minimum
    elif slot.maximum and quantity > slot.maximum:
        reason = f"billed as {slot.maximum}, the most that a call is billed for; {quantity} were used"
        quantity = slot.maximum
    for width, size, price, rule in slot.rungs:
        units = quantity if width is None or quantity < width else width
        amount = amount_nanos(units, size, price)
        lines.append(Line(meter, units, size, price, amount, rule, book, state, reason))
        quantity -= units
        if not quantity:
            return


def _parts(sheet: Sheet, usage: Usage) -> tuple[_Parts, bool]:
    """What is billed: slots and quantities, and whether contradictory details had to be cut."""
    meters = usage.meters
    if meters or sheet.only_requests:
        return _all_parts(sheet, usage, {} if meters is UNSET else meters)
    parts: _Parts = []
    cut = False
    if usage.prompt_tokens:
        cut = _input(sheet, usage.prompt_tokens, usage.prompt_tokens_details, parts)
    if usage.completion_tokens:
        cut |= _output(sheet, usage.completion_tokens, usage.completion_tokens_details, parts)
    parts += [(slot, 1) for slot in sheet.once]
    return parts, cut


def _all_parts(sheet: Sheet, usage: Usage, meters: Mapping[str, int]) -> tuple[_Parts, bool]:
    """As :func:`_parts`, where something beside tokens was measured.

    Two meters of one side of a call measure the same content, so a side that some rate prices leaves no other meter of
    it unpriced; tools and requests belong to no side and are never measured by anything else. Sound that is billed by
    its length is not billed by its tokens; where a list has no other price, the length is the whole bill.
    """
    if meters.get(m.REFUSALS) and m.REFUSALS in sheet.priced:  # then nothing else of the call is billed
        return [(sheet.slots[m.REFUSALS], meters[m.REFUSALS]), *((slot, 1) for slot in sheet.fees)], False
    exclusive = _exclusive(meters)
    timed = sheet.timed and any(m.base(meter) in m.AUDIO_TIMES for meter, _ in exclusive)
    beside: _Parts = []
    sides: set[str] = set()
    for meter, quantity in exclusive:
        slot = sheet.slot(meter)
        if slot.state is not LineState.UNPRICED:
            beside.append((slot, quantity))
            sides.add(slot.side)
    tokens: _Parts = []
    cut = False
    if not (sheet.only_requests or (timed and sheet.only_timed)):
        prompt, details = usage.prompt_tokens, usage.prompt_tokens_details or _NO_COUNTS
        if timed and m.INPUT_AUDIO not in sheet.priced:
            prompt, details = _without_sound(prompt, details)
        if prompt and not ("input" in sides and sheet.input.weight == UNPRICED):
            cut = _input(sheet, prompt, details, tokens)
        if usage.completion_tokens and not ("output" in sides and sheet.output.weight == UNPRICED):
            cut |= _output(sheet, usage.completion_tokens, usage.completion_tokens_details, tokens)
        if len(beside) < len(exclusive):
            reported = {slot.side for slot, _ in tokens}
            sides |= {slot.side for slot, _ in tokens if slot.weight != UNPRICED}
            beside += _uncovered(sheet, exclusive, sides, reported)
    tokens += beside
    counted = any(m.base(meter) == m.REQUESTS for meter, _ in exclusive)
    tokens += [(slot, 1) for slot in sheet.once if slot.meter != m.REQUESTS or not counted]
    return tokens, cut


def _without_sound(prompt: int, details: Mapping[str, int]) -> tuple[int, Mapping[str, int]]:
    """The input less the tokens of sound that no cache held."""
    sound = min(max(0, details.get("audio_tokens", 0) - details.get("cached_audio_tokens", 0)), prompt)
    rest = {name: tokens for name, tokens in details.items() if name != "audio_tokens"}
    return prompt - sound, rest


def _uncovered(
    sheet: Sheet, meters: Iterable[tuple[str, int]], covered: set[str], reported: set[str]
) -> Iterable[tuple[Slot, int]]:
    """The meters without a rate that nothing else prices."""
    for meter, quantity in meters:
        slot = sheet.slot(meter)
        if slot.state is not LineState.UNPRICED or m.base(meter) in (m.REQUESTS, m.REFUSALS):
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


def _input(sheet: Sheet, total: int, details: Mapping[str, int] | UnsetType, parts: _Parts) -> bool:
    """Add the input's parts; tell whether the details exceeded it."""
    split = m.split_input(total, details or _NO_COUNTS, sheet.own)
    _merge(sheet, split.cells, parts)
    return split.cut


def _output(sheet: Sheet, total: int, details: dict[str, int] | UnsetType, parts: _Parts) -> bool:
    split = m.split_output(total, details or _NO_COUNTS, sheet.own)
    _merge(sheet, split.cells, parts)
    return split.cut


def _merge(sheet: Sheet, cells: list[tuple[str, int]], parts: _Parts) -> None:
    """Cells billed on the same line are added up first, so that each line is rounded once."""
    sums: dict[str, int] = {}
    slots: dict[str, Slot] = {}
    for cell, quantity in reversed(cells):  # the plain cell was split last and reads first
        slot = sheet.slots[cell]
        sums[slot.meter] = sums.get(slot.meter, 0) + quantity
        slots[slot.meter] = slot
    parts += [(slots[meter], quantity) for meter, quantity in sums.items()]


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
        return state, f"not priced: {_unpriced(lines)} ({why})"
    if not lines:
        if sheet.reason:
            return CostState.UNKNOWN, sheet.reason
        return CostState.FREE, "the provider reported that nothing was consumed"
    if source is UsageSource.PARTIAL:
        return CostState.PARTIAL, _partly(usage)
    if source is UsageSource.ESTIMATED:
        return CostState.ESTIMATED, _estimated(usage)
    if cut:
        return CostState.ESTIMATED, "the reported details exceed their total; they were cut to it"
    if weight & FELL_BACK:
        return CostState.ESTIMATED, _fell_back(lines)
    return CostState.EXACT, None


def _partly(usage: Usage) -> str:
    """What of the usage is missing, as far as that has a name."""
    named = usage.estimated or ()
    meters = ", ".join(name for name in named if name not in TOTALS)
    parts = ["only part of the usage is known"]
    if meters:
        parts.append(f"the provider does not report {meters}, of which the least is charged")
    if any(name in TOTALS for name in named):
        parts.append(_estimated(usage))
    return "; ".join(parts)


def _estimated(usage: Usage) -> str:
    """What of the usage is an estimate: never a part of it without saying that the rest is not."""
    ours = [name for name in usage.estimated or () if name in TOTALS]
    if not ours or len(ours) == 2:
        return "the usage is an estimate"
    return f"the usage is an estimate in {ours[0]}; the rest is as the provider reported it"


def _fell_back(lines: list[Line]) -> str:
    return "charged at a fallback rate: " + ", ".join([line.meter for line in lines if line.state is _FALLBACK])


def _unpriced(lines: list[Line]) -> str:
    return ", ".join([line.meter for line in lines if line.state is LineState.UNPRICED])
