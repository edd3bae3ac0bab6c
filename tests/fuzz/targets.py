"""One function for each parser of ours: takes any bytes, raises when what must hold does not.

A target accepts the faults that its parser documents and nothing else. Beyond not breaking it checks what makes the
parser safe to use: bytes that are only cut come out as they went in, spans lie inside their body, what was encoded
decodes to the same, and cutting an input elsewhere changes nothing. ``tests/fuzz/corpus`` holds inputs for each, among
them every one that ever broke something.
"""

# ruff: noqa: PT017  # an input may be refused or not; when it is, how it is refused matters

from __future__ import annotations

import gzip
import json
import re
import socket
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
import zstandard

from counterfoil import config
from counterfoil.api import filtering
from counterfoil.capture import body as capture_body
from counterfoil.errors import CallerFault, ConfigError, Fault, UpstreamFault
from counterfoil.gateway.attribution import app_of, link_of, session_of
from counterfoil.gateway.inflate import FREE_BYTES, RATIO_MAX, Inflater
from counterfoil.ledger.packing import Packer, Unpacker
from counterfoil.pricing import litellm
from counterfoil.pricing.overlay_file import parse_overlay
from counterfoil.providers.addresses import TeamAddresses
from counterfoil.record import codec, ids
from counterfoil.record.record import CaptureInfo, CapturePolicy, CaptureState
from counterfoil.record.usage import Usage
from counterfoil.replay import cassette, override
from counterfoil.surfaces import registry
from counterfoil.surfaces.base import Call, Reading, Request, Surface
from counterfoil.surfaces.complaint import MESSAGE_MAX, complaint_of
from counterfoil.tenancy import keys
from counterfoil.tenancy.keys import KeyKind, KeyReason
from counterfoil.wire import canonical, sse
from counterfoil.wire.json_array import ArrayCutter
from counterfoil.wire.json_object import read, tail_object
from counterfoil.wire.multipart import boundary_of, parts_of

Target = Callable[[bytes], None]

SURFACES = registry.ALL
_CALL: dict[str, Any] = {"endpoint": "/v1/x", "model": "m", "body": b"{}", "content_type": "application/json"}
_MEDIA_TYPES = (b"application/json", b"multipart/form-data; boundary=b", b"text/plain", b"", b"multipart/mixed")
_INPUT_MAX = 1 << 16
_unpack = Unpacker().unpack
_pack = Packer().pack
_NOT_CAPTURED = CaptureInfo(policy=CapturePolicy.METADATA, state=CaptureState.NOT_CAPTURED)


def pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """The input proper, and the same cut at places that its first four bytes choose."""
    seed, whole = int.from_bytes(data[:4], "big"), data[4 : 4 + _INPUT_MAX]
    cut: list[bytes] = []
    at = 0
    while at < len(whole):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        size = 1 + (seed >> 8) % (1, 3, 7, 40, 300)[seed % 5]
        cut.append(whole[at : at + size])
        at += size
    return whole, cut


# Bytes into frames.


def _cut(cutter: sse.Cutter, parts: list[bytes]) -> tuple[list[bytes], bytes]:
    frames: list[bytes] = []
    for part in parts:
        frames += [frame.raw for frame in cutter.push(part)]
        assert not cutter.overflow()  # the inputs are shorter than what is held
    rest = cutter.rest()
    return frames, b"" if rest is None else rest.raw


def event_stream(data: bytes) -> None:
    """Frames are the input's own bytes, the same however it is cut, and each can be read."""
    whole, cut = pieces(data)
    frames, rest = _cut(sse.Cutter(), [whole])
    assert b"".join(frames) + rest == whole
    assert b"".join(_cut(sse.Cutter(), cut)[0]) + _cut(sse.Cutter(), cut)[1] == whole
    for frame in frames:
        sse.fields(frame)


def json_array(data: bytes) -> None:
    """Elements are the input's own bytes, the same however it is cut."""
    whole, cut = pieces(data)
    frames, rest = _cut(ArrayCutter(), [whole])
    assert b"".join(frames) + rest == whole
    assert (frames, rest) == _cut(ArrayCutter(), cut)
    for frame in frames:
        ArrayCutter.element(frame)


