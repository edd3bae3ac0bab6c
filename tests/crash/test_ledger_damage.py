"""Files that are torn, cut, zeroed, garbage or gone: the ledger starts with what is whole, or says what is missing.

What damage took away cannot come back; what must hold is that nothing is invented, that what is left verifies by itself
or is found not to, that a place with the signed checkpoints sees what is gone, and that calls go on where they can.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec
import pytest

from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger.evidence import Evidence
from counterfoil.ledger.intents import SLOT_BYTES, SLOTS, count_open
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.tally import Counts, State, Waits
from counterfoil.ledger.verify import Verifier
from counterfoil.ledger.witness import FolderPlace
from counterfoil.tenancy.admin import Admin
from emulators.control import request_id, settlement
from emulators.ledgers import all_ids, intent, opened, verified
from emulators.waiting import until

RECORDS = 60
IN_FLIGHT = 5
CUTS = int(os.environ.get("COUNTERFOIL_TEST_CUTS", "25"))
CUTS_MANY = int(os.environ.get("COUNTERFOIL_TEST_CUTS", "600"))
PAGE = 4096
FRAME = PAGE + 24


class Torn:
    """A folder as a crash left it: records in the database, more in its log, some calls in flight."""

    def __init__(self, root: Path) -> None:
        self.folder = DataFolder.create(root / "data")
        self.witness = root / "second"
        self.copies = root
        self.witness.mkdir()
        self.number = 0
        asyncio.run(self._fill())

    async def _fill(self) -> None:
        async with opened(self.folder, seconds=[FolderPlace(self.witness)]) as ledger:
            await self._settle(ledger, range(1, RECORDS // 2))
        async with opened(self.folder, seconds=[FolderPlace(self.witness)], checkpoint_seconds=0.05) as ledger:
            for number in range(RECORDS // 2, RECORDS + 1):
                await self._settle(ledger, [number])
            for number in range(RECORDS + 1, RECORDS + 1 + IN_FLIGHT):
                ledger.admit(intent(number))
            await until(
                lambda: ledger.last_checkpoint_ms is not None and not ledger.unwitnessed
            )  # it signs when it will
            crashed = self.copies / "crashed"
            shutil.copytree(self.folder.root, crashed)  # as a kill would leave it
        self.crashed = crashed

    @staticmethod
    async def _settle(ledger: object, numbers: range | list[int]) -> None:
        await asyncio.gather(*[ledger.settle(settlement(number)) for number in numbers])  # type: ignore[attr-defined]

    def copy(self) -> DataFolder:
        """The folder after the crash, to be damaged."""
        self.number += 1
        root = self.copies / f"copy-{self.number}"
        shutil.copytree(self.crashed, root)
        return DataFolder(root)


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Torn:
    """Give such a folder, to be copied."""
    return Torn(tmp_path_factory.mktemp("torn"))


POSSIBLE = {request_id(number) for number in range(1, RECORDS + 1 + IN_FLIGHT)}


def reopen(folder: DataFolder) -> set[str]:
    """Open the ledger, settle one more call, close it; give the ids of all that is in it."""

    async def run() -> None:
        async with opened(folder) as ledger:
            slot = ledger.admit(intent(500))
            await ledger.settle(msgspec.structs.replace(settlement(500), slot=slot))

    asyncio.run(run())
    found = all_ids(folder)
    assert len(found) == len(set(found))
    assert count_open(folder.journal) == 0
    assert request_id(500) in found
    return set(found) - {request_id(500)}


def test_undamaged_it_is_whole(torn: Torn) -> None:
    """The crash alone costs nothing: every record, and one for each call in flight."""
    folder = torn.copy()
    assert reopen(folder) == POSSIBLE
    assert verified(folder, witness=torn.witness).problems == []


def harm_log(path: Path, chance: random.Random) -> str:
    """Tear, cut or zero the log at a place of no meaning, or exactly at a frame's edge."""
    data = bytearray(path.read_bytes())
    used = len(bytes(data).rstrip(b"\0"))
    frames = max(1, (used - 32) // FRAME)
    edge = 32 + chance.randrange(frames + 1) * FRAME
    at = chance.choice([edge, edge + 24, chance.randrange(1, used)])
    kind = chance.choice(["cut", "zeros to the end", "zeros", "garbage", "header"])
    match kind:
        case "cut":
            del data[at:]
        case "zeros to the end":
            data[at:] = bytes(len(data) - at)
        case "zeros":
            data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))
        case "garbage":
            data[at : at + 700] = chance.randbytes(len(data[at : at + 700]))
        case _:
            data[: chance.randrange(1, 32)] = b"\0"
    path.write_bytes(data)
    return f"{kind} at {at}"


