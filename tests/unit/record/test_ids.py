"""Ids: unique, in order, one spelling."""

from __future__ import annotations

from counterfoil.record import ids
from counterfoil.record.ids import IdSource, parse, text


def source(clock: list[int], entropy: bytes = b"\xff" * 10) -> IdSource:
    """A source whose clock is ``clock[0]`` and whose entropy never varies."""
    return IdSource(lambda: clock[0], lambda size: entropy[:size])


def test_ids_increase_while_the_clock_stands_still_and_steps_back() -> None:
    """Order is the source's own; the clock only helps. Entropy of ones overflows into the next millisecond."""
    clock = [1_764_190_000_000]
    given = source(clock)
    drawn: list[str] = []
    for now in (0, 0, 0, -5, 1, 1, -1000, 2, 3000):
        clock[0] = 1_764_190_000_000 + now
        drawn.append(given.next())
    assert drawn == sorted(set(drawn))


def test_a_millisecond_goes_on_when_its_low_bits_are_used_up() -> None:
    """The 2^20 ids behind one drawing are followed by the next ones, in order and without a repetition."""
    clock = [1_764_190_000_000]
    given = source(clock, b"\x01" * 7 + b"\xff\xff\xfe")
    first, second, third = given.next(), given.next(), given.next()
    values = [parse(one) or 0 for one in (first, second, third)]
    assert values[1] == values[0] + 1
    assert values[2] == values[1] + 1
    assert values[2] >> 20 == (values[0] >> 20) + 1


def test_text_and_value_are_two_forms_of_one_id() -> None:
    """Each id reads back to the value it was made of, and its first ten letters are its time."""
    clock = [1_764_190_123_456]
    one = source(clock, bytes(range(10))).next()
    value = parse(one)
    assert value is not None
    assert text(value) == one
    assert value >> 80 == clock[0]
    assert len(one) == len(ids.PREFIX) + 26
