"""Values out of foreign JSON, taken only when they are what they should be.

Providers send what they like: a number as text, ``null`` for a list, ``true`` for a count. These readers give a value
of the type that was asked for or nothing, so that no answer, however odd, can break a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

TEXT_MAX = 256
"""Ids, model names and words from a provider are kept up to this many characters; none known is longer than 100."""

COUNT_MAX = 1 << 50
"""No honest count is larger; what is larger is treated as a lie."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError)
"""What a decoder with exact fractions raises; ArithmeticError for an exponent beyond any Decimal."""

_OBJECT: Any = dict  # tested for under these names, a value stays Any: a cast would cost as much as the test
_ARRAY: Any = list
_decoder = msgspec.json.Decoder(float_hook=Decimal)


def parse(data: bytes | msgspec.Raw) -> Any:
    """The JSON value in ``data`` with every fraction as an exact Decimal, or None when it is not JSON."""
    try:
        return _decoder.decode(data)
    except UNREADABLE:
        return None


def mapping(value: Any) -> dict[str, Any]:
    """``value`` when it is an object, else an empty one."""
    return value if isinstance(value, _OBJECT) else {}


def sequence(value: Any) -> list[Any]:
    """``value`` when it is an array, else an empty one."""
    return value if isinstance(value, _ARRAY) else []


def text(value: object) -> str | None:
    """``value`` when it is text worth keeping: not empty, without control characters, of bearable length."""
    if isinstance(value, str) and 0 < len(value) <= TEXT_MAX and value.isprintable():
        return value
    return None


def enum(value: object, names: Sequence[str]) -> str | None:
    """The name of an enumeration's value, as text or as its number; numbers without one of ``names`` stay numbers.

    Zero is every enumeration's *unspecified*, which says nothing (proto3).
    """
    if type(value) is not int:
        return text(value)
    if 0 < value < len(names):
        return names[value]
    return str(value) if 0 < value <= COUNT_MAX else None


def count(value: object) -> int | None:
    """``value`` when it is an honest count."""
    if type(value) is int and 0 <= value <= COUNT_MAX:
        return value
    return None


def decimal(value: object) -> Decimal | None:
    """``value`` as an exact, finite, non-negative number of bearable size; numbers in text count too."""
    if isinstance(value, str):
        try:
            value = Decimal(value) if len(value) <= 40 else None
        except ArithmeticError:
            return None
    if type(value) is int:
        value = Decimal(value) if abs(value) <= COUNT_MAX else None
    if isinstance(value, Decimal) and value.is_finite() and 0 <= value <= COUNT_MAX:
        return value
    return None
