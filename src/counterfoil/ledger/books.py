"""Price books on disk: each stored once under its digest, so every record's lines can be recomputed for ever.

A file with a digest for a name is whole, or it is not there. What is read is checked against that digest; a book that
does not match is refused, never used.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from counterfoil.errors import ConfigError
from counterfoil.folder import replace_whole
from counterfoil.pricing.book import PriceBook

BOOK_BYTES_MAX: Final = 256 * 1024 * 1024
"""The largest book that is unpacked; the bundled catalogue has 0.8 MB."""

_NAME = re.compile(r"[0-9a-f]{64}\Z")
_SUFFIX = ".json.zst"


def bundled_catalog() -> bytes:
    """The canonical bytes of the catalogue that comes with this version."""
    packed = resources.files("counterfoil.pricing").joinpath("catalog.json.zst").read_bytes()
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=BOOK_BYTES_MAX)


def store(folder: Path, book: PriceBook) -> Path:
    """Make ``book`` durable in ``folder``; storing it again changes nothing. Raises :class:`OSError`."""
    path = folder / (book.digest + _SUFFIX)
    if not path.exists():
        replace_whole(path, zstandard.ZstdCompressor(level=9).compress(book.data))
    return path


def load(folder: Path, digest: str) -> PriceBook:
    """The book with this digest.

    Raises :class:`ConfigError` when it is not there, cannot be read, or is not the book its name says.
    """
    path = folder / (digest + _SUFFIX)
    if not _NAME.match(digest) or not path.is_file():
        raise ConfigError(f"There is no price book {digest} in {folder}.")
    try:
        data = zstandard.ZstdDecompressor().decompress(path.read_bytes(), max_output_size=BOOK_BYTES_MAX)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ConfigError(f"The price book {path} is damaged: its content does not match its name.")
        return PriceBook(data)
    except (OSError, zstandard.ZstdError, msgspec.DecodeError) as error:
        raise ConfigError(f"The price book {path} cannot be read ({error}).") from error


def stored(folder: Path) -> list[tuple[str, float]]:
    """Digests of every stored book with the time it was stored (Unix seconds), oldest first."""
    found = [
        (path.name.removesuffix(_SUFFIX), path.stat().st_mtime)
        for path in folder.glob("*" + _SUFFIX)
        if _NAME.match(path.name.removesuffix(_SUFFIX))
    ]
    return sorted(found, key=lambda item: (item[1], item[0]))
