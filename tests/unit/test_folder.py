"""Files of the data folder are whole, or as they were."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from counterfoil.folder import replace_whole
from emulators.disks import nearly_full


def test_what_is_replaced_is_whole(tmp_path: Path) -> None:
    """Private, complete, and with nothing left beside it."""
    path = tmp_path / "kept"
    replace_whole(path, b"old")
    replace_whole(path, b"new" * 10_000)
    assert path.read_bytes() == b"new" * 10_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_takes_a_part_changes_nothing(tmp_path: Path) -> None:
    """The part is not put in the place of what was there."""
    path = tmp_path / "kept"
    replace_whole(path, b"old")
    with nearly_full(10), pytest.raises(OSError, match="large"):
        replace_whole(path, b"new" * 10)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
