"""Calls in flight outlive their process, and their number is bounded."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.ledger.intents import SLOT_BYTES, SLOTS, IntentLog, count_open, writer_numbers
from counterfoil.ledger.settlement import Intent
from emulators.ledgers import intent


def _reopened(log: IntentLog, journal: Path) -> IntentLog:
    log.close()
    again = IntentLog.claim(journal, log.number)
    assert again is not None
    return again


def test_open_intents_survive(tmp_path: Path) -> None:
    """What was admitted and not settled is found again by the next owner of the file, field for field."""
    log = IntentLog.claim_lowest(tmp_path)
    slots = [log.admit(intent(number)) for number in range(5)]
    log.close_slot(slots[1])
    log = _reopened(log, tmp_path)
    found = dict(log.open_intents())
    assert found == {slots[number]: intent(number) for number in (0, 2, 3, 4)}
    assert (log.open_count, count_open(tmp_path)) == (4, 4)
    log.clear()
    assert (log.open_intents(), log.open_count, count_open(tmp_path)) == ([], 0, 0)
    log.close()


def test_a_closed_slot_is_handed_out_only_when_released(tmp_path: Path) -> None:
    """The writer's thread closes a slot; the loop's thread, later, makes it free."""
    log = IntentLog.claim_lowest(tmp_path)
    slot = log.admit(intent(1))
    log.close_slot(slot)
    assert log.admit(intent(2)) != slot
    log.release(slot)
    assert log.admit(intent(3)) == slot
    log.close()


def test_it_is_full_at_its_bound(tmp_path: Path) -> None:
    """One call more than there are slots is refused as overload, and one settled call makes room for it."""
    log = IntentLog.claim_lowest(tmp_path)
    slots = [log.admit(intent(number)) for number in range(SLOTS)]
    with pytest.raises(GatewayFault) as caught:
        log.admit(intent(0))
    assert caught.value.code == "gateway:overloaded"
    log.close_slot(slots[7])
    log.release(slots[7])
    assert log.admit(intent(0)) == slots[7]
    log.close()


_TEXT = st.text(max_size=600) | st.just("\ud800" * 20) | st.just("é" * 400)


@given(
    st.builds(
        Intent,
        request_id=st.just("gen_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        created_at_ms=st.integers(0, 1 << 48),
        team_id=_TEXT,
        app_id=st.none() | _TEXT,
        key_id=_TEXT,
        endpoint=_TEXT,
        model_id=_TEXT,
        requested_model=st.none() | _TEXT,
        provider=_TEXT,
        stream=st.booleans(),
        byok=st.booleans(),
        link=st.none() | st.just("gen_01ARZ3NDEKTSV4RRFFQ69G5FAV") | st.just("judge:gen_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    )
)
def test_overlong_texts_are_cut(tmp_path_factory: pytest.TempPathFactory, given: Intent) -> None:
    """An intent of any size keeps id, time, link and the beginning of every text, and never touches its neighbour."""
    journal = tmp_path_factory.mktemp("journal")
    log = IntentLog.claim_lowest(journal)
    before, slot, after = log.admit(intent(1)), log.admit(given), log.admit(intent(2))
    found = dict(log.open_intents())
    assert (found[before], found[after]) == (intent(1), intent(2))
    kept = found[slot]
    assert kept is not None
    assert (kept.request_id, kept.created_at_ms, kept.stream) == (given.request_id, given.created_at_ms, given.stream)
    assert kept.link == given.link
    for name in ("team_id", "app_id", "key_id", "model_id", "requested_model"):
        value = getattr(given, name)
        assert value is None or value.encode(errors="replace").decode().startswith(getattr(kept, name))
    log.close()


def test_a_torn_slot_is_told_apart(tmp_path: Path) -> None:
    """A slot that a power loss left half written is open without an intent, wherever a byte is wrong."""
    log = IntentLog.claim_lowest(tmp_path)
    slot = log.admit(intent(1))
    path = tmp_path / "writer-000.intents"
    whole = path.read_bytes()
    length = 7 + int.from_bytes(whole[slot * SLOT_BYTES + 1 : slot * SLOT_BYTES + 3], "little")
    for at in range(1, length):
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
            view[slot * SLOT_BYTES + at] ^= 0xFF
            assert log.open_intents() == [(slot, None)], at
            view[slot * SLOT_BYTES + at] ^= 0xFF
    assert log.open_intents() == [(slot, intent(1))]
    log.close()


def test_one_owner(tmp_path: Path) -> None:
    """A file has one owner; the next writer takes the next number, and a number whose owner left is taken again."""
    first, second = IntentLog.claim_lowest(tmp_path), IntentLog.claim_lowest(tmp_path)
    assert (first.number, second.number, IntentLog.claim(tmp_path, 0)) == (0, 1, None)
    first.close()
    third = IntentLog.claim_lowest(tmp_path)
    assert (third.number, writer_numbers(tmp_path)) == (0, [0, 1])
    second.close()
    third.close()


def test_a_journal_that_cannot_be_made(tmp_path: Path) -> None:
    """A journal that cannot be allocated is an operator's problem, named with its path."""
    with pytest.raises(ConfigError, match=r"writer-000\.intents"):
        IntentLog.claim(tmp_path / "missing", 0)
