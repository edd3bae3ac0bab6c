"""Who may do what, and hand on what."""

from __future__ import annotations

import pytest

from counterfoil.errors import CallerFault
from counterfoil.tenancy import scopes
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.authority import OPERATOR, Authority
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.principal import ScopeMissing

WANTED = (
    "generations:read",
    "generations:content",
    "generations:erase",
    "keys:read",
    "keys:write",
    "prices:write",
    "admin",
)


@pytest.mark.parametrize(
    ("held", "allowed"),
    [
        pytest.param({"generations:read"}, "10000 00", id="one scope"),
        pytest.param({"generations:*"}, "11100 00", id="a room"),
        pytest.param({"keys:write"}, "00001 00", id="writing is not reading"),
        pytest.param({"keys:*", "prices:write"}, "00011 10", id="two rooms"),
        pytest.param({"admin"}, "11111 11", id="admin"),
        pytest.param(scopes.TEAM_MEMBER, "10000 00", id="an inference key"),
        pytest.param(set(), "00000 00", id="nothing"),
        pytest.param({"generations"}, "00000 00", id="a room without a right"),
    ],
)
def test_the_matrix_of_scopes(held: set[str], allowed: str) -> None:
    """Each right is there itself, under its room's wildcard, or under admin; and in no other way."""
    expected = [letter == "1" for letter in allowed.replace(" ", "")]
    assert [scopes.allows(held, wanted) for wanted in WANTED] == expected


def test_no_management_key_makes_calls() -> None:
    """Admin is everything about the gateway, but a key for calls is an inference key."""
    assert not scopes.allows({"admin"}, scopes.INFERENCE)
    assert scopes.allows(scopes.TEAM_MEMBER, scopes.INFERENCE)


@pytest.mark.parametrize(
    ("held", "wanted", "lacking"),
    [
        pytest.param({"keys:*"}, ["keys:read"], [], id="a part of a room"),
        pytest.param({"keys:read", "keys:write"}, ["keys:*"], ["keys:*"], id="parts are not the room"),
        pytest.param({"keys:*"}, ["admin"], ["admin"], id="admin"),
        pytest.param({"admin"}, ["admin", "keys:*", "prices:read"], [], id="admin grants all"),
        pytest.param({"keys:*"}, ["keys:read", "generations:read"], ["generations:read"], id="another room"),
    ],
)
def test_what_cannot_be_handed_on(held: set[str], wanted: list[str], lacking: list[str]) -> None:
    """Nobody grants what they lack."""
    assert scopes.lacking(held, wanted) == lacking


@pytest.mark.parametrize("scope", ["", "keys", "keys:delete", "KEYS:read", "admin:*", "*", "inference"])
def test_a_scope_that_does_not_exist(scope: str) -> None:
    """A scope that means nothing cannot be granted."""
    with pytest.raises(CallerFault, match="There is no scope"):
        scopes.checked([scope])


def test_a_key_cannot_grant_what_it_lacks(admin: Admin) -> None:
    """A management key makes management keys with its own scopes or fewer."""
    holder = Authority("k", frozenset({"keys:*", "generations:read"}), "*")
    admin.create_management_key(["keys:read", "generations:read"], by=holder)
    with pytest.raises(ScopeMissing) as caught:
        admin.create_management_key(["generations:content"], by=holder)
    assert caught.value.needs == "generations:content"
    assert caught.value.status == 403


def test_a_key_cannot_take_over_a_stronger_one(admin: Admin) -> None:
    """Rotating a key shows its new secret, so it needs the rights of that key."""
    strong = admin.create_management_key(["admin"]).info
    holder = Authority("k", frozenset({"keys:*"}), "*")
    with pytest.raises(ScopeMissing):
        admin.rotate_key(strong.key_id, by=holder)


def test_a_key_of_one_team_stays_in_it(admin: Admin) -> None:
    """For a team's own management key the other teams do not exist, and it cannot become one of all teams."""
    admin.create_team("acme")
    foreign = admin.create_key("globex", make_missing=True).info.key_id
    holder = Authority("k", frozenset({"admin"}), "acme")
    admin.create_key("acme", by=holder)
    admin.create_management_key(["admin"], team_id="acme", by=holder)
    assert {team.team_id for team in admin.list_teams(by=holder)} == {"acme"}
    assert {key.team_id for key in admin.list_keys(by=holder)} == {"acme"}
    with pytest.raises(ScopeMissing):
        admin.create_management_key(["keys:read"], by=holder)
    with pytest.raises(ScopeMissing):
        admin.create_team("initech", by=holder)
    with pytest.raises(ScopeMissing):
        admin.set_team("acme", disabled=False, by=holder)
    for attempt in (
        lambda: admin.create_key("globex", by=holder),
        lambda: admin.show_team("globex", by=holder),
        lambda: admin.list_keys("globex", by=holder),
        lambda: admin.list_apps("globex", by=holder),
        lambda: admin.list_changes("globex", by=holder),
        lambda: admin.show_key(foreign, by=holder),
        lambda: admin.revoke_key(foreign, by=holder),
        lambda: admin.rotate_key(foreign, by=holder),
        lambda: admin.set_key(foreign, disabled=True, by=holder),
        lambda: admin.set_provider_key("globex", "openai", "sk-1", by=holder),
        lambda: admin.remove_provider_key("globex", "openai", by=holder),
        lambda: admin.list_provider_keys("globex", by=holder),
        lambda: admin.note_erasure("globex", "gen_1", by=holder),
    ):
        with pytest.raises(CallerFault) as caught:
            attempt()
        assert caught.value.short_code == "not_found"


