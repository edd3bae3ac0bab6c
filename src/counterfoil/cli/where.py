"""Where a command finds what it works on: a data folder on this machine, or a running gateway.

A local folder may be read and changed while the gateway runs on it: every change counts in all its processes at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from msgspec import Struct

from counterfoil import config
from counterfoil.cli.remote import Remote
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.documents import plain

_DATA_HELP = "The gateway's data folder. Default: COUNTERFOIL_DATA, else `data` of the configuration."
_CONFIG_HELP = "The configuration file that names the data folder."


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Place:
    """A data folder on this machine."""

    data: Annotated[Path | None, Parameter(help=_DATA_HELP)] = None
    config: Annotated[Path | None, Parameter(help=_CONFIG_HELP)] = None

    @property
    def root(self) -> Path:
        """The data folder's path."""
        return config.data_folder(self.config, os.environ, self.data)


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Source:
    """A data folder on this machine, or a gateway's control plane."""

    data: Annotated[Path | None, Parameter(help=_DATA_HELP)] = None
    config: Annotated[Path | None, Parameter(help=_CONFIG_HELP)] = None
    url: Annotated[str | None, Parameter(help="Ask the gateway at this address instead. Default: COUNTERFOIL_URL.")] = (
        None
    )
    key: Annotated[str | None, Parameter(help="The key to ask with. Better: COUNTERFOIL_KEY.")] = None

    @property
    def root(self) -> Path:
        """The data folder's path."""
        return config.data_folder(self.config, os.environ, self.data)

    def remote(self) -> Remote | None:
        """The gateway to ask, None for the local folder. ``--data`` wins over ``COUNTERFOIL_URL``."""
        if self.url is not None and self.data is not None:
            raise ConfigError("Give --data or --url, not both.")
        url = self.url or (os.environ.get("COUNTERFOIL_URL") if self.data is None else None)
        return Remote(url, self.key or os.environ.get("COUNTERFOIL_KEY", "")) if url else None


Query = Mapping[str, str | int | None]
HERE = Place()
LOCAL = Source()
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON.", negative=())]


@contextmanager
def admin(root: Path, *, create: bool = False) -> Generator[Admin]:
    """The tenancy of the data folder ``root``; ``create`` makes the folder when it is missing."""
    opened = Admin(DataFolder.create(root) if create else DataFolder.existing(root))
    try:
        yield opened
    finally:
        opened.close()


def listed(
    source: Source, path: str, here: Callable[[Admin], Iterable[Struct]], query: Query | None = None
) -> list[dict[str, Any]]:
    """The rows of a list of the tenancy as the control plane shows them, from a gateway's ``path`` or from ``here``."""
    remote = source.remote()
    if remote is not None:
        return remote.get(path, query)["data"]
    with admin(source.root) as tenancy:
        return [plain(one) for one in here(tenancy)]
