"""The ledger's SQL, read from the files beside this module, so that every statement can be read in one place."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

_FOLDER: Final[Traversable] = resources.files("counterfoil.ledger")
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})\.sql\Z")


def parse(text: str) -> dict[str, str]:
    """The statements in ``text`` by name, their comments cut. Raises :class:`ValueError` when a name comes twice."""
    parts = _NAME.split(text)
    statements: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in statements:
            raise ValueError(f"The statement {name} is there twice.")
        statements[name] = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
    return statements


def schema() -> str:
    """The newest schema."""
    return _FOLDER.joinpath("schema.sql").read_text(encoding="utf-8")


def migrations() -> list[tuple[int, str]]:
    """Every migration with its number, ascending from 1."""
    files = _FOLDER.joinpath("migrations").iterdir()
    found = [(match, file) for file in files if (match := _MIGRATION.match(file.name))]
    return sorted((int(match[1]), file.read_text(encoding="utf-8")) for match, file in found)


QUERIES: Final = parse(_FOLDER.joinpath("queries.sql").read_text(encoding="utf-8"))
