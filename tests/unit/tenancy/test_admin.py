"""Changing tenancy: what is made, what is refused, and what the audit says of it."""

from __future__ import annotations

import json

import msgspec
import pytest

from counterfoil.errors import CallerFault
from counterfoil.record.record import CapturePolicy
from counterfoil.tenancy.admin import GRACE_MS_MAX, Admin
from counterfoil.tenancy.documents import plain
from counterfoil.tenancy.keys import KeyKind

from .conftest import Clock

BAD_IDS = ["", "Acme", "ac me", "a/b", "*", "-a", ".a", "ä", "a" * 65, "a\n", "a'; DROP TABLE teams; --"]


@pytest.mark.parametrize("team_id", BAD_IDS, ids=repr)
def test_a_bad_team_id_is_refused(team_id: str, admin: Admin) -> None:
    """The fault says what an id looks like, on every way to a team, and nothing is made."""
    for attempt in (
        lambda: admin.create_team(team_id),
        lambda: admin.create_key(team_id, make_missing=True),
        lambda: admin.create_management_key(["keys:read"], team_id=team_id, make_missing=True),
    ):
        with pytest.raises(CallerFault, match=r"an id has 1 to 64 of the characters a-z, 0-9") as caught:
            attempt()
        assert (caught.value.status, caught.value.param) == (400, "team")
    assert admin.list_teams() == []


@pytest.mark.parametrize("team_id", ["acme", "a", "0", "a.b_c-d", "a" * 64])
def test_good_team_ids(team_id: str, admin: Admin) -> None:
    """What an id may be."""
    assert admin.create_team(team_id).team_id == team_id


@pytest.mark.parametrize("app_id", BAD_IDS, ids=repr)
def test_a_bad_app_id_is_refused(app_id: str, admin: Admin) -> None:
    """Applications follow the same rule as teams; the team is not made either."""
    with pytest.raises(CallerFault, match="an id has 1 to 64"):
        admin.create_key("acme", app_id=app_id, make_missing=True)
    assert admin.list_teams() == []


def test_a_key_makes_its_team_and_application(admin: Admin) -> None:
    """`make_missing` makes what is missing, once; without it what is missing is not found."""
    admin.create_key("acme", app_id="web", make_missing=True)
    admin.create_key("acme", app_id="web", make_missing=True)
    assert [team.team_id for team in admin.list_teams()] == ["acme"]
    assert [app.app_id for app in admin.list_apps("acme")] == ["web"]
    for attempt in (lambda: admin.create_key("globex"), lambda: admin.create_key("acme", app_id="mobile")):
        with pytest.raises(CallerFault) as caught:
            attempt()
        assert caught.value.status == 404


def test_ids_are_taken_once(admin: Admin) -> None:
    """A second team or application of one id is a conflict."""
    admin.create_team("acme")
    admin.create_app("acme", "web")
    for attempt in (lambda: admin.create_team("acme"), lambda: admin.create_app("acme", "web")):
        with pytest.raises(CallerFault) as caught:
            attempt()
        assert caught.value.status == 409


def test_what_is_not_given_stays(admin: Admin) -> None:
    """Changing one setting leaves the others; None clears."""
    admin.create_team("acme", name="Acme", capture=CapturePolicy.OFF)
    team = admin.set_team("acme", content_needs_scope=True)
    assert (team.name, team.capture, team.content_needs_scope) == ("Acme", CapturePolicy.OFF, True)
    team = admin.set_team("acme", capture=None)
    assert (team.name, team.capture, team.content_needs_scope) == ("Acme", None, True)
    assert admin.show_team("acme") == team


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "x" * 201], ids=["line break", "escape", "long"])
def test_names_are_one_printable_line(name: str, admin: Admin) -> None:
    """A name cannot carry control characters to a terminal or a log."""
    with pytest.raises(CallerFault, match="printable"):
        admin.create_team("acme", name=name)


def test_a_revoked_key_stays_revoked(admin: Admin) -> None:
    """It cannot be enabled, rotated or given more time; revoking it again changes nothing."""
    key_id = admin.create_key("acme", make_missing=True).info.key_id
    first = admin.revoke_key(key_id)
    assert first.state == "revoked"
    assert admin.revoke_key(key_id) == first
    for attempt in (lambda: admin.set_key(key_id, disabled=False), lambda: admin.rotate_key(key_id)):
        with pytest.raises(CallerFault, match="revoked; make a new one"):
            attempt()


