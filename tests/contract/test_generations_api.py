"""``GET /v1/generations?id=``: the contract, in the order of its checks, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from counterfoil.api import schema
from counterfoil.folder import DataFolder
from counterfoil.record.charge import CostState
from counterfoil.record.record import CapturePolicy, CaptureState
from counterfoil.tenancy.admin import Admin
from emulators.control import REQUEST, ControlPlane, request_id, serving, settlement, write

MISSING_ID = b'{"ok":false,"error":"missing_id"}'
NOT_FOUND = b'{"ok":false,"error":"not_found"}'
NATIVE = "chatcmpl-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """A ledger of two teams' records, of every kind of capture."""
    made = DataFolder.create(tmp_path_factory.mktemp("control") / "data")
    metadata, off = CapturePolicy.METADATA, CapturePolicy.OFF
    failed = {
        "error_code": "user:invalid_json",
        "error_message": "The request body is not valid JSON.",
        "status_code": 400,
    }
    write(
        made,
        [
            settlement(1),
            settlement(2, team="other"),
            settlement(3, policy=metadata, request=None),
            settlement(4, policy=off, request=None),
            settlement(5, request=None, state=CaptureState.TOO_LARGE),
            settlement(6, request=None, state=CaptureState.NOT_CAPTURED),
            settlement(7, request=b"not json", **failed),
            settlement(8, request=b"[1,2]", **failed),
            settlement(9, request=b"{}", **failed),
            settlement(10, request=b"--x\r\nbinary\xff", replayable=b'{"model":"m","file":null}'),
            settlement(11, cost_nanos=0, cost_state=CostState.UNKNOWN),
            settlement(12, error_code="upstream:timeout", error_message="The provider did not answer in time."),
            settlement(13),
            settlement(14, team="guarded"),
        ],
    )
    return made


@pytest.fixture(scope="module")
def plane(folder: DataFolder) -> Iterator[ControlPlane]:
    """The control plane over that ledger."""
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def keys(plane: ControlPlane) -> dict[str, str]:
    """One key of every kind, by what it is."""
    admin = plane.admin
    long_ago = Admin(plane.folder, now_ms=lambda: 0)
    made = {
        "owner": admin.create_key("acme", make_missing=True),
        "second": admin.create_key("acme"),
        "other": admin.create_key("other", make_missing=True),
        "guarded": admin.create_key("guarded", make_missing=True),
        "guarded with content": admin.create_key("guarded", scopes=("generations:content",)),
        "revoked": admin.create_key("acme"),
        "disabled": admin.create_key("acme"),
        "expired": long_ago.create_key("acme", expires_ms=1, make_missing=True),
        "reader": admin.create_management_key(("generations:read",), team_id="acme"),
        "content reader": admin.create_management_key(("generations:read", "generations:content"), team_id="acme"),
        "wrong scope": admin.create_management_key(("keys:read",), team_id="acme"),
        "eraser": admin.create_management_key(("generations:erase",), team_id="acme"),
        "admin": admin.create_management_key(("admin",)),
    }
    long_ago.close()
    admin.set_team("guarded", content_needs_scope=True)
    admin.revoke_key(made["revoked"].info.key_id)
    admin.set_key(made["disabled"].info.key_id, disabled=True)
    return {name: key.key for name, key in made.items()}