def check_log(torn: Torn, seed: int, harms: int) -> None:
    """Harm the log ``harms`` times; what is left is a beginning of what was, and the second place sees the rest."""
    chance = random.Random(seed)
    for _ in range(harms):
        folder = torn.copy()
        what = harm_log(folder.root / "ledger.db-wal", chance)
        found = reopen(folder)
        assert found <= POSSIBLE, what
        kept = [number for number in range(1, RECORDS + 1) if request_id(number) in found]
        assert kept == list(range(1, len(kept) + 1)), f"{what}: a record in the middle is gone"
        assert len(kept) >= RECORDS // 2 - 1, f"{what}: what was in the database is gone"
        assert {request_id(number) for number in range(RECORDS + 1, RECORDS + 1 + IN_FLIGHT)} <= found, what
        assert verified(folder).problems == [], what
        if len(kept) < RECORDS:
            assert not verified(folder, witness=torn.witness).holds, what
        shutil.rmtree(folder.root)


def test_a_torn_log_leaves_what_came_before(torn: Torn) -> None:
    """Cut, zeroed, overwritten, at any byte: the log counts up to there; the rest shows against the second place."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    check_log(torn, seed, CUTS)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_torn_log_leaves_what_came_before_many_times(torn: Torn) -> None:
    """The long form."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, {CUTS_MANY} harms")
    check_log(torn, seed, CUTS_MANY)


