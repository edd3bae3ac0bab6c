"""What the tests of the ledger share."""

from __future__ import annotations

import pytest

from counterfoil.ledger import books
from counterfoil.pricing.book import PriceBook


@pytest.fixture(scope="session")
def book() -> PriceBook:
    """Give the book of the bundled catalogue."""
    return PriceBook.build(books.bundled_catalog())