@pytest.mark.parametrize(
    "target", ["/v1/generations", "/v1/generations?", "/v1/generations?id=", "/v1/generations?ID=x"], ids=str
)
@pytest.mark.parametrize("who", [None, "owner", "revoked"], ids=str)
def test_a_missing_id_is_told_before_the_key_is_looked_at(
    plane: ControlPlane, keys: dict[str, str], target: str, who: str | None
) -> None:
    """No id gives 400 and the same bytes whoever asks, even without credentials."""
    answer = plane.get(target, keys.get(who or ""))
    assert (answer.status, answer.body) == (400, MISSING_ID)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        pytest.param(None, "missing_key", id="none"),
        pytest.param("", "missing_key", id="empty"),
        pytest.param("sk-proj-abc", "malformed_key", id="another service's"),
        pytest.param("revoked", "revoked_key", id="revoked"),
        pytest.param("disabled", "disabled_key", id="disabled"),
        pytest.param("expired", "expired_key", id="expired"),
        pytest.param("mistyped", "bad_checksum", id="mistyped"),
    ],
)
@pytest.mark.parametrize("wanted", [request_id(1), "gen_nothing"], ids=["existing", "unknown"])
def test_a_bad_key_is_401_with_its_reason(
    plane: ControlPlane, keys: dict[str, str], key: str | None, reason: str, wanted: str
) -> None:
    """The reason says what to do; whether the record exists makes no difference."""
    swapped = keys["owner"][:-1] + ("a" if keys["owner"][-1] != "a" else "b")
    text = {"mistyped": swapped, **keys}.get(key or "", key)
    answer = plane.get(f"/v1/generations?id={wanted}", text)
    assert answer.status == 401
    assert answer.json == {"ok": False, "error": "unauthorised", "reason": reason}
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["cache-control"] == "no-store"


def test_an_unknown_key_is_401(plane: ControlPlane, tmp_path: Path) -> None:
    """A well-formed key of another installation is not known here."""
    stranger = Admin(DataFolder.create(tmp_path / "elsewhere"))
    key = stranger.create_key("acme", make_missing=True).key
    stranger.close()
    assert plane.get(f"/v1/generations?id={request_id(1)}", key).json["reason"] == "unknown_key"


@pytest.mark.parametrize("wanted", [request_id(1), "gen_nothing"], ids=["existing", "unknown"])
def test_a_key_without_the_right_is_403(plane: ControlPlane, keys: dict[str, str], wanted: str) -> None:
    """A management key needs generations:read, and is told so whether or not the record exists."""
    answer = plane.get(f"/v1/generations?id={wanted}", keys["wrong scope"])
    assert answer.status == 403
    assert answer.json["error"] == "forbidden"
    assert answer.json["needs"] == "generations:read"
    assert answer.headers["cache-control"] == "no-store"


FOREIGN_AND_UNKNOWN = [
    pytest.param(request_id(2), id="another team's"),
    pytest.param("chatcmpl-2", id="another team's, by the provider's id"),
    pytest.param(request_id(999), id="unknown"),
    pytest.param("gen_short", id="malformed"),
    pytest.param(request_id(1).lower(), id="another spelling"),
    pytest.param("%00%ff%F0%9F%92%A9", id="bytes that are no text"),
    pytest.param("'%20OR%201=1--", id="injection"),
    pytest.param("x" * 4000, id="very long"),
]


@pytest.mark.parametrize("wanted", FOREIGN_AND_UNKNOWN)
@pytest.mark.parametrize("who", ["owner", "content reader"])
@pytest.mark.parametrize(
    "target",
    ["/v1/generations?id={}", "/v1/generations/{}", "/v1/generations/{}/content"],
    ids=["query", "path", "content"],
)
def test_unknown_and_foreign_are_the_same_bytes(
    plane: ControlPlane, keys: dict[str, str], who: str, wanted: str, target: str
) -> None:
    """Nothing in status, headers or body tells another team's record from none."""
    answer = plane.get(target.format(wanted), keys[who])
    unknown = plane.get("/v1/generations?id=gen_unknown", keys[who])
    assert (answer.status, answer.body) == (404, NOT_FOUND)
    assert answer.headers == unknown.headers


