"""Who may do what: every endpoint times every kind of key, from one table.

The endpoints come from the running gateway's own document and from the list of its surfaces, so an endpoint without a
row here fails. A row says which scopes are needed, and what somebody gets who has them in another team; the rest is
the same for all: 401 without a usable key, 403 without a scope.
"""

# ruff: noqa: ARG005  # a table whose rows all take the same, used or not

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter_ns
from typing import Any, NamedTuple

import pytest

from counterfoil.folder import DataFolder
from counterfoil.record.ids import text as id_of
from counterfoil.surfaces import registry
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.keys import KeyKind, compose
from counterfoil.tenancy.scopes import SCOPES
from emulators.gateway import Answer, Gateway
from emulators.raw import RawClient, post
from emulators.scripted import ScriptedUpstream, answer, chat_answer
from emulators.waiting import wait_until

HIDDEN = "canary-of-acme"
"""Stands in everything that belongs to the team ``acme``: nobody else may see it."""

ALL = "*"
CALL = "inference"
MEMBER = frozenset({CALL, "generations:read", "generations:content", "generations:replay"})


class Actor(NamedTuple):
    """Somebody who asks. ``team`` is empty for whoever cannot be told to be anybody."""

    name: str
    key: str | None
    team: str = ""
    scopes: frozenset[str] = frozenset()
    scope: str | None = None  # the one scope that makes the difference

    def may(self, scope: str) -> bool:
        """Whether this one has ``scope``, itself, by its room or by being the operator."""
        if scope == CALL or CALL in self.scopes:
            return scope in self.scopes
        return bool(self.scopes & {scope, f"{scope.partition(':')[0]}:*", "admin"})


class Row(NamedTuple):
    """An endpoint. ``ok`` is what its owner gets; ``foreign`` what another team does with the same scopes."""

    route: str
    target: str
    needs: tuple[str, ...] | None = ()  # None: no key at all
    foreign: int = 404
    ok: int = 200
    body: dict[str, Any] | None = None
    all_teams: bool = False  # only for keys of all teams
    callers_too: bool = False  # an inference key needs no scope

    def expected(self, actor: Actor) -> int:
        """The status for ``actor``."""
        if self.needs is None:
            return self.ok
        if not actor.team:
            return 401
        calls = self.callers_too and CALL in actor.scopes
        if not calls and not all(actor.may(scope) for scope in self.needs):
            return 403
        if self.all_teams and actor.team != ALL:
            return 403
        return self.ok if actor.team in ("acme", ALL) else self.foreign


READ, CONTENT, REPLAY = "generations:read", "generations:content", "generations:replay"
KEYS = ("keys:read", "keys:write")
TEAMS = ("teams:read", "teams:write")


def key_rows(tag: str, name: str) -> list[Row]:
    """The endpoints that both kinds of keys have."""
    one = f"/v1/{tag}/{{{name}}}"
    return [
        Row(f"GET /v1/{tag}", f"/v1/{tag}?team_id=acme", KEYS[:1]),
        Row(f"GET /v1/{tag}/{{key_id}}", one, KEYS[:1]),
        Row(f"PATCH /v1/{tag}/{{key_id}}", one, KEYS[1:], body={"name": HIDDEN}),
        Row(f"DELETE /v1/{tag}/{{key_id}}", one, KEYS[1:]),
        Row(f"POST /v1/{tag}/{{key_id}}/rotate", f"{one}/rotate", KEYS[1:], body={"grace_seconds": 0}),
    ]


USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
ROWS = [
    Row("GET /v1/generations", "/v1/generations?id={id}", (READ,)),
    Row("GET /v1/generations", "/v1/generations?id={id}&team=acme", (READ,), foreign=403),
    Row("GET /v1/generations/{id}", "/v1/generations/{id}", (READ,)),
    Row("GET /v1/generations/{id}/content", "/v1/generations/{id}/content", (READ, CONTENT)),
    Row("GET /v1/generations/{id}/content", "/v1/generations/{id}/content?part=request", (READ, CONTENT)),
    Row("GET /v1/generations/{id}/proof", "/v1/generations/{id}/proof", (READ,)),
    Row("DELETE /v1/generations/{id}/content", "/v1/generations/{id}/content", ("generations:erase",)),
    Row("GET /v1/generations/search", "/v1/generations/search", (READ,), foreign=200),
    Row("GET /v1/generations/search", "/v1/generations/search?team=acme", (READ,), foreign=403),
    Row("GET /v1/generations/summary", "/v1/generations/summary", (READ,), foreign=200),
    Row("GET /v1/generations/summary", "/v1/generations/summary?team=acme", (READ,), foreign=403),
    Row("GET /v1/generations/export", "/v1/generations/export", (READ,), foreign=200),
    Row("GET /v1/generations/export", "/v1/generations/export?team=acme", (READ,), foreign=403),
    Row("GET /v1/generations/diff", "/v1/generations/diff?a={id}&b={id}", (READ, CONTENT)),
    Row(
        "POST /v1/generations/{id}/replay",
        "/v1/generations/{id}/replay",
        ("generations:replay", CONTENT),
        body={"dry_run": True},
    ),
    Row(
        "POST /v1/replays",
        "/v1/replays?team=acme",
        (REPLAY, CONTENT),
        foreign=403,
        ok=201,
        body={"filter": {}, "sample": 1, "name": HIDDEN},
    ),
    Row("GET /v1/replays", "/v1/replays", (REPLAY,), foreign=200),
    Row("GET /v1/replays", "/v1/replays?team=acme", (REPLAY,), foreign=403),
    Row("GET /v1/replays/{id}", "/v1/replays/{run}", (REPLAY,)),
    Row("GET /v1/replays/{id}/results", "/v1/replays/{run}/results", (REPLAY,)),
    Row("GET /v1/replays/{id}/events", "/v1/replays/{run}/events", (REPLAY,)),
    Row("GET /v1/replays/{id}/report", "/v1/replays/{run}/report", (REPLAY,)),
    Row("GET /v1/replays/{id}/report", "/v1/replays/{run}/report?format=html&texts=true", (REPLAY, CONTENT)),
    Row(
        "POST /v1/replays",
        "/v1/replays?team=acme",
        (REPLAY, CONTENT),
        foreign=403,
        body={"filter": {}, "sample": 1, "dry_run": True},
    ),
    Row("DELETE /v1/replays/{id}", "/v1/replays/{run}", (REPLAY,)),
    Row("POST /v1/replays/{id}/cancel", "/v1/replays/{run}/cancel", (REPLAY,)),
    Row("POST /v1/replays/{id}/resume", "/v1/replays/{run}/resume", (REPLAY, CONTENT)),
    Row("POST /v1/replays/{id}/verdicts", "/v1/replays/{run}/verdicts", (REPLAY,), body={"verdicts": []}),
    Row("GET /v1/models", "/v1/models", foreign=200),
    Row("GET /v1/models/{name}", "/v1/models/openai%2Fnone", foreign=404, ok=404),
    Row("GET /v1beta/models", "/v1beta/models", foreign=200),
    Row("GET /v1beta/models/{name}", "/v1beta/models/openai%2Fnone", foreign=404, ok=404),
    Row("GET /v1/ledger", "/v1/ledger", (READ,), all_teams=True),
    Row("GET /v1/ledger/checkpoints", "/v1/ledger/checkpoints", (READ,), all_teams=True),
    Row("POST /v1/ledger/verification", "/v1/ledger/verification", ("admin",), ok=202, body={}, all_teams=True),
    Row("GET /v1/ledger/verification", "/v1/ledger/verification", ("admin",), all_teams=True),
    Row("GET /v1/teams", "/v1/teams", TEAMS[:1], foreign=200),
    Row("POST /v1/teams", "/v1/teams", TEAMS[1:], ok=201, body={"team_id": "new-{n}"}, all_teams=True),
    Row("GET /v1/teams/{team_id}", "/v1/teams/acme", TEAMS[:1]),
    Row("PATCH /v1/teams/{team_id}", "/v1/teams/acme", TEAMS[1:], body={"name": HIDDEN}),
    Row("GET /v1/changes", "/v1/changes", TEAMS[:1], foreign=200),
    Row("GET /v1/changes", "/v1/changes?team_id=acme", TEAMS[:1]),
    Row("GET /v1/apps", "/v1/apps?team_id=acme", TEAMS[:1]),
    Row("GET /v1/apps", "/v1/apps", TEAMS[:1], foreign=200),
    Row("POST /v1/apps", "/v1/apps", TEAMS[1:], ok=201, body={"team_id": "acme", "app_id": "app-{n}"}),
    Row("PATCH /v1/apps/{team_id}/{app_id}", "/v1/apps/acme/web", TEAMS[1:], body={"name": HIDDEN}),
    *key_rows("keys", "key"),
    Row("GET /v1/keys", "/v1/keys", KEYS[:1], foreign=200),
    Row("POST /v1/keys", "/v1/keys", KEYS[1:], ok=201, body={"team_id": "acme", "name": HIDDEN}),
    *key_rows("management-keys", "manager"),
    Row("GET /v1/management-keys", "/v1/management-keys", KEYS[:1], foreign=200),
    Row(
        "POST /v1/management-keys",
        "/v1/management-keys",
        KEYS[1:],
        ok=201,
        body={"team_id": "acme", "scopes": ["keys:write"], "name": HIDDEN},
    ),
    Row("GET /v1/provider-keys", "/v1/provider-keys?team_id=acme", TEAMS[:1]),
    Row("GET /v1/provider-keys", "/v1/provider-keys", TEAMS[:1], foreign=200),
    Row(
        "PUT /v1/provider-keys/{team_id}/{provider}",
        "/v1/provider-keys/acme/local",
        TEAMS[1:],
        body={"secret": f"sk-{HIDDEN}"},
    ),
    Row("DELETE /v1/provider-keys/{team_id}/{provider}", "/v1/provider-keys/acme/local", TEAMS[1:], ok=204),
    Row(
        "POST /v1/pricing/calculate",
        "/v1/pricing/calculate",
        ("prices:read",),
        foreign=200,
        body={"provider": "openai", "model": "gpt-4o-mini", "usage": USAGE},
        callers_too=True,
    ),
    Row("GET /v1/pricing/models", "/v1/pricing/models?limit=1", ("prices:read",), foreign=200, callers_too=True),
    Row("GET /v1/pricing/book", "/v1/pricing/book", ("prices:read",), all_teams=True),
    Row("GET /health/live", "/health/live", None),
    Row("GET /health/ready", "/health/ready", None),
    Row("GET /metrics", "/metrics", None),
    Row("GET /openapi.json", "/openapi.json", None),
    Row("GET /docs", "/docs", None),
    *(
        # No provider serves this model: whoever may call is told so, and nobody is called.
        Row(
            f"POST {surface.path}", surface.path.replace("{model}", "none/x"), (CALL,), ok=404, body={"model": "none/x"}
        )
        for surface in registry.ALL
    ),
]


