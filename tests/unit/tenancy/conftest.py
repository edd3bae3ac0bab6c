"""A tenancy in a fresh data folder, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from counterfoil.folder import DataFolder
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.directory import Directory


@dataclass
class Clock:
    """A wall clock that stands still until it is moved. Unix milliseconds."""

    now_ms: int = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    """The clock of the test's tenancy."""
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """A new data folder."""
    return DataFolder.create(tmp_path / "data")


@pytest.fixture
def admin(folder: DataFolder, clock: Clock) -> Iterator[Admin]:
    """What changes the tenancy."""
    opened = Admin(folder, clock)
    yield opened
    opened.close()


@pytest.fixture
def directory(folder: DataFolder, clock: Clock) -> Iterator[Directory]:
    """What checks keys, as a worker has it: a second connection to the same folder."""
    opened = Directory(folder, clock)
    yield opened
    opened.close()