@pytest.mark.parametrize("wanted", [request_id(1), NATIVE], ids=["our id", "the provider's id"])
@pytest.mark.parametrize("who", ["owner", "second", "content reader", "admin"])
@pytest.mark.parametrize("target", ["/v1/generations?id={}", "/v1/generations/{}"], ids=["query", "path"])
def test_the_team_reads_its_record_whole(
    plane: ControlPlane, keys: dict[str, str], who: str, wanted: str, target: str
) -> None:
    """Every key of the team reads it, by either id, with the request embedded byte for byte."""
    answer = plane.get(target.format(wanted), keys[who])
    record = answer.json
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert set(schema.CONTRACT) <= set(record)
    assert record["request_id"] == request_id(1)
    assert record["replay_supported"] is True
    assert b'"replay_request":' + REQUEST + b"}" in answer.body
    assert record["capture"]["state"] == "stored"
    assert record["chain"]["sequence"] == 1


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "x-goog-api-key", "api-key"])
def test_the_key_may_come_in_any_of_four_headers(plane: ControlPlane, keys: dict[str, str], header: str) -> None:
    """Whichever SDK a developer has at hand, its header works."""
    value = f"bearer {keys['owner']}" if header == "authorization" else keys["owner"]
    assert plane.get(f"/v1/generations?id={request_id(1)}", headers={header: value}).status == 200


@pytest.mark.parametrize(
    ("number", "reason", "state"),
    [
        pytest.param(3, "policy", "not_captured", id="metadata only"),
        pytest.param(4, "policy", "not_captured", id="off"),
        pytest.param(5, "too_large", "too_large", id="too large"),
        pytest.param(6, "not_captured", "not_captured", id="nothing came"),
        pytest.param(7, "not_an_object", "stored", id="not json"),
        pytest.param(8, "not_an_object", "stored", id="an array"),
        pytest.param(9, "not_an_object", "stored", id="empty object"),
    ],
)
def test_replay_is_supported_exactly_when_there_is_an_object(
    plane: ControlPlane, keys: dict[str, str], number: int, reason: str, state: str
) -> None:
    """Otherwise the request is absent, not null, and the reason says why."""
    record = plane.get(f"/v1/generations?id={request_id(number)}", keys["owner"]).json
    assert record["replay_supported"] is False
    assert record["replay_unavailable_reason"] == reason
    assert "replay_request" not in record
    assert record["capture"]["state"] == state


def test_a_multipart_call_offers_its_json_form(plane: ControlPlane, keys: dict[str, str]) -> None:
    """What can be posted as JSON is offered, though the body itself was not JSON."""
    record = plane.get(f"/v1/generations?id={request_id(10)}", keys["owner"]).json
    assert record["replay_request"] == {"model": "m", "file": None}


@pytest.mark.parametrize(
    ("who", "number", "sees"),
    [
        pytest.param("guarded", 14, False, id="inference key of a guarded team"),
        pytest.param("guarded with content", 14, True, id="the same with generations:content"),
        pytest.param("reader", 1, False, id="management key with generations:read only"),
        pytest.param("content reader", 1, True, id="management key with generations:content"),
    ],
)
def test_who_may_not_see_bodies_still_reads_the_record(
    plane: ControlPlane, keys: dict[str, str], who: str, number: int, sees: bool
) -> None:
    """200 without the payload, and the reason; the body's own path is refused."""
    answer = plane.get(f"/v1/generations?id={request_id(number)}", keys[who])
    content = plane.get(f"/v1/generations/{request_id(number)}/content", keys[who])
    assert answer.status == 200
    assert answer.json["replay_supported"] is sees
    assert answer.json.get("replay_unavailable_reason") == (None if sees else "forbidden")
    assert ("messages" in answer.body.decode()) is sees
    assert content.status == (200 if sees else 403)


def test_what_was_never_kept_is_not_called_forbidden(plane: ControlPlane, keys: dict[str, str]) -> None:
    """A reader without the right to bodies still learns that there are none."""
    record = plane.get(f"/v1/generations?id={request_id(3)}", keys["reader"]).json
    assert record["replay_unavailable_reason"] == "policy"