def test_without_its_log_the_ledger_is_what_the_database_had(torn: Torn) -> None:
    """It opens and verifies; what was in the log shows against the second place, and calls in flight have records."""
    folder = torn.copy()
    (folder.root / "ledger.db-wal").unlink()
    found = reopen(folder)
    assert {request_id(number) for number in range(1, RECORDS // 2)} <= found <= POSSIBLE
    assert verified(folder).problems == []
    kinds = {problem.kind for problem in verified(folder, witness=torn.witness).problems}
    assert kinds & {"truncated", "witness"}


@pytest.mark.parametrize("content", [None, b"", b"x" * 100, bytes(32768)], ids=["gone", "empty", "short", "zeros"])
def test_the_index_of_the_log_is_made_again(torn: Torn, content: bytes | None) -> None:
    """Nothing rests on ``ledger.db-shm``."""
    folder = torn.copy()
    index = folder.root / "ledger.db-shm"
    index.unlink(missing_ok=True)
    if content is not None:
        index.write_bytes(content)
    assert reopen(folder) == POSSIBLE
    assert verified(folder).problems == []


@pytest.mark.parametrize("kind", ["zeroed", "cut"])
def test_a_damaged_database_is_refused_or_found(torn: Torn, kind: str) -> None:
    """Each page zeroed, the file cut at each: it does not open, or the verification names the damage; no silence."""
    pages = (torn.crashed / "ledger.db").stat().st_size // PAGE
    for page in range(pages):
        folder = torn.copy()
        (folder.root / "ledger.db-wal").unlink()  # it may hold the page, and would heal it
        data = bytearray(folder.ledger_db.read_bytes())
        was = bytes(data)
        if kind == "zeroed":
            data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
        else:
            del data[page * PAGE :]
        if page == 0 and kind == "cut":
            shutil.rmtree(folder.root)
            continue  # an empty file is an empty database: the test of a lost ledger has that one
        folder.ledger_db.write_bytes(data)
        try:
            holds = verified(folder, witness=torn.witness).holds
        except apsw.Error:
            holds = False
        assert not holds or bytes(data) == was, f"page {page} of {pages}"
        shutil.rmtree(folder.root)


def _garbage(path: Path) -> None:
    path.write_bytes(random.Random(3).randbytes(SLOTS * SLOT_BYTES))


def _opened_garbage(path: Path) -> None:
    data = bytearray(random.Random(4).randbytes(SLOTS * SLOT_BYTES))
    data[::SLOT_BYTES] = b"\1" * SLOTS
    path.write_bytes(data)


def _short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


HARMS: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "short": _short,
    "garbage": _garbage,
    "garbage in open slots": _opened_garbage,
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_journal_costs_only_the_calls_in_flight(torn: Torn, harm: str) -> None:
    """Nothing is made of slots that are not whole; every settled record is there, and calls go on."""
    folder = torn.copy()
    HARMS[harm](folder.journal / "writer-000.intents")
    found = reopen(folder)
    assert {request_id(number) for number in range(1, RECORDS + 1)} <= found <= POSSIBLE
    assert verified(folder, witness=torn.witness).problems == []


def test_a_journal_that_is_no_file_is_refused(torn: Torn) -> None:
    """In one line that names it."""
    folder = torn.copy()
    path = folder.journal / "writer-000.intents"
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=r"writer-000\.intents cannot be opened"):
        reopen(folder)


def test_a_lost_ledger_is_not_begun_anew(torn: Torn) -> None:
    """A folder that had records and has no ledger is refused, so that nobody takes the empty one for it."""
    folder = torn.copy()

    async def run() -> None:
        async with opened(folder) as ledger:
            ledger.tally.publish(Counts(), State(), Waits())

    asyncio.run(run())
    for path in folder.root.glob("ledger.db*"):
        path.unlink()
    reader = LedgerReader(folder)
    ways = (reader.stats, reader.last_checkpoint_ms, Evidence(folder).checkpoints, lambda: Verifier(folder, now_ms=0))
    for read in ways:
        with pytest.raises(GatewayFault, match="The ledger is missing"):
            read()
    reader.close()
    with pytest.raises(ConfigError, match=r"it had 65 records or more\. Restore it"):
        reopen(folder)


@pytest.mark.parametrize("name", ["pepper", "kek", "signing"])
def test_a_lost_secret_is_not_made_anew(torn: Torn, name: str) -> None:
    """It is refused with what hangs on it, not replaced by one that fits nothing."""
    folder = torn.copy()
    (folder.secrets / name).unlink()
    DataFolder.create(folder.root)
    with pytest.raises(ConfigError, match=f"{name} is missing.*restore it from a backup"):
        folder.secret(name)
    assert not (folder.secrets / name).exists()


def test_a_lost_tenancy_is_not_begun_anew(tmp_path: Path) -> None:
    """Without ``control.db`` nobody's key would be valid: the start is refused, until its last trace is removed."""
    folder = DataFolder.create(tmp_path / "data")
    Admin(folder).close()
    for path in folder.root.glob("control.db*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"control\.db is missing"):
        Admin(folder)
    (folder.root / "control.epoch").unlink()
    Admin(folder).close()


def test_a_lost_version_is_not_begun_anew(torn: Torn) -> None:
    """A folder with a ledger and without its VERSION is a damaged one; without either it is a new one."""
    folder = torn.copy()
    (folder.root / "VERSION").unlink()
    with pytest.raises(ConfigError, match=r"VERSION is missing, but ledger\.db is there"):
        DataFolder.create(folder.root)
