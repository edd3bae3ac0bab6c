"""What was captured comes back byte for byte, chunk for chunk, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.capture.body import VERSION_FIELDS, Capture, decode, encode

_TYPES = st.text(max_size=40)
_FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"anthropic-beta", b"openai-beta"]), st.binary(max_size=20).filter(lambda v: b"\n" not in v)
    ),
    max_size=3,
).map(tuple)
_UNARY = st.builds(
    Capture,
    request=st.binary(max_size=200),
    request_type=_TYPES,
    replayable=st.none() | st.binary(max_size=50),
    response=st.binary(max_size=200),
    response_type=_TYPES,
    response_status=st.integers(0, 999),
    request_fields=_FIELDS,
)


@st.composite
def _streams(draw: st.DrawFn) -> Capture:
    chunks = draw(st.lists(st.binary(max_size=30), max_size=20))
    steps = draw(st.lists(st.integers(0, 1 << 40), min_size=len(chunks), max_size=len(chunks)))
    times = tuple(sum(steps[: i + 1]) for i in range(len(steps))) if draw(st.booleans()) else ()
    return Capture(b"{}", "application/json", None, tuple(chunks), "text/event-stream", 200, times)


@given(_UNARY | _streams())
def test_round_trip(capture: Capture) -> None:
    """Every capture is read back as it was, media types with unencodable characters aside."""
    assert decode(encode(capture)) == capture


@given(_UNARY | _streams(), st.data())
def test_cut(capture: Capture, data: st.DataObject) -> None:
    """Bytes that were cut raise, or were cut inside an unary response, whose end nothing else marks."""
    encoded = encode(capture)
    cut = encoded[: data.draw(st.integers(0, max(0, len(encoded) - 1)))]
    try:
        found = decode(cut)
    except ValueError:
        return
    assert isinstance(found.response, bytes)
    assert isinstance(capture.response, bytes)
    assert capture.response.startswith(found.response)


def test_response_body_is_one_piece() -> None:
    """The chunks of a stream join to its body."""
    capture = Capture(b"", "", None, (b"data: 1\n\n", b"data: 2\n\n"), "text/event-stream", 200, (5, 9))
    assert capture.response_body == b"data: 1\n\ndata: 2\n\n"


def test_absent_and_empty_replayable_differ() -> None:
    """No replayable body and an empty one are not the same."""
    captures = [Capture(b"x", "", replayable, b"", "", 200) for replayable in (None, b"")]
    assert [decode(encode(capture)).replayable for capture in captures] == [None, b""]


@pytest.mark.parametrize(
    ("times", "fault"),
    [((1,), "1 chunk times for 2 chunks"), ((5, 4), "must not decrease"), ((-1, 4), "must not decrease")],
    ids=["too few", "backwards", "negative"],
)
def test_times_must_fit(times: tuple[int, ...], fault: str) -> None:
    """Times that cannot belong to the chunks are refused when they are written."""
    with pytest.raises(ValueError, match=fault):
        encode(Capture(b"", "", None, (b"a", b"b"), "", 200, times))


def test_a_long_media_type_is_cut() -> None:
    """A media type of hostile length keeps its first 255 bytes, no character split."""
    capture = Capture(b"", "é" * 300, None, b"", "", 200)
    assert decode(encode(capture)).request_type == "é" * 127


def test_a_call_without_kept_headers_is_stored_as_ever() -> None:
    """Headers cost the calls that carry none not one byte, and what they add stands before the rest."""
    plain = Capture(b"{}", "application/json", None, b"{}", "application/json", 200)
    fields = ((b"anthropic-version", b"2023-06-01"),)
    kept = Capture(b"{}", "application/json", None, b"{}", "application/json", 200, (), fields)
    assert encode(plain)[0] == 1
    assert encode(kept) == b"\x02\x1e\x00anthropic-version: 2023-06-01\n" + encode(plain)


def test_another_version_is_refused() -> None:
    """Bytes of an unknown version are never guessed at."""
    encoded = bytearray(encode(Capture(b"", "", None, b"", "", 200)))
    encoded[0] = VERSION_FIELDS + 1
    with pytest.raises(ValueError, match="version"):
        decode(bytes(encoded))
