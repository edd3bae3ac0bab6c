"""Tenancy over HTTP: every endpoint has its scope, every refusal its reason, and no secret is shown twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from counterfoil.api import answers, tenancy
from counterfoil.errors import Fault
from counterfoil.folder import DataFolder
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.scopes import SCOPES


@dataclass
class Plane:
    """A control plane of tenancy alone, and the keys of those who ask."""

    client: TestClient
    admin: Admin
    routes: list[APIRoute]
    root: str
    member: str

    def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> Any:
        """Ask with ``key``, the operator's own by default; give the response."""
        headers = {"authorization": f"Bearer {self.root if key is None else key}"}
        return self.client.request(method, f"/v1{path}", headers=headers, **options)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """A control plane over a new data folder with a team, an application and a key."""
    folder = DataFolder.create(tmp_path / "data")
    admin, directory = Admin(folder), Directory(folder)
    routes = tenancy.router(admin, directory)
    app = FastAPI()
    app.add_middleware(answers.NoStore)
    app.add_exception_handler(Fault, answers.on_fault)
    app.add_exception_handler(HTTPException, answers.on_http_error)
    app.add_exception_handler(RequestValidationError, answers.on_invalid)
    app.include_router(routes)
    member = admin.create_key("acme", app_id="web", make_missing=True).key
    admin.set_provider_key("acme", "groq", "gsk-canary-0123456789")
    root = admin.create_management_key(["admin"]).key
    with TestClient(app) as client:
        yield Plane(client, admin, [route for route in routes.routes if isinstance(route, APIRoute)], root, member)
    admin.close()
    directory.close()


BODIES: dict[tuple[str, str], tuple[str, Any]] = {
    # Each endpoint: the scope it needs, and a body that works.
    ("GET", "/teams"): ("teams:read", None),
    ("POST", "/teams"): ("teams:write", {"team_id": "new"}),
    ("GET", "/teams/{team_id}"): ("teams:read", None),
    ("PATCH", "/teams/{team_id}"): ("teams:write", {"name": "Acme"}),
    ("GET", "/changes"): ("teams:read", None),
    ("GET", "/apps"): ("teams:read", None),
    ("POST", "/apps"): ("teams:write", {"team_id": "acme", "app_id": "new"}),
    ("PATCH", "/apps/{team_id}/{app_id}"): ("teams:write", {"disabled": True}),
    ("GET", "/keys"): ("keys:read", None),
    ("POST", "/keys"): ("keys:write", {"team_id": "acme"}),
    ("GET", "/keys/{key_id}"): ("keys:read", None),
    ("PATCH", "/keys/{key_id}"): ("keys:write", {"disabled": True}),
    ("DELETE", "/keys/{key_id}"): ("keys:write", None),
    ("POST", "/keys/{key_id}/rotate"): ("keys:write", {}),
    ("GET", "/management-keys"): ("keys:read", None),
    ("POST", "/management-keys"): ("keys:write", {"scopes": ["keys:write"]}),
    ("GET", "/management-keys/{key_id}"): ("keys:read", None),
    ("PATCH", "/management-keys/{key_id}"): ("keys:write", {"disabled": True}),
    ("DELETE", "/management-keys/{key_id}"): ("keys:write", None),
    ("POST", "/management-keys/{key_id}/rotate"): ("keys:write", {"grace_seconds": 5}),
    ("GET", "/provider-keys"): ("teams:read", None),
    ("PUT", "/provider-keys/{team_id}/{provider}"): ("teams:write", {"secret": "sk-1"}),
    ("DELETE", "/provider-keys/{team_id}/{provider}"): ("teams:write", None),
}
ENDPOINTS = pytest.mark.parametrize("endpoint", BODIES, ids=" ".join)


def filled(plane: Plane, path: str) -> str:
    """Give ``path`` with the ids of things that are there; a management key's id has no more than its scope."""
    made = plane.admin.create_management_key(["keys:write"]).info.key_id
    inference = next(key.key_id for key in plane.admin.list_keys() if key.kind == "inference")
    key_id = made if "management" in path else inference
    return path.format(team_id="acme", app_id="web", provider="groq", key_id=key_id)


