"""The strictest capture policy wins, and a request's wish is never misread."""

from __future__ import annotations

from itertools import permutations

import pytest

from counterfoil.capture.policy import from_header
from counterfoil.errors import CallerFault
from counterfoil.record.record import CapturePolicy, strictest

FULL, METADATA, OFF = CapturePolicy.FULL, CapturePolicy.METADATA, CapturePolicy.OFF


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ((), FULL),
        ((None, None), FULL),
        ((FULL, None), FULL),
        ((FULL, METADATA), METADATA),
        ((FULL, METADATA, OFF), OFF),
        ((None, OFF), OFF),
    ],
    ids=str,
)
def test_strictest(policies: tuple[CapturePolicy | None, ...], expected: CapturePolicy) -> None:
    """Whatever the order, nobody can make the gateway keep more than another allows."""
    assert {strictest(*order) for order in permutations(policies)} == {expected}


@pytest.mark.parametrize(
    ("value", "expected"), [(b"off", OFF), (b" Metadata ", METADATA), ("FULL", FULL)], ids=["bytes", "case", "text"]
)
def test_header(value: str | bytes, expected: CapturePolicy) -> None:
    """The header names a policy in any case, with or without space around it."""
    assert from_header(value) is expected


@pytest.mark.parametrize("value", [b"", b"none", b"off,full", b"\xff"], ids=repr)
def test_unknown_header(value: bytes) -> None:
    """A value that is no policy is the caller's fault: it must not be taken for no wish at all."""
    with pytest.raises(CallerFault) as caught:
        from_header(value)
    assert (caught.value.code, caught.value.param) == ("user:invalid_field", "x-counterfoil-capture")
