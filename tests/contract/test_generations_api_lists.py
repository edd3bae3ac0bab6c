"""Lists, sums, exports, bodies and erasure over HTTP, and who may do what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from counterfoil.api.generations import EXPORT_ROWS
from counterfoil.api.parts import Health
from counterfoil.folder import DataFolder
from counterfoil.record.charge import CostState
from counterfoil.record.record import CapturePolicy
from counterfoil.record.times import timestamp
from counterfoil.record.usage import ABSENT
from counterfoil.surfaces import registry
from counterfoil.tenancy.admin import Admin
from emulators.control import REQUEST, START_MS, ControlPlane, request_id, serving, settlement, write

RECORDS = 25
REFUSED = {"revoked": 401, "expired": 401, "none": 401, "wrong scope": 403}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Twenty-five records of one team, with some of every kind, and one of another team."""
    folder = DataFolder.create(tmp_path_factory.mktemp("lists") / "data")
    special: dict[int, dict[str, Any]] = {
        3: {"cost_nanos": 0, "cost_state": CostState.UNKNOWN, "usage": ABSENT},
        4: {"cost_nanos": 700, "cost_state": CostState.PARTIAL},
        5: {"error_code": "upstream:timeout", "error_message": "Too late.", "cost_nanos": 0},
        6: {"model_id": "anthropic/claude-sonnet-4-5", "provider": "anthropic", "endpoint": "/v1/messages"},
        7: {"app_id": None, "session_id": "s 1&x=y", "end_user": "u1"},
        8: {"stream": True, "response": (b"data: a\n\n", b"data: [DONE]\n\n")},
        9: {"byok": True, "key_id": "k2", "replay_of": request_id(1)},
        10: {"request": b"\xff\x00binary", "response": b"\x89PNG"},
        11: {"policy": CapturePolicy.METADATA, "request": None},
    }
    records = [settlement(number, **special.get(number, {})) for number in range(1, RECORDS + 1)]
    write(folder, [*records, settlement(30, team="other")])
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def keys(plane: ControlPlane) -> dict[str, str]:
    """One key of every kind, by what it is."""
    admin, long_ago = plane.admin, Admin(plane.folder, now_ms=lambda: 0)
    made = {
        "owner": admin.create_key("acme", make_missing=True),
        "other": admin.create_key("other", make_missing=True),
        "expired": long_ago.create_key("acme", expires_ms=1),
        "revoked": admin.create_key("acme"),
        "wrong scope": admin.create_management_key(("prices:read",), team_id="acme"),
        "eraser": admin.create_management_key(("generations:read", "generations:erase"), team_id="acme"),
        "other eraser": admin.create_management_key(("generations:*",), team_id="other"),
        "admin": admin.create_management_key(("admin",)),
    }
    long_ago.close()
    admin.revoke_key(made["revoked"].info.key_id)
    return {name: key.key for name, key in made.items()} | {"none": ""}


def ids(answer: dict[str, Any]) -> list[str]:
    """The records of a page, by id."""
    return [record["request_id"] for record in answer["data"]]


@pytest.mark.parametrize("limit", [1, 7, 25, 1000])
def test_pages_together_are_all_records_newest_first(plane: ControlPlane, keys: dict[str, str], limit: int) -> None:
    """Following the cursor gives every record of the team once, in order, and nobody else's."""
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = plane.get(f"/v1/generations/search?limit={limit}&cursor={cursor}", keys["owner"]).json
        seen += ids(page)
        cursor = page["next"]
    assert seen == [request_id(number) for number in range(RECORDS, 0, -1)]


