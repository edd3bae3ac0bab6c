"""Rules that take text out of bodies before they leave the ledger in a cassette.

======== ===============================================================================================================
pointers JSON values that are exchanged for ``"redacted"``; ``request:`` or ``response:`` before a pointer limits it
patterns regular expressions; what they match in any text is exchanged. In JSON every text is looked at, never a name
headers  headers whose value is exchanged: of the parts of forms (a file's name in ``content-disposition``), and those
         of the request that were captured. No other header was ever recorded
======== ===============================================================================================================

Of a stream each frame is looked at for itself, and text that is no JSON as a whole; the cuts between its chunks stay at
the same text. What holds nothing that a rule names stays byte for byte. The rules are written into the cassette: a
request must pass through them before it can match one that did.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from counterfoil.capture.body import Capture
from counterfoil.errors import CallerFault, ConfigError
from counterfoil.wire import canonical
from counterfoil.wire.canonical import EVERY, Pointer
from counterfoil.wire.multipart import boundary_of, is_form, parts_of

REDACTED: Final = "redacted"
_SIDES: Final = ("request", "response")
_DATA = re.compile(rb"(?m)^data:[ ]?([^\r\n]+)")
_FILENAME = re.compile(rb'(?i)(filename\*?=)("(?:[^"\\\r\n]|\\.)*"|[^\s;]+)')

Edit = tuple[int, int, bytes]
"""``body[start:end]`` is exchanged for these bytes."""


class Rules(Struct, frozen=True, omit_defaults=True):
    """What is taken out. Texts as they were given; headers in lower case."""

    pointers: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


class Redactor:
    """Applies rules. Raises :class:`ConfigError` for a rule that is none."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._pointers: dict[str, list[Pointer]] = {side: [] for side in _SIDES}
        for text in rules.pointers:
            side, mark, rest = text.partition(":")
            sides, written = ((side,), rest) if mark and side in _SIDES else (_SIDES, text)
            try:
                segments = canonical.pointer(written)
            except ValueError as error:
                raise ConfigError(f"{text!r} names nothing to redact. {error}") from error
            for one in sides:
                self._pointers[one].append(segments)
        try:
            self._patterns = [re.compile(pattern) for pattern in rules.patterns]
        except re.error as error:
            raise ConfigError(f"{error.pattern!r} is no regular expression: {error}.") from error
        self._headers = {name.lower().encode() for name in rules.headers}

    def request(self, body: bytes, content_type: str) -> bytes:
        """A request's body as a cassette has it."""
        if is_form(content_type):
            return _edited(body, self._form(body, content_type))
        return self._json(body, "request")

    def capture(self, capture: Capture) -> Capture:
        """Both bodies of a call as a cassette has them."""
        if not (self.rules.pointers or self.rules.patterns or self.rules.headers):
            return capture
        fields = tuple(
            (name, REDACTED.encode() if name.lower() in self._headers else value)
            for name, value in capture.request_fields
        )
        response, offsets_us = self._response(capture)
        return msgspec.structs.replace(
            capture,
            request=self.request(capture.request, capture.request_type),
            replayable=None,
            response=response,
            offsets_us=offsets_us,
            request_fields=fields,
        )

    def _response(self, capture: Capture) -> tuple[bytes | tuple[bytes, ...], tuple[int, ...]]:
        body = capture.response_body
        if capture.response_type[:17].lower() == "text/event-stream":
            edits = list(self._frames(body))
        else:
            changed = self._json(body, "response")
            edits = [(0, len(body), changed)] if changed != body else []
        if isinstance(capture.response, bytes):
            return _edited(body, edits), capture.offsets_us
        return _recut(capture.response, capture.offsets_us, edits)

    def _frames(self, body: bytes) -> Iterator[Edit]:
        for found in _DATA.finditer(body):
            data = found[1]
            changed = self._json(data, "response")
            if changed != data:
                yield found.start(1), found.end(1), changed

    def _form(self, body: bytes, content_type: str) -> Iterator[Edit]:
        try:
            parts = parts_of(body, boundary_of(content_type))
        except CallerFault:
            return
        names = {segments[0] for segments in self._pointers["request"]}
        before = 0
        for part in parts:
            yield from self._part_head(body, before, part.start)
            before = part.end
            value = body[part.start : part.end]
            if part.name in names or EVERY in names:
                yield part.start, part.end, REDACTED.encode()
            elif not part.is_file:
                yield part.start, part.end, self._plain(value)

    def _part_head(self, body: bytes, start: int, end: int) -> Iterator[Edit]:
        for name in self._headers:
            for found in re.finditer(rb"(?im)^%b:[ \t]*([^\r\n]*)" % re.escape(name), body[start:end]):
                value = found[1]
                if name == b"content-disposition":
                    changed = _FILENAME.sub(rb'\1"%b"' % REDACTED.encode(), value)
                else:
                    changed = REDACTED.encode()
                yield start + found.start(1), start + found.end(1), changed

    def _json(self, body: bytes, side: str) -> bytes:
        """JSON with its values exchanged; what is none is text; the same bytes when nothing is named."""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return body
        mark = next(letter for letter in map(chr, range(0xE000, 0xF8FF)) if not _holds(text, letter))
        try:
            value = json.loads(text, parse_int=_keeper(mark), parse_float=_keeper(mark))
            changed = self._walk(_exchange(value, self._pointers[side]), mark)
        except (ValueError, RecursionError):
            return self._plain(body)
        if changed == json.loads(text, parse_int=_keeper(mark), parse_float=_keeper(mark)):
            return body
        return _dump(changed, mark)

    def _walk(self, value: Any, mark: str) -> Any:
        """``value`` with the patterns applied to every text, but not to numbers, which have the ``mark``."""
        if isinstance(value, str):
            return value if value.startswith(mark) else self._text(value)
        if isinstance(value, dict):
            return {name: self._walk(member, mark) for name, member in cast("dict[str, Any]", value).items()}
        if isinstance(value, list):
            return [self._walk(element, mark) for element in cast("list[Any]", value)]
        return value

    def _plain(self, data: bytes) -> bytes:
        try:
            return self._text(data.decode()).encode()
        except UnicodeDecodeError:
            return data

    def _text(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        return text


def _exchange(value: Any, pointers: Iterable[Pointer]) -> Any:
    for segments in pointers:
        for holder, key in canonical.places(value, segments):
            holder[key] = REDACTED
    return value


def _keeper(mark: str) -> Callable[[str], str]:
    """Keeps a number as it is spelled, between two marks that the text does not hold."""
    return lambda spelling: f"{mark}{spelling}{mark}"


def _holds(text: str, letter: str) -> bool:
    return letter in text or f"\\u{ord(letter):04x}" in text.lower()


def _dump(value: Any, mark: str) -> bytes:
    numbers = re.compile(f'"{mark}([^"{mark}]*){mark}"')
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return numbers.sub(r"\1", text).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can only hold escaped
        escaped = json.dumps(value, separators=(",", ":")).replace(f"\\u{ord(mark):04x}", mark)
        return numbers.sub(r"\1", escaped).encode()


def _edited(body: bytes, edits: Iterable[Edit]) -> bytes:
    parts: list[bytes] = []
    at = 0
    for start, end, new in sorted(edits):
        parts += (body[at:start], new)
        at = end
    return b"".join((*parts, body[at:]))


def _recut(
    chunks: tuple[bytes, ...], offsets_us: tuple[int, ...], edits: list[Edit]
) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Edited chunks: a cut inside text that was exchanged moves behind it; a chunk left without bytes goes."""
    if not edits:
        return chunks, offsets_us
    body = _edited(b"".join(chunks), edits)
    starts = [start for start, _, _ in edits]
    grown = [0, *accumulate(len(new) - (end - start) for start, end, new in edits)]

    def moved(cut: int) -> int:
        behind = bisect_left(starts, cut)  # the edits that begin before the cut
        if behind and cut < edits[behind - 1][1]:
            cut = edits[behind - 1][1]
        return cut + grown[behind]

    cuts = [moved(cut) for cut in accumulate(map(len, chunks), initial=0)]
    kept = [(a, b, at) for at, (a, b) in enumerate(pairwise(cuts)) if b > a]
    times = tuple(offsets_us[at] for _, _, at in kept) if offsets_us else ()
    return tuple(body[a:b] for a, b, _ in kept), times
