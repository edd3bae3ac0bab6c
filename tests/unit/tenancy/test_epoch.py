"""The shared number: odd while a change is under way, another one after it, and settled after a crash."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.tenancy import epoch as epochs
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.epoch import Epoch
from counterfoil.tenancy.principal import KeyRefused
from counterfoil.tenancy.store import Store
from emulators.waiting import PATIENCE_S


@pytest.fixture
def epoch(tmp_path: Path) -> Iterator[Epoch]:
    """A new number."""
    opened = Epoch(tmp_path / "epoch")
    yield opened
    opened.close()


def test_a_change_makes_it_odd_and_then_another(epoch: Epoch, tmp_path: Path) -> None:
    """A second process's view, here a second mapping, sees both steps."""
    other = Epoch(tmp_path / "epoch")
    before = other.view[0]
    with epoch.changing():
        assert other.view[0] % 2 == 1
    assert other.view[0] % 2 == 0
    assert other.view[0] != before
    other.close()


def test_a_change_that_fails_settles_too(epoch: Epoch) -> None:
    """Whatever happens inside a change, the number is settled after it."""
    with pytest.raises(ZeroDivisionError), epoch.changing():
        _ = 1 // 0
    assert epoch.view[0] % 2 == 0


def test_nobody_settles_another_ones_change(epoch: Epoch, tmp_path: Path) -> None:
    """While the lock is held the number stays odd, whoever looks."""
    other = Epoch(tmp_path / "epoch")
    with epoch.changing():
        other.settle_after_crash()
        assert other.view[0] % 2 == 1
    other.close()


def test_changes_wait_for_each_other_and_not_for_ever(
    epoch: Epoch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that another holds up gives up with an error instead of hanging."""
    monkeypatch.setattr(epochs, "CHANGE_SECONDS_MAX", 0.02)
    other = Epoch(tmp_path / "epoch")
    with epoch.changing(), pytest.raises(TimeoutError), other.changing():
        pass
    with other.changing():
        pass
    other.close()


CRASH = """
import os, signal, sys
from pathlib import Path
from counterfoil.folder import DataFolder
from counterfoil.tenancy.store import Store
store = Store(DataFolder.existing(Path(sys.argv[1])))
with store.change():
    store.rows("UPDATE keys SET revoked_ms = 1")
    if sys.argv[2] == "after":
        store._execute("COMMIT")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("moment", "reason"), [("before", None), ("after", "revoked_key")])
def test_a_process_killed_in_a_change_leaves_no_stale_key(
    moment: str, reason: str | None, folder: DataFolder, admin: Admin, directory: Directory
) -> None:
    """Killed before the commit: the key is still good. Killed between commit and settling: it is refused at once."""
    made = admin.create_key("acme", make_missing=True)
    directory.authenticate(made.key)
    killed = subprocess.run([sys.executable, "-c", CRASH, str(folder.root), moment], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    if reason is None:
        directory.authenticate(made.key)
    else:
        with pytest.raises(KeyRefused) as caught:
            directory.authenticate(made.key)
        assert caught.value.reason == reason
    assert directory._epoch[0] % 2 == 0
    admin.create_key("acme")


def test_reading_does_not_disturb_the_caches(folder: DataFolder, admin: Admin, directory: Directory) -> None:
    """Opening the tenancy and listing keys leaves the number, and so every cache, alone."""
    made = admin.create_key("acme", make_missing=True)
    holder = directory.authenticate(made.key)
    reader = Admin(folder)
    reader.list_keys()
    reader.close()
    assert directory.authenticate(made.key) is holder


@pytest.mark.parametrize(
    "name", ["control.db", "control.db-wal", "control.db-shm", "control.epoch", "secrets/pepper", "secrets/kek"]
)
def test_files_are_private(name: str, folder: DataFolder, admin: Admin) -> None:
    """Whatever the umask, every file of the tenancy is its owner's alone."""
    admin.create_team("acme")
    assert stat.S_IMODE((folder.root / name).stat().st_mode) == 0o600


def test_no_secret_is_stored_in_clear(folder: DataFolder, admin: Admin) -> None:
    """Neither an API key nor a provider key, nor half of one, is anywhere in the folder's files."""
    made = admin.create_key("acme", make_missing=True)
    admin.set_provider_key("acme", "openai", "sk-canary-0123456789abcdef")
    admin.close()
    stored = b"".join(path.read_bytes() for path in folder.root.rglob("*") if path.is_file())
    secret = made.key[-40:-6].encode()
    assert secret[:17] not in stored
    assert secret[17:] not in stored
    assert b"sk-canary" not in stored
    assert made.info.key_id.encode() in stored


def test_processes_that_start_together_make_the_tables_once(folder: DataFolder) -> None:
    """Six processes open a new folder at once; all can use it."""
    script = (
        "import sys; from pathlib import Path; from counterfoil.folder import DataFolder;"
        "from counterfoil.tenancy.admin import Admin;"
        "Admin(DataFolder.create(Path(sys.argv[1]))).create_key('acme', make_missing=True)"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(folder.root)]) for _ in range(6)]
    try:
        assert [process.wait(PATIENCE_S) for process in started] == [0] * 6
    finally:
        for process in started:
            process.kill()
            process.wait()
    opened = Admin(folder)
    assert len(opened.list_keys()) == 6
    assert len(opened.list_teams()) == 1
    opened.close()


def test_a_newer_database_is_refused(folder: DataFolder, admin: Admin) -> None:
    """A control.db of a later version is not guessed at."""
    admin._store._database.pragma("user_version", 99)
    with pytest.raises(ConfigError, match="written by a newer Counterfoil"):
        Store(folder)


def test_a_damaged_database_is_said_to_be_one(folder: DataFolder) -> None:
    """A control.db that is no database is an error that says what to do."""
    folder.control_db.write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigError, match=r"cannot be opened .* restore a backup"):
        Directory(folder)


def test_a_change_that_cannot_be_written_is_no_change(admin: Admin, directory: Directory) -> None:
    """When the database refuses, the fault says so, nothing is half done, and the number is settled."""
    made = admin.create_key("acme", make_missing=True)
    admin._store._database.pragma("query_only", 1)
    with pytest.raises(GatewayFault, match="cannot be read or written"):
        admin.revoke_key(made.info.key_id)
    admin._store._database.pragma("query_only", 0)
    assert directory.authenticate(made.key).team_id == "acme"
    assert admin._store.epoch.view[0] % 2 == 0


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    """With an open umask the files are private all the same."""
    before = os.umask(0)
    try:
        root = DataFolder.create(tmp_path / "open")
        Admin(root).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(root.control_db.stat().st_mode) == 0o600
    assert stat.S_IMODE(root.root.stat().st_mode) == 0o700