def test_a_cursor_stays_right_while_records_come(plane: ControlPlane, keys: dict[str, str]) -> None:
    """The same cursor gives the same page, whatever was added before it."""
    first = plane.get("/v1/generations/search?limit=5", keys["owner"]).json
    again = [plane.get(f"/v1/generations/search?limit=5&cursor={first['next']}", keys["owner"]).json for _ in "12"]
    assert ids(again[0]) == ids(again[1]) == [request_id(number) for number in range(20, 15, -1)]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        pytest.param("success=false", [5], id="failed"),
        pytest.param("error_code=upstream:timeout", [5], id="error code"),
        pytest.param("status=502", [5], id="status"),
        pytest.param("model=anthropic/claude-sonnet-4-5", [6], id="model"),
        pytest.param("provider=anthropic", [6], id="provider"),
        pytest.param("endpoint=/v1/messages", [6], id="endpoint"),
        pytest.param("session=s%201%26x%3Dy", [7], id="session"),
        pytest.param("end_user=u1", [7], id="end user"),
        pytest.param("stream=true", [8], id="stream"),
        pytest.param("byok=true", [9], id="byok"),
        pytest.param("key=k2", [9], id="key"),
        pytest.param(f"replay_of={request_id(1)}", [9], id="replay of"),
        pytest.param("max_cost_nanos=700&success=true", [], id="at most this cost, which must be known"),
        pytest.param("max_cost_nanos=700", [5], id="at most this cost"),
        pytest.param("min_cost_nanos=700&max_cost_nanos=1000&limit=1", [25], id="between these costs"),
        pytest.param("min_cost_nanos=1001", [], id="at least this cost"),
        pytest.param(f"from={timestamp(START_MS + 24_000)}", [25, 24], id="from"),
        pytest.param(f"to={timestamp(START_MS + 3_000)}", [2, 1], id="to"),
        pytest.param(f"from={timestamp(START_MS + 2_000)}&to={timestamp(START_MS + 4_000)}", [3, 2], id="between"),
        pytest.param("app=web&limit=2", [25, 24], id="app"),
        pytest.param("app=&provider=anthropic", [6], id="an empty parameter asks nothing"),
        pytest.param("team=acme&provider=anthropic", [6], id="the key's own team"),
    ],
)
def test_every_filter_narrows(plane: ControlPlane, keys: dict[str, str], query: str, numbers: list[int]) -> None:
    """Everything given must hold."""
    answer = plane.get(f"/v1/generations/search?{query}", keys["owner"])
    assert ids(answer.json) == [request_id(number) for number in numbers]


def test_sums_are_told_apart(plane: ControlPlane, keys: dict[str, str]) -> None:
    """By application and model: the dearest first, each as a sum of its own, and the whole beside them."""
    answer = plane.get("/v1/generations/summary?by=app,model", keys["owner"]).json
    groups = answer.pop("groups")
    assert answer == plane.get("/v1/generations/summary", keys["owner"]).json
    assert [(one["app"], one["model"], one["records"]) for one in groups] == [
        ("web", "openai/gpt-4o-mini", RECORDS - 2),
        (None, "openai/gpt-4o-mini", 1),
        ("web", "anthropic/claude-sonnet-4-5", 1),
    ]
    assert sum(one["cost_nanos"] for one in groups) == answer["cost_nanos"]
    assert (groups[0]["unknown_cost"], groups[0]["cost_complete"], groups[1]["cost_complete"]) == (1, False, True)
    assert plane.get("/v1/generations/summary?by=team", keys["owner"]).json["groups"][0]["team"] == "acme"
    assert len(plane.get("/v1/generations/summary?by=team", keys["admin"]).json["groups"]) == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        pytest.param("limit=0", "limit", id="no records"),
        pytest.param("limit=1001", "limit", id="too many"),
        pytest.param("limit=x", "limit", id="not a number"),
        pytest.param("cursor=%21%21", "cursor", id="no cursor"),
        pytest.param("cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5LjE", "cursor", id="a cursor beyond all numbers"),
        pytest.param("since=yesterday", "since", id="no duration"),
        pytest.param("from=tomorrow", "from", id="no time"),
        pytest.param("since=1h&from=2026-01-01", "since", id="two beginnings"),
        pytest.param("status=two", "status", id="no status"),
        pytest.param("success=perhaps", "success", id="no truth"),
        pytest.param("min_cost_nanos=99999999999999999999", "min_cost_nanos", id="a cost beyond all numbers"),
        pytest.param(f"model={'x' * 600}", "model", id="very long"),
        pytest.param("app_id=web", "app_id", id="a name of another place"),
        pytest.param("model=a/b&model=c/d", "model", id="twice"),
    ],
)
def test_a_bad_parameter_is_named(plane: ControlPlane, keys: dict[str, str], query: str, field: str) -> None:
    """400 in the one shape, with the field, and without repeating the value."""
    answer = plane.get(f"/v1/generations/search?{query}", keys["owner"])
    assert (answer.status, answer.json["error"], answer.json["field"]) == (400, "invalid_request", field)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("by", ["moon", "app,app", "app,,day", "team,app,key,model,day"])
