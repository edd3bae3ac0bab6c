"""Times as they are written and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.record.times import LAST_MS, moment_ms, recorded_ms, timestamp

NOON = 1_769_947_200_000


@pytest.mark.parametrize(
    ("unix_ms", "text"),
    [
        (NOON, "2026-02-01T12:00:00.000Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (LAST_MS, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_what_is_written(unix_ms: int, text: str) -> None:
    """UTC, to the millisecond, always as long."""
    assert timestamp(unix_ms) == text


@given(st.integers(-62_135_596_800_000, LAST_MS))
def test_what_is_written_is_read(unix_ms: int) -> None:
    """In the quick way and in the general one."""
    assert recorded_ms(timestamp(unix_ms)) == moment_ms(timestamp(unix_ms)) == unix_ms


@pytest.mark.parametrize(
    ("text", "unix_ms"),
    [
        ("2026-02-01", NOON - 43_200_000),
        ("2026-02-01T12:00", NOON),
        ("2026-02-01T13:00:00+01:00", NOON),
        ("2026-02-01T12:00:00.0019Z", NOON + 1),
        ("0001-01-01T00:00+14:00", -62_135_647_200_000),
    ],
)
def test_what_people_write(text: str, unix_ms: int) -> None:
    """UTC unless it says otherwise; what is below a millisecond is cut."""
    assert moment_ms(text) == unix_ms


@pytest.mark.parametrize("text", ["", "never", "2026-13-01", "12:00", "1769947200000"])
def test_what_is_no_time(text: str) -> None:
    """Refused, whatever it looks like."""
    with pytest.raises(ValueError, match=r"isoformat|month"):
        moment_ms(text)
