"""Event streams are cut into the frames they were sent in, wherever the network cut them."""

from __future__ import annotations

import pytest

from counterfoil.wire.sse import HEAD_KEPT, PENDING_MAX, TAIL_KEPT, Cutter, fields

STREAMS = {
    "lf": b"data: a\n\ndata: b\n\n",
    "crlf": b"data: a\r\n\r\ndata: b\r\n\r\n",
    "cr": b"data: a\r\rdata: b\r\r",
    "mixed": b"data: a\r\n\ndata: b\n\r\n",
    "several-lines": b"event: x\ndata: a\ndata: c\n\ndata: b\n\n",
    "comments": b": ping\n\ndata: a\n\n:\n\ndata: b\n\n",
    "bom": b"\xef\xbb\xbfdata: a\n\ndata: b\n\n",
    "utf-8": "data: ü€𝄞\n\ndata: b\n\n".encode(),
}


def cut(stream: bytes, size: int) -> tuple[list[bytes], bytes]:
    """The frames of ``stream`` in pieces of ``size``, and what never ended."""
    cutter = Cutter()
    frames = [frame.raw for at in range(0, len(stream), size) for frame in cutter.push(stream[at : at + size])]
    rest = cutter.rest()
    return frames, rest.raw if rest else b""


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_frames_are_the_same_at_every_cut(stream: bytes, size: int):
    """No byte is lost or moved, and the same data is read, however the stream arrives."""
    frames, rest = cut(stream, size)
    assert b"".join(frames) + rest == stream
    read = [fields(frame) for frame in [*frames, rest]]
    whole = [fields(frame) for frame in cut(stream, len(stream))[0]]
    assert [data for _, data in read if data] == [data for _, data in whole if data]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"data: x\n\n", (b"", b"x")),
        (b"data:x\n\n", (b"", b"x")),
        (b"data:  x\n\n", (b"", b" x")),
        (b"event: e\ndata: x\n\n", (b"e", b"x")),
        (b"event:e\r\ndata:x\r\n\r\n", (b"e", b"x")),
        (b"data: a\ndata: b\n\n", (b"", b"a\nb")),
        (b"data\n\n", (b"", b"")),
        (b": comment\n\n", (b"", b"")),
        (b"id: 1\nretry: 5\ndata: x\n\n", (b"", b"x")),
        (b"\xef\xbb\xbfdata: x\n\n", (b"", b"x")),
        (b"\ndata: x\n\n", (b"", b"x")),
        (b"data: x", (b"", b"x")),
        (b"error: {}\n\n", (b"error", b"{}")),
    ],
)
def test_fields_of_a_frame(frame: bytes, expected: tuple[bytes, bytes]):
    """The event name and the joined data are read as the event-stream rules say."""
    assert fields(frame) == expected


def test_a_crlf_cut_in_the_middle_of_a_blank_line_is_one_blank_line():
    """A CR that ends a frame and the LF that follows it in the next piece belong to one frame."""
    cutter = Cutter()
    assert cutter.push(b"data: a\r\n\r") == []
    frames = [frame.raw for frame in cutter.push(b"\ndata: b\r\n\r\n")]
    assert frames == [b"data: a\r\n\r\n", b"data: b\r\n\r\n"]


def test_a_frame_too_long_to_hold_keeps_only_its_end_back():
    """Of a frame of 64 MB never more than the bound is held, and its beginning is remembered."""
    cutter = Cutter()
    piece = b"x" * 262_144
    gone = bytearray()
    for number in range(256):
        assert cutter.push(b"data: " + piece if number == 0 else piece) == []
        gone += cutter.overflow()
        assert len(cutter._pending) <= PENDING_MAX
    frames = cutter.push(b"END\n\n")
    assert [len(frame.head) for frame in frames] == [HEAD_KEPT]
    assert len(frames[0].raw) >= TAIL_KEPT
    assert frames[0].raw.endswith(b"xEND\n\n")
    assert bytes(gone) + frames[0].raw == b"data: " + piece * 256 + b"END\n\n"
    assert cutter.idle


def test_the_frame_after_a_long_one_is_whole_again():
    """The long frame's head does not stick to the next frame."""
    cutter = Cutter()
    cutter.push(b"data: " + b"x" * (PENDING_MAX + 1))
    cutter.overflow()
    frames = cutter.push(b"\n\ndata: y\n\n")
    assert [bool(frame.head) for frame in frames] == [True, False]