def test_sums_are_not_told_apart_by_anything(plane: ControlPlane, keys: dict[str, str], by: str) -> None:
    """400, with what there is."""
    answer = plane.get(f"/v1/generations/summary?by={by}", keys["owner"])
    assert (answer.status, answer.json["field"]) == (400, "by")


@pytest.mark.parametrize(
    "path", ["/v1/generations/search", "/v1/generations/summary", "/v1/generations/export", "/v1/keys", "/v1/ledger"]
)
def test_an_unknown_parameter_is_refused_everywhere(plane: ControlPlane, keys: dict[str, str], path: str) -> None:
    """What would silently narrow nothing is refused."""
    answer = plane.get(f"{path}?nothing_like_it=1", keys["admin"])
    assert (answer.status, answer.json["field"]) == (400, "nothing_like_it")


def test_a_misnamed_parameter_is_told_its_name(plane: ControlPlane, keys: dict[str, str]) -> None:
    """The record's own names are the likeliest mistake."""
    said = plane.get("/v1/generations/summary?app_id=x", keys["owner"]).json["message"]
    assert said == "There is no parameter app_id here; did you mean app?"


def test_what_may_be_anything_is_not_repeated(plane: ControlPlane, keys: dict[str, str]) -> None:
    """A name that is no name, a secret in the wrong place perhaps, does not come back."""
    answer = plane.get("/v1/generations/search?sk-%3Csecret%3E=1", keys["owner"])
    assert answer.status == 400
    assert b"secret" not in answer.body


def test_a_sum_says_what_it_does_not_know(plane: ControlPlane, keys: dict[str, str]) -> None:
    """Records of unknown and of partial cost are counted beside the sum that lacks them."""
    answer = plane.get("/v1/generations/summary", keys["owner"]).json
    assert answer == {
        "records": RECORDS,
        "successes": 24,
        "errors": 1,
        "prompt_tokens": 240,
        "completion_tokens": 120,
        "cost_nanos": 22 * 1000 + 700,
        "currency": "USD",
        "cost_complete": False,
        "unknown_cost": 1,
        "partial_cost": 1,
        "estimated_cost": 0,
        "by_cost_state": {"exact": 23, "unknown": 1, "partial": 1},
        "unpriced_meters": {"output_tokens": 2},
        "byok": {
            "records": 1,
            "cost_nanos": 1000,
            "unknown_cost": 0,
            "estimated_cost": 0,
            "fee_nanos": 0,
            "unknown_fee": 0,
            "estimated_fee": 0,
        },
        "provider_reported": {
            "records": 0,
            "cost_nanos": 0,
            "provider_cost_nanos": 0,
            "drift_nanos": 0,
            "incomparable": 0,
        },
    }
    page = plane.get("/v1/generations/search?limit=1000", keys["owner"]).json["sums"]
    manifest = json.loads(plane.get("/v1/generations/export", keys["owner"]).body.splitlines()[-1])["manifest"]
    assert page["cost_nanos"] == manifest["cost_nanos"] == answer["cost_nanos"]
    assert page["coverage"] == manifest["coverage"]
    assert page["coverage"] == {
        "records": RECORDS,
        "unknown_cost": 1,
        "partial_cost": 1,
        "estimated_cost": 0,
        "unpriced_meters": {"output_tokens": 2},
    }
    assert plane.get("/v1/generations/summary?provider=none", keys["owner"]).json["records"] == 0