def json_object(data: bytes) -> None:
    """Every member lies where it is said to lie, and a second parser sees the same members."""
    tail_object(data, b"usage")
    try:
        found = read(data)
    except CallerFault as fault:
        assert fault.status == 400
        return
    for name, raw in found.values.items():
        start, end = found.span(name)
        assert data[start:end] == bytes(raw)
    try:
        second = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not re.search(rb"\\u[dD]", data):  # msgspec reads keys with half a surrogate pair in a copy
        assert second.keys() == found.values.keys()


def multipart(data: bytes) -> None:
    """Parts lie inside the body, one behind the other."""
    line, _, body = data.partition(b"\n")
    try:
        boundary = boundary_of("multipart/form-data" + line.decode("latin-1"))
        parts = parts_of(body, boundary)
    except CallerFault as fault:
        assert fault.code == "user:invalid_multipart"
        return
    end = 0
    for part in parts:
        assert end <= part.start <= part.end <= len(body)
        end = part.end


# Requests.


def peek(data: bytes) -> None:
    """A request is a call or the caller's fault; a call goes to its provider as the same call for another model."""
    surface = SURFACES[data[0] % len(SURFACES)] if data else SURFACES[0]
    media_type = _MEDIA_TYPES[data[1] % len(_MEDIA_TYPES)] if len(data) > 1 else b""
    query, _, rest = data[2:].partition(b"\n")
    name, _, body = rest.partition(b"\n")
    path = surface.path.replace("{model}", name.decode("latin-1") or "m")
    headers = {b"content-type": media_type} if media_type else {}
    request = Request("POST", path, query.decode("latin-1"), headers, body)
    try:
        call = surface.peek(request)
    except CallerFault as fault:
        _rendered(surface, fault)
        refused = surface.refused(request)
        msgspec.json.encode((refused.model, refused.endpoint, refused.stream))
        return
    msgspec.json.encode((call.model, call.endpoint, call.end_user, call.session_id, call.tags, call.meters))
    assert call.model.isprintable()
    outgoing = surface.prepare(call, "other-model")
    assert re.fullmatch(r"/[!-~]*", outgoing.path), outgoing.path
    assert not {".", ".."} & set(outgoing.path.partition("?")[0].split("/"))
    assert re.fullmatch(r"[\t -~\x80-\xff]*", outgoing.content_type)
    if call.content_type == "application/json" and surface.name != "gemini":
        try:
            before, after = json.loads(call.body), json.loads(outgoing.body)
        except (ValueError, RecursionError):
            return
        for extra in ("model", "stream_options"):
            before.pop(extra, None), after.pop(extra, None)
        assert before == after


def attribution(data: bytes) -> None:
    """What a header says of app, session and replay holds nothing that a log or a page would have to escape."""
    name, _, value = data.partition(b"\n")
    headers = {(b"x-app-id", b"referer", b"x-title", b"x-session-id")[len(name) % 4]: value}
    headers[b"x-counterfoil-replay-of"] = value
    for said in (app_of(headers), session_of(headers), link_of(headers)):
        assert said is None or (said.isprintable() and 0 < len(said) <= 256) or said == ""
        msgspec.json.encode(said)


# Answers.


def _usable(reading: Reading) -> None:
    usage: Usage = reading.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert min(usage.prompt_tokens, usage.completion_tokens) >= 0
    msgspec.json.encode(reading)
    for text in (reading.native_response_id, reading.native_model, reading.finish_reason, reading.error_message):
        assert text is None or text.isprintable(), text


def unary(data: bytes) -> None:
    """Whatever a provider answers, a record can be made of it."""
    if len(data) < 2:
        return
    surface = SURFACES[data[0] % len(SURFACES)]
    meter = surface.meter(Call(**_CALL, stream=False))
    meter.whole((200, 400, 401, 429, 500, 529)[data[1] % 6], data[2:])
    _usable(meter.reading())


def _played(surface: Surface, adds: bool, parts: list[bytes]) -> tuple[bytes, Reading]:
    """What the client gets of a stream, as the relay plays it, and what was read."""
    meter = surface.meter(Call(**_CALL, stream=True, adds_usage=adds))
    out = b""
    for number, part in enumerate(parts):
        if meter.terminal:
            return out + meter.end() + b"".join(parts[number:]), meter.reading()
        out += meter.push(part)
    return out + meter.end(), meter.reading()


