"""A call that a team's own key pays has two amounts, from the answer to the sums, the export and the proof."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, answer, chat_answer

PRICES = """
prices:
  - {provider: local, rates: {input_tokens: 2, output_tokens: 10}, model: known}
  - {provider: local, rates: {input_tokens: 2, output_tokens: 10}, model: failing}
byok:
  - {percent: 2.5, request: 0.001}
  - {name: movers-flat, team: movers, request: 0.0002}
"""
USED = {"prompt": 1000, "completion": 100}
FAILED = {
    "error": {"message": "again", "type": "server_error"},
    "usage": {"prompt_tokens": 500, "completion_tokens": 0},
}
LOST = 1_000_000  # 500 at $2 a million, for an answer that never came
PAID = 3_000_000  # 1,000 at $2 a million and 100 at $10
FEE = 75_000 + 1_000_000


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Give a gateway with fees for teams' own keys, and two teams that have one."""
    prices = tmp_path_factory.mktemp("prices") / "prices.yaml"
    prices.write_text(PRICES)
    with ScriptedUpstream() as upstream:
        upstream.script = lambda seen: answer(FAILED if seen.json["model"] == "failing" else chat_answer(**USED))
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "sk-operator"}
        started: Gateway = start_gateway(
            {
                "providers": {"local": one, "other": one | {"prices": "local"}},
                "models": {"own-first": ["local/failing", "other/known"], "own-last": ["other/failing", "local/known"]},
                "prices_file": str(prices),
            }
        )
        for team in ("payers", "movers"):
            started.key(team)
            started.command("provider-keys", "set", "--team", team, "local", stdin="sk-own\n")
        yield started
        started.stop()


def call(gateway: Gateway, team: str, model: str = "known") -> dict[str, Any]:
    """Give the record of one call."""
    key = gateway.key(team)
    body = {"model": f"local/{model}", "messages": []}
    got = gateway.request("POST", "/v1/chat/completions", body, key=key)
    assert got.status == 200
    return gateway.record(got.headers["x-request-id"], key)


def test_the_record_has_both_amounts(gateway: Gateway) -> None:
    """The cost is what the provider charged, the sum of its lines; the fee stands beside it with lines of its own."""
    record = call(gateway, "payers")
    assert (record["byok"], record["cost_nanos"], record["cost_state"]) == (True, PAID, "exact")
    assert record["cost_nanos"] == sum(line["amount_nanos"] for line in record["pricing_lines"])
    fee = record["byok_fee"]
    assert (fee["nanos"], fee["state"]) == (FEE, "exact")
    assert [(line["meter"], line["amount_nanos"]) for line in fee["lines"]] == [
        ("byok_fee", 75_000),
        ("request_fee", 1_000_000),
    ]
    assert call(gateway, "movers")["byok_fee"]["lines"][0]["rule_id"] == "own/movers-flat:request_fee"


def test_the_operators_own_key_has_no_fee(gateway: Gateway) -> None:
    """The field is absent then, not zero."""
    record = call(gateway, "others")
    assert record["byok"] is False
    assert "byok_fee" not in record


def test_a_share_of_an_unknown_cost_is_unknown(gateway: Gateway) -> None:
    """What is fixed is still charged, and the state says that it is not all."""
    fee = call(gateway, "payers", "nameless")["byok_fee"]
    assert (fee["nanos"], fee["state"]) == (1_000_000, "partial")