def test_an_export_is_whole_and_says_so(plane: ControlPlane, keys: dict[str, str]) -> None:
    """Every record is a line; the last line counts them and has the digest of all before it."""
    answer = plane.get("/v1/generations/export", keys["owner"])
    *lines, last = answer.body.splitlines(keepends=True)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["cache-control"] == "no-store"
    manifest = json.loads(last)["manifest"]
    assert (manifest["records"], manifest["sha256"]) == (RECORDS, hashlib.sha256(b"".join(lines)).hexdigest())
    assert [json.loads(line)["request_id"] for line in lines] == [request_id(n) for n in range(RECORDS, 0, -1)]


@pytest.mark.parametrize("more", [0, 1])
def test_an_export_of_several_readings(tmp_path: Path, more: int) -> None:
    """It is read in parts; none is missing or double, and the sums are of all."""
    records = 2 * EXPORT_ROWS + more
    folder = DataFolder.create(tmp_path / "data")
    write(folder, [settlement(number) for number in range(1, records + 1)])
    with serving(folder) as plane:
        answer = plane.get("/v1/generations/export", plane.admin.create_key("acme", make_missing=True).key)
    *lines, last = answer.body.splitlines(keepends=True)
    manifest = json.loads(last)["manifest"]
    assert (manifest["records"], manifest["sha256"]) == (records, hashlib.sha256(b"".join(lines)).hexdigest())
    assert [json.loads(line)["request_id"] for line in lines] == [request_id(n) for n in range(records, 0, -1)]
    assert manifest["cost_nanos"] == sum(json.loads(line)["cost_nanos"] for line in lines)


def test_an_empty_export_has_its_manifest(plane: ControlPlane, keys: dict[str, str]) -> None:
    """Nothing found is said as plainly as something found."""
    answer = plane.get("/v1/generations/export?provider=none", keys["owner"])
    manifest = answer.json["manifest"]
    assert (manifest["records"], manifest["sha256"]) == (0, hashlib.sha256(b"").hexdigest())


def test_bodies_are_given_as_they_were(plane: ControlPlane, keys: dict[str, str]) -> None:
    """Text as text, other bytes in base64, and each alone in its own bytes."""
    text = plane.get(f"/v1/generations/{request_id(8)}/content", keys["owner"]).json
    assert text["request"] == {"content_type": "application/json", "encoding": "utf-8", "body": REQUEST.decode()}
    assert text["response"]["body"] == "data: a\n\ndata: [DONE]\n\n"
    assert text["response"]["chunks"] == 2
    binary = plane.get(f"/v1/generations/{request_id(10)}/content", keys["owner"]).json
    assert binary["request"] == {"content_type": "application/json", "encoding": "base64", "body": "/wBiaW5hcnk="}
    alone = plane.get(f"/v1/generations/{request_id(10)}/content?part=response", keys["owner"])
    assert alone.body == b"\x89PNG"
    assert alone.headers["content-disposition"] == "attachment"
    assert alone.headers["x-content-type-options"] == "nosniff"


def test_bodies_that_are_not_there_say_why(plane: ControlPlane, keys: dict[str, str]) -> None:
    """404 with the reason; a part that does not exist is named."""
    answer = plane.get(f"/v1/generations/{request_id(11)}/content", keys["owner"])
    assert (answer.status, answer.json) == (404, {"ok": False, "error": "no_content", "reason": "policy"})
    assert plane.get(f"/v1/generations/{request_id(8)}/content?part=all", keys["owner"]).json["field"] == "part"


