"""Bodies that repeat an earlier call's are small on the disk, and whole to everybody who reads, erases or verifies."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest
import zstandard

from counterfoil.capture import sharing
from counterfoil.capture.body import Capture
from counterfoil.capture.sharing import Kept, Shelf, Stretch
from counterfoil.folder import DataFolder
from counterfoil.ledger import retention
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.retention import Eraser
from counterfoil.ledger.settlement import Settlement
from counterfoil.ledger.signing import Signer
from counterfoil.record.record import CaptureState
from emulators.control import START_MS, request_id, settlement
from emulators.ledgers import opened, settle_all, verified

DAY_MS = 86_400_000
TURNS = 30
WORDS = [
    f"{a}{b}{c}"
    for a in ("ba", "co", "di", "fu", "ga", "ho", "ji", "ku", "la", "mo", "ni", "pu")
    for b in ("lan", "mer", "nix", "pod", "rut")
    for c in "aeiou"
]


def _text(source: random.Random, words: int) -> str:
    return " ".join(source.choice(WORDS) for _ in range(words))


def conversation(turns: int = TURNS, seed: int = 1, first: int = 1, **fields: str) -> Iterator[Settlement]:
    """The calls of an agent that works with tools; each says all that was said before, and its marker moves on."""
    source = random.Random(seed)
    messages: list[dict[str, object]] = [{"role": "user", "content": _text(source, 30)}]
    tools = [{"name": f"tool_{n}", "description": _text(source, 60)} for n in range(8)]
    for number in range(first, first + turns):
        marked = [*messages[:-1], messages[-1] | {"cache_control": {"type": "ephemeral"}}]
        request = json.dumps({"model": "m", "max_tokens": 900, "messages": marked, "tools": tools}).encode()
        said = {"role": "assistant", "content": _text(source, 40)}
        answer = json.dumps({"id": f"msg_{source.getrandbits(64):x}", **said}).encode()
        messages += [said, {"role": "user", "content": _text(source, source.randint(20, 400))}]
        yield settlement(number, request=request, response=answer, **fields)


def _fill(folder: DataFolder, settlements: list[Settlement], days: int = 30) -> None:
    """One call after the other, as a conversation goes."""

    async def fill() -> None:
        async with opened(folder, retention_days=days) as ledger:
            for one in settlements:
                await ledger.settle(one)

    asyncio.run(fill())


def _bodies(folder: DataFolder) -> list[Capture | None]:
    reader = LedgerReader(folder)
    try:
        return [reader.capture(stored) for stored in reader.all()]
    finally:
        reader.close()


def _sizes(folder: DataFolder) -> list[int]:
    return [size for (size,) in _query(folder, "SELECT length(sealed) FROM bodies ORDER BY seq")]


def _bases(folder: DataFolder) -> list[tuple[int, int]]:
    return _query(folder, "SELECT seq, base FROM shared ORDER BY seq")


def _query(folder: DataFolder, statement: str) -> list:
    connection = apsw.Connection(str(folder.ledger_db))
    try:
        return list(connection.execute(statement))
    finally:
        connection.close()


def _eraser(folder: DataFolder, now_ms: int) -> Eraser:
    signer = Signer(folder.secret("signing"), lambda: now_ms)
    return Eraser(folder.ledger_db, signer, lambda: now_ms, folder.secret("kek"))


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """An empty data folder."""
    return DataFolder.create(tmp_path / "data")


def test_a_conversation_costs_little_more_than_its_last_transcript(folder: DataFolder) -> None:
    """P14 in small: what is stored of all turns has at most 1.5 times the bytes of the last transcript, compressed."""
    calls = list(conversation(100))
    _fill(folder, calls)
    last = calls[-1].capture
    assert last is not None
    transcript = len(zstandard.ZstdCompressor(level=3).compress(last.request))
    assert sum(_sizes(folder)) <= 1.5 * transcript
    assert _bodies(folder) == [one.capture for one in calls], "byte for byte"
    report = verified(folder)
    assert (report.records, report.bodies, report.problems) == (100, 100, [])


def test_what_is_played_is_whole_too(folder: DataFolder) -> None:
    """A recording is read like any other body."""
    calls = list(conversation())
    _fill(folder, calls)
    reader = LedgerReader(folder)
    try:
        recorded = [reader.recorded("acme", seq) for seq in range(1, TURNS + 1)]
    finally:
        reader.close()
    assert [one and one.capture for one in recorded] == [one.capture for one in calls]


@pytest.mark.parametrize("fields", [{"team": "other"}, {"key_id": "k2"}], ids=["team", "key"])
def test_only_calls_of_one_key_share(folder: DataFolder, fields: dict[str, str]) -> None:
    """The size of a record's bodies never tells what another key sent."""
    mine, theirs = list(conversation()), list(conversation(first=TURNS + 1, **fields))
    _fill(folder, [*mine, *theirs])
    sizes = _sizes(folder)
    # The tools' times in a nonce and a tag aside, both conversations cost the same as if they were alone.
    assert sizes[:TURNS] == sizes[TURNS:]
    assert all((seq > TURNS) == (base > TURNS) for seq, base in _bases(folder))


