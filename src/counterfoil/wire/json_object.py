r"""The members of a JSON object as slices of its own bytes, so that one value can be exchanged and the rest kept.

A request body is never written anew: only the spans of a few top-level values must be known. The parser (msgspec) says
what the values are but not where, and it lets the last of two equal keys win in silence. Both gaps are closed by one
observation: *compact JSON without repeated or escaped keys has exactly one length*. ::

    {"messages":[…],"model":"m","stream":true}
    1 + Σ (len(key) + 3 + len(value)) + one comma or brace after each value

Whitespace, an escape in a key, a key outside ASCII and a repeated key each make the bytes longer than that sum, and
nothing makes them shorter; so when the sum equals the length, the body is compact, its keys are distinct, and every
value lies where the running sum says. That is the form every SDK sends, and the proof costs one addition a key.

Python's own ``json`` puts a space after every comma and colon. Where the length suggests that, such a body is written
once more from its members, and equality is the proof.

Any other body is walked key by key. The walk needs no JSON parser of its own either: a value that stands at a key must
begin with the very bytes the parser kept for that key (no JSON text is a proper prefix of another, except among
numbers, where the byte that follows decides); if it does not, the parser kept a later one, and the key is repeated.

The parser refuses half a surrogate pair (``"\ud800"``), which some clients send when they cut text, and which most
providers take. Such a body is read in a copy where those escapes stand for other letters: nothing moves.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from counterfoil.errors import CallerFault

_BYTE = re.compile(r"\(byte (\d+)\)")
_SURROGATE = re.compile(rb"\\u[dD](?=[89a-fA-F])")
_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NAMEABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_COMPACT = (3, 1)
_SPACED = (4, 2)
_AFTER_VALUE = b" \t\r\n,}"

_members = msgspec.json.Decoder(dict[str, Raw])
_any = msgspec.json.Decoder(Raw)
_text = msgspec.json.Decoder(str)


class JsonObject:
    """A JSON object by its top-level members: ``values`` as raw bytes, and where each lies in ``body``."""

    __slots__ = ("_gaps", "_starts", "body", "values")

    def __init__(
        self, body: bytes, values: dict[str, Raw], starts: dict[str, int] | None, gaps: tuple[int, int] = (0, 0)
    ) -> None:
        """``starts`` are offsets; without them the members follow each other at the distances ``gaps``.

        Those are the bytes between the letters of a key and its value, quotes included, and from there to the next key.
        """
        self.body = body
        self.values = values
        self._starts = starts
        self._gaps = gaps

    def span(self, key: str) -> tuple[int, int]:
        """Where the value of ``key`` lies in ``body``."""
        if self._starts is not None:
            start = self._starts[key]
            return start, start + len(self.values[key])
        before, behind = self._gaps
        at = 1
        for name, value in self.values.items():
            at += len(name) + before
            if name == key:
                return at, at + len(value)
            at += len(value) + behind
        raise KeyError(key)


def read(body: bytes) -> JsonObject:
    """The object in ``body``.

    Raises :class:`CallerFault`: ``invalid_json`` (also for invalid UTF-8 anywhere), ``not_an_object``,
    ``duplicate_key``, ``nested_too_deeply``. Messages say where, never what.
    """
    if not body.isascii():
        _check_utf8(body)
    try:
        values = _members.decode(body)
    except msgspec.ValidationError as error:
        raise _not_an_object(body) from error
    except msgspec.DecodeError as error:
        masked = _SURROGATE.sub(rb"\\ue", body)
        if masked == body:
            raise _invalid(error) from error
        return _unmask(body, read(masked))
    except RecursionError as error:
        raise CallerFault("nested_too_deeply") from error
    members = len(values)
    if members:
        size = sum(map(len, values)) + sum(map(len, values.values()))
        if size + 4 * members + 1 == len(body):
            return JsonObject(body, values, None, _COMPACT)
        if size + 6 * members == len(body) and _is_spaced(body, values):
            return JsonObject(body, values, None, _SPACED)
    return JsonObject(body, values, _walk(body, values))


def _is_spaced(body: bytes, values: dict[str, Raw]) -> bool:
    """Whether ``json.dumps`` wrote this body with its usual separators."""
    at = 1
    for key, value in values.items():
        before = b'"%b": ' % key.encode() if at == 1 else b', "%b": ' % key.encode()
        if not body.startswith(before, at):
            return False
        at += len(before)
        if not body.startswith(value, at):
            return False
        at += len(value)
    return at == len(body) - 1


def _unmask(body: bytes, masked: JsonObject) -> JsonObject:
    """The members of ``body``, found in a copy of the same length and structure."""
    values = {name: Raw(body[slice(*masked.span(name))]) for name in masked.values}
    starts = {name: masked.span(name)[0] for name in values}
    return JsonObject(body, values, starts)


def _check_utf8(body: bytes) -> None:
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as error:
        message = f"The request body is not valid JSON: not UTF-8 at byte {error.start}."
        raise CallerFault("invalid_json", message) from error


def _not_an_object(body: bytes) -> CallerFault:
    try:
        _any.decode(body)
    except msgspec.DecodeError as error:
        return _invalid(error)
    except RecursionError:
        return CallerFault("nested_too_deeply")
    return CallerFault("not_an_object")


def _invalid(error: msgspec.DecodeError) -> CallerFault:
    """The fault for what the parser said, of which only the position is kept."""
    found = _BYTE.search(str(error))
    where = f"error at byte {found[1]}" if found else "it ends too early"
    return CallerFault("invalid_json", f"The request body is not valid JSON: {where}.")


def _walk(body: bytes, values: dict[str, Raw]) -> dict[str, int]:
    """The offset of each value in a valid object of any spelling. Raises ``duplicate_key``."""
    starts: dict[str, int] = {}
    at = _skip(body, _skip(body, 0) + 1)
    while body[at] != 0x7D:  # }
        key, key_end = _key(body, at)
        at = _skip(body, _skip(body, key_end) + 1)
        value = bytes(values[key])
        end = at + len(value)
        if key in starts or not body.startswith(value, at) or body[end] not in _AFTER_VALUE:
            raise _duplicate(key)
        starts[key] = at
        at = _skip(body, end)
        if body[at] == 0x2C:  # ,
            at = _skip(body, at + 1)
    return starts


def _skip(body: bytes, at: int) -> int:
    """The first byte from ``at`` on that is no whitespace; within an object there always is one."""
    if body[at] > 0x20:
        return at
    if body[at + 1] > 0x20:
        return at + 1
    found = _SPACE.match(body, at)
    return found.end() if found else at


def _key(body: bytes, at: int) -> tuple[str, int]:
    """The key that begins at ``at``, and where it ends."""
    end = body.find(b'"', at + 1) + 1
    written = body[at + 1 : end - 1]
    if b"\\" not in written:
        return str(written, "utf-8"), end
    found = _STRING.match(body, at)
    if found is None:  # the parser accepted these bytes, so a key begins here
        raise CallerFault("invalid_json", f"The request body is not valid JSON: error at byte {at}.")
    return _text.decode(found[0]), found.end()


def _duplicate(key: str) -> CallerFault:
    return CallerFault("duplicate_key", param=key if _NAMEABLE.match(key) else None)


def tail_object(tail: bytes, key: bytes) -> bytes:
    """The last object that stands at ``"key":`` in the end of a JSON text, or nothing when there is none.

    For texts too long to keep: of ``…,"usage":{…},"user":null}`` only the end is there, so it cannot be parsed from its
    beginning. A quoted key followed by a colon cannot occur inside a JSON string, where quotes are escaped.
    """
    places = list(re.finditer(rb'"%b"\s*:\s*(?=\{)' % re.escape(key), tail))
    for found in reversed(places[-_TAIL_OBJECTS_MAX:]):
        end = _object_end(tail, found.end())
        if end:
            return tail[found.end() : end]
    return b""


_TAIL_OBJECTS_MAX = 8
"""So many places are tried, from the end: each costs a walk to the end, and a tail could be nothing but beginnings."""

_STRUCTURE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}]', re.DOTALL)


def _object_end(data: bytes, start: int) -> int:
    """Where the object that begins at ``start`` ends; 0 when it does not."""
    depth = 0
    for found in _STRUCTURE.finditer(data, start):
        mark = found[0]
        if mark == b"{":
            depth += 1
        elif mark == b"}":
            depth -= 1
            if depth == 0:
                return found.end()
    return 0