def test_erasing_takes_the_bodies_and_leaves_the_record(plane: ControlPlane, keys: dict[str, str]) -> None:
    """The body is gone for everybody at once, the record says so, and erasing again says there was nothing."""
    target = f"/v1/generations/{request_id(20)}/content"
    assert plane.get(target, keys["owner"], method="DELETE").status == 403
    assert plane.get(target, keys["other eraser"], method="DELETE").status == 404
    assert plane.get(target, keys["owner"]).status == 200
    assert plane.get(target, keys["eraser"], method="DELETE").json == {"ok": True, "erased": True}
    assert plane.get(target, keys["eraser"], method="DELETE").json == {"ok": True, "erased": False}
    assert plane.get(target, keys["owner"]).json["reason"] == "erased"
    record = plane.get(f"/v1/generations?id={request_id(20)}", keys["owner"]).json
    assert record["replay_unavailable_reason"] == "erased"
    assert (record["capture"]["state"], record["capture"]["recorded_state"]) == ("erased", "stored")
    listed = plane.get("/v1/generations/search?limit=6", keys["owner"]).json["data"][5]
    assert (listed["request_id"], listed["capture"]["state"]) == (request_id(20), "erased")


READS = [
    "/v1/generations?id={id}",
    "/v1/generations/{id}",
    "/v1/generations/{id}/content",
    "/v1/generations/search",
    "/v1/generations/summary",
    "/v1/generations/export",
]


@pytest.mark.parametrize("target", [*READS, "DELETE /v1/generations/{id}/content"], ids=str)
@pytest.mark.parametrize("who", [*REFUSED, "other"])
def test_nobody_but_the_team_sees_anything(plane: ControlPlane, keys: dict[str, str], target: str, who: str) -> None:
    """Endpoint by endpoint: a key that is revoked, expired, of another team or without the right sees nothing."""
    method, _, path = target.rpartition(" ")
    answer = plane.get(path.format(id=request_id(1)), keys[who] or None, method=method or "GET")
    if who in REFUSED:
        assert answer.status == REFUSED[who]
    elif "{id}" in target:
        assert answer.status in (403, 404)
    assert b"acme" not in answer.body
    assert request_id(1).encode() not in answer.body
    assert answer.headers["cache-control"] == "no-store"


def test_a_key_of_all_teams_sees_all_or_one(plane: ControlPlane, keys: dict[str, str]) -> None:
    """Without `team` an administrator's list has every team's records."""
    everything = plane.get("/v1/generations/search?limit=1", keys["admin"]).json
    assert ids(everything) == [request_id(30)]
    assert plane.get("/v1/generations/summary?team=other", keys["admin"]).json["records"] == 1
    assert plane.get("/v1/generations/summary", keys["admin"]).json["records"] == RECORDS + 1
    assert plane.get("/v1/generations/summary?team=other", keys["owner"]).status == 403


def test_models_are_listed_as_openai_clients_expect(plane: ControlPlane, keys: dict[str, str]) -> None:
    """A list of models, one of it by a name with slashes, and nothing without a key."""
    listed = plane.get("/v1/models", keys["owner"]).json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["openai/gpt-4o-mini"]
    assert plane.get("/v1/models/openai/gpt-4o-mini", keys["owner"]).json["object"] == "model"
    assert plane.get("/v1/models/openai/none", keys["owner"]).status == 404
    assert plane.get("/v1/models").status == 401


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v1/generations?id=", "/v1/models", "/nothing"])
def test_head_is_answered_as_get_without_a_body(plane: ControlPlane, keys: dict[str, str], path: str) -> None:
    """What a load balancer or a crawler probes with HEAD says the same as with GET."""
    got, probed = plane.get(path, keys["owner"]), plane.get(path, keys["owner"], method="HEAD")
    assert (probed.status, probed.body) == (got.status, b"")
    assert probed.headers == got.headers


