"""``/v1/pricing`` over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.testclient import TestClient

from counterfoil.api import answers, pricing
from counterfoil.errors import Fault
from counterfoil.folder import DataFolder
from counterfoil.ledger.books import bundled_catalog
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay_file import parse_overlay
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.directory import Directory

BOOK = PriceBook.build(
    bundled_catalog(), parse_overlay("prices: [{provider: local, model: house, team: acme, rates: {input_tokens: 1}}]")
)


@dataclass
class Plane:
    """The two endpoints over a data folder with two teams, and keys of each kind."""

    client: TestClient
    acme: str
    other: str
    operator: str
    stranger: str


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Give the two endpoints and the keys to ask them with."""
    folder = DataFolder.create(tmp_path_factory.mktemp("prices") / "data")
    admin, directory = Admin(folder), Directory(folder)
    app = FastAPI()
    app.add_exception_handler(Fault, answers.on_fault)
    app.add_exception_handler(RequestValidationError, answers.on_invalid)
    app.include_router(pricing.router(lambda: BOOK, pricing.team_of(directory)))
    keys = [admin.create_key(team, make_missing=True).key for team in ("acme", "other")]
    keys += [admin.create_management_key([scope]).key for scope in ("prices:read", "teams:read")]
    with TestClient(app) as running:
        yield Plane(running, *keys)
    admin.close()
    directory.close()


@pytest.fixture
def client(plane: Plane) -> TestClient:
    """Give a client that asks for the team ``acme``."""
    plane.client.headers["authorization"] = f"Bearer {plane.acme}"
    return plane.client


def calculate(client: TestClient, **asked: Any) -> Any:
    """Give the answer to a calculation, 1,000 tokens of gpt-4o-mini unless told otherwise."""
    body = {"provider": "openai", "model": "gpt-4o-mini", "usage": {"prompt_tokens": 1000}, **asked}
    return client.post("/v1/pricing/calculate", json={name: value for name, value in body.items() if value is not None})


USAGES = {
    "a record's": {
        "prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 400}, "source": "reported",
    },
    "chat": {"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 400}},
    "responses": {"input_tokens": 1000, "output_tokens": 500, "input_tokens_details": {"cached_tokens": 400}},
    "messages": {"input_tokens": 600, "output_tokens": 500, "cache_read_input_tokens": 400},
    "gemini": {"promptTokenCount": 1000, "candidatesTokenCount": 500, "cachedContentTokenCount": 400},
}  # fmt: skip


@pytest.mark.parametrize("used", USAGES.values(), ids=USAGES)
def test_a_usage_in_any_protocols_words_has_one_price(used: dict[str, Any], client: TestClient) -> None:
    """A record's usage and a provider's own usage object are priced alike, line by line."""
    answer = calculate(client, usage=used).json()
    assert answer["cost_nanos"] == 420_000 == sum(line["amount_nanos"] for line in answer["pricing_lines"])
    assert (answer["cost"], answer["cost_state"], answer["book"]) == ("$0.00042", "exact", BOOK.digest)
    assert {line["book"] for line in answer["pricing_lines"]} == {BOOK.digest}


def test_a_calculation_is_made_for_its_moment_and_tier(client: TestClient) -> None:
    """The moment and the tier that was served choose the price."""
    flex = calculate(client, model="gpt-5", service_tier="flex", at="2026-11-01T00:00:00Z").json()
    past = calculate(client, model="o3", request_started_at="2025-05-01").json()
    assert (flex["cost_nanos"], past["cost_nanos"]) == (625_000, 10_000_000)


def test_a_team_pays_its_own_price(client: TestClient, plane: Plane) -> None:
    """The prices of the asking team apply; another team's are as unknown to it as if there were none."""
    asked = {"provider": "local", "model": "house"}
    assert calculate(client, **asked).json()["cost_nanos"] == 1_000_000
    for key in (plane.other, plane.operator):
        client.headers["authorization"] = f"Bearer {key}"
        assert calculate(client, **asked).status_code == 404


@pytest.mark.parametrize(("key", "status"), [("operator", 200), ("stranger", 403), (None, 401)], ids=str)
def test_who_may_ask(key: str | None, status: int, client: TestClient, plane: Plane) -> None:
    """A management key needs its scope, and nobody asks without a key."""
    client.headers["authorization"] = f"Bearer {getattr(plane, key)}" if key else ""
    assert calculate(client).status_code == status
    assert client.get("/v1/pricing/models").status_code == status


@pytest.mark.parametrize("field", ["provider", "model", "usage"])
def test_what_is_required_is_named(field: str, client: TestClient) -> None:
    """A missing field is 400 and named."""
    answer = calculate(client, **{field: None})
    assert answer.status_code == 400
    assert answer.json() == {"ok": False, "error": "missing_required_fields", "fields": [field]}


def test_an_unknown_price_is_404_and_never_zero(client: TestClient) -> None:
    """A model without a price, or a provider without a list, is not found; the message says which."""
    for asked in ({"model": "nonesuch"}, {"provider": "nowhere"}):
        answer = calculate(client, **asked)
        assert (answer.status_code, answer.json()["error"]) == (404, "pricing_not_found")
        assert next(iter(asked.values())) in answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nonsense", b'{"provider": 3}', b'{"provider":"openai","model":"m","usage":{},"at":"noon"}',
     b'{"provider":"openai","model":"m","usage":{"prompt_tokens":-1}}',
     b'{"provider":"openai","model":"m","usage":{"prompt_tokens":99999999999999999999999}}'],
    ids=["empty", "list", "no JSON", "wrong type", "no moment", "negative", "endless"],
)  # fmt: skip
def test_a_wrong_body_is_400(body: bytes, client: TestClient) -> None:
    """Whatever is not a calculation is refused as the caller's mistake."""
    answer = client.post("/v1/pricing/calculate", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_nothing_consumed_costs_nothing(client: TestClient) -> None:
    """An empty usage is a report of nothing, which is free; absent usage is unknown and has no dollars."""
    assert calculate(client, usage={}).json()["cost_state"] == "free"
    absent = calculate(client, usage={"source": "absent"}).json()
    assert (absent["cost_state"], absent["cost"]) == ("unknown", None)


def test_models_are_listed_in_pages(client: TestClient) -> None:
    """The list is complete over its pages, each model with its rates and their rules."""
    first = client.get("/v1/pricing/models", params={"provider": "anthropic", "limit": 5}).json()
    second = client.get("/v1/pricing/models", params={"provider": "anthropic", "limit": 5, "offset": 5}).json()
    assert first["total"] == second["total"] > 10
    names = [model["model"] for model in first["data"] + second["data"]]
    assert names == sorted(set(names))
    assert all(rate["rule_id"].startswith("anthropic/") for model in first["data"] for rate in model["rates"])
    assert first["source"]["license"].startswith("MIT")


def test_one_model_shows_its_thresholds(client: TestClient) -> None:
    """A threshold is a second rate of the same meter, marked with the input length above which it holds."""
    found = client.get("/v1/pricing/models", params={"provider": "google", "model": "gemini-2.5-pro"}).json()["data"]
    rates = next(model["rates"] for model in found if model["model"] == "gemini-2.5-pro")
    prices = {rate.get("above"): rate["price"] for rate in rates if rate["meter"] == "input_tokens"}
    assert prices == {None: "$1.25 / 1M", 200_000: "$2.50 / 1M"}


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "offset=-1", "limit=many"])
def test_a_wrong_page_is_400(query: str, client: TestClient) -> None:
    """A page outside its bounds is refused and the parameter named."""
    answer = client.get(f"/v1/pricing/models?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, query.partition("=")[0])