def test_sums_and_exports_keep_the_two_apart(gateway: Gateway) -> None:
    """A summary, a page and an export say what was paid to providers and what the operator charges, never the sum."""
    call(gateway, "adders")
    gateway.command("provider-keys", "set", "--team", "adders", "local", stdin="sk-own\n")
    call(gateway, "adders")
    call(gateway, "adders", "nameless")
    key = gateway.key("adders")
    summary = gateway.request("GET", "/v1/generations/summary", key=key).json()
    expected = {"records": 2, "cost_nanos": PAID, "unknown_cost": 1, "estimated_cost": 0}
    expected |= {"fee_nanos": FEE + 1_000_000, "unknown_fee": 1, "estimated_fee": 0}
    assert summary["cost_nanos"] == 2 * PAID
    assert summary["byok"] == expected
    assert summary["unpriced_meters"] == {"input_tokens": 1, "output_tokens": 1}
    page = gateway.request("GET", "/v1/generations/search", key=key).json()["sums"]
    manifest = json.loads(gateway.command("generations", "export", "--team", "adders").stdout.splitlines()[-1])
    assert page["byok"] == manifest["manifest"]["byok"] == expected
    shown = gateway.command("generations", "list", "--team", "adders").stdout
    assert "teams' own keys: 2, paid to providers ≥ $0.003 (1 of 2 partial)" in shown
    assert "operator's fees ≥ $0.002075 (1 of 2 partial)" in shown
    assert "not wholly priced: input_tokens (1), output_tokens (1)" in shown


@pytest.mark.parametrize(
    ("alias", "paid", "fee"),
    [("own-first", LOST, 25_000 + 1_000_000), ("own-last", PAID, FEE)],
)
def test_a_call_that_changed_keys_is_paid_in_part_by_each(gateway: Gateway, alias: str, paid: int, fee: int) -> None:
    """Only what the team's own key paid is the team's, in the attempts, the fee and every sum."""
    team = f"{alias}-team"
    key = gateway.key(team)
    gateway.command("provider-keys", "set", "--team", team, "local", stdin="sk-own\n")
    got = gateway.request("POST", "/v1/chat/completions", {"model": alias, "messages": []}, key=key)
    record = gateway.record(got.headers["x-request-id"], key)
    assert (got.status, record["cost_nanos"], record["byok"]) == (200, LOST + PAID, alias == "own-last")
    assert record["cost_nanos"] == sum(line["amount_nanos"] for line in record["pricing_lines"])
    tried = {each["key_source"]: each["cost_nanos"] for each in record["attempts"]}
    assert tried == {"team": paid, "operator": LOST + PAID - paid}
    assert record["byok_fee"]["nanos"] == fee
    expected = {"records": 1, "cost_nanos": paid, "unknown_cost": 0, "estimated_cost": 0}
    expected |= {"fee_nanos": fee, "unknown_fee": 0, "estimated_fee": 0}
    summary = gateway.request("GET", "/v1/generations/summary", key=key).json()
    page = gateway.request("GET", "/v1/generations/search", key=key).json()["sums"]
    manifest = json.loads(gateway.command("generations", "export", "--team", team).stdout.splitlines()[-1])
    assert summary["byok"] == page["byok"] == manifest["manifest"]["byok"] == expected
    assert summary["cost_nanos"] == LOST + PAID


def test_the_fee_is_proved_and_repriced(gateway: Gateway, tmp_path: Path) -> None:
    """``ledger verify`` recomputes fees from their books; ``ledger reprice`` shows both books' fees."""
    record = call(gateway, "reckoners")
    assert "byok_fee" not in record
    gateway.command("provider-keys", "set", "--team", "reckoners", "local", stdin="sk-own\n")
    call(gateway, "reckoners")
    assert gateway.command("ledger", "verify").stdout.startswith("Intact")
    other = tmp_path / "other.yaml"
    other.write_text(PRICES.replace("percent: 2.5", "percent: 5"))
    options = ("--prices-file", str(other), "--team", "reckoners", "--json")
    told = json.loads(gateway.command("ledger", "reprice", *options).stdout)["all"]
    assert (told["charged_nanos"], told["repriced_nanos"]) == (2 * PAID, 2 * PAID)
    assert (told["charged_fee_nanos"], told["repriced_fee_nanos"]) == (FEE, FEE + 75_000)
    shown = gateway.command("generations", "show", str(call(gateway, "reckoners")["request_id"])).stdout
    assert "Operator's fee" in shown
    assert "$0.001075" in shown
