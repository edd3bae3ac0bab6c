"""A year of prices: a record keeps the book it was priced with, and any book says what it would have cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, answer, chat_answer

FIRST = "prices: [{name: first, provider: local, model: known, rates: {input_tokens: 2, output_tokens: 10}}]\n"
SECOND = """
prices:
  - {name: second, provider: local, model: known, rates: {input_tokens: 3, output_tokens: 10}}
  - {name: new, provider: local, model: late, rates: {input_tokens: 1, output_tokens: 1}}
"""
IMPORTED = {
    "local/known": {
        "litellm_provider": "local",
        "mode": "chat",
        "input_cost_per_token": 0.000004,
        "output_cost_per_token": 0.00002,
    }
}


class Years:
    """A gateway whose price file changed between two calls."""

    def __init__(self, gateway: Gateway, prices: Path) -> None:
        self.gateway, self.prices = gateway, prices
        self.first = self.call("acme", "known")
        self.kept = gateway.look_up(self.first).body
        self.call("movers", "late")  # nobody knows its price yet
        self.change(SECOND)
        self.second = self.call("acme", "known")
        self.books = [gateway.record(one)["book"] for one in (self.first, self.second)]

    def call(self, team: str, model: str) -> str:
        """Give the id of one call."""
        body = {"model": f"local/{model}", "messages": []}
        return self.gateway.request("POST", "/v1/chat/completions", body, key=self.gateway.key(team)).headers[
            "x-request-id"
        ]

    def change(self, text: str) -> None:
        """Start again with other prices."""
        self.gateway.stop()
        self.prices.write_text(text)
        self.gateway.start()

    def command(self, *words: str) -> Any:
        """Give what a command says as JSON."""
        return json.loads(self.gateway.command(*words, "--json").stdout)


@pytest.fixture(scope="module")
def years(start_gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Years]:
    """Give one."""
    prices = tmp_path_factory.mktemp("prices") / "prices.yaml"
    prices.write_text(FIRST)
    with ScriptedUpstream() as upstream:
        upstream.script = answer(chat_answer(prompt=1000, completion=100))
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none"}
        gateway = start_gateway({"providers": {"local": one}, "prices_file": str(prices)})
        yield Years(gateway, prices)
        gateway.stop()


def test_new_prices_touch_no_old_record(years: Years) -> None:
    """The old record is the same to the byte, in every word of it; new calls name the new book."""
    assert years.gateway.look_up(years.first).body == years.kept
    costs = [years.gateway.record(one)["cost_nanos"] for one in (years.first, years.second)]
    assert costs == [3_000_000, 4_000_000]
    assert len(set(years.books)) == 2
    assert years.gateway.command("ledger", "verify").stdout.startswith("Intact")


def test_books_are_listed_and_compared(years: Years) -> None:
    """Every book that was in force is there, and the difference between two is told rate by rate."""
    assert [row["book"] for row in years.command("prices", "history")][:2] == years.books
    changed = {row["model"]: row for row in years.command("prices", "diff", *years.books)["changes"]}
    assert changed["known"]["rates"] == [
        {"meter": "input_tokens", "above": None, "old": "$2.00 / 1M", "new": "$3.00 / 1M"}
    ]
    assert changed["late"]["what"] == "added"
    old = years.command("prices", "show", "local/known", "--book", years.books[0][:12])
    assert {rate["rule_id"] for rate in old["rates"]} == {"own/first:input_tokens", "own/first:output_tokens"}


def test_what_it_would_have_cost(years: Years) -> None:
    """Under the later book, by model, team and meter, with what either book cannot price; nothing is changed."""
    told = years.command("ledger", "reprice", "--book", years.books[1][:12])
    assert (told["book"], told["all"]["records"]) == (years.books[1], 3)
    by_model = {row["name"]: row for row in told["by_model"]}
    assert (by_model["local/known"]["charged_nanos"], by_model["local/known"]["difference_nanos"]) == (
        7_000_000,
        1_000_000,
    )
    late = by_model["local/late"]
    assert (late["charged_unpriced"], late["repriced_unpriced"], late["repriced_nanos"]) == (1, 0, 1_100_000)
    assert {row["name"]: row["repriced_nanos"] for row in told["by_team"]} == {"acme": 8_000_000, "movers": 1_100_000}
    assert {row["name"]: row["difference_nanos"] for row in told["by_meter"]} == {
        "input_tokens": 2_000_000,
        "output_tokens": 100_000,
    }
    assert years.gateway.look_up(years.first).body == years.kept


@pytest.mark.parametrize(
    ("conditions", "records"),
    [
        (["model=local/known"], 2),
        (["model=local/known", "team=movers"], 0),
        (["status=200", "stream=false"], 3),
        (["max-cost-nanos=3000000"], 1),
    ],
)
def test_some_of_the_records(years: Years, conditions: list[str], records: int) -> None:
    """``--where`` takes every condition that the options know, and all of them must hold."""
    words = [word for condition in conditions for word in ("--where", condition)]
    assert years.command("ledger", "reprice", "--book", years.books[1], *words)["all"]["records"] == records


@pytest.mark.parametrize("condition", ["model", "moon=full", "status=new", "stream=perhaps"])
def test_a_condition_that_is_none_is_refused(years: Years, condition: str) -> None:
    """A condition that names nothing, or cannot hold, is an error and not a sum over everything."""
    done = years.gateway.command("ledger", "reprice", "--where", condition, check=False)
    assert done.returncode == 1
    assert condition.partition("=")[2] in done.stderr


def test_an_imported_list_prices_calls(years: Years, tmp_path: Path) -> None:
    """LiteLLM's file becomes a price file, which can be tried on the past before it is used."""
    source, prices = tmp_path / "model_prices.json", tmp_path / "imported.yaml"
    source.write_text(json.dumps(IMPORTED))
    years.gateway.command("prices", "import", str(source), "--output", str(prices), local=False)
    tried = years.command("ledger", "reprice", "--prices-file", str(prices), "--where", "model=local/known")
    assert tried["all"]["repriced_nanos"] == 2 * 6_000_000
    years.change(prices.read_text())
    record = years.gateway.record(years.call("acme", "known"))
    assert (record["cost_nanos"], record["cost_state"]) == (6_000_000, "exact")


def test_a_lost_book_is_found(years: Years) -> None:
    """Without its book a record's lines cannot be proved, and verification says which is missing."""
    [path] = (years.gateway.data / "books").glob(f"{years.books[0]}*")
    moved = path.rename(path.with_suffix(".away"))
    done = years.gateway.command("ledger", "verify", check=False)
    moved.rename(path)
    assert done.returncode == 1
    assert years.books[0] in done.stdout + done.stderr
    assert years.gateway.command("ledger", "verify").stdout.startswith("Intact")


def test_a_book_and_a_price_file_are_two_answers(years: Years) -> None:
    """Which of them is meant cannot be told."""
    asked = ("ledger", "reprice", "--book", "bundled", "--prices-file", "prices.yaml")
    done = years.gateway.command(*asked, check=False)
    assert done.returncode == 1
    assert "--book or --prices-file, not both" in done.stderr
