"""Which call a key stands for: claimed once, taken over once, forgotten in time, and dropped with a dead worker."""

from __future__ import annotations

import multiprocessing
import stat
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import apsw
import pytest

from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger.claims import SWEPT_ROWS, Claims, Held
from counterfoil.ledger.intents import IntentLog
from counterfoil.ledger.settlement import Intent
from emulators.waiting import PATIENCE_S

DAY_MS = 86_400_000
SCOPE, OTHER, PRINT = b"s" * 32, b"o" * 32, b"p" * 32

Open = Callable[..., Claims]


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Give a data folder."""
    return DataFolder.create(tmp_path / "data")


@pytest.fixture
def opened(folder: DataFolder) -> Iterator[Open]:
    """Give a function that opens the claims of a worker."""
    all_of_them: list[Claims] = []

    def make(writer: int = 0, recorded: set[str] | None = None) -> Claims:
        claims = Claims(folder, writer, "fsync", DAY_MS, (recorded or set()).__contains__)
        all_of_them.append(claims)
        return claims

    yield make
    for claims in all_of_them:
        claims.close()


def test_a_scope_is_claimed_once(opened: Open) -> None:
    """Whoever comes later, in any worker, learns which call has it and for which request."""
    first, second = opened(0), opened(1, {"gen_a"})
    assert first.claim(SCOPE, PRINT, "gen_a", 1) is None
    assert first.claim(SCOPE, b"q" * 32, "gen_b", 2) == Held(PRINT, "gen_a")
    assert second.claim(SCOPE, PRINT, "gen_c", 3) == Held(PRINT, "gen_a")
    assert second.claim(OTHER, PRINT, "gen_c", 3) is None


def test_one_of_many_takes_a_claim_over(opened: Open) -> None:
    """The second finds that it is no longer the call it saw."""
    first, second = opened(0), opened(1, {"gen_a"})
    first.claim(SCOPE, PRINT, "gen_a", 1)
    assert second.take_over(SCOPE, "gen_a", "gen_b", 2)
    assert not first.take_over(SCOPE, "gen_a", "gen_c", 2)
    assert first.claim(SCOPE, PRINT, "gen_d", 3) == Held(PRINT, "gen_b")


def test_a_released_claim_is_free(opened: Open) -> None:
    """But only by the call that has it."""
    claims = opened()
    claims.claim(SCOPE, PRINT, "gen_a", 1)
    claims.release(SCOPE, "gen_other")
    assert claims.claim(SCOPE, PRINT, "gen_b", 2) == Held(PRINT, "gen_a")
    claims.release(SCOPE, "gen_a")
    assert claims.claim(SCOPE, PRINT, "gen_b", 3) is None


def test_a_key_is_known_for_its_time_and_no_longer(opened: Open, folder: DataFolder) -> None:
    """An expired claim is free at once, and each new one takes some of the expired away."""
    claims = opened()
    for number in range(2 * SWEPT_ROWS):
        claims.claim(number.to_bytes(32, "big"), PRINT, f"gen_{number}", 1)
    assert claims.claim(bytes(32), PRINT, "gen_x", DAY_MS) == Held(PRINT, "gen_0")
    assert claims.claim(bytes(32), PRINT, "gen_x", DAY_MS + 1) is None
    left = apsw.Connection(str(folder.root / "idempotency.db")).execute("SELECT count(*) FROM claims").get
    assert left == SWEPT_ROWS + 1


def test_nothing_is_made_before_the_first_key(opened: Open, folder: DataFolder) -> None:
    """And what is made is nobody else's to read."""
    claims = opened()
    assert not list(folder.root.glob("idempotency*"))
    claims.claim(SCOPE, PRINT, "gen_a", 1)
    for name in ("idempotency.db", "idempotency.lock"):
        assert stat.S_IMODE((folder.root / name).stat().st_mode) == 0o600


def test_the_key_itself_is_not_on_the_disk(opened: Open, folder: DataFolder) -> None:
    """Digests only."""
    opened().claim(SCOPE, PRINT, "gen_a", 1)
    columns = apsw.Connection(str(folder.root / "idempotency.db")).execute("SELECT * FROM claims").get
    assert columns == (SCOPE, PRINT, "gen_a", 0, 1)


def test_a_worker_drops_what_its_predecessor_never_sent(opened: Open) -> None:
    """A claim without a record was never dispatched; one with a record says what became of it."""
    before = opened(0)
    before.claim(SCOPE, PRINT, "gen_a", 1)
    before.claim(OTHER, PRINT, "gen_b", 1)
    before.close()
    after = opened(0, {"gen_b"})
    assert after.claim(SCOPE, PRINT, "gen_c", 2) is None
    assert after.claim(OTHER, PRINT, "gen_c", 2) == Held(PRINT, "gen_b")


def test_what_is_in_the_journal_of_a_dead_worker_was_sent(opened: Open, folder: DataFolder) -> None:
    """Its record is still to come, from whoever takes up the journal; until then its claim stands."""
    before = opened(7)
    before.claim(SCOPE, PRINT, "gen_a", 1)
    before.claim(OTHER, PRINT, "gen_b", 1)
    before.close()
    journal = IntentLog.claim(folder.journal, 7)
    assert journal is not None
    journal.admit(Intent("gen_a", 1, "acme", None, "key", "/v1/x", "p/m", None, "p", stream=False, byok=False))
    journal.close()
    other = opened(0)
    assert other.claim(SCOPE, PRINT, "gen_c", 2) == Held(PRINT, "gen_a")
    assert other.claim(OTHER, PRINT, "gen_c", 2) is None


def claim_and_wait(root: Path, claimed: Event, end: Event) -> None:
    """What another worker does: claim, and live until told."""
    claims = Claims(DataFolder.existing(root), 7, "write", DAY_MS, lambda _: False)
    claims.claim(SCOPE, PRINT, "gen_far", 1)
    claimed.set()
    end.wait(PATIENCE_S)


def test_a_claim_stands_as_long_as_its_worker_lives(opened: Open, folder: DataFolder) -> None:
    """It ends with the process, however that ends, also when nobody takes up its number again."""
    context = multiprocessing.get_context("spawn")
    claimed, end = context.Event(), context.Event()
    other = context.Process(target=claim_and_wait, args=(folder.root, claimed, end))
    other.start()
    try:
        assert claimed.wait(PATIENCE_S)
        held = opened(0)
        assert held.claim(SCOPE, PRINT, "gen_a", 2) == Held(PRINT, "gen_far")
        held.close()
    finally:
        other.kill()
        other.join()
        other.close()
    assert opened(1).claim(SCOPE, PRINT, "gen_a", 3) is None


def test_a_table_that_cannot_be_used_is_a_ledger_that_cannot(opened: Open, folder: DataFolder) -> None:
    """503 before anything is sent."""
    (folder.root / "idempotency.db").write_bytes(b"this is no database, and long enough to be looked at" * 100)
    with pytest.raises(GatewayFault) as caught:
        opened()
    assert caught.value.code == "gateway:ledger_unavailable"


def test_tries_in_vain_hold_nothing_open(opened: Open, folder: DataFolder) -> None:
    """While the table cannot be opened, each request tries again, and leaves no descriptor behind."""
    claims = opened()
    table = folder.root / "idempotency.db"
    table.mkdir()
    counts: list[int] = []
    for _ in range(3):
        with pytest.raises(GatewayFault):
            claims.claim(SCOPE, PRINT, "gen_a", 1)
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert len(set(counts)) == 1
    table.rmdir()
    assert claims.claim(SCOPE, PRINT, "gen_a", 1) is None