def test_the_table_names_every_endpoint(plane: Plane) -> None:
    """An endpoint added without a line in the table fails here."""
    served = {(method, route.path.removeprefix("/v1")) for route in plane.routes for method in route.methods}
    assert served == set(BODIES)


@ENDPOINTS
def test_an_endpoint_needs_a_key(endpoint: tuple[str, str], plane: Plane) -> None:
    """Without a key, or with one that cannot be used, the answer is 401 with the reason, and nothing is kept."""
    method, path = endpoint
    for key, reason in (("", "missing_key"), ("sk-1", "malformed_key"), (plane.root[:-1] + "_", "malformed_key")):
        answer = plane.ask(method, filled(plane, path), key, json=BODIES[endpoint][1])
        assert answer.status_code == 401
        assert answer.json() == {"ok": False, "error": "unauthorised", "reason": reason}
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["www-authenticate"] == "Bearer"


@ENDPOINTS
def test_an_endpoint_needs_its_scope(endpoint: tuple[str, str], plane: Plane) -> None:
    """With every other scope, and with an inference key, the answer is 403 and names the scope; with it, it works."""
    method, path = endpoint
    needs, body = BODIES[endpoint]
    others = plane.admin.create_management_key([scope for scope in SCOPES if scope not in (needs, "admin")]).key
    for key in (plane.member, others):
        answer = plane.ask(method, filled(plane, path), key, json=body)
        assert (answer.status_code, answer.json()["error"], answer.json()["needs"]) == (403, "forbidden", needs)
        assert answer.headers["cache-control"] == "no-store"
    answer = plane.ask(method, filled(plane, path), plane.admin.create_management_key([needs]).key, json=body)
    assert answer.status_code in (200, 201, 204), answer.text
    assert answer.headers["cache-control"] == "no-store"


@ENDPOINTS
def test_what_is_answered_is_what_is_documented(endpoint: tuple[str, str], plane: Plane) -> None:
    """The answer has exactly the fields of the documented model."""
    method, path = endpoint
    [route] = [one for one in plane.routes if one.path == f"/v1{path}" and method in one.methods]
    answer = plane.ask(method, filled(plane, path), json=BODIES[endpoint][1])
    assert answer.status_code == (route.status_code or 200)
    if route.response_model is not None:
        route.response_model.model_validate(answer.json())


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "x-goog-api-key", "api-key"])
def test_the_key_may_come_in_four_headers(header: str, plane: Plane) -> None:
    """Each SDK's way of sending a key works."""
    value = f"Bearer {plane.root}" if header == "authorization" else plane.root
    assert plane.client.get("/v1/teams", headers={header: value}).status_code == 200


def test_a_secret_is_shown_once(plane: Plane) -> None:
    """The answer that made a key or rotated it holds it; no other answer holds any part of it, nor a provider key."""
    made = plane.ask("POST", "/keys", json={"team_id": "acme"}).json()
    rotated = plane.ask("POST", f"/keys/{made['key_id']}/rotate").json()
    management = plane.ask("POST", "/management-keys", json={"scopes": ["keys:read"]}).json()
    secrets = [one["key"].rpartition("_")[2] for one in (made, rotated, management)]
    assert len(set(secrets)) == 3
    put = plane.ask("PUT", "/provider-keys/acme/openai", json={"secret": "sk-canary-0123456789"})
    for path in (
        "/keys",
        "/management-keys",
        "/teams",
        "/apps",
        "/changes",
        "/provider-keys",
        f"/keys/{made['key_id']}",
    ):
        text = plane.ask("GET", path).text + put.text
        assert not [secret for secret in (*secrets, "canary") if secret in text]


