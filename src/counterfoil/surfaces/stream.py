r"""What every metered stream has in common: which bytes may leave, when, and which of them are read.

Tokens must not wait and most frames tell nothing but text, so the middle of a stream takes the *quick way*: a piece
that consists of whole frames, ends in a JSON frame and holds none of the protocol's telling words leaves as it came,
at the cost of a few searches. A telling word followed by ``null`` does not count (OpenAI repeats ``"usage":null`` in
every frame). Inside JSON text a quote is always written ``\"``, so a word with its quotes can only be a key or a value;
what generated text says never matters, at worst it costs a closer look.

Most pieces need not even that. The frames of one stream differ only in their text (and in OpenAI's random padding), so
what surrounds the text in a piece that told nothing is kept as a template. A later piece that equals the template but
for text without a quote in it is the same JSON with other text; it tells nothing either, and that takes one comparison.

Everything else is cut into frames and judged one by one:

========  =========================================================================================================
PASS      leaves at once (behind frames kept back, if there are any)
DROP      is withheld for good: the usage frame that we asked for and the client did not
LAST      may be the last thing the client sees: it and what follows stay until :meth:`StreamMeter.end`
MORE      output after such a frame: what was kept back leaves, and this stays in its place
END       the protocol's end marker: it and everything behind it stay until :meth:`StreamMeter.end`
========  =========================================================================================================

LAST serves protocols without an end marker (Gemini) and errors, after which most providers just stop. What gathers
behind END is bounded by the gateway, which calls :meth:`StreamMeter.end` as soon as its record is durable; what gathers
behind LAST is let go above :data:`HELD_MAX` bytes, save the newest frame.

Bytes are never rewritten: all that :meth:`StreamMeter.push` and :meth:`StreamMeter.end` give, in order, is what the
provider sent, minus dropped frames.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from counterfoil.record.usage import UsageSource
from counterfoil.surfaces import metering
from counterfoil.surfaces.base import Call, Reading
from counterfoil.surfaces.complaint import Complaint, code_of, complaint_in, complaint_of, stream_code_of
from counterfoil.surfaces.foreign import mapping, parse, text
from counterfoil.wire.sse import PENDING_MAX, Cutter, fields

HELD_MAX = PENDING_MAX
"""Frames kept back behind one that may be the last are at most so many bytes, or one frame."""

_NEVER = b"\x00"
_LESSONS = 16
"""Templates are learned so many times a stream; where every frame differs, trying on is wasted."""

_CLOSED = (b"}\n\n", b"}\r\n\r\n")
_CLOSING = (b"}", b"]")
_EVENTS = (b"data:", b"event:")
_NULLS = (b":null", b": null")


class Verdict(Enum):
    """What becomes of a frame; see the module."""

    PASS = 0
    DROP = 1
    LAST = 2
    MORE = 3
    END = 4


PASS, DROP, LAST, MORE, END = Verdict


def telling(*words: bytes) -> tuple[tuple[bytes, int], ...]:
    """Telling words with their lengths, as :class:`StreamMeter` wants them."""
    return tuple((word, len(word)) for word in words)


class StreamMeter:
    """The shared half of every meter. A protocol gives :meth:`event`, :meth:`long` and :meth:`body`.

    ``_reading`` is filled while the answer passes; ``_usage`` holds the provider's newest usage object.
    """

    words: ClassVar[tuple[tuple[bytes, int], ...]] = ()
    holes: ClassVar[tuple[bytes, bytes]] = (b"", b"")

    # How every stream begins; here and not in each meter, because most answers are no streams.
    _quick = False
    _before, _before_size = _NEVER, len(_NEVER)
    _between, _between_size = b"", 0
    _after, _after_size = b"", 0
    _last = b""
    _ended = False
    _usage_final = False

    def __init__(self, call: Call) -> None:
        self.output_seen = False
        self.terminal = False
        self.endings = 0
        self._call = call
        self._cutter = Cutter()
        self._lessons = _LESSONS if self.holes[0] else 0
        self._held: list[bytes] = []
        self._reading = Reading(complete=False)
        self._usage: dict[str, Any] = {}

    # What a protocol knows.

    def event(self, name: bytes, data: bytes) -> Verdict:
        """Read one frame by its event name and data."""
        raise NotImplementedError

    def long(self, head: bytes, tail: bytes) -> Verdict:
        """Judge a frame too long to hold by its beginning and its end. DROP is not possible any more."""
        return PASS

    def body(self, body: Any) -> None:
        """Read the parsed JSON of a unary answer with status < 400."""
        raise NotImplementedError

    def settle(self) -> None:
        """Fill the reading from what was seen, usage above all. May be called more than once."""
        reading = self._reading
        reading.usage = metering.usage_of(self._usage)
        if reading.service_tier is None and "service_tier" in self._usage:  # Mistral's
            reading.service_tier = text(self._usage["service_tier"])
        if not self._usage.keys().isdisjoint(metering.COSTS):
            reading.provider_cost_nanos = metering.cost_nanos_of(self._usage)

    # What the gateway calls.

    def push(self, data: bytes) -> bytes:
        """Take the next bytes of the body; give those that may leave now."""
        if self._quick:
            if data.startswith(self._before):
                at = data.find(b'"', self._before_size)
                if data.startswith(self._between, at):
                    at += self._between_size
                    size = len(data) - self._after_size
                    if (at == size or data.find(b'"', at) == size) and data.endswith(self._after):
                        return data
            if not self._tells(data):
                self._last = data
                if self._lessons:
                    self._learn(data)
                return data
        return self._push(data)

    def end(self) -> bytes:
        """Give every byte still kept back that the client may have. Bytes pushed later pass untouched."""
        leaving: list[bytes] = []
        if not self._ended:
            self._ended = True
            self._quick = False
            rest = self._cutter.rest()
            if rest is not None and rest.head and not rest.raw.rstrip().endswith(_CLOSING):
                self._held.append(rest.raw)  # broken off: what its beginning announced did not come
            elif rest is not None:
                leaving.append(self._take(rest.raw, rest.head))
            leaving += self._held
            self._held.clear()
        return b"".join(leaving)

    def whole(self, status: int, body: bytes) -> None:
        """Read a unary answer."""
        self._reading.complete = True
        if status >= 400:
            found = complaint_of(status, body)
            self._reading.error_code = code_of(found.status or status, found)
            self._reading.error_message = found.text()
        elif body.startswith(_EVENTS) and (frames := Cutter().push(body.rstrip() + b"\n\n")):
            for frame in frames:  # a stream that calls itself JSON
                self._judge(frame.raw, frame.head)
        else:
            self.body(parse(body))

    def reading(self) -> Reading:
        """What is known now."""
        self.settle()
        reading = self._reading
        reading.has_output = reading.has_output or self.output_seen
        if reading.usage.source is UsageSource.REPORTED and not (reading.complete or self._usage_final):
            reading.usage = metering.partial(reading.usage)
        return reading

    # The slow way.

    def _push(self, data: bytes) -> bytes:
        if self._ended:
            return data
        cutter = self._cutter
        if cutter.alone(data):
            leaving = self._take(data, b"")
        else:
            leaving = b"".join([self._take(frame.raw, frame.head) for frame in cutter.push(data)])
            overflow = cutter.overflow()
            if overflow:
                leaving += self._hold(overflow) if self._held or self.terminal else overflow
        self._quick = self.output_seen and not self._held and not self.terminal and cutter.idle
        return leaving

    def _learn(self, data: bytes) -> None:
        """Keep what surrounds the text in ``data``, which passed the words."""
        self._lessons -= 1
        text_hole, pad_hole = self.holes
        before = data.find(text_hole) + len(text_hole)
        if before < len(text_hole):
            return
        between = data.find(b'"', before)
        pad = data.find(pad_hole, between) if pad_hole else -1
        after = data.find(b'"', pad + len(pad_hole)) if pad >= 0 else len(data)
        self._before, self._before_size = data[:before], before
        self._between = data[between : pad + len(pad_hole)] if pad >= 0 else data[between:]
        self._between_size = len(self._between)
        self._after, self._after_size = data[after:], len(data) - after

    def _take(self, raw: bytes, head: bytes) -> bytes:
        """Judge one frame (its end, when ``head`` shows that it is long); what leaves because of it."""
        if self.terminal:
            return self._hold(raw)
        verdict = self._judge(raw, head)
        if verdict is PASS and not self._held:
            return raw
        if verdict is DROP:
            return b""
        leaving = self._hold(raw, first=verdict is MORE)
        if verdict is END:
            self.terminal = True
            self.endings += 1
        return leaving

    def _hold(self, raw: bytes, *, first: bool = False) -> bytes:
        """Keep ``raw`` back, as the ``first`` when what was kept before may leave; what leaves because of it."""
        held = self._held
        leaving = b""
        if first or (not self.terminal and held and sum(map(len, held)) > HELD_MAX):
            leaving = b"".join(held)
            held.clear()
        held.append(raw)
        return leaving

    def _judge(self, raw: bytes, head: bytes) -> Verdict:
        if head:
            return self.long(head, raw)
        if self.output_seen and not self._held and not self._tells(raw):
            self._last = raw
            return PASS
        name, data = fields(raw)
        return self.event(name, data) if data or name else PASS

    def _tells(self, raw: bytes) -> bool:
        """Whether a frame must be read: it is not plain JSON data, or holds a telling word that is not null."""
        if not raw.endswith(_CLOSED):
            return True
        for word, size in self.words:
            at = raw.find(word)
            while at >= 0:
                if not raw.startswith(_NULLS, at + size):
                    return True
                at = raw.find(word, at + size)
        return False

    # For protocols.

    def note(self, body: dict[str, Any], id_name: str = "id", model_name: str = "model") -> None:
        """Keep the answer's own id, model and tier: the first that are not empty; the tier as last said."""
        reading = self._reading
        reading.native_response_id = reading.native_response_id or text(body.get(id_name))
        reading.native_model = reading.native_model or text(body.get(model_name))
        reading.service_tier = text(body.get("service_tier")) or reading.service_tier

    def complain(self, body: Any) -> Verdict:
        """Keep an error that came inside the answer; nothing that follows leaves before the record is made."""
        found = complaint_in(body) or Complaint("", "", None)
        self._reading.error_code = stream_code_of(found)
        self._reading.error_message = found.text() or "The provider reported an error without a message."
        return LAST

    def merge_usage(self, usage: object) -> bool:
        """Lay a usage object over what was seen before; nulls cover nothing. False when it is not one."""
        known = {name: value for name, value in mapping(usage).items() if value is not None}
        if known:
            self._usage = {**self._usage, **known}
        return bool(known)