def test_the_state_says_what_counts(admin: Admin, clock: Clock) -> None:
    """Active, disabled, expired, revoked: the gravest is shown."""
    key_id = admin.create_key("acme", expires_ms=clock() + 1, make_missing=True).info.key_id
    assert admin.show_key(key_id).state == "active"
    assert admin.set_key(key_id, disabled=True).state == "disabled"
    clock.now_ms += 1
    assert admin.show_key(key_id).state == "expired"
    assert admin.revoke_key(key_id).state == "revoked"


def test_a_key_of_the_other_kind_is_not_found(admin: Admin) -> None:
    """Asked for an inference key, a management key is not one."""
    key_id = admin.create_management_key(["admin"]).info.key_id
    with pytest.raises(CallerFault, match="There is no key"):
        admin.revoke_key(key_id, kind=KeyKind.INFERENCE)
    assert admin.show_key(key_id, kind=KeyKind.MANAGEMENT).state == "active"


@pytest.mark.parametrize("grace_ms", [-1, GRACE_MS_MAX + 1])
def test_a_grace_has_bounds(grace_ms: int, admin: Admin) -> None:
    """A grace is for deploying, not for keeping two keys."""
    key_id = admin.create_key("acme", make_missing=True).info.key_id
    with pytest.raises(CallerFault, match="0 to 30 days"):
        admin.rotate_key(key_id, grace_ms=grace_ms)


def test_a_key_that_has_expired_already_is_not_made(admin: Admin, clock: Clock) -> None:
    """A moment that is past is a mistake."""
    with pytest.raises(CallerFault, match="expired already"):
        admin.create_key("acme", expires_ms=clock(), make_missing=True)
    assert admin.list_teams() == []


@pytest.mark.parametrize(
    "secret", ["", " ", "a b", "a\nb", "é", "x" * 5000], ids=["empty", "space", "spaces", "line", "é", "long"]
)
def test_a_provider_key_must_fit_a_header(secret: str, admin: Admin) -> None:
    """What cannot be sent in a header is refused when it is set, not when a call needs it."""
    admin.create_team("acme")
    with pytest.raises(CallerFault, match="visible ASCII"):
        admin.set_provider_key("acme", "openai", secret)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://h/v1",
        "ftp://h",
        "https://",
        "https://u:p@h",
        "https://h/?a",
        "https://h/#a",
        "https://h:99999",
        "https://h/ü",
        "h",
        "",
    ],
)
def test_a_teams_own_address_is_https(base_url: str, admin: Admin) -> None:
    """A team's address carries its key over a network the operator does not choose."""
    admin.create_team("acme")
    with pytest.raises(CallerFault, match="base_url"):
        admin.set_provider_key("acme", "openai", "sk-1", base_url=base_url)


def test_only_the_end_of_a_long_secret_is_shown(admin: Admin) -> None:
    """A hint helps to tell keys apart; of a short secret it would tell too much."""
    admin.create_team("acme")
    assert admin.set_provider_key("acme", "openai", "sk-0123456789abcdef").hint == "cdef"
    assert admin.set_provider_key("acme", "openai", "sk-short").hint == ""


def test_the_audit_tells_who_did_what(admin: Admin) -> None:
    """Every change has its line, the newest first, without secrets; what failed has none."""
    made = admin.create_key("acme", app_id="web", make_missing=True)
    admin.set_provider_key("acme", "openai", "sk-canary-0123456789")
    rotated = admin.rotate_key(made.info.key_id)
    with pytest.raises(CallerFault):
        admin.create_team("acme")
    changes = admin.list_changes()
    assert [change.action for change in changes] == [
        "key.rotate",
        "provider_key.set",
        "key.create",
        "app.create",
        "team.create",
    ]
    assert {change.actor for change in changes} == {"operator"}
    text = msgspec.json.encode(changes).decode()
    for secret in ("sk-canary", made.key[-40:], rotated.key[-40:]):
        assert secret not in text
    assert plain(changes[0])["at"] == "2027-01-15T08:00:00.000Z"
    assert json.loads(changes[0].detail) == {"grace_ms": 0}
