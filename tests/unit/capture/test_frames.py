"""A stream that was taken apart comes back byte for byte, or not at all."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from counterfoil.capture import frames
from counterfoil.capture.body import Capture, decode, encode, request_at

WORDS = st.text(max_size=12)


def sse(said: list[str], key: str = "content", separators: tuple[str, str] = (",", ":")) -> bytes:
    """A stream that says so."""
    made = [{"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {key: word}}]} for word in said]
    return b"".join(b"data: %b\n\n" % json.dumps(one, separators=separators).encode() for one in made)


@given(st.lists(WORDS, min_size=8, max_size=40), st.sampled_from(["content", "text", "arguments"]), st.booleans())
@example(['"content":"', "\\", '\\"', '"'] * 4, "content", False)
def test_streams_come_back(said: list[str], key: str, spaced: bool) -> None:
    """Whatever the words are, quotation marks and markers among them."""
    body = sse(said, key, (", ", ": ") if spaced else (",", ":"))
    made = frames.apart(body)
    assert made is not None
    assert frames.together(made) == body


@given(st.lists(st.sampled_from([*frames.MARKERS[:6], b'"', b"\\", b"a", b'":"', b'"text', b"\n"]), max_size=60))
def test_anything_comes_back(parts: list[bytes]) -> None:
    """Also what no provider would send: half markers, strings without an end."""
    body = b"".join(parts) + b'"content":"x"' * 8
    made = frames.apart(body)
    assert made is None or frames.together(made) == body


def test_what_is_said_stands_in_one_piece() -> None:
    """So that a later body, which says it in one piece, is packed against it."""
    made = frames.apart(sse(["The ", "answer ", "is ", '\\"', "42", ".", " Is", " it?"]))
    assert made is not None
    assert rb"The answer is \\\"42. Is it?" in made


def test_what_repeats_nothing_is_left_alone() -> None:
    """A few frames, or frames of another kind."""
    assert frames.apart(sse(["a"] * 7)) is None
    assert frames.apart(sse(["a"] * 40, "colour")) is None


@given(st.binary(max_size=200) | st.lists(WORDS, min_size=8, max_size=20).map(sse), st.data())
def test_damage_is_an_error(body: bytes, data: st.DataObject) -> None:
    """Nothing but :class:`ValueError`, and never for ever."""
    made = bytearray(frames.apart(body) or body)
    for _ in range(data.draw(st.integers(1, 4))):
        if made:
            made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        frames.together(bytes(made))


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=30))
def test_numbers_come_back(values: list[int]) -> None:
    """In the order they had."""
    assert list(frames.numbers(frames.planes(values))) == values


@pytest.mark.parametrize("fields", [(), ((b"openai-beta", b"x"),)], ids=["plain", "with headers"])
@pytest.mark.parametrize("times", [0, 5, 1 << 33], ids=["no times", "times", "wide times"])
def test_a_capture_comes_back(times: int, fields: tuple[tuple[bytes, bytes], ...]) -> None:
    """Chunk for chunk, with its times; and where its request begins is known of both forms."""
    body = sse(["word "] * 200)
    chunks = tuple(body[at : at + 777] for at in range(0, len(body), 777))
    offsets = tuple(times * (n + 1) for n in range(len(chunks))) if times else ()
    capture = Capture(b"{'a':1}", "application/json", b"{}", chunks, "text/event-stream", 200, offsets, fields)
    whole, apart = encode(capture), encode(capture, apart=True)
    assert (whole == apart) == (times == 1 << 33)
    for encoded in (whole, apart):
        assert decode(encoded) == capture
        assert encoded[request_at(encoded) :].startswith(capture.request)
        for cut in range(1, 200):
            with pytest.raises(ValueError, match=r"damaged|version"):
                decode(encoded[:-cut])