def test_health_needs_no_key(plane: ControlPlane) -> None:
    """Live and ready answer anybody, and give the account: calls, commits, signatures, disk."""
    for check in ("live", "ready"):
        said = plane.get(f"/health/{check}").json
        assert said["ok"] is True
        calls = said["calls"]
        assert calls["admitted"] == calls["settled"] + calls["open"] + calls["refused"]
        assert set(said) == {"ok", "workers", "calls", "ledger", "disk"}
        assert set(said["ledger"]) == {"records", "queue_depth", "commit_wait_ms", "unwitnessed", "last_checkpoint_at"}


def test_not_ready_says_why(tmp_path_factory: pytest.TempPathFactory) -> None:
    """503 with the reasons, while the process still lives."""
    folder = DataFolder.create(tmp_path_factory.mktemp("unready") / "data")
    with serving(folder, lambda: Health(ready=False, reasons=("the ledger cannot be written",))) as plane:
        answer = plane.get("/health/ready")
        assert (answer.status, answer.json["reasons"]) == (503, ["the ledger cannot be written"])
        assert plane.get("/health/live").status == 200


def test_a_bug_says_nothing_of_its_insides(tmp_path_factory: pytest.TempPathFactory) -> None:
    """500 in the one shape, without the error's text."""

    def broken() -> Health:
        raise RuntimeError("canary")

    with serving(DataFolder.create(tmp_path_factory.mktemp("broken") / "data"), broken) as plane:
        answer = plane.get("/health/live")
        assert (answer.status, answer.json) == (500, {"ok": False, "error": "internal"})
        assert answer.headers["cache-control"] == "no-store"


def test_metrics_are_in_prometheus_text(plane: ControlPlane) -> None:
    """The figures are there, without a key and without a word about any team."""
    answer = plane.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"counterfoil_calls_admitted_total 0.0\n" in answer.body
    assert b"acme" not in answer.body


@pytest.mark.parametrize(
    ("method", "target", "status", "error"),
    [
        pytest.param("GET", "/nothing", 404, "no_such_endpoint", id="unknown path"),
        pytest.param("GET", "/v1/generations/a/b/c", 404, "no_such_endpoint", id="too deep"),
        pytest.param("GET", "/v1/generations/", 404, "no_such_endpoint", id="a slash too many"),
        pytest.param("POST", "/v1/generations", 405, "method_not_allowed", id="method"),
        pytest.param("DELETE", "/v1/models", 405, "method_not_allowed", id="method of a list"),
    ],
)
def test_the_router_refuses_in_the_same_shape(
    plane: ControlPlane, method: str, target: str, status: int, error: str
) -> None:
    """What no endpoint takes is refused as everything else is."""
    answer = plane.get(target, method=method)
    said = {"message": "GET /docs lists every path there is."} if status == 404 else {}
    assert (answer.status, answer.json) == (status, {"ok": False, "error": error, **said})
    assert answer.headers["cache-control"] == "no-store"
    assert ("allow" in answer.headers) is (status == 405)


def test_the_documentation_is_whole_in_itself(plane: ControlPlane) -> None:
    """The page lists every path of the document and loads nothing from anywhere."""
    document = plane.get("/openapi.json").json
    page = plane.get("/docs").body.decode()
    assert document["components"]["securitySchemes"]
    for path in document["paths"]:
        assert path in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_documentation_lists_the_calls_too(plane: ControlPlane) -> None:
    """Every path that takes calls, since a refusal sends people here."""
    page = plane.get("/docs").body.decode()
    assert [surface.path for surface in registry.ALL if surface.path not in page] == []


def test_every_reference_of_the_document_leads_somewhere(plane: ControlPlane) -> None:
    """A reader of /openapi.json finds every schema that is named."""
    text = plane.get("/openapi.json").body.decode()
    schemas = json.loads(text)["components"]["schemas"]
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"', 1)[0] in schemas


def test_every_operation_says_what_it_is(plane: ControlPlane) -> None:
    """Each has a summary, and every path that needs a key documents 401."""
    document = plane.get("/openapi.json").json
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"], path
            assert ("401" in operation["responses"]) is path.startswith("/v1"), path
