r"""Cassettes: recordings in one file that a test suite can commit. The format, version 1.

A cassette is UTF-8 text, one JSON object a line, so that a changed answer is a few changed lines in a diff::

    {"cassette":"counterfoil","version":1}                                what was left out or taken out, if anything
    {"generation":"gen_…","endpoint":"/v1/chat/completions",…}            a recording begins
    {"request":"application/json"}                                        its request's media type, then its body
    {"text":"{\"model\":…}"}
    {"response":200,"type":"text/event-stream","stream":true}             the answer's head, then its body
    {"at_us":412300,"text":"data: {\"id\":…}\n\n"}                        of a stream: one line a chunk, or more

A body is the concatenation of its lines: ``text`` where the bytes are UTF-8, ``base64`` where they are not. Text is
broken at its line ends, at most :data:`LINES_MAX` times a body. In a stream a line with ``at_us`` (microseconds since
dispatch) or ``chunk`` (true, where no time was kept) begins a chunk; a line without continues it. So every body comes
back byte for byte and chunk for chunk, whatever a test suite's tools do to line ends of *files*: a body's own are
escaped.

The first line may hold ``ignore`` (JSON pointers left out of the match) and ``redact`` (the rules that were applied;
``redact.py``). Unknown members are refused in the first line, where they would change what is matched, and passed over
in the others.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from counterfoil.capture.body import Capture
from counterfoil.capture.recording import Recording, playable
from counterfoil.errors import ConfigError
from counterfoil.ledger.recordings import NOBODY
from counterfoil.record.record import CaptureState
from counterfoil.replay.redact import Redactor, Rules
from counterfoil.wire import canonical
from counterfoil.wire.canonical import Pointer
from counterfoil.wire.pointer import joined

VERSION: Final = 1
LINES_MAX: Final = 10_000
"""Lines that one body is broken into; the rest of it is the last one."""
CASSETTE_BYTES_MAX: Final = 1 << 30

_encode = msgspec.json.Encoder().encode


class Interaction(Struct, frozen=True):
    """One recording: the call's endpoint (with its query), when it was recorded, and what can be played."""

    endpoint: str
    created_at: str
    recording: Recording


class Cassette(Struct, frozen=True):
    """What a file holds: its recordings in their order, what does not count in the match, what was taken out."""

    interactions: tuple[Interaction, ...]
    ignored: tuple[Pointer, ...] = ()
    rules: Rules = Rules()


class _Head(Struct, forbid_unknown_fields=True, omit_defaults=True):
    cassette: str
    version: int
    ignore: tuple[str, ...] = ()
    redact: Rules | UnsetType = UNSET


class _Line(Struct, omit_defaults=True):
    """Any line after the first."""

    generation: str | None = None
    endpoint: str = ""
    model_id: str = "unknown"
    created_at: str = ""
    generation_ms: float = 0.0
    success: bool = True
    request: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    response: int | None = None
    type: str = ""
    stream: bool = False
    at_us: int | None = None
    chunk: bool = False
    text: str | None = None
    base64: str | None = None


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_line = msgspec.json.Decoder(_Line).decode


def lines(cassette: Cassette) -> Iterator[bytes]:
    """The lines of a cassette's file, each with its end. What its rules name has to be taken out before."""
    ignore = tuple(joined(segments) for segments in cassette.ignored)
    rules = UNSET if cassette.rules == Rules() else cassette.rules
    yield _encode(_Head("counterfoil", VERSION, ignore, rules)) + b"\n"
    for interaction in cassette.interactions:
        for line in _interaction(interaction):
            yield _encode(line) + b"\n"


def write(path: Path, cassette: Cassette) -> None:
    """Write a cassette to ``path``, whole or not at all. Raises :class:`ConfigError` when that fails."""
    draft = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.writelines(lines(cassette))
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"The cassette {path} cannot be written ({error.strerror or error}).") from error


def read(path: Path) -> Cassette:
    """The cassette at ``path``. Raises :class:`ConfigError` that names the line for a file that is none."""
    try:
        if path.stat().st_size > CASSETTE_BYTES_MAX:
            raise ConfigError(f"The cassette {path} is larger than {CASSETTE_BYTES_MAX >> 20} MiB.")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The cassette {path} cannot be read ({error.strerror or error}).") from error
    return parse(data, str(path))


def parse(data: bytes, name: str = "The cassette") -> Cassette:
    """The cassette in ``data``. Raises :class:`ConfigError` that names the line."""
    numbered = ((number, line.strip()) for number, line in enumerate(data.split(b"\n"), 1))
    filled = [(number, line) for number, line in numbered if line]
    try:
        head = _decode_head(filled[0][1])
        if head.cassette != "counterfoil" or head.version != VERSION:
            raise ValueError(f"it has version {head.version}, and this Counterfoil reads version {VERSION}")
        ignored = canonical.pointers(",".join(head.ignore))
        rules = Rules() if head.redact is UNSET else head.redact
        Redactor(rules)
    except IndexError as error:
        raise ConfigError(f"{name} is empty.") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{name} is no cassette that can be read: {error}.") from error
    interactions: list[Interaction] = []
    builder: _Builder | None = None
    for number, line in filled[1:]:
        try:
            decoded = _decode_line(line)
            if decoded.generation is not None:
                if builder is not None:
                    interactions.append(builder.built())
                builder = _Builder(decoded)
            elif builder is None:
                raise ValueError("a recording begins with its generation")
            else:
                builder.add(decoded)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ConfigError(f"{name}, line {number}: {error}.") from error
    try:
        interactions += [builder.built()] if builder is not None else []
    except ValueError as error:
        raise ConfigError(f"{name} ends too early: {error}.") from error
    return Cassette(tuple(interactions), ignored, rules)