def test_unknown_and_foreign_are_the_same_fault(admin: Admin) -> None:
    """The fault for another team's key says what the fault for no key says."""
    foreign = admin.create_key("globex", make_missing=True).info.key_id
    admin.create_team("acme")
    holder = Authority("k", frozenset({"admin"}), "acme")
    faults: list[str] = []
    for key_id in (foreign, "000000000000"):
        with pytest.raises(CallerFault) as caught:
            admin.show_key(key_id, by=holder)
        faults.append(str(caught.value).replace(key_id, "ID"))
    assert faults[0] == faults[1]


WRITES = {
    "create_team": (lambda admin, by: admin.create_team("new", by=by), "teams:write"),
    "set_team": (lambda admin, by: admin.set_team("acme", name="x", by=by), "teams:write"),
    "create_app": (lambda admin, by: admin.create_app("acme", "new", by=by), "teams:write"),
    "set_app": (lambda admin, by: admin.set_app("acme", "web", name="x", by=by), "teams:write"),
    "create_key": (lambda admin, by: admin.create_key("acme", by=by), "keys:write"),
    "create_management_key": (lambda admin, by: admin.create_management_key(["keys:write"], by=by), "keys:write"),
    "set_key": (lambda admin, by: admin.set_key(admin.list_keys()[0].key_id, name="x", by=by), "keys:write"),
    "revoke_key": (lambda admin, by: admin.revoke_key(admin.list_keys()[0].key_id, by=by), "keys:write"),
    "rotate_key": (lambda admin, by: admin.rotate_key(admin.list_keys()[0].key_id, by=by), "keys:write"),
    "set_provider_key": (lambda admin, by: admin.set_provider_key("acme", "openai", "sk-1", by=by), "teams:write"),
    "remove_provider_key": (lambda admin, by: admin.remove_provider_key("acme", "groq", by=by), "teams:write"),
    "list_teams": (lambda admin, by: admin.list_teams(by=by), "teams:read"),
    "show_team": (lambda admin, by: admin.show_team("acme", by=by), "teams:read"),
    "list_apps": (lambda admin, by: admin.list_apps(by=by), "teams:read"),
    "list_keys": (lambda admin, by: admin.list_keys(by=by), "keys:read"),
    "show_key": (lambda admin, by: admin.show_key(admin.list_keys()[0].key_id, by=by), "keys:read"),
    "list_provider_keys": (lambda admin, by: admin.list_provider_keys(by=by), "teams:read"),
    "list_changes": (lambda admin, by: admin.list_changes(by=by), "teams:read"),
    "note_erasure": (lambda admin, by: admin.note_erasure("acme", "gen_1", by=by), "generations:erase"),
}


def test_the_table_names_every_action() -> None:
    """An action added to Admin without a line in the table fails here."""
    actions = {name for name in vars(Admin) if not name.startswith("_") and name != "close"}
    assert actions == set(WRITES)


@pytest.mark.parametrize("name", WRITES)
def test_every_action_needs_its_scope(name: str, admin: Admin) -> None:
    """Each action works with its one scope, and with every other scope it is refused and changes nothing."""
    attempt, needed = WRITES[name]
    admin.create_key("acme", app_id="web", make_missing=True)
    admin.set_provider_key("acme", "groq", "gsk-1")
    others = frozenset(scopes.SCOPES) - {needed, "admin"}
    before = admin.list_changes()
    with pytest.raises(ScopeMissing) as caught:
        attempt(admin, Authority("k", others, "*"))
    assert caught.value.needs == needed
    assert admin.list_changes() == before
    attempt(admin, Authority("k", frozenset({needed}), "*"))


def test_what_an_inference_key_may_do(admin: Admin, directory: Directory) -> None:
    """It calls, and reads its team's records with their bodies; where the team guards bodies, only with the scope."""
    plain = admin.create_key("acme", make_missing=True)
    admin.create_team("bank", content_needs_scope=True)
    guarded = admin.create_key("bank")
    trusted = admin.create_key("bank", scopes=["generations:content"])
    rights = {made.info.key_id: directory.authenticate(made.key).sees_content for made in (plain, guarded, trusted)}
    assert list(rights.values()) == [True, False, True]
    assert directory.authenticate(plain.key).may("generations:read")
    assert not directory.authenticate(plain.key).may("generations:erase")
    with pytest.raises(CallerFault, match="generations:… scopes only"):
        admin.create_key("acme", scopes=["keys:read"])


def test_the_operator_may_everything() -> None:
    """Whoever can write to the data folder has every right for every team."""
    for scope in scopes.SCOPES:
        OPERATOR.need(scope)
    assert OPERATOR.sees("acme")
    assert OPERATOR.sees(None)