def test_small_requests_share_nothing(folder: DataFolder) -> None:
    """Equal requests of a kilobyte are stored whole: no look at others is worth it."""
    body = b'{"model":"m","input":"' + b"word " * 200 + b'"}'
    _fill(folder, [settlement(number, request=body) for number in range(1, 4)])
    assert _bases(folder) == []


@pytest.mark.parametrize("erased", [1, 2, 15, TURNS], ids=str)
def test_erasing_a_turn_leaves_the_others(folder: DataFolder, erased: int) -> None:
    """The turns that were packed against an erased one are readable, verify, and nothing needs the erased one."""
    calls = list(conversation())
    _fill(folder, calls)
    assert _eraser(folder, START_MS).erase("acme", _identity(erased), "requested")
    found = _bodies(folder)
    assert found == [None if number == erased else one.capture for number, one in enumerate(calls, 1)]
    assert erased not in {place for pair in _bases(folder) for place in pair}
    report = verified(folder)
    assert (report.records, report.bodies, report.problems) == (TURNS, TURNS - 1, [])


def test_a_sweep_takes_what_is_due_and_keeps_the_rest_readable(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation that expires turn by turn can be read to its last."""
    monkeypatch.setattr(retention, "SWEEP_ROWS", 4)
    calls = list(conversation())
    _fill(folder, calls, days=1)
    for due in (1, 7, 20, TURNS):
        now_ms = START_MS + DAY_MS + due * 1000
        _eraser(folder, now_ms).sweep()
        assert _bodies(folder) == [None] * due + [one.capture for one in calls[due:]]
        assert verified(folder, now_ms=now_ms).problems == []
    assert _bases(folder) == []


def test_a_base_that_went_meanwhile(folder: DataFolder) -> None:
    """A turn whose base was erased before it was stored is stored whole, and the next goes on from there."""
    calls = list(conversation())

    async def fill() -> None:
        async with opened(folder) as ledger:
            for number, one in enumerate(calls, 1):
                await ledger.settle(one)
                if number == 10:
                    assert ledger.erase("acme", request_id(10))

    asyncio.run(fill())
    assert [seq for seq, _ in _bases(folder)] == [n for n in range(2, TURNS + 1) if n not in (10, 11)]
    assert [one is None for one in _bodies(folder)] == [number == 10 for number in range(1, TURNS + 1)]
    assert verified(folder).problems == []


def test_turns_of_one_batch_do_not_lean_on_each_other(folder: DataFolder) -> None:
    """What is not durable yet is no base: all turns at once are stored, and read back."""
    calls = list(conversation())

    async def fill() -> None:
        async with opened(folder) as ledger:
            await settle_all(ledger, calls)

    asyncio.run(fill())
    assert sorted(map(_request, _bodies(folder))) == sorted(_request(one.capture) for one in calls)
    assert verified(folder).problems == []


def test_after_a_restart_the_conversation_goes_on(folder: DataFolder) -> None:
    """The first turn after a start is whole; the ones before it and after it are as they were."""
    calls = list(conversation())
    _fill(folder, calls[:10])
    _fill(folder, calls[10:])
    assert [seq for seq, _ in _bases(folder)] == [n for n in range(2, TURNS + 1) if n != 11]
    assert _bodies(folder) == [one.capture for one in calls]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE shared SET base = base - 1 WHERE seq = 20",
        "DELETE FROM shared WHERE seq = 20",
        "DELETE FROM bodies WHERE seq = 19",
        "UPDATE bodies SET sealed = (SELECT sealed FROM bodies WHERE seq = 21) WHERE seq = 20",
        (
            "UPDATE bodies SET sealed = CAST(substr(sealed, 1, length(sealed) - 1)"
            " || CASE substr(sealed, -1) WHEN x'00' THEN x'01' ELSE x'00' END AS BLOB) WHERE seq = 20"
        ),
        "INSERT INTO shared VALUES (1, 30)",
    ],
    ids=["another base", "no base", "base deleted", "another body", "a byte", "a circle"],
)
def test_tampering_is_found(folder: DataFolder, statement: str) -> None:
    """Whatever is done to a body, or to what says against which it was packed, shows; no wrong body is ever given."""
    calls = list(conversation())
    _fill(folder, calls)
    _query(folder, statement)
    assert not verified(folder).holds
    for body, one in zip(_bodies(folder), calls, strict=True):
        assert body in (None, one.capture)


def test_no_body_needs_too_many_others(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a conversation goes on, reading its last turn takes a bounded number of others."""
    monkeypatch.setattr(sharing, "DEPTH_MAX", 5)
    calls = list(conversation(40))
    _fill(folder, calls)
    bases = dict(_bases(folder))
    for seq in range(1, 41):
        depth = 0
        while seq in bases:
            seq, depth = bases[seq], depth + 1  # noqa: PLW2901  # walks down
        assert depth <= 5
    assert _bodies(folder) == [one.capture for one in calls]


def test_many_single_calls_with_one_long_instruction(folder: DataFolder) -> None:
    """Calls that share a long beginning and nothing else lean on one of them, not on each other in a row."""
    source = random.Random(3)
    instruction = _text(source, 900)
    calls = [
        settlement(n, request=json.dumps({"system": instruction, "user": _text(source, 40)}).encode())
        for n in range(1, 60)
    ]
    _fill(folder, calls)
    assert {base for _, base in _bases(folder)} == {1}
    assert _bodies(folder) == [one.capture for one in calls]


def test_not_too_many_lean_on_one(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a body goes, those that need it are packed anew: so there are never more than a bound of them."""
    monkeypatch.setattr(sharing, "LEANING_MAX", 7)
    source = random.Random(3)
    instruction = _text(source, 900)
    calls = [
        settlement(n, request=json.dumps({"system": instruction, "user": _text(source, 40)}).encode())
        for n in range(1, 40)
    ]
    _fill(folder, calls)
    leaning = Counter(base for _, base in _bases(folder))
    assert max(leaning.values()) == 7
    now_ms = START_MS + 30 * DAY_MS + 1000
    assert _eraser(folder, now_ms).sweep() == 1
    assert [one is None for one in _bodies(folder)] == [n == 1 for n in range(1, 40)]
    assert verified(folder, now_ms=now_ms).problems == []


def test_the_shelf_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies in memory never exceed the bound, the ones used last stay, and a huge one is not taken."""
    monkeypatch.setattr(sharing, "KEPT_BYTES_MAX", 100_000)
    monkeypatch.setattr(sharing, "SHARED_MAX_BYTES", 50_000)
    shelf = Shelf()
    bodies = [f"{number:04d}".encode() * 2000 for number in range(30)]
    for body in bodies:
        shelf.put(Kept(("t", "k", body[:256]), body, 0, len(body)))
    huge = b"9999" * 20_000
    shelf.put(Kept(("t", "k", huge[:256]), huge, 0, len(huge)))
    found = [shelf.base_for(("t", "k", body[:256]), body, len(body)) is not None for body in [*bodies, huge]]
    assert found == [False] * 18 + [True] * 12 + [False]


def _alike(one: bytes, other: bytes) -> int:
    """How many first bytes are equal, one by one."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_how_much_two_bodies_share() -> None:
    """The common beginning to the byte; the common end to within a few bytes, and never into the beginning."""
    source = random.Random(7)
    sizes = (0, 1, 5, 127, 128, 129, 400, 5_000)
    for _ in range(2_000):
        start, end = (source.randbytes(source.choice(sizes)) for _ in range(2))
        mine, theirs = (start + bytes(source.choices(b"ab", k=source.choice((0, 1, 3, 200)))) + end for _ in range(2))
        before, behind = (source.randbytes(source.choice((0, 22, 50))) for _ in range(2))
        kept = Kept(("t", "k", b""), before + mine + behind, len(before), len(mine))
        common = kept.common(theirs)
        assert common == _alike(mine, theirs)
        ends = min(_alike(mine[::-1], theirs[::-1]), len(mine) - common, len(theirs) - common)
        assert ends - 128 <= kept.common_end(theirs, common) <= ends


@pytest.mark.parametrize("size", [0, 1, 2_000, 40_000, 300_000])
def test_a_stretch_is_taken_and_put_back(size: int) -> None:
    """Wherever it lies, whatever is before and behind it in both bodies."""
    source = random.Random(size)
    shared = _text(source, 60_000).encode()[:size]
    for behind in (0, 10, 50_000, 200_000):
        ends = [_text(source, 40_000).encode()[:behind] for _ in range(2)]
        base, plain = b"a head" + shared + ends[0], b"another head" + shared + ends[1]
        stretch = Stretch(base, 6, size, 12)
        packed = sharing.pack(stretch, plain)
        assert sharing.unpack(stretch, packed) == plain
        assert len(packed) < len(ends[1]) * 0.6 + 60


def _identity(number: int) -> bytes:
    return (START_MS + number * 1000 << 80 | number).to_bytes(16, "big")


def _request(capture: Capture | None) -> bytes:
    return b"" if capture is None else capture.request


def test_a_record_says_what_its_bodies_take(folder: DataFolder) -> None:
    """The record's own figure is the size of its blob, shared or not."""
    _fill(folder, list(conversation()))
    reader = LedgerReader(folder)
    try:
        told = [msgspec.json.decode(stored.data)["capture"] for stored in reader.all()]
    finally:
        reader.close()
    assert [one["bytes"] for one in told] == _sizes(folder)
    assert {one["state"] for one in told} == {CaptureState.STORED}