def test_only_a_key_of_all_teams_may_name_a_team(plane: ControlPlane, keys: dict[str, str]) -> None:
    """`team` narrows an administrator's view and opens nothing to anybody else."""
    target = f"/v1/generations?id={request_id(2)}"
    assert plane.get(target, keys["admin"]).status == 200
    assert plane.get(f"{target}&team=other", keys["admin"]).status == 200
    assert plane.get(f"{target}&team=acme", keys["admin"]).body == NOT_FOUND
    assert plane.get(f"{target}&team=other", keys["reader"]).status == 403
    assert plane.get(f"{target}&team=other", keys["owner"]).status == 403
    assert plane.get(f"/v1/generations?id={request_id(1)}&team=acme", keys["owner"]).status == 200


def test_a_revocation_counts_at_the_next_request(plane: ControlPlane) -> None:
    """A key that has just read is refused as soon as it is revoked."""
    made = plane.admin.create_key("acme")
    target = f"/v1/generations?id={request_id(1)}"
    assert plane.get(target, made.key).status == 200
    plane.admin.revoke_key(made.info.key_id)
    assert plane.get(target, made.key).json["reason"] == "revoked_key"


def test_the_answer_follows_its_published_schema(plane: ControlPlane, keys: dict[str, str]) -> None:
    """No field that the schema does not know, none missing that it calls required, enums kept."""
    components = plane.get("/openapi.json").json["components"]["schemas"]
    for number in (1, 3, 7, 11, 12):
        record = plane.get(f"/v1/generations?id={request_id(number)}", keys["owner"]).json
        check(record, {"$ref": "#/components/schemas/GenerationRecord"}, components)


def check(value: Any, wanted: dict[str, Any], components: dict[str, Any]) -> None:
    """Compare ``value`` with a schema, as far as ours use the language."""
    if "$ref" in wanted:
        wanted = components[wanted["$ref"].rsplit("/", 1)[1]]
    for part in wanted.get("allOf", ()):
        check(value, part, components)
    if "anyOf" in wanted:
        assert (value is None) or any(part.get("type") != "null" for part in wanted["anyOf"])
    if "enum" in wanted:
        assert value in wanted["enum"]
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
    if "type" in wanted and wanted["type"] in kinds:
        assert isinstance(value, kinds[wanted["type"]]), (value, wanted)
    if wanted.get("properties"):
        assert set(value) <= set(wanted["properties"])
        assert set(wanted.get("required", ())) <= set(value)
        for name, part in value.items():
            check(part, wanted["properties"][name], components)
    for part in value if wanted.get("type") == "array" else ():
        check(part, wanted["items"], components)


def test_a_ledger_that_cannot_be_read_is_503(tmp_path: Path) -> None:
    """A damaged ledger is said to be so, without a word of the insides."""
    folder = DataFolder.create(tmp_path / "data")
    admin = Admin(folder)
    key = admin.create_key("acme", make_missing=True).key
    admin.close()
    with serving(folder) as plane:
        assert plane.get("/v1/generations?id=x", key).status == 404
        folder.ledger_db.with_name("ledger.db-wal").unlink(missing_ok=True)
        with folder.ledger_db.open("r+b") as file:
            file.write(b"\xff" * file.seek(0, 2))
        plane.reader.close()
        answer = plane.get("/v1/generations?id=x", key)
    assert answer.status == 503
    assert answer.json["error"] == "ledger_unavailable"
    assert answer.headers["cache-control"] == "no-store"


def test_an_answer_is_its_own_evidence(plane: ControlPlane, keys: dict[str, str]) -> None:
    """The canonical bytes can be cut from the answer, and hash to the digest it names."""
    stored = plane.reader.find("acme", request_id(1))
    assert stored is not None
    body = plane.get(f"/v1/generations?id={request_id(1)}", keys["owner"]).body
    canonical = body[: body.index(b',"chain":')] + b"}"
    assert canonical == stored.data
    assert json.loads(body)["chain"]["digest"] == stored.chain.digest
