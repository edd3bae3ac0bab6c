"""Where the network cuts a stream changes neither a byte of it nor a word of its record."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from counterfoil.surfaces import registry
from counterfoil.surfaces.base import Call, Reading, Surface
from counterfoil.wire.json_array import ArrayCutter
from counterfoil.wire.json_object import read
from counterfoil.wire.sse import Cutter

ENDS = st.sampled_from(["\n", "\r\n", "\r"])
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
TEXT = st.text(max_size=12) | st.sampled_from(['"usage":{', "[DONE]", "error", "data: x\n\n", "\r\n\r\n", "\\", '"'])
NOISE = st.sampled_from([": ping", "", "event: x", "id: 7", "data:", "data: not json", "data: {}", "data: []"])


def chunk(text: str, **more: Any) -> str:
    """A chat chunk as a data line."""
    body = {"id": "c1", "model": "m1", "choices": [{"delta": {"content": text}, "finish_reason": None}], "usage": None}
    return "data: " + json.dumps(body | more, ensure_ascii=False)


@st.composite
def chats(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A chat stream with noise in it, and the same without its usage frame."""
    end = draw(ENDS)
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    lines = [line for text in draw(st.lists(TEXT, max_size=6)) for line in (chunk(text), draw(NOISE))]
    usage = "data: " + json.dumps({"id": "c1", "choices": [], "usage": USAGE}, separators=separators)
    tail = draw(st.sampled_from([["data: [DONE]"], ["data: [DONE]", ": bye"], []]))
    lines.append(chunk("", choices=[{"delta": {}, "finish_reason": "stop"}]))
    bare = [*lines, *tail]
    full = [*lines, usage, *tail]
    return tuple("".join(line + end * 2 for line in some).encode() for some in (full, bare))  # type: ignore[return-value]


@st.composite
def cuts(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """``stream`` in pieces."""
    places = draw(st.lists(st.integers(0, len(stream)), max_size=12))
    bounds = [0, *sorted(places), len(stream)]
    return [stream[first:last] for first, last in pairwise(bounds)]


def play(surface: Surface, pieces: list[bytes], **fields: Any) -> tuple[bytes, Reading]:
    """What the client gets of the pieces, and what was read."""
    blank: dict[str, Any] = {"endpoint": "", "model": "m", "stream": True, "body": b"", "content_type": ""}
    meter = surface.meter(Call(**(blank | fields)))
    out = b"".join(map(meter.push, pieces))
    return out + meter.end(), meter.reading()


@settings(max_examples=150)
@given(st.data())
def test_a_chat_is_the_same_at_every_cut(data: st.DataObject):
    """The client's bytes and the reading do not depend on the cuts, with and without the usage frame."""
    full, bare = data.draw(chats())
    pieces = data.draw(cuts(full))
    surface = registry.find("/v1/chat/completions")
    assert surface is not None
    passed, reading = play(surface, pieces)
    assert passed == full
    assert reading == play(surface, [full])[1]
    assert reading.usage.total_tokens == 5
    withheld, reading = play(surface, pieces, adds_usage=True)
    assert withheld == bare
    assert reading.finish_reason == "stop"


@settings(max_examples=150)
@given(st.data(), st.binary(max_size=200))
def test_any_bytes_pass_every_meter(data: st.DataObject, stream: bytes):
    """No stream, however broken, loses a byte in a meter or breaks it."""
    pieces = data.draw(cuts(stream))
    surface = data.draw(st.sampled_from(registry.ALL))
    assert play(surface, pieces)[0] == stream


@settings(max_examples=150)
@given(st.data())
def test_frames_are_the_same_at_every_cut(data: st.DataObject):
    """The cutter gives frames whose bytes are the stream."""
    stream = data.draw(
        st.lists(st.sampled_from([b"data: a", b"\n", b"\r", b"\r\n", b":", b"x"]), max_size=20).map(b"".join)
    )
    cutter = Cutter()
    frames = [frame.raw for piece in data.draw(cuts(stream)) for frame in cutter.push(piece)]
    rest = cutter.rest()
    assert b"".join(frames) + (rest.raw if rest else b"") == stream


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.data(), st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3), max_size=4), st.booleans())
def test_array_elements_are_the_same_at_every_cut(data: st.DataObject, elements: list[Any], ascii_only: bool):
    """Elements of a growing array come out whole and in order."""
    array = json.dumps(elements, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    cutter = ArrayCutter()
    frames = [frame.raw for piece in data.draw(cuts(array)) for frame in cutter.push(piece)]
    rest = cutter.rest()
    assert b"".join(frames) + (rest.raw if rest else b"") == array
    assert [json.loads(element) for raw in frames if (element := cutter.element(raw))] == elements


@settings(max_examples=200)
@given(
    st.dictionaries(st.text(max_size=6), JSON, max_size=6),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_members_are_found_in_every_spelling(value: dict[str, Any], separators: Any, indent: Any, ascii_only: bool):
    """Each member of an object is found where it lies, however the object is written."""
    text = json.dumps(value, separators=separators, indent=indent, ensure_ascii=ascii_only)
    body = text.encode("utf-8", "surrogatepass")
    found = read(body)
    assert found.values.keys() == value.keys()
    for name, member in value.items():
        start, end = found.span(name)
        assert json.loads(body[start:end]) == member