class World:
    """A gateway with two teams, what belongs to the first, and everybody who asks."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.folder = DataFolder.existing(gateway.data)
        self.admin = Admin(self.folder)
        self.numbers = itertools.count()
        self.owner = self.admin.create_key("acme", app_id="web", name=HIDDEN, make_missing=True)
        self.admin.create_team("other")
        self.admin.set_team("acme", name=HIDDEN)
        self.admin.set_app("acme", "web", name=HIDDEN)
        self.victim = self.places()
        self.verify()
        self.actors = list(self._actors())

    def places(self, row: Row | None = None) -> dict[str, Any]:
        """Things of the team ``acme`` that nothing has happened to yet, by the names that targets have for them.

        For a ``row`` only what its target names is made anew.
        """
        target = "{id}{key}{manager}{run}provider-keys" if row is None else row.target
        made = {} if row is None else dict(self.victim)
        made["n"] = next(self.numbers)
        if "{key}" in target:
            made["key"] = self.admin.create_key("acme", name=HIDDEN).info.key_id
        if "{manager}" in target:
            one = self.admin.create_management_key(["keys:write"], team_id="acme", name=HIDDEN)
            made["manager"] = one.info.key_id
        if "provider-keys" in target:
            self.admin.set_provider_key("acme", "local", f"sk-{HIDDEN}")
        if "{id}" in target:
            made["id"] = self.call()
        if "{run}" in target:
            made["run"] = self.bulk_run()
        return made

    def bulk_run(self) -> str:
        """A bulk run of the team that has ended, and its id."""
        asked = {"ids": [self.call()], "name": HIDDEN}
        run_id = self.gateway.request("POST", "/v1/replays", asked, key=self.owner.key).json()["run_id"]

        def has_ended() -> bool:
            run = self.gateway.request("GET", f"/v1/replays/{run_id}", key=self.owner.key).json()
            return run["state"] != "running" and run["in_flight"] is None

        wait_until(has_ended)
        return run_id

    def verify(self) -> None:
        """Have the ledger verified, and every record so far covered by a checkpoint."""
        admin = self.admin.create_management_key(["admin"]).key
        assert self.gateway.request("POST", "/v1/ledger/verification", {}, key=admin).status == 202
        ask = partial(self.gateway.request, "GET", key=admin)
        wait_until(lambda: ask("/v1/ledger/verification").json()["state"] != "running")
        wait_until(lambda: ask(f"/v1/generations/{self.victim['id']}/proof").status != 409)

    def call(self) -> str:
        """A call of the team, and its id."""
        call = {"model": "local/gpt-4o-mini", "messages": [{"role": "user", "content": HIDDEN}], "user": HIDDEN}
        answered = self.gateway.request("POST", "/v1/chat/completions", call, key=self.owner.key)
        assert answered.status == 200, answered.body
        return answered.headers["x-request-id"]

    def ask(self, row: Row, actor: Actor, places: dict[str, Any]) -> Answer:
        """One request."""
        method = row.route.partition(" ")[0]
        body = None if row.body is None else json.dumps(row.body).replace("{n}", str(places["n"])).encode()
        return self.gateway.request(method, row.target.format(**places), body, key=actor.key)

    def _actors(self) -> Iterator[Actor]:
        admin = self.admin
        yield Actor("owner", self.owner.key, "acme", MEMBER)
        yield Actor("another key of the team", admin.create_key("acme").key, "acme", MEMBER)
        yield Actor("other team", admin.create_key("other").key, "other", MEMBER)
        yield from self._unusable()
        for team, named in ((None, "all"), ("acme", "acme"), ("other", "other")):
            made = admin.create_management_key(["admin"], team_id=team)
            yield Actor(f"admin of {named}", made.key, team or ALL, frozenset({"admin"}))
        for scope in SCOPES.keys() - {"admin"}:
            rest = frozenset(SCOPES.keys() - {"admin", scope})
            for team in (None, "other"):
                only = admin.create_management_key([scope], team_id=team)
                yield Actor(f"only {scope} of {team or 'all'}", only.key, team or ALL, frozenset({scope}), scope)
                but = admin.create_management_key(sorted(rest), team_id=team)
                yield Actor(f"all but {scope} of {team or 'all'}", but.key, team or ALL, rest, scope)
        for room in ("generations", "keys", "teams", "prices"):
            whole = admin.create_management_key([f"{room}:*"])
            yield Actor(f"{room}:*", whole.key, ALL, frozenset({f"{room}:*"}))

    def _unusable(self) -> Iterator[Actor]:
        admin = self.admin
        good = self.owner.key
        yield Actor("no key", None)
        yield Actor("malformed", "sk-proj-0123456789")
        yield Actor("mistyped", good[:-1] + ("a" if good[-1] != "a" else "b"))
        yield Actor("cut", good[:-3])
        yield Actor("unknown", compose(KeyKind.INFERENCE, "0123456789ab", lambda count: bytes(range(count))))
        yield Actor(
            "unknown management", compose(KeyKind.MANAGEMENT, "0123456789ab", lambda count: bytes(range(count)))
        )
        yield Actor("another's secret", compose(KeyKind.INFERENCE, self.owner.info.key_id, bytes))
        for make in (lambda: admin.create_key("acme"), lambda: admin.create_management_key(["admin"])):
            for name, spoil in (
                ("revoked", admin.revoke_key),
                ("disabled", lambda key_id: admin.set_key(key_id, disabled=True)),
                ("expired", lambda key_id: admin.set_key(key_id, expires_ms=1)),
            ):
                made = make()
                spoil(made.info.key_id)
                yield Actor(f"{name} {made.info.kind.value}", made.key)
        admin.create_team("closed")
        yield Actor("team disabled", admin.create_key("closed").key)
        admin.set_team("closed", disabled=True)
        admin.create_app("acme", "closed")
        yield Actor("app disabled", admin.create_key("acme", app_id="closed").key)
        admin.set_app("acme", "closed", disabled=True)


@pytest.fixture(scope="module")
def world(start_gateway: Any) -> Iterator[World]:
    """Give the world."""
    with ScriptedUpstream(answer(chat_answer(HIDDEN))) as upstream:
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
        gateway = start_gateway({"providers": {"local": one}, "ledger": {"checkpoint_seconds": 0.1}})
        world = World(gateway)
        yield world
        world.admin.close()
        gateway.stop()


def test_every_endpoint_has_a_row(world: World) -> None:
    """What the gateway says it has, and every surface: none is missing here, and none is only here."""
    document = world.gateway.request("GET", "/openapi.json").json()
    routes = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    routes |= {f"POST {surface.path}" for surface in registry.ALL} | {"GET /docs", "GET /openapi.json"}
    assert routes == {row.route for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.route} {row.target}".replace("/v1/", ""))
def test_the_matrix(world: World, row: Row) -> None:
    """Each endpoint gives each key what the table says, and nothing of another team's to whoever may not see it."""
    wrong, leaks = [], []
    changes = not row.route.startswith("GET ")
    for actor in world.actors:
        if actor.scope is not None and actor.team == "other" and actor.scope not in (row.needs or ()):
            continue  # as it is in its own team, which the same scope of all teams has shown
        expected = row.expected(actor)
        granted = expected == row.ok and expected < 300
        places = world.places(row) if changes and granted else world.victim
        said = world.ask(row, actor, places)
        if said.status != expected:
            wrong.append((actor.name, said.status, expected, said.body[:200]))
        shown = said.body + json.dumps(said.headers).encode()
        if actor.team not in ("acme", ALL) and row.needs is not None:
            leaks += [
                actor.name
                for secret in (HIDDEN, *world.victim.values())
                if len(str(secret)) > 9 and str(secret).encode() in shown
            ]
    assert not wrong, f"{len(wrong)}: {wrong}"
    assert not leaks


