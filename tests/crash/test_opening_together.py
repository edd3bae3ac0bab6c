"""Several processes open the databases of one new folder at the same instant: each finds them usable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from counterfoil.folder import DataFolder

PROCESSES = 4
ROUNDS = 12

CHILD = """
import sys
from pathlib import Path

from counterfoil.folder import DataFolder
from counterfoil.ledger import database, recordings
from counterfoil.ledger.claims import Claims
from counterfoil.replay.bulk.store import RunStore
from counterfoil.tenancy.store import Store

number = int(sys.argv[1])


def ledger(folder):
    database.open_writer(folder.ledger_db, "fsync").close()


def claims(folder):
    table = Claims(folder, number, "fsync", 1000, lambda request_id: False)
    assert table.claim(b"scope %d" % number, b"fingerprint", "req_%d" % number, 1) is None
    table.close()


def played(folder):
    recordings._open(folder.playback_db).close()


def bulk(folder):
    RunStore(folder).close()


def tenancy(folder):
    Store(folder).close()


print("ready", flush=True)
for line in sys.stdin:
    what, path = line.split()
    globals()[what](DataFolder(Path(path)))
    print("opened", flush=True)
"""


@pytest.mark.parametrize("what", ["ledger", "claims", "played", "bulk", "tenancy"])
def test_processes_may_make_a_database_at_the_same_time(tmp_path: Path, what: str) -> None:
    """In every round each process opens it, and none is told that it is locked."""
    folders = [DataFolder.create(tmp_path / str(number)) for number in range(ROUNDS)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for number in range(PROCESSES)
    ]
    try:
        assert {child.stdout.readline() for child in children if child.stdout} == {"ready\n"}
        for folder in folders:
            for child in children:
                child.stdin.write(f"{what} {folder.root}\n")
            for child in children:
                child.stdin.flush()
            assert [child.stdout.readline() for child in children] == ["opened\n"] * PROCESSES
    finally:
        for child in children:
            child.communicate()
    assert [child.returncode for child in children] == [0] * PROCESSES
