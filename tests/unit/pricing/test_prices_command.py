"""``counterfoil prices`` on the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from counterfoil.cli.main import run
from counterfoil.folder import DataFolder
from counterfoil.ledger import books
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay_file import parse_overlay

Output = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path, catalog: bytes, book: PriceBook) -> Path:
    """Give a data folder with two stored books, the newer with a mark-up."""
    folder = DataFolder.create(tmp_path / "data")
    books.store(folder.books, book)
    newer = PriceBook.build(catalog, parse_overlay("adjust: [{provider: openai, model: gpt-4o, percent: 10}]"))
    stored_s = books.store(folder.books, newer).stat().st_mtime
    os.utime(folder.books / f"{book.digest}.json.zst", (stored_s - 100, stored_s - 100))
    return folder.root


def said(output: Output, *arguments: str) -> Any:
    """Give what a command prints with ``--json``."""
    assert run(["prices", *arguments, "--json"]) == 0, output.readouterr().err
    return json.loads(output.readouterr().out)


def test_show_a_model(data: Path, capsys: Output) -> None:
    """The newest stored book is the default, and each rate names its rule."""
    shown = said(capsys, "show", "openai/gpt-4o", "--data", str(data))
    rates = {rate["meter"]: rate for rate in shown["rates"]}
    assert rates["input_tokens"]["price"] == "$2.75 / 1M"
    assert rates["input_tokens"]["rule_id"] == "openai/gpt-4o:input_tokens*own/adjust-1"
    assert run(["prices", "show", "openai/gpt-4o", "--data", str(data)]) == 0
    assert "$2.75 / 1M" in capsys.readouterr().out


def test_show_a_tier_at_a_moment(capsys: Output) -> None:
    """A service tier and a moment choose the rates; a tier without a price says that it falls back."""
    flex = said(capsys, "show", "openai/gpt-5", "--tier", "flex", "--at", "2026-11-01", "--book", "bundled")
    early = said(capsys, "show", "openai/gpt-5", "--tier", "flex", "--at", "2026-01-01", "--book", "bundled")
    assert {rate["price"] for rate in flex["rates"] if rate["meter"] == "input_tokens"} == {"$0.625 / 1M"}
    assert {rate["state"] for rate in early["rates"]} == {"fallback"}


def test_show_a_region(capsys: Output) -> None:
    """A region with prices of its own has its own rules."""
    shown = said(capsys, "show", "anthropic/claude-opus-4-8", "--region", "us", "--book", "bundled")
    rates = {rate["meter"]: (rate["price"], rate["rule_id"]) for rate in shown["rates"]}
    assert rates["input_tokens"] == ("$5.50 / 1M", "anthropic/claude-opus-4-8+us:input_tokens")


@pytest.mark.parametrize("what", [[], ["openai"], ["nowhere/nothing"], ["openrouter/reka-flash-3:free"]], ids=str)
def test_show_for_people(what: list[str], capsys: Output) -> None:
    """A book, a provider, an unknown model and a free one are all shown without an error."""
    assert run(["prices", "show", *what, "--book", "bundled"]) == 0
    assert capsys.readouterr().out


def test_diff_names_every_changed_rate(data: Path, capsys: Output, book: PriceBook) -> None:
    """Two books differ exactly in the models whose rates differ."""
    changed = said(capsys, "diff", book.digest[:12], "--data", str(data))
    assert {(change["provider"], change["model"], change["what"]) for change in changed["changes"]} >= {
        ("openai", "gpt-4o", "repriced")
    }
    rates = {rate["meter"]: (rate["old"], rate["new"]) for rate in changed["changes"][0]["rates"]}
    assert rates["input_tokens"] == ("$2.50 / 1M", "$2.75 / 1M")
    assert said(capsys, "diff", "bundled", "bundled")["changes"] == []


def test_history_lists_books_and_dated_prices(data: Path, capsys: Output, book: PriceBook) -> None:
    """Every stored book is listed, the oldest first, and a model's dated prices are listed from one."""
    listed = said(capsys, "history", "--data", str(data))
    assert listed[0]["book"] == book.digest
    assert [row["own_rules"] for row in listed] == [0, 1]
    prices = said(capsys, "history", "openai/o3", "--book", "bundled")
    assert [row["from"] for row in prices if row["when"] is None] == [None, "2025-06-10T00:00:00Z"]


def test_import_writes_a_file_that_can_be_used(tmp_path: Path, capsys: Output) -> None:
    """An import is a price file: shown as a book of its own it has the imported price."""
    source, target = tmp_path / "litellm.json", tmp_path / "prices.yaml"
    source.write_text('{"house": {"litellm_provider": "openai", "input_cost_per_token": 1.5e-07},'
                      ' "gpt-4o": {"litellm_provider": "openai", "input_cost_per_token": 1e-06}}')  # fmt: skip
    imported = said(capsys, "import", str(source), "--only-missing", "--output", str(target))
    assert imported["prices"] == 1
    shown = said(capsys, "show", "openai/house", "--book", str(target))
    assert shown["rates"][0]["price"] == "$0.15 / 1M"


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "--book", "feedbeef"],
        ["diff", "bundled", "nonesuch"],
        ["import", "nonesuch.json"],
        ["history", "--data", "nonesuch"],
    ],
    ids=" ".join,
)
def test_what_is_missing_is_an_error(
    arguments: list[str], tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A book, a file or a folder that is not there ends the command with 1 and one line that names it."""
    monkeypatch.chdir(tmp_path)
    assert run(["prices", *arguments]) == 1
    assert arguments[-1] in capsys.readouterr().err
