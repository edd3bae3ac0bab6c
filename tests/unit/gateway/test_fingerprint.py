"""Which requests are the same one, tried again."""

from __future__ import annotations

import pytest

from counterfoil.gateway.repeats import fingerprint_of

FORM = b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--%b--\r\n'


def form(kind: bytes, boundary: bytes, model: bytes = b"whisper-1") -> bytes:
    """The fingerprint of a form with this boundary."""
    return fingerprint_of({b"content-type": kind % boundary}, FORM % (boundary, model, boundary))


@pytest.mark.parametrize(
    "kind",
    [b"multipart/form-data; boundary=%b", b'multipart/form-data; boundary="%b"', b"Multipart/Mixed; BOUNDARY=%b"],
    ids=["plain", "quoted", "mixed"],
)
def test_a_boundary_says_nothing(kind: bytes) -> None:
    """A form is the same with the boundary of another try, and another one with another value."""
    assert form(kind, b"one") == form(kind, b"another")
    assert form(kind, b"one") != form(kind, b"one", b"whisper-2")


def test_a_quoted_boundary_may_hold_spaces() -> None:
    """As RFC 2046 has it; all of it is the boundary."""
    kind = b'multipart/form-data; boundary="%b"'
    assert form(kind, b"try 1") == form(kind, b"try 2")


def test_what_announces_no_boundary_is_taken_as_it_is() -> None:
    """It will be refused; the refusal is the same for the same bytes."""
    headers = {b"content-type": b"multipart/form-data"}
    assert fingerprint_of(headers, b"a") == fingerprint_of(headers, b"a") != fingerprint_of(headers, b"b")
