"""Changing tenancy: teams, applications, keys and provider keys.

Every change is checked against the :class:`~counterfoil.tenancy.authority.Authority` that asks for it, lands whole or
not at all together with its line of audit, and counts in every process on the folder when the call returns. What an
authority does not see does not exist for it: a foreign id and an unknown one give the same fault.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from counterfoil.clock import wall_ms
from counterfoil.errors import CallerFault
from counterfoil.folder import DataFolder
from counterfoil.providers.addresses import check_form
from counterfoil.record.record import CapturePolicy, PlaybackMode
from counterfoil.tenancy import keys, names, queries
from counterfoil.tenancy.authority import OPERATOR, Authority
from counterfoil.tenancy.documents import App, Change, Key, NewKey, ProviderKeyInfo, Team
from counterfoil.tenancy.keys import KeyKind
from counterfoil.tenancy.scopes import TEAM_MEMBER, checked
from counterfoil.tenancy.store import Row, Store, Value
from counterfoil.tenancy.vault import ProviderKey, Vault

GRACE_MS_MAX: Final = 30 * 86_400_000
"""An old secret may outlive a rotation by thirty days at most: a grace is for deploying, not for keeping two keys."""
HINT_LETTERS: Final = 4
LIST_MAX: Final = 1_000


class Unset(msgspec.Struct, frozen=True):
    """Says that a setting stays as it is, where None would clear it."""


UNSET: Final = Unset()


class Admin:
    """Reads and changes the tenancy of one data folder. Safe from any thread."""

    def __init__(
        self,
        folder: DataFolder,
        now_ms: Callable[[], int] = wall_ms,
        entropy: Callable[[int], bytes] = os.urandom,
        check_address: Callable[[str], None] = check_form,
    ) -> None:
        """Open the tenancy of ``folder``. Raises :class:`~counterfoil.errors.ConfigError` when that fails.

        ``check_address`` refuses a team's own ``base_url`` when it is set. Where the configuration is not known only
        its form is checked; where it leads is judged again at every connection, after its name was resolved.
        """
        self._store = Store(folder)
        self._vault = Vault(folder)
        self._now_ms = now_ms
        self._entropy = entropy
        self._check_address = check_address

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    # Teams -----------------------------------------------------------------------------------------------------------

    def create_team(
        self,
        team_id: str,
        *,
        name: str | None = None,
        capture: CapturePolicy | None = None,
        content_needs_scope: bool = False,
        by: Authority = OPERATOR,
    ) -> Team:
        """Make a team. Raises :class:`CallerFault` for a bad id and for one that is taken."""
        by.need_all_teams("teams:write")
        names.slug(team_id, "team")
        names.label(name)
        with self._store.change():
            if self._team(team_id) is not None:
                raise CallerFault("conflict", f"There is a team {team_id} already.", param="team")
            self._insert_team(team_id, name, capture, content_needs_scope=content_needs_scope)
            self._audit(by, "team.create", team_id, team_id)
            return self._team_now(team_id)

    def list_teams(self, *, by: Authority = OPERATOR) -> list[Team]:
        """The teams ``by`` sees, by id."""
        by.need("teams:read")
        rows = self._store.rows(queries.TEAMS)
        return [team for team in map(_to_team, rows) if by.sees(team.team_id)]

    def show_team(self, team_id: str, *, by: Authority = OPERATOR) -> Team:
        """One team. Raises :class:`CallerFault` (not found)."""
        by.need("teams:read")
        return self._visible_team(team_id, by)

    def set_team(
        self,
        team_id: str,
        *,
        name: str | Unset | None = UNSET,
        capture: CapturePolicy | Unset | None = UNSET,
        content_needs_scope: bool | Unset = UNSET,
        disabled: bool | Unset = UNSET,
        by: Authority = OPERATOR,
    ) -> Team:
        """Change what is given; the rest stays. Disabling a team refuses all its keys at once."""
        by.need("teams:write")
        if not isinstance(disabled, Unset):
            by.need_all_teams("teams:write")
        with self._store.change():
            team = self._visible_team(team_id, by)
            changed = _changes(
                name=name if isinstance(name, Unset) else names.label(name),
                capture=capture,
                content_needs_scope=content_needs_scope,
                disabled=disabled,
            )
            now = msgspec.structs.replace(team, **changed)
            self._store.rows(
                queries.SET_TEAM,
                (now.name, now.capture, now.content_needs_scope, now.disabled, team_id),
            )
            self._audit(by, "team.set", team_id, team_id, changed)
            return now

    # Applications ----------------------------------------------------------------------------------------------------

    def create_app(self, team_id: str, app_id: str, *, name: str | None = None, by: Authority = OPERATOR) -> App:
        """Make an application of a team."""
        by.need("teams:write")
        names.slug(app_id, "app")
        names.label(name)
        with self._store.change():
            self._visible_team(team_id, by)
            if self._app(team_id, app_id) is not None:
                raise CallerFault("conflict", f"Team {team_id} has an application {app_id} already.", param="app")
            self._insert_app(team_id, app_id, name)
            self._audit(by, "app.create", team_id, app_id)
            return self._visible_app(team_id, app_id, by)

    def list_apps(self, team_id: str | None = None, *, by: Authority = OPERATOR) -> list[App]:
        """The applications of a team, or of all teams ``by`` sees."""
        by.need("teams:read")
        rows = self._store.rows(
            queries.APPS,
            (by.visible_team(team_id),),
        )
        return [_to_app(row) for row in rows]

    def set_app(
        self,
        team_id: str,
        app_id: str,
        *,
        name: str | Unset | None = UNSET,
        disabled: bool | Unset = UNSET,
        by: Authority = OPERATOR,
    ) -> App:
        """Change what is given. Disabling an application refuses its keys at once."""
        by.need("teams:write")
        with self._store.change():
            app = self._visible_app(team_id, app_id, by)
            changed = _changes(name=name if isinstance(name, Unset) else names.label(name), disabled=disabled)
            now = msgspec.structs.replace(app, **changed)
            self._store.rows(
                queries.SET_APP,
                (now.name, now.disabled, team_id, app_id),
            )
            self._audit(by, "app.set", team_id, app_id, changed)
            return now

    # Keys ------------------------------------------------------------------------------------------------------------

    def create_key(
        self,
        team_id: str,
        *,
        app_id: str | None = None,
        name: str | None = None,
        capture: CapturePolicy | None = None,
        playback: PlaybackMode | None = None,
        expires_ms: int | None = None,
        scopes: Iterable[str] = (),
        make_missing: bool = False,
        by: Authority = OPERATOR,
    ) -> NewKey:
        """Make an inference key. ``make_missing`` also makes the team and the application when they are not there.

        ``scopes`` are rights beyond a team member's own, such as ``generations:content`` where the team asks for it.
        """
        by.need("keys:write")
        extra = tuple(scope for scope in checked(scopes) if scope not in TEAM_MEMBER)
        by.need_to_grant(extra)
        if any(not scope.startswith("generations:") for scope in extra):
            raise CallerFault(
                "invalid_field",
                "An inference key can have generations:… scopes only; make a management key.",
                param="scopes",
            )
        names.slug(team_id, "team")
        if app_id is not None:
            names.slug(app_id, "app")
        with self._store.change():
            if make_missing:
                self._make_missing(team_id, app_id, by)
            self._visible_team(team_id, by)
            if app_id is not None:
                self._visible_app(team_id, app_id, by)
            return self._new_key(KeyKind.INFERENCE, team_id, app_id, name, extra, (capture, playback), expires_ms, by)

    def create_management_key(
        self,
        scopes: Iterable[str],
        *,
        team_id: str | None = None,
        name: str | None = None,
        expires_ms: int | None = None,
        make_missing: bool = False,
        by: Authority = OPERATOR,
    ) -> NewKey:
        """Make a management key for one team, or for all when ``team_id`` is None.

        Raises :class:`~counterfoil.tenancy.principal.ScopeMissing` when ``by`` lacks one of ``scopes``, or is confined
        to a team and asks for more.
        """
        by.need("keys:write")
        wanted = checked(scopes)
        if not wanted:
            raise CallerFault("invalid_field", "A management key needs at least one scope.", param="scopes")
        by.need_to_grant(wanted)
        if team_id is None:
            by.need_all_teams("keys:write")
        else:
            names.slug(team_id, "team")
        with self._store.change():
            if team_id is not None:
                if make_missing:
                    self._make_missing(team_id, None, by)
                self._visible_team(team_id, by)
            return self._new_key(KeyKind.MANAGEMENT, team_id, None, name, wanted, (None, None), expires_ms, by)

    def list_keys(
        self, team_id: str | None = None, *, kind: KeyKind | None = None, by: Authority = OPERATOR
    ) -> list[Key]:
        """The keys of a team, or of all teams ``by`` sees, the newest first; revoked ones too."""
        by.need("keys:read")
        rows = self._store.rows(
            queries.KEYS,
            (by.visible_team(team_id), kind),
        )
        return [self._to_key(row) for row in rows]

    def show_key(self, key_id: str, *, kind: KeyKind | None = None, by: Authority = OPERATOR) -> Key:
        """One key. Raises :class:`CallerFault` (not found), also for one of another ``kind`` than asked for."""
        by.need("keys:read")
        return self._visible_key(key_id, by, kind)

    def set_key(
        self,
        key_id: str,
        *,
        kind: KeyKind | None = None,
        name: str | Unset | None = UNSET,
        capture: CapturePolicy | Unset | None = UNSET,
        playback: PlaybackMode | Unset | None = UNSET,
        expires_ms: int | Unset | None = UNSET,
        disabled: bool | Unset = UNSET,
        by: Authority = OPERATOR,
    ) -> Key:
        """Change what is given; the rest stays. A revoked key cannot be changed."""
        by.need("keys:write")
        with self._store.change():
            self._changeable_key(key_id, by, kind)
            changed = _changes(
                name=name if isinstance(name, Unset) else names.label(name),
                capture=capture,
                playback=playback,
                expires_ms=expires_ms,
                disabled=disabled,
            )
            for column, value in changed.items():
                self._store.rows(queries.SET_KEY[column], (value, key_id))
            key = self._visible_key(key_id, by)
            self._audit(by, "key.set", key.team_id, key_id, changed)
            return key

    def revoke_key(self, key_id: str, *, kind: KeyKind | None = None, by: Authority = OPERATOR) -> Key:
        """End a key for ever, at once, everywhere. Revoking a revoked key changes nothing."""
        by.need("keys:write")
        with self._store.change():
            key = self._visible_key(key_id, by, kind)
            if key.revoked_ms is None:
                self._store.rows(queries.SET_KEY["revoked_ms"], (self._now_ms(), key_id))
                self._audit(by, "key.revoke", key.team_id, key_id)
            return self._visible_key(key_id, by)

    def rotate_key(
        self, key_id: str, *, grace_ms: int = 0, kind: KeyKind | None = None, by: Authority = OPERATOR
    ) -> NewKey:
        """Give a key a new secret; the ones before it stay valid for ``grace_ms`` more. The kid stays the same."""
        by.need("keys:write")
        if not 0 <= grace_ms <= GRACE_MS_MAX:
            raise CallerFault("invalid_field", "The grace is 0 to 30 days.", param="grace")
        with self._store.change():
            key = self._changeable_key(key_id, by, kind)
            by.need_to_grant(key.scopes)
            now_ms = self._now_ms()
            self._store.rows(queries.FORGET_DIGESTS, (key_id, now_ms))
            self._store.rows(
                queries.END_DIGESTS,
                (now_ms + grace_ms, key_id),
            )
            text = keys.compose(key.kind, key_id, self._entropy)
            self._insert_secret(key_id, text)
            self._store.rows(queries.SET_KEY["rotated_ms"], (now_ms, key_id))
            self._audit(by, "key.rotate", key.team_id, key_id, {"grace_ms": grace_ms})
            return NewKey(key=text, info=self._visible_key(key_id, by))

    # Provider keys ---------------------------------------------------------------------------------------------------

    def set_provider_key(
        self, team_id: str, provider: str, secret: str, *, base_url: str | None = None, by: Authority = OPERATOR
    ) -> ProviderKeyInfo:
        """Give a team its own key for a provider, in place of the one before. The secret cannot be read back."""
        by.need("teams:write")
        names.provider(provider)
        _check_secret(secret)
        if base_url is not None:
            self._check_address(base_url)
        with self._store.change():
            self._visible_team(team_id, by)
            sealed = self._vault.seal(team_id, provider, ProviderKey(secret, base_url), self._entropy)
            hint = secret[-HINT_LETTERS:] if len(secret) >= 4 * HINT_LETTERS else ""
            self._store.rows(
                queries.PUT_PROVIDER_KEY,
                (team_id, provider, sealed, hint, base_url, self._now_ms()),
            )
            self._audit(by, "provider_key.set", team_id, provider, {"base_url": base_url})
            return self._provider_keys(team_id, provider)[0]

    def list_provider_keys(self, team_id: str | None = None, *, by: Authority = OPERATOR) -> list[ProviderKeyInfo]:
        """The provider keys of a team, or of all teams ``by`` sees; never their secrets."""
        by.need("teams:read")
        return self._provider_keys(by.visible_team(team_id), None)

    def remove_provider_key(self, team_id: str, provider: str, *, by: Authority = OPERATOR) -> None:
        """Take a team's key for a provider away; its calls use the operator's again."""
        by.need("teams:write")
        with self._store.change():
            self._visible_team(team_id, by)
            if not self._provider_keys(team_id, provider):
                raise CallerFault("not_found", f"Team {team_id} has no key of its own for {provider}.")
            self._store.rows(queries.REMOVE_PROVIDER_KEY, (team_id, provider))
            self._audit(by, "provider_key.remove", team_id, provider)

    # Audit -----------------------------------------------------------------------------------------------------------

    def note_erasure(self, team_id: str, request_id: str, *, by: Authority = OPERATOR) -> None:
        """A line of audit for bodies that are about to be erased, so that none goes without one."""
        by.need("generations:erase")
        if not by.sees(team_id):
            raise CallerFault("not_found")
        with self._store.change():
            self._audit(by, "bodies.erase", team_id, request_id)

    def list_changes(
        self,
        team_id: str | None = None,
        *,
        before: int | None = None,
        limit: int = LIST_MAX,
        by: Authority = OPERATOR,
    ) -> list[Change]:
        """Who changed what, the newest first, at most :data:`LIST_MAX`; with ``before`` those of a smaller number."""
        by.need("teams:read")
        rows = self._store.rows(queries.CHANGES, (by.visible_team(team_id), before, min(limit, LIST_MAX)))
        return [
            Change(
                number=row[0], at_ms=row[1], actor=row[2], action=row[3], team_id=row[4], subject=row[5], detail=row[6]
            )
            for row in rows
        ]

    # Inside ----------------------------------------------------------------------------------------------------------

    def _make_missing(self, team_id: str, app_id: str | None, by: Authority) -> None:
        if self._team(team_id) is None:
            by.need_all_teams("teams:write")
            self._insert_team(team_id, None, None, content_needs_scope=False)
            self._audit(by, "team.create", team_id, team_id)
        if app_id is not None and self._app(team_id, app_id) is None:
            by.need("teams:write")
            self._insert_app(team_id, app_id, None)
            self._audit(by, "app.create", team_id, app_id)

    def _new_key(
        self,
        kind: KeyKind,
        team_id: str | None,
        app_id: str | None,
        name: str | None,
        scopes: tuple[str, ...],
        ways: tuple[CapturePolicy | None, PlaybackMode | None],
        expires_ms: int | None,
        by: Authority,
    ) -> NewKey:
        now_ms = self._now_ms()
        if expires_ms is not None and expires_ms <= now_ms:
            raise CallerFault("invalid_field", "The key would have expired already.", param="expires")
        key_id = keys.letters(keys.KID_LETTERS, self._entropy)
        text = keys.compose(kind, key_id, self._entropy)
        self._store.rows(
            queries.INSERT_KEY,
            (key_id, kind, team_id, app_id, names.label(name), " ".join(scopes), *ways, now_ms, by.name, expires_ms),
        )
        self._insert_secret(key_id, text)
        self._audit(by, "key.create", team_id, key_id, {"kind": kind, "app_id": app_id, "scopes": scopes})
        return NewKey(key=text, info=self._visible_key(key_id, by))

    def _insert_team(
        self, team_id: str, name: str | None, capture: CapturePolicy | None, *, content_needs_scope: bool
    ) -> None:
        self._store.rows(
            queries.INSERT_TEAM,
            (team_id, name, capture, content_needs_scope, self._now_ms()),
        )

    def _insert_app(self, team_id: str, app_id: str, name: str | None) -> None:
        self._store.rows(queries.INSERT_APP, (team_id, app_id, name, self._now_ms()))

    def _insert_secret(self, key_id: str, text: str) -> None:
        digest = self._vault.digest(text)
        self._store.rows(queries.ADD_DIGEST, (key_id, digest, self._now_ms()))

    def _audit(self, by: Authority, action: str, team_id: str | None, subject: str, detail: object = None) -> None:
        text = "{}" if detail is None else msgspec.json.encode(detail).decode()
        self._store.rows(
            queries.INSERT_CHANGE,
            (self._now_ms(), by.name, action, team_id, subject, text),
        )

    def _team(self, team_id: str) -> Team | None:
        row = self._store.row(queries.TEAM, (team_id,))
        return None if row is None else _to_team(row)

    def _team_now(self, team_id: str) -> Team:
        return self._visible_team(team_id, OPERATOR)

    def _visible_team(self, team_id: str, by: Authority) -> Team:
        team = self._team(team_id) if by.sees(team_id) else None
        if team is None:
            raise CallerFault("not_found", f"There is no team {team_id}.", param="team")
        return team

    def _app(self, team_id: str, app_id: str) -> App | None:
        row = self._store.row(
            queries.APP,
            (team_id, app_id),
        )
        return None if row is None else _to_app(row)

    def _visible_app(self, team_id: str, app_id: str, by: Authority) -> App:
        app = self._app(team_id, app_id) if by.sees(team_id) else None
        if app is None:
            raise CallerFault("not_found", f"Team {team_id} has no application {app_id}.", param="app")
        return app

    def _visible_key(self, key_id: str, by: Authority, kind: KeyKind | None = None) -> Key:
        row = self._store.row(queries.KEY, (key_id,))
        if row is None or not by.sees(row[2]) or kind not in (None, row[1]):
            raise CallerFault("not_found", f"There is no key {key_id}.", param="key")
        return self._to_key(row)

    def _changeable_key(self, key_id: str, by: Authority, kind: KeyKind | None) -> Key:
        key = self._visible_key(key_id, by, kind)
        if key.revoked_ms is not None:
            raise CallerFault("conflict", f"The key {key_id} is revoked; make a new one.", param="key")
        return key

    def _provider_keys(self, team_id: str | None, provider: str | None) -> list[ProviderKeyInfo]:
        rows = self._store.rows(
            queries.PROVIDER_KEYS,
            (team_id, provider),
        )
        return [
            ProviderKeyInfo(team_id=row[0], provider=row[1], hint=row[2], base_url=row[3], created_ms=row[4])
            for row in rows
        ]

    def _to_key(self, row: Row) -> Key:
        key_id, kind, team_id, app_id, name, scopes, capture, playback = row[:8]
        disabled, created, by, expires, rotated, revoked = row[8:]
        return Key(
            key_id=key_id,
            kind=KeyKind(kind),
            team_id=team_id,
            app_id=app_id,
            name=name,
            scopes=tuple(scopes.split()),
            capture=None if capture is None else CapturePolicy(capture),
            playback=None if playback is None else PlaybackMode(playback),
            state=_state(self._now_ms(), disabled, expires, revoked),
            created_ms=created,
            created_by=by,
            expires_ms=expires,
            rotated_ms=rotated,
            revoked_ms=revoked,
        )


def _changes(**settings: Value | Unset) -> dict[str, Value]:
    return {name: value for name, value in settings.items() if not isinstance(value, Unset)}


def _state(now_ms: int, disabled: int, expires_ms: int | None, revoked_ms: int | None) -> str:
    if revoked_ms is not None:
        return "revoked"
    if expires_ms is not None and expires_ms <= now_ms:
        return "expired"
    return "disabled" if disabled else "active"


def _to_team(row: Row) -> Team:
    team_id, name, capture, guarded, disabled, created_ms = row
    return Team(
        team_id=team_id,
        name=name,
        capture=None if capture is None else CapturePolicy(capture),
        content_needs_scope=bool(guarded),
        disabled=bool(disabled),
        created_ms=created_ms,
    )


def _to_app(row: Row) -> App:
    return App(team_id=row[0], app_id=row[1], name=row[2], disabled=bool(row[3]), created_ms=row[4])


def _check_secret(secret: str) -> None:
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret or len(secret) > 4096:
        raise CallerFault(
            "invalid_field", "A provider's key is 1 to 4096 visible ASCII characters without spaces.", param="secret"
        )
