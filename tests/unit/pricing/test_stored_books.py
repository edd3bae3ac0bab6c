"""Price books on disk: once, whole, and never another than their name says."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from counterfoil.errors import ConfigError
from counterfoil.ledger import books
from counterfoil.pricing.book import PriceBook


def test_a_book_comes_back_as_it_was_stored(tmp_path: Path, book: PriceBook) -> None:
    """Storing is idempotent, readable by the owner alone, leaves nothing else behind, and loses nothing."""
    path = books.store(tmp_path, book)
    assert books.store(tmp_path, book) == path
    assert [file.name for file in tmp_path.iterdir()] == [f"{book.digest}.json.zst"]
    assert path.stat().st_mode & 0o077 == 0
    assert books.load(tmp_path, book.digest).data == book.data
    assert [digest for digest, _ in books.stored(tmp_path)] == [book.digest]


def test_a_changed_book_is_refused(tmp_path: Path, book: PriceBook) -> None:
    """A book whose content does not match its name is never used to price."""
    path = books.store(tmp_path, book)
    path.write_bytes(zstandard.ZstdCompressor().compress(book.data.replace(b"150000000", b"150000001")))
    with pytest.raises(ConfigError, match="does not match its name"):
        books.load(tmp_path, book.digest)


@pytest.mark.parametrize("content", [b"", b"garbage"], ids=["empty", "garbage"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path, book: PriceBook) -> None:
    """A file that is no book at all is a configuration error that names it."""
    books.store(tmp_path, book).write_bytes(content)
    with pytest.raises(ConfigError, match=book.digest):
        books.load(tmp_path, book.digest)


@pytest.mark.parametrize("name", ["", "0" * 64, "../../etc/passwd", "A" * 64])
def test_a_book_that_is_not_there_is_an_error(name: str, tmp_path: Path) -> None:
    """Only a digest names a book; anything else is not looked for."""
    with pytest.raises(ConfigError, match="no price book"):
        books.load(tmp_path, name)


def test_a_truncated_book_is_refused(tmp_path: Path, book: PriceBook) -> None:
    """A book cut short anywhere is refused."""
    path = books.store(tmp_path, book)
    whole = path.read_bytes()
    for length in range(0, len(whole), 9973):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError):
            books.load(tmp_path, book.digest)


def test_a_book_of_a_later_format_is_refused(book: PriceBook) -> None:
    """A book whose format this version does not know is refused, never guessed at."""
    later = book.data.replace(b'{"format":1,', b'{"format":99,', 1)
    with pytest.raises(ValueError, match="format 99"):
        PriceBook(later)
