"""Usages of one shape, compiled: which lines a usage with such details makes, and from which counts.

Nearly all calls of a model have details of the same few names (*shape*), so what has to be found out about the names is
found out once per sheet and shape, and a call is a walk over ready parts: a quantity by subtraction, a product, a line.
The result is that of the thorough split (``meters``, ``charging``), which is asked whenever the counts contradict each
other; a property test holds the two equal for any usage.

Rejected: code generated per shape, in which nobody could read a price, and caching charges by usage, because two calls
hardly ever agree in all counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import UnsetType

from counterfoil.pricing import meters as m
from counterfoil.record.charge import LineState

if TYPE_CHECKING:
    from counterfoil.pricing.sheet import Sheet, Slot

SHAPES_MAX: Final = 256
"""Shapes remembered per sheet and side: their names come from providers. Further ones are compiled for each call."""

ROUNDED: Final = -1
SPECIAL: Final = -2
"""Instead of :attr:`Part.each`: the amount must be rounded; the slot makes several lines, or another quantity."""


class Term(NamedTuple):
    """A count less those of other names that lie inside it."""

    name: str
    less: tuple[str, ...] = ()


class Part(NamedTuple):
    """One line in the making: where its quantity comes from and all else that it says.

    ``each`` is the price of one unit in whole nanos, where it is whole: then nothing needs rounding. ``more`` are
    further counts that are billed on the same line.
    """

    name: str
    less: tuple[str, ...]
    more: tuple[Term, ...]
    each: int
    meter: str
    size: int
    price: int
    rule: str
    state: LineState
    reason: str | UnsetType
    weight: int
    slot: Slot


class Shape(NamedTuple):
    """The parts of one side's details, in the order of their lines. What no part takes is the side's plain rest.

    ``inside`` names counts that together must not exceed that of ``around``, else the details contradict each other.
    """

    parts: tuple[Part, ...]
    around: str = ""
    inside: tuple[str, ...] = ()


def part_of(slot: Slot, terms: tuple[Term, ...]) -> Part:
    """The part that charges ``terms`` at ``slot``."""
    each = SPECIAL if slot.special else ROUNDED if slot.price % slot.size else slot.price // slot.size
    name, less = terms[0]
    return Part(
        name,
        less,
        terms[1:],
        each,
        slot.meter,
        slot.size,
        slot.price,
        slot.rule,
        slot.state,
        slot.reason,
        slot.weight,
        slot,
    )


class Shapes:
    """The shapes of one sheet, made when first seen. Safe to share between threads: it only remembers."""

    __slots__ = ("_inputs", "_meters", "_outputs", "_sheet", "once", "plain_input", "plain_output")

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self._inputs: dict[tuple[str, ...], Shape | None] = {}
        self._outputs: dict[tuple[str, ...], Shape | None] = {}
        self._meters: dict[tuple[str, ...], Shape | None] = {}
        self.plain_input = part_of(sheet.input, (Term(""),))
        self.plain_output = part_of(sheet.output, (Term(""),))
        self.once = tuple(part_of(slot, (Term(""),)) for slot in sheet.once)

    def input(self, details: Mapping[str, int]) -> Shape | None:
        """The shape of these details of the input; None where only the thorough split can tell."""
        names = (*details,)
        found = self._inputs.get(names)
        if found is None and names not in self._inputs:
            found = _remembered(self._inputs, names, self._shape(m.input_terms(names, self._sheet.own)))
        return found

    def output(self, details: Mapping[str, int]) -> Shape | None:
        """The shape of these details of the output."""
        names = (*details,)
        found = self._outputs.get(names)
        if found is None and names not in self._outputs:
            found = _remembered(self._outputs, names, self._shape(m.output_terms(names, self._sheet.own)))
        return found

    def meters(self, meters: Mapping[str, int]) -> Shape | None:
        """The shape of what was measured beside the tokens; None where a meter may stand for tokens."""
        names = (*meters,)
        found = self._meters.get(names)
        if found is None and names not in self._meters:
            found = _remembered(self._meters, names, self._beside(names))
        return found

    def _shape(self, split: m.Terms) -> Shape | None:
        """``split`` with its cells' slots, and cells of one meter on one line."""
        terms: dict[str, tuple[Term, ...]] = {}
        slots: dict[str, Slot] = {}
        last = ""
        for cell, name, less in reversed(split.cells):  # the order of lines: the plain cell's neighbours first
            slot = self._sheet.slots[cell]
            meter = slot.meter
            if meter in terms and meter != last:
                return None  # which of its cells decides the place of the line depends on the counts
            terms[meter] = (*terms.get(meter, ()), Term(name, less))
            slots[meter] = slot
            last = meter
        return Shape(tuple(part_of(slots[meter], found) for meter, found in terms.items()), split.around, split.inside)

    def _beside(self, names: Iterable[str]) -> Shape | None:
        sheet = self._sheet
        priced: list[Part] = []
        unpriced: list[Part] = []
        for name in sorted(names):
            slot = sheet.slot(name)
            missing = slot.state is LineState.UNPRICED
            whole = sheet.input if slot.side == "input" else sheet.output if slot.side == "output" else None
            if (
                m.base(name) == m.REQUESTS
                or name == m.REFUSALS
                or (whole is not None and (missing or whole.state is LineState.UNPRICED))
            ):
                return None  # whether it stands for tokens, or tokens for it, depends on the counts
            less = () if "." in name else tuple(other for other in sorted(names) if other.startswith(name + "."))
            (unpriced if missing else priced).append(part_of(slot, (Term(name, less),)))
        return Shape((*priced, *unpriced))


def _remembered(
    shapes: dict[tuple[str, ...], Shape | None], names: tuple[str, ...], shape: Shape | None
) -> Shape | None:
    if len(shapes) < SHAPES_MAX:
        shapes[names] = shape
    return shape
