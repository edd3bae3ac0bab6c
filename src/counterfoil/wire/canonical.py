r"""The canonical form of a request body: what two bodies that ask for the same thing have in common, byte for byte.

Of JSON: white space, the order of members, the spelling of a text (``"\u00e9"`` or ``"é"``) and of a number (``1``,
``1.0``, ``1e0``) do not matter; everything else does. Numbers are compared exactly, however long they are. Of two
members with one name the last counts, as it does for most providers. Of a form: the parts by field name (those of one
name in their order), a file by the SHA-256 of its bytes; the boundary, file names and the parts' own headers do not
matter. Anything else is its bytes.

Members can be left out by JSON pointer (RFC 6901); a segment ``*`` stands for every member or element.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

from counterfoil.errors import CallerFault
from counterfoil.wire.multipart import boundary_of, is_form, parts_of
from counterfoil.wire.pointer import split

Pointer = tuple[str, ...]
"""A JSON pointer by its segments, unescaped. The empty one is the whole document."""

EVERY: Final = "*"
POINTERS_MAX: Final = 32
"""Pointers of one list; each costs a walk, and a list of more is a mistake."""
POINTER_CHARACTERS_MAX: Final = 256

_INTEGER_DIGITS_MAX: Final = 18
_SPELLING_MAX: Final = 4096
"""A number longer than this is compared by its spelling: nobody computes with it."""

_EXACT: Final = "\0number"
"""Marks, in a parsed body, a number that neither an int of ordinary size nor a float holds exactly."""

_MISSING: Final[Any] = object()


def pointer(text: str) -> Pointer:
    """The segments of a JSON pointer. Raises :class:`ValueError` for what is none."""
    if not text.startswith("/") or len(text) > POINTER_CHARACTERS_MAX:
        raise ValueError(f"A JSON pointer begins with / and has at most {POINTER_CHARACTERS_MAX} characters.")
    return tuple(split(text))


def pointers(text: str) -> tuple[Pointer, ...]:
    """The pointers in a comma-separated list, each once, in a fixed order. Raises :class:`ValueError`."""
    found = {pointer(part.strip()) for part in text.split(",") if part.strip()}
    if len(found) > POINTERS_MAX:
        raise ValueError(f"A list has at most {POINTERS_MAX} JSON pointers.")
    return tuple(sorted(found))


def parse(body: bytes, content_type: str) -> Any:
    """What ``body`` says, as JSON values; text of a fixed form where it is neither JSON nor a form."""
    if is_form(content_type):
        try:
            return _form(body, content_type)
        except CallerFault:
            return {"bytes": hashlib.sha256(body).hexdigest()}
    try:
        return json.loads(body, parse_int=_number, parse_float=_number, parse_constant=_constant)
    except (ValueError, RecursionError):
        return {"bytes": hashlib.sha256(body).hexdigest()}


def without(value: Any, ignored: Iterable[Pointer]) -> Any:
    """``value`` less what the pointers name. ``value`` itself is changed; what is not there is passed over."""
    for segments in ignored:
        _drop(value, segments)
    return value


def encode(value: Any) -> bytes:
    """The canonical bytes of a parsed body. Raises :class:`RecursionError` for one nested beyond all reason."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def canonical(body: bytes, content_type: str, ignored: Iterable[Pointer] = ()) -> bytes:
    """The canonical bytes of a request body."""
    try:
        return encode(without(parse(body, content_type), ignored))
    except RecursionError:
        return hashlib.sha256(body).digest()


def differences(one: Any, other: Any) -> Iterator[Pointer]:
    """Where two parsed bodies differ: the deepest pointers, those of ``one`` first, in its order."""
    yield from _differences((), one, other)


def _differences(at: Pointer, one: Any, other: Any) -> Iterator[Pointer]:
    if type(one) is not type(other) or not isinstance(one, dict | list):
        if one != other:
            yield at
        return
    left, right = _members(one), _members(other)
    for name, value in left.items():
        if name in right:
            yield from _differences((*at, name), value, right[name])
        else:
            yield (*at, name)
    for name in right:
        if name not in left:
            yield (*at, name)


def _members(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    return {str(index): element for index, element in enumerate(cast("list[Any]", value))}


def places(value: Any, segments: Pointer) -> Iterator[tuple[Any, Any]]:
    """Each holder and key in ``value`` that a pointer leads to."""
    name, rest = segments[0], segments[1:]
    for key in _named(value, name):
        if rest:
            yield from places(value[key], rest)
        else:
            yield value, key


def _drop(value: Any, segments: Pointer) -> None:
    found = list(places(value, segments))
    for holder, key in found:
        holder[key] = _MISSING
    for holder, _ in found:
        _sweep(holder)


def _named(value: Any, name: str) -> list[Any]:
    """The keys of ``value`` that a segment stands for."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return list(members) if name == EVERY else [name] if name in members else []
    if isinstance(value, list):
        count = len(cast("list[Any]", value))
        if name == EVERY:
            return list(range(count))
        return [int(name)] if name.isascii() and name.isdigit() and len(name) < 7 and int(name) < count else []
    return []


def _sweep(value: Any) -> None:
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        for key in [key for key, member in members.items() if member is _MISSING]:
            del members[key]
    elif isinstance(value, list):
        elements = cast("list[Any]", value)
        elements[:] = [element for element in elements if element is not _MISSING]


def _number(spelling: str) -> Any:
    """A number in one form for every spelling of its value, and in different ones for different values."""
    if len(spelling) <= _INTEGER_DIGITS_MAX and spelling.lstrip("-").isdigit():
        return int(spelling)
    if len(spelling) > _SPELLING_MAX:
        return (_EXACT, spelling)
    try:
        number = Decimal(spelling)
    except InvalidOperation:  # an exponent beyond what anybody computes with
        return (_EXACT, spelling)
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        return (_EXACT, spelling)
    text = "".join(map(str, digits)).lstrip("0")
    kept = text.rstrip("0")
    exponent += len(text) - len(kept)
    if not kept:
        return 0
    if exponent >= 0 and len(kept) + exponent <= _INTEGER_DIGITS_MAX:
        return int(kept + "0" * exponent) * (-1 if sign else 1)
    return (_EXACT, f"{'-' if sign else ''}{kept}e{exponent}")


def _constant(spelling: str) -> Any:
    raise ValueError(f"{spelling} is no JSON.")


def _form(body: bytes, content_type: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for part in parts_of(body, boundary_of(content_type)):
        value = body[part.start : part.end]
        shown = {"sha256": hashlib.sha256(value).hexdigest()}
        if not part.is_file:
            shown = {"text": value.decode("utf-8", "surrogateescape")}
        found.setdefault(part.name, []).append(shown)
    return found