@pytest.mark.parametrize("key", [None, "cf_sk_nobody"], ids=["none", "malformed"])
@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.body is not None or row.needs == (CALL,)], ids=lambda r: r.route
)
def test_a_stranger_is_refused_before_any_of_the_body_is_read(world: World, row: Row, key: str | None) -> None:
    """The head alone is answered, though it announces a body that never comes."""
    method = row.route.partition(" ")[0]
    head = post(row.target.format(**world.victim), b"", key, content_length="1000000").replace(
        b"POST", method.encode(), 1
    )
    with RawClient(world.gateway.port) as client:
        client.send(head)
        assert client.reply().status == 401


def test_what_was_refused_did_not_happen(world: World) -> None:
    """After every refusal the team's things are as they were."""
    victim = world.victim
    assert world.admin.show_key(victim["key"]).state == "active"
    assert world.admin.show_key(victim["manager"]).state == "active"
    record = world.gateway.record(victim["id"], world.owner.key)
    assert record["replay_supported"] is True


UNKNOWN_ID = id_of(1 << 100)
TWINS: list[tuple[str, str, Callable[[dict[str, Any]], str], str]] = [
    ("GET", "generation", lambda v: f"/v1/generations?id={v['id']}", f"/v1/generations?id={UNKNOWN_ID}"),
    ("GET", "by path", lambda v: f"/v1/generations/{v['id']}", f"/v1/generations/{UNKNOWN_ID}"),
    ("GET", "native id", lambda v: "/v1/generations?id=chatcmpl-scripted", "/v1/generations?id=chatcmpl-unknownxx"),
    ("GET", "content", lambda v: f"/v1/generations/{v['id']}/content", f"/v1/generations/{UNKNOWN_ID}/content"),
    ("GET", "proof", lambda v: f"/v1/generations/{v['id']}/proof", f"/v1/generations/{UNKNOWN_ID}/proof"),
    ("DELETE", "erase", lambda v: f"/v1/generations/{v['id']}/content", f"/v1/generations/{UNKNOWN_ID}/content"),
    ("POST", "replay", lambda v: f"/v1/generations/{v['id']}/replay", f"/v1/generations/{UNKNOWN_ID}/replay"),
    (
        "GET",
        "diff",
        lambda v: f"/v1/generations/diff?a={v['id']}&b={v['id']}",
        f"/v1/generations/diff?a={UNKNOWN_ID}&b={UNKNOWN_ID}",
    ),
    ("GET", "bulk run", lambda v: f"/v1/replays/{v['run']}", f"/v1/replays/run_{UNKNOWN_ID[4:]}"),
    ("POST", "cancel", lambda v: f"/v1/replays/{v['run']}/cancel", f"/v1/replays/run_{UNKNOWN_ID[4:]}/cancel"),
    ("DELETE", "run", lambda v: f"/v1/replays/{v['run']}", f"/v1/replays/run_{UNKNOWN_ID[4:]}"),
    ("GET", "key", lambda v: f"/v1/keys/{v['key']}", "/v1/keys/0123456789ab"),
    ("DELETE", "key gone", lambda v: f"/v1/keys/{v['key']}", "/v1/keys/0123456789ab"),
    ("POST", "rotate", lambda v: f"/v1/keys/{v['key']}/rotate", "/v1/keys/0123456789ab/rotate"),
    ("GET", "manager", lambda v: f"/v1/management-keys/{v['manager']}", "/v1/management-keys/0123456789ab"),
    ("GET", "team", lambda v: "/v1/teams/acme", "/v1/teams/none"),
    ("GET", "team's keys", lambda v: "/v1/keys?team_id=acme", "/v1/keys?team_id=none"),
    ("GET", "team's apps", lambda v: "/v1/apps?team_id=acme", "/v1/apps?team_id=none"),
    ("GET", "team's changes", lambda v: "/v1/changes?team_id=acme", "/v1/changes?team_id=none"),
    ("DELETE", "provider key", lambda v: "/v1/provider-keys/acme/local", "/v1/provider-keys/none/local"),
]
"""Something of another team's, and the same asked for what does not exist."""