def stream(data: bytes) -> None:
    """However a stream is cut, the client gets the same bytes, and the record says the same."""
    if len(data) < 6:
        return
    surface = SURFACES[data[0] % len(SURFACES)]
    adds = bool(data[1] & 1)
    whole, cut = pieces(data[2:])
    out, reading = _played(surface, adds, [whole])
    _usable(reading)
    assert adds or out == whole
    assert len(out) <= len(whole)
    out_cut, reading_cut = _played(surface, adds, cut)
    _usable(reading_cut)
    assert out_cut == out
    assert reading_cut == reading


def inflate(data: bytes) -> None:
    """A coded body is decoded to the same bytes or refused, however it is cut, and never beyond the bound."""
    if not data:
        return
    coding = (b"gzip", b"x-gzip", b"deflate", b"br", b"")[data[0] % 5]
    whole, cut = pieces(data[2:])
    if data[0] & 8:
        whole = (gzip.compress if coding != b"deflate" else zlib.compress)(whole)
        cut = [whole[at : at + 3] for at in range(0, len(whole), 3)]
    results = [_inflated(coding, parts) for parts in ([whole], cut)]
    assert results[0] == results[1]
    if results[0] is not None:
        assert len(results[0]) <= FREE_BYTES + RATIO_MAX * len(whole)


def _inflated(coding: bytes, parts: list[bytes]) -> bytes | None:
    try:
        inflater = Inflater(coding)
        return b"".join([inflater.feed(part) for part in parts])
    except UpstreamFault as fault:
        assert fault.code == "upstream:invalid_response"
        return None


def complaint(data: bytes) -> None:
    """What is kept of a provider's error is one printable line of bearable length."""
    said = complaint_of(500, data).text()
    assert len(said) <= MESSAGE_MAX
    assert said.isprintable()


# What we write.


def _rendered(surface: Surface, fault: Fault) -> None:
    _, body = surface.render_error(fault, "gen_X")
    json.loads(body)
    frame = surface.render_stream_error(fault, "gen_X")
    if not frame.startswith((b"data: ", b"event: ")):
        return  # a stream that is no event stream
    frames, rest = _cut(sse.Cutter(), [frame])
    assert (frames, rest) == ([frame], b""), frame
    name, said = sse.fields(frame)
    assert name in (b"", b"error")
    assert fault.message in json.dumps(json.loads(said), ensure_ascii=False) or json.loads(said)


def error_frame(data: bytes) -> None:
    """A frame of ours is one frame whatever its message says, and the message comes out as it went in."""
    message = data.decode("utf-8", "replace")
    for surface in (*SURFACES, registry.UNKNOWN_OPENAI, registry.UNKNOWN_ANTHROPIC, registry.UNKNOWN_GOOGLE):
        fault = UpstreamFault("stream_error", message, param=message)
        _rendered(surface, fault)
        assert message in _texts(json.loads(surface.render_error(fault, "gen_X")[1]))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def canonical_body(data: bytes) -> None:
    """A body has a canonical form, which white space does not change."""
    media_type = "application/json" if data[:1] < b"\x80" else "multipart/form-data; boundary=b"
    form = canonical.canonical(data, media_type)
    if media_type == "application/json":
        assert canonical.canonical(b" \n" + data + b"\t ", media_type) == form or not _is_json(data)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data.decode())  # from bytes, json would take UTF-16 and UTF-32 as well
    except (ValueError, RecursionError):
        return False
    return True


# Names and keys.


def key(data: bytes) -> None:
    """A key is exactly what we would compose, in any of its headers; anything else has a reason."""
    text = data.decode("latin-1")
    parsed = keys.parse(text)
    if not isinstance(parsed, KeyReason):
        tag = "sk" if parsed.kind is KeyKind.INFERENCE else "mk"
        assert text.startswith(f"cf_{tag}_{parsed.kid}_")
        assert keys.checksum(text[: -keys.CHECK_LETTERS]) == text[-keys.CHECK_LETTERS :]
        assert len(text) == keys.KEY_LETTERS
    keys.from_headers({b"authorization": data, b"x-api-key": data})


def request_id(data: bytes) -> None:
    """An id of ours has one spelling."""
    text = data.decode("latin-1")
    value = ids.parse(text)
    assert value is None or ids.text(value) == text


def list_filter(data: bytes) -> None:
    """A cursor is one of ours or the caller's fault, a time likewise."""
    text = data.decode("utf-8", "replace")
    for parse in (
        filtering.parse_cursor,
        lambda value: filtering.filters(from_=value),
        lambda v: filtering.filters(since=v),
    ):
        try:
            parse(text)
        except CallerFault as fault:
            assert fault.code == "user:invalid_field"


