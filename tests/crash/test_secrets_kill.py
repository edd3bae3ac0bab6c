"""An exchange of a secret that is killed at any line can be ended, by doing it again or by starting the gateway."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

import apsw
import pytest

from counterfoil.cli import rotation
from counterfoil.cli.rotation import NAMES, Name
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger.query import LedgerReader
from counterfoil.replay.bulk.asked import Asked
from counterfoil.replay.bulk.store import Run, RunState, RunStore
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.directory import Directory
from emulators.control import request_id, settlement, write
from emulators.gateway import Gateway
from emulators.ledgers import verified

TRACED: Final = (
    "cli/rotation.py",
    "ledger/exchange.py",
    "ledger/handover.py",
    "tenancy/vault.py",
    "bulk/store.py",
    "/folder.py",
)
LINES_MAX: Final = 2_000
TALK: Final = b'{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"' + bytes(
    b"abcdefghijklmnopqrstuvwxyz"[at * 7 % 26] for at in range(3_000)
)
ENDS: Final = (b'"}]}', b'"},{"role":"user","content":"and then?"}]}')
"""Two requests, the second of which begins as the first does: it is packed against it."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Give a folder in which something hangs on every secret, and a key of its team."""
    root = tmp_path_factory.mktemp("secrets") / "data"
    folder = DataFolder.create(root)
    admin = Admin(folder)
    key = admin.create_key("acme", make_missing=True).key
    admin.set_provider_key("acme", "openai", "sk-of-the-team")
    admin.close()
    for number, end in enumerate(ENDS, 1):
        write(folder, [settlement(number, request=TALK + end, key_id="k1")])
    store = RunStore(folder)
    run = Run(
        run_id="run_01M8D6HWN4M36X41AN7SE5TS0Q", team_id="acme", key_id="k", created_ms=1, state=RunState.FINISHED,
        reason=None, finished_ms=2, items=1, budget_nanos=None, excluded={}, secret=b"s" * 32, asked=Asked(name="mine"),
    )  # fmt: skip
    store.add(run, [1])
    store.close()
    (folder.playback_db).touch(mode=0o600)
    return root, key


def data_keys(folder: DataFolder) -> int:
    """How many keys the team's bodies have been sealed with, or are to be."""
    database = apsw.Connection(str(folder.ledger_db))
    [(count,)] = database.execute("SELECT count(*) FROM data_keys")
    database.close()
    return count


def holds(folder: DataFolder, key: str) -> None:
    """Everything that hangs on the secrets is as it was."""
    report = verified(folder)
    assert report.problems == []
    assert report.bodies == len(ENDS)
    reader = LedgerReader(folder)
    for number, end in enumerate(ENDS, 1):
        stored = reader.find("acme", request_id(number))
        assert stored is not None
        capture = reader.capture(stored)
        assert capture is not None
        assert capture.request == TALK + end
    reader.close()
    directory = Directory(folder)
    own = directory.authenticate(key).wallet.key("openai")
    assert own is not None
    assert own.secret == "sk-of-the-team"
    directory.close()
    store = RunStore(folder)
    assert [run.asked.name for run in store.listed("acme")] == ["mine"]
    store.close()


def killed_at(folder: DataFolder, name: Name, line: int) -> bool:
    """Exchange a secret in another process, which kills itself at its ``line``-th line of ours; False when it ended."""
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(TRACED):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            sys.settrace(trace)
            rotation.rotate(folder, name)
            status = 0
        os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.WIFSIGNALED(ended) or os.WEXITSTATUS(ended) == 0
    return os.WIFSIGNALED(ended)


@pytest.mark.parametrize(
    "step", [pytest.param(9, id="every-ninth-line"), pytest.param(1, id="every", marks=pytest.mark.faults)]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_line_loses_nothing(template: tuple[Path, str], tmp_path: Path, name: Name, step: int) -> None:
    """Killed there, whoever reads the secret is told how to go on or reads it; ended, everything is as it was."""
    source, key = template
    before = (source / "secrets" / name).read_bytes()
    interrupted = 0
    for line in range(1, LINES_MAX, step):
        folder = DataFolder(tmp_path / str(line))
        shutil.copytree(source, folder.root)
        if not killed_at(folder, name, line):
            break
        if folder.next_secret(name) is None:
            holds(folder, key)
        else:
            interrupted += 1
            with pytest.raises(ConfigError, match=f"secrets rotate {name}"):
                folder.secret(name)
            assert folder.interrupted() == [name]
            ended = rotation.rotate(folder, name)
            assert (ended.secret, ended.finished, ended.unreadable) == (name, True, 0)
            assert folder.secret(name) != before
            holds(folder, key)
        assert not list(folder.secrets.glob("*.next"))
        shutil.rmtree(folder.root)
    else:
        pytest.fail("it never ended")
    assert interrupted > 3
    assert folder.secret(name) != before
    holds(folder, key)


def test_a_gateway_ends_it_before_it_starts(template: tuple[Path, str], start_gateway: Any) -> None:
    """`serve` on a folder with an interrupted exchange ends it and says so; then everything is as it was."""
    source, key = template
    gateway: Gateway = start_gateway({})
    assert gateway.stop() == 0
    shutil.rmtree(gateway.data)
    shutil.copytree(source, gateway.data)
    folder = DataFolder(gateway.data)
    for name in NAMES:
        folder.begin_exchange(name)
    gateway.start()
    assert gateway.look_up(request_id(1), key).status == 200
    assert gateway.stop() == 0
    assert folder.interrupted() == []
    log = gateway.process.log.read_text()
    assert all(f"The interrupted exchange of {name} is ended." in log for name in NAMES)


def test_one_after_the_other_all_of_them_twice(template: tuple[Path, str], tmp_path: Path) -> None:
    """Each exchange leaves the others' work whole, and what hangs on older ones too."""
    source, key = template
    folder = DataFolder(tmp_path / "data")
    shutil.copytree(source, folder.root)
    keys = data_keys(folder)
    for name in (*NAMES, *NAMES):
        exchanged = rotation.rotate(folder, name)
        assert (exchanged.finished, exchanged.unreadable) == (False, 0)
        write(folder, [])
        holds(folder, key)
    assert not folder.playback_db.exists()
    assert data_keys(folder) == keys + 2  # what is sealed from now on is under a key that no old kek wrapped