@pytest.mark.parametrize(
    ("method", "foreign", "unknown"),
    [(method, foreign, unknown) for method, _, foreign, unknown in TWINS],
    ids=[twin[1] for twin in TWINS],
)
def test_foreign_and_unknown_are_the_same_bytes(
    world: World, method: str, foreign: Callable[[dict[str, Any]], str], unknown: str
) -> None:
    """Status, headers and body: nothing tells whether it exists elsewhere."""
    reader = next(actor for actor in world.actors if actor.name == "admin of other")
    first, second = (
        world.gateway.request(method, target, key=reader.key)._asdict() for target in (foreign(world.victim), unknown)
    )
    for one in (first, second):
        one["headers"].pop("date", None)
    assert first["status"] == 404
    assert first == second


@pytest.mark.faults
@pytest.mark.parametrize(("method", "name", "foreign", "unknown"), TWINS[:3], ids=[twin[1] for twin in TWINS[:3]])
def test_foreign_and_unknown_take_the_same_time(
    world: World, method: str, name: str, foreign: Callable[[dict[str, Any]], str], unknown: str
) -> None:
    """The figure is printed: how likely a foreign one takes longer than an unknown one (0.5 is: nobody can tell).

    Thousands of both, in turns, on one connection; the answers are compared, the times are not asserted.
    """
    reader = next(actor for actor in world.actors if actor.name == "other team")
    targets = (foreign(world.victim), unknown)
    times: tuple[list[int], list[int]] = ([], [])
    with RawClient(world.gateway.port) as client:
        for turn in range(8000):
            which = (turn + turn // 2) % 2  # ABBA, so that a drift meets both alike
            head = (
                f"{method} {targets[which]} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {reader.key}\r\n\r\n".encode()
            )
            began = perf_counter_ns()
            client.send(head)
            said = client.reply()
            times[which].append(perf_counter_ns() - began)
            assert said.status == 404
    later = sorted([(time, 0) for time in times[0]] + [(time, 1) for time in times[1]])
    ranks = sum(rank for rank, (_, which) in enumerate(later, 1) if which == 0)
    count = len(times[0])
    likely = (ranks - count * (count + 1) / 2) / (count * len(times[1]))
    print(f"{name}: foreign {median(times[0]) / 1e3:.1f} µs, unknown {median(times[1]) / 1e3:.1f} µs, P = {likely:.3f}")