# Files.


def configuration(data: bytes) -> None:
    """A file is a configuration, or an error that tells the operator what to do and quotes no secret."""
    try:
        config.parse(data.decode("utf-8", "replace"), "counterfoil.yaml", {"HOME": "/", "KEY": "s3cr3t-canary"})
    except ConfigError as error:
        assert "s3cr3t-canary" not in str(error)


def price_file(data: bytes) -> None:
    """A price file is read, or refused with the line."""
    try:
        parse_overlay(data.decode("utf-8", "replace"))
    except ConfigError as error:
        assert str(error)


def litellm_file(data: bytes) -> None:
    """What is imported is a price file of ours, or it is refused."""
    try:
        converted = litellm.convert(data)
    except ConfigError:
        return
    try:
        parse_overlay(converted)
    except ConfigError as error:  # a price of a million dollars a token is refused where it is read, with its line
        assert any(said in str(error) for said in ("has too many digits for a price", "the number is too long"))


def team_address(data: bytes) -> None:
    """A base_url that passes has one reading: https, a host that is a name or an address, a plain path."""
    text = data.decode("utf-8", "replace")
    try:
        TeamAddresses().check(text)
    except CallerFault as fault:
        assert (fault.code, fault.param) == ("user:invalid_field", "base_url")
        return
    parts = urlsplit(text)
    assert (parts.scheme, parts.query, parts.fragment, parts.username) == ("https", "", "", None)
    assert parts.port in (None, 443)
    host = parts.hostname or ""
    assert text.startswith(f"https://{parts.netloc}")
    assert parts.netloc.isascii()
    try:
        address = socket.inet_aton(host)
    except OSError:
        return
    assert TeamAddresses().permits(socket.inet_ntoa(address)), "a spelling of an address that leads inside"


def edited_body(data: bytes) -> None:
    """A body that is edited and written again says the same, and its numbers are spelt as they were."""
    try:
        found = override.parse(data)
    except CallerFault as fault:
        assert fault.code == "user:invalid_json"
        return
    written = override.write(found)
    assert override.parse(written) == found
    assert override.write(override.parse(written)) == written


def cursor(data: bytes) -> None:
    """A cursor is one of ours, and comes back the same, or is refused by its name."""
    try:
        found = filtering.parse_cursor(data.decode("latin-1"))
    except CallerFault as fault:
        assert fault.param == "cursor"
        return
    if found is not None:
        assert filtering.parse_cursor(filtering.cursor_text(found)) == found


# At rest.


def capture(data: bytes) -> None:
    """Captured bodies decode to what encodes to the same bodies, or are damaged."""
    try:
        found = capture_body.decode(data)
    except ValueError:
        return
    for apart in (False, True):
        assert capture_body.decode(capture_body.encode(found, apart=apart)) == found


def record(data: bytes) -> None:
    """A record that is read is written in bytes that read as the same record, and those are written as they are."""
    try:
        found = codec.decode(data)
    except (msgspec.MsgspecError, ValueError):
        return
    written = codec.encode(found, _NOT_CAPTURED)
    assert codec.decode(written) == found
    assert codec.encode(codec.decode(written), _NOT_CAPTURED) == written


def cassette_file(data: bytes) -> None:
    """A cassette that is read is written as one that reads the same, or is refused as a fault of the operator's."""
    try:
        found = cassette.parse(data)
    except ConfigError:
        return
    assert cassette.parse(b"".join(cassette.lines(found))) == found


def packed(data: bytes) -> None:
    """A packed record unpacks or is damaged; whatever is packed comes back."""
    assert _unpack(_pack(data)) == data
    try:
        _unpack(data)
    except ValueError as error:
        assert not isinstance(error, zstandard.ZstdError)


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        event_stream,
        json_array,
        json_object,
        multipart,
        peek,
        attribution,
        unary,
        stream,
        inflate,
        complaint,
        error_frame,
        key,
        request_id,
        list_filter,
        configuration,
        price_file,
        litellm_file,
        capture,
        packed,
        record,
        canonical_body,
        cassette_file,
        cursor,
        edited_body,
        team_address,
    )
}
"""Every target by its name, which is its folder's name in the corpus."""
