"""Books for the tests of prices: the bundled catalogue's, and small ones made from a price file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from counterfoil.ledger.books import bundled_catalog
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay_file import parse_overlay
from counterfoil.record.usage import Usage, UsageSource

MakeBook = Callable[[str], PriceBook]
NOON = 1_769_947_200_000  # 2026-02-01T12:00:00Z, a Sunday


@pytest.fixture(scope="session")
def catalog() -> bytes:
    """Give the bundled catalogue's canonical bytes."""
    return bundled_catalog()


@pytest.fixture(scope="session")
def book(catalog: bytes) -> PriceBook:
    """Give the book of the bundled catalogue alone."""
    return PriceBook.build(catalog)


@pytest.fixture(scope="session")
def make_book(catalog: bytes) -> MakeBook:
    """Give a function that makes a book from the text of a price file."""
    return lambda text: PriceBook.build(catalog, parse_overlay(text))


def usage(
    prompt: int = 0,
    completion: int = 0,
    *,
    inside: dict[str, int] | None = None,
    output: dict[str, int] | None = None,
    meters: dict[str, int] | None = None,
    source: UsageSource = UsageSource.REPORTED,
) -> Usage:
    """Give a usage; what is not named is not reported."""
    return Usage(prompt, completion, prompt + completion, inside or {}, output or {}, meters or {}, source)


@pytest.fixture(scope="session")
def make_usage() -> Callable[..., Usage]:
    """Give :func:`usage`."""
    return usage