def test_a_key_lives_and_dies_over_http(plane: Plane) -> None:
    """Made, used, disabled, enabled, expired, revoked: each counts from the next request on."""
    made = plane.ask("POST", "/management-keys", json={"scopes": ["teams:read"], "name": "robot"}).json()
    key, path = made["key"], f"/management-keys/{made['key_id']}"
    assert plane.ask("GET", "/teams", key).status_code == 200
    plane.ask("PATCH", path, json={"disabled": True})
    assert plane.ask("GET", "/teams", key).json()["reason"] == "disabled_key"
    plane.ask("PATCH", path, json={"disabled": False})
    assert plane.ask("GET", "/teams", key).status_code == 200
    shown = plane.ask("PATCH", path, json={"expires_at": "2020-01-01T00:00:00Z"}).json()
    assert (shown["name"], shown["expires_at"]) == ("robot", "2020-01-01T00:00:00.000Z")
    assert plane.ask("GET", "/teams", key).json()["reason"] == "expired_key"
    plane.ask("PATCH", path, json={"expires_at": None})
    assert plane.ask("GET", "/teams", key).status_code == 200
    assert plane.ask("DELETE", path).json()["state"] == "revoked"
    assert plane.ask("GET", "/teams", key).json()["reason"] == "revoked_key"
    assert plane.ask("PATCH", path, json={"disabled": False}).status_code == 409


def test_a_key_cannot_grant_what_it_lacks(plane: Plane) -> None:
    """Making a key with more rights than one's own is 403."""
    key = plane.admin.create_management_key(["keys:*"]).key
    answer = plane.ask("POST", "/management-keys", key, json={"scopes": ["keys:read", "generations:content"]})
    assert (answer.status_code, answer.json()["needs"]) == (403, "generations:content")


def test_foreign_and_unknown_are_the_same_bytes(plane: Plane) -> None:
    """For a team's own management key, what another team has and what nobody has cannot be told apart."""
    foreign = plane.admin.create_key("globex", make_missing=True).info.key_id
    key = plane.admin.create_management_key(["admin"], team_id="acme").key
    for there, nowhere in (
        ("/teams/globex", "/teams/nobody"),
        (f"/keys/{foreign}", "/keys/000000000000"),
        ("/keys?team_id=globex", "/keys?team_id=nobody"),
        ("/provider-keys?team_id=globex", "/provider-keys?team_id=nobody"),
    ):
        first, second = plane.ask("GET", there, key), plane.ask("GET", nowhere, key)
        assert (first.status_code, first.content) == (404, second.content)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        pytest.param("POST", "/teams", {"team_id": "Not A Slug"}, 400, "team", id="bad id"),
        pytest.param("POST", "/teams", {}, 400, "team_id", id="missing field"),
        pytest.param("POST", "/teams", {"team_id": "x", "colour": "red"}, 400, "colour", id="unknown field"),
        pytest.param("POST", "/teams", {"team_id": 5}, 400, "team_id", id="wrong type"),
        pytest.param("POST", "/teams", {"team_id": "acme"}, 409, "team", id="taken"),
        pytest.param("POST", "/keys", {"team_id": "nobody"}, 404, "team", id="no such team"),
        pytest.param("POST", "/keys", {"team_id": "acme", "expires_at": "soon"}, 400, "expires_at", id="no time"),
        pytest.param("POST", "/keys", {"team_id": "acme", "expires_at": "2030-01-01"}, 400, "expires_at", id="no zone"),
        pytest.param("POST", "/keys", {"team_id": "acme", "capture": "some"}, 400, "capture", id="no policy"),
        pytest.param("POST", "/management-keys", {"scopes": ["fly"]}, 400, "scopes", id="no scope of that name"),
        pytest.param("POST", "/management-keys", {"scopes": []}, 400, "scopes", id="no scopes"),
        pytest.param("PUT", "/provider-keys/acme/openai", {"secret": "a b"}, 400, "secret", id="secret with a space"),
        pytest.param(
            "PUT",
            "/provider-keys/acme/openai",
            {"secret": "s", "base_url": "http://10.0.0.1"},
            400,
            "base_url",
            id="http",
        ),
        pytest.param("DELETE", "/provider-keys/acme/openai", None, 404, None, id="no provider key"),
    ],
)
def test_a_bad_request_names_its_field(
    method: str, path: str, body: Any, status: int, field: str | None, plane: Plane
) -> None:
    """The refusal has the one shape of the control plane, and nothing was changed."""
    before = plane.admin.list_changes()
    answer = plane.ask(method, path, json=body)
    assert (answer.status_code, answer.json()["ok"], answer.json().get("field")) == (status, False, field)
    assert plane.admin.list_changes() == before