class _Builder:
    """One recording as its lines come."""

    def __init__(self, head: _Line) -> None:
        self._head = head
        self._request: _Line | None = None
        self._response: _Line | None = None
        self._sent: list[bytes] = []
        self._chunks: list[list[bytes]] = []
        self._times: list[int] = []

    def add(self, line: _Line) -> None:
        if line.request is not None:
            self._request = line
        elif line.response is not None:
            self._response = line
        elif self._response is not None:
            if line.at_us is not None or line.chunk or not self._chunks:
                self._chunks.append([])
                self._times += [line.at_us] if line.at_us is not None else []
            self._chunks[-1].append(_bytes(line))
        else:
            self._sent.append(_bytes(line))

    def built(self) -> Interaction:
        head, request, response = self._head, self._request, self._response
        if request is None or response is None or response.response is None:
            raise ValueError(f"the recording {head.generation} has no request or no response")
        if self._times and len(self._times) != len(self._chunks):
            raise ValueError(f"of the recording {head.generation} some chunks have a time and some have none")
        chunks = tuple(b"".join(parts) for parts in self._chunks)
        capture = Capture(
            b"".join(self._sent),
            request.request or "",
            None,
            chunks if response.stream else b"".join(chunks),
            response.type,
            response.response,
            tuple(self._times) if response.stream else (),
            tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in request.fields),
        )
        name = head.generation or ""
        recording = Recording(name, head.model_id, capture, head.generation_ms, head.success)
        return Interaction(head.endpoint, head.created_at, recording)


def _interaction(interaction: Interaction) -> Iterator[_Line]:
    recording = interaction.recording
    capture = recording.capture
    yield _Line(
        generation=recording.generation_id,
        endpoint=interaction.endpoint,
        model_id=recording.model_id,
        created_at=interaction.created_at,
        generation_ms=recording.generation_ms,
        success=recording.success,
    )
    fields = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in capture.request_fields)
    yield _Line(request=capture.request_type, fields=fields)
    yield from _body(capture.request)
    response = capture.response
    streamed = not isinstance(response, bytes)
    yield _Line(response=capture.response_status, type=capture.response_type, stream=streamed)
    if isinstance(response, bytes):
        yield from _body(response)
        return
    for index, chunk in enumerate(response):
        first = {"at_us": capture.offsets_us[index]} if capture.offsets_us else {"chunk": True}
        for line in _body(chunk) or [_Line(text="")]:
            yield msgspec.structs.replace(line, **first)
            first = {}


def _body(data: bytes) -> list[_Line]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return [_Line(base64=b64encode(data).decode())]
    return [_Line(text=part) for part in _broken(text)]


def _broken(text: str) -> Iterable[str]:
    """``text`` broken behind its line feeds, but not between the line feeds that end an event."""
    parts = text.split("\n", LINES_MAX)
    whole = [part + "\n" for part in parts[:-1]] + parts[-1:]
    joined: list[str] = []
    for part in whole:
        if part == "\n" and joined:
            joined[-1] += part
        elif part:
            joined.append(part)
    return joined


def _bytes(line: _Line) -> bytes:
    if line.text is not None:
        return line.text.encode()
    if line.base64 is None:
        raise ValueError("a line of a body has text or base64")
    try:
        return b64decode(line.base64, validate=True)
    except binascii.Error as error:
        raise ValueError("the base64 of this line is damaged") from error


def redacted(interactions: Iterable[Interaction], rules: Rules, ignored: tuple[Pointer, ...] = ()) -> Cassette:
    """A cassette of ``interactions`` with what the rules name taken out. Raises :class:`ConfigError` for bad rules."""
    redactor = Redactor(rules)

    def cleaned(one: Interaction) -> Interaction:
        capture = redactor.capture(one.recording.capture)
        return msgspec.structs.replace(one, recording=msgspec.structs.replace(one.recording, capture=capture))

    return Cassette(tuple(cleaned(one) for one in interactions), ignored, rules)


def of_record(record: Any, captured: Callable[[], Capture | None]) -> Interaction | None:
    """The recording that a record (as JSON values) and its bodies are.

    None for one that was played itself, and where no whole answer was kept; ``captured`` gives the bodies, if any.
    """
    if record["capture"]["state"] != CaptureState.STORED or record["provider"] == NOBODY:
        return None
    capture = captured()
    if capture is None or not playable(capture, record["error_code"]):
        return None
    recording = Recording(record["request_id"], record["model_id"], capture, record["generation_ms"], record["success"])
    return Interaction(record["endpoint"], record["created_at"], recording)
