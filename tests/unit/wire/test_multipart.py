"""A form's parts are found as spans of its own bytes; a broken form is refused."""

from __future__ import annotations

import pytest

from counterfoil.errors import CallerFault
from counterfoil.wire.multipart import PARTS_MAX, boundary_of, parts_of

BODY = (
    b"preamble\r\n--B\r\n"
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b"--B  \r\n"
    b'content-type: audio/wav\r\ncontent-disposition: form-data; name="file"; filename="a \\" b.wav"\r\n\r\n'
    b"\r\n--Bad\r\n--\r\n\x00\xff\r\n"
    b"--B\r\n"
    b"Content-Disposition: form-data; name=language\r\n\r\n\r\n"
    b"--B--\r\nepilogue"
)


def test_parts_are_spans_of_the_body():
    """Values, files and empty values are found exactly, look-alike delimiters in files included."""
    parts = parts_of(BODY.replace(b"--Bad", b"--bad"), b"B")
    assert [(part.name, part.is_file) for part in parts] == [("model", False), ("file", True), ("language", False)]
    assert BODY[parts[0].start : parts[0].end] == b"whisper-1"
    assert BODY[parts[1].start : parts[1].end].endswith(b"\r\n--\r\n\x00\xff")
    assert parts[2].start == parts[2].end


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; boundary="a b;c"', b"a b;c"),
        ("multipart/form-data;BOUNDARY=----x", b"----x"),
    ],
)
def test_the_boundary_of_a_content_type(content_type: str, boundary: bytes):
    """Token and quoted boundaries are read."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary here",
        b"--B",
        b"--B\r\n",
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue',
        b"--B\r\nContent-Disposition: form-data\r\n\r\nvalue\r\n--B--",
        b"--B\r\nX: y\r\n--B--",
        b"--B\r\n\r\nvalue\r\n--B--",
        b'--Bjunk\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n--B--',
    ],
)
def test_broken_forms(body: bytes):
    """A form without its delimiters, headers or names is refused."""
    with pytest.raises(CallerFault) as caught:
        parts_of(body, b"B")
    assert caught.value.short_code == "invalid_multipart"


def test_the_number_of_parts_is_bounded():
    """A form of very many parts is refused instead of being walked."""
    part = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nv\r\n'
    assert len(parts_of(part * PARTS_MAX + b"--B--", b"B")) == PARTS_MAX
    with pytest.raises(CallerFault):
        parts_of(part * (PARTS_MAX + 1) + b"--B--", b"B")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=", "x; boundary=ü"])
def test_a_content_type_without_a_boundary(content_type: str):
    """A form whose boundary is not announced is refused."""
    with pytest.raises(CallerFault) as caught:
        boundary_of(content_type)
    assert caught.value.short_code == "invalid_multipart"
