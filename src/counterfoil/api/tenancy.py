"""Teams, applications, keys and provider keys over HTTP.

A thin face of :class:`~counterfoil.tenancy.admin.Admin`: it reads the body, names the scope and shows the result. The
secret of a key is in one answer only, the one that made or rotated it; that of a provider key in none. The endpoints
are plain functions, which FastAPI runs in its threads, so that a commit never holds up the loop that relays calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query
from msgspec import Struct
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool
from starlette.responses import Response

from counterfoil.api import answers
from counterfoil.api.auth import Guard, key_first
from counterfoil.errors import CallerFault
from counterfoil.record.record import CapturePolicy, PlaybackMode
from counterfoil.record.times import to_ms
from counterfoil.tenancy.admin import GRACE_MS_MAX, LIST_MAX, UNSET, Admin, Unset
from counterfoil.tenancy.authority import Authority
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.documents import NewKey, plain
from counterfoil.tenancy.keys import KeyKind


def _text(value: object) -> object:
    """A time is written as in RFC 3339; a number of seconds, which pydantic would take too, is not in the document."""
    if value is not None and not (isinstance(value, str) and value[4:5] == "-"):
        raise ValueError("must be a date and time such as 2030-01-01T00:00:00Z")
    return value


def _number(value: object) -> object:
    """Text and booleans, which pydantic would take for numbers, are not in the document."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")  # noqa: TRY004  # pydantic turns a ValueError into its answer
    return value


Capture = Literal["full", "metadata", "off"]
Mode = Literal["strict", "prefer", "off"]
# Said in the document; held to by Admin, whose message says more than a pattern.
_SLUG: Final[dict[str, Any]] = {"pattern": r"^[a-z0-9][a-z0-9._-]{0,63}$"}
TeamId = Annotated[
    str, Field(description="The team's id: a-z, 0-9, `.`, `_`, `-`.", examples=["acme"], json_schema_extra=_SLUG)
]
AppId = Annotated[
    str, Field(description="The application's id, spelt like a team's.", examples=["web"], json_schema_extra=_SLUG)
]
Name = Annotated[str | None, Field(description="For people: one line.", json_schema_extra={"maxLength": 200})]
Time = Annotated[AwareDatetime | None, BeforeValidator(_text)]
TeamFilter = Annotated[str | None, Query(alias="team_id", description="Only this team's.")]
InPath = Annotated[str, Path()]
REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "The body or a parameter is not valid; field names it."},
    401: {"description": "No key, or one that cannot be used; reason says why."},
    403: {"description": "The key lacks the scope that needs names, or would grant what it lacks."},
    503: {"description": "The tenancy database cannot be read or written."},
}
GONE: Final[dict[int | str, dict[str, Any]]] = {
    404: {"description": "There is no such thing, or it belongs to another team: the same bytes."}
}
TAKEN: Final[dict[int | str, dict[str, Any]]] = {409: {"description": "The id is taken, or the key is revoked."}}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TeamMade(_Body):
    """A team to make."""

    team_id: TeamId
    name: Name = None
    capture: Capture | None = Field(None, description="Keep no more than this; null: the configuration's default.")
    content_needs_scope: StrictBool = Field(False, description="Bodies are read only with generations:content.")


class TeamChanged(_Body):
    """What to change of a team; what is left out stays."""

    name: Name = None
    capture: Capture | None = None
    content_needs_scope: StrictBool = False
    disabled: StrictBool = Field(False, description="Refuse all keys of the team, at once.")


class AppMade(_Body):
    """An application to make."""

    team_id: TeamId
    app_id: AppId
    name: Name = None


class AppChanged(_Body):
    """What to change of an application; what is left out stays."""

    name: Name = None
    disabled: StrictBool = Field(False, description="Refuse all keys of the application, at once.")


class KeyMade(_Body):
    """An inference key to make."""

    team_id: TeamId
    app_id: AppId | None = None
    name: Name = None
    capture: Capture | None = None
    playback: Mode | None = Field(None, description="Whether recordings answer its calls; null and off: they do not.")
    expires_at: Time = None
    scopes: list[str] = Field([], description="generations:… rights beyond those of every inference key.")


class ManagementKeyMade(_Body):
    """A management key to make. Nobody can grant a scope they lack."""

    scopes: list[str] = Field(examples=[["generations:read", "keys:*"]])
    team_id: TeamId | None = Field(None, description="Null: for all teams.")
    name: Name = None
    expires_at: Time = None


class KeyChanged(_Body):
    """What to change of a key; what is left out stays."""

    name: Name = None
    capture: Capture | None = None
    playback: Mode | None = None
    expires_at: Time = None
    disabled: StrictBool = False


class KeyRotated(_Body):
    """How to rotate."""

    grace_seconds: Annotated[
        int,
        BeforeValidator(_number),
        Field(ge=0, le=GRACE_MS_MAX // 1000, description="How long the old secret still works."),
    ] = 0


class ProviderKeySet(_Body):
    """A provider key to keep, sealed."""

    secret: str = Field(description="Write only.")
    base_url: str | None = Field(
        None, description="Where it is sent instead of the provider's own address; https only."
    )


class TeamShown(_Body):
    """A team."""

    team_id: str
    name: str | None
    capture: Capture | None
    content_needs_scope: bool
    disabled: bool
    created_at: datetime


class AppShown(_Body):
    """An application."""

    team_id: str
    app_id: str
    name: str | None
    disabled: bool
    created_at: datetime


class KeyShown(_Body):
    """A key without its secret."""

    key_id: str
    kind: KeyKind
    team_id: str | None
    app_id: str | None
    name: str | None
    scopes: list[str]
    capture: Capture | None
    playback: Mode | None
    state: Literal["active", "disabled", "expired", "revoked"]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    rotated_at: datetime | None
    revoked_at: datetime | None


class KeyShownOnce(KeyShown):
    """A key with its secret, which is shown this once."""

    key: str


class ProviderKeyShown(_Body):
    """A provider key without its secret; ``hint`` is the secret's last letters."""

    team_id: str
    provider: str
    hint: str
    base_url: str | None
    created_at: datetime


class ChangeShown(_Body):
    """One line of the audit of tenancy; ``detail`` is a JSON text."""

    number: int
    at: datetime
    actor: str
    action: str
    team_id: str | None
    subject: str
    detail: str


class Teams(_Body):
    """Teams."""

    data: list[TeamShown]


class Apps(_Body):
    """Applications."""

    data: list[AppShown]


class Keys(_Body):
    """Keys."""

    data: list[KeyShown]


class ProviderKeys(_Body):
    """Provider keys."""

    data: list[ProviderKeyShown]


class Changes(_Body):
    """Changes, the newest first."""

    data: list[ChangeShown]


def router(admin: Admin, directory: Directory) -> APIRouter:
    """Every endpoint of tenancy, over ``admin``; keys are checked against ``directory``."""
    guard = Guard(directory)
    routes = APIRouter(prefix="/v1", responses=REFUSALS, route_class=key_first(directory))
    _add_teams(routes, admin, guard)
    _add_apps(routes, admin, guard)
    _add_keys(routes, admin, guard)
    _add_management_keys(routes, admin, guard)
    _add_provider_keys(routes, admin, guard)
    return routes


def _add_teams(routes: APIRouter, admin: Admin, guard: Guard) -> None:
    read, write = Depends(guard.require("teams:read")), Depends(guard.require("teams:write"))
    tags = ["teams"]

    @routes.get("/teams", tags=[*tags], response_model=Teams, summary="List teams")
    def teams(by: Authority = read) -> Response:
        """The teams this key sees."""
        return _listed(admin.list_teams(by=by))

    @routes.post(
        "/teams", tags=[*tags], status_code=201, response_model=TeamShown, responses=TAKEN, summary="Make a team"
    )
    def make(body: TeamMade, by: Authority = write) -> Response:
        """A management key of all teams is needed."""
        made = admin.create_team(
            body.team_id,
            name=body.name,
            capture=_policy(body.capture),
            content_needs_scope=body.content_needs_scope,
            by=by,
        )
        return _shown(made, 201)

    @routes.get("/teams/{team_id}", tags=[*tags], response_model=TeamShown, responses=GONE, summary="One team")
    def show(team_id: InPath, by: Authority = read) -> Response:
        """One team."""
        return _shown(admin.show_team(team_id, by=by))

    @routes.patch("/teams/{team_id}", tags=[*tags], response_model=TeamShown, responses=GONE, summary="Change a team")
    def change(team_id: InPath, body: TeamChanged, by: Authority = write) -> Response:
        """What the body leaves out stays as it is."""
        given = body.model_fields_set
        changed = admin.set_team(
            team_id,
            name=body.name if "name" in given else UNSET,
            capture=_policy(body.capture) if "capture" in given else UNSET,
            content_needs_scope=body.content_needs_scope if "content_needs_scope" in given else UNSET,
            disabled=body.disabled if "disabled" in given else UNSET,
            by=by,
        )
        return _shown(changed)

    @routes.get("/changes", tags=[*tags], response_model=Changes, summary="Who changed what")
    def changes(
        team_id: TeamFilter = None,
        before: Annotated[
            int | None, Query(ge=1, le=(1 << 63) - 1, description="`number` of the last one seen.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = LIST_MAX,
        by: Authority = read,
    ) -> Response:
        """The audit of teams, applications, keys, provider keys and erasures, the newest first."""
        return _listed(admin.list_changes(team_id, before=before, limit=limit, by=by))


def _add_apps(routes: APIRouter, admin: Admin, guard: Guard) -> None:
    read, write = Depends(guard.require("teams:read")), Depends(guard.require("teams:write"))

    @routes.get("/apps", tags=["apps"], response_model=Apps, responses=GONE, summary="List applications")
    def apps(team_id: TeamFilter = None, by: Authority = read) -> Response:
        """The applications of a team, or of all teams this key sees."""
        return _listed(admin.list_apps(team_id, by=by))

    @routes.post(
        "/apps", tags=["apps"], status_code=201, response_model=AppShown, responses=GONE | TAKEN, summary="Make one"
    )
    def make(body: AppMade, by: Authority = write) -> Response:
        """An application that keys can be made for."""
        return _shown(admin.create_app(body.team_id, body.app_id, name=body.name, by=by), 201)

    @routes.patch(
        "/apps/{team_id}/{app_id}", tags=["apps"], response_model=AppShown, responses=GONE, summary="Change one"
    )
    def change(team_id: InPath, app_id: InPath, body: AppChanged, by: Authority = write) -> Response:
        """What the body leaves out stays as it is."""
        given = body.model_fields_set
        changed = admin.set_app(
            team_id,
            app_id,
            name=body.name if "name" in given else UNSET,
            disabled=body.disabled if "disabled" in given else UNSET,
            by=by,
        )
        return _shown(changed)


def _add_keys(routes: APIRouter, admin: Admin, guard: Guard) -> None:
    read, write = Depends(guard.require("keys:read")), Depends(guard.require("keys:write"))

    @routes.get("/keys", tags=["keys"], response_model=Keys, responses=GONE, summary="List inference keys")
    def keys(team_id: TeamFilter = None, by: Authority = read) -> Response:
        """The keys of a team, or of all teams this key sees, the newest first; revoked ones too."""
        return _listed(admin.list_keys(team_id, kind=KeyKind.INFERENCE, by=by))

    @routes.post(
        "/keys", tags=["keys"], status_code=201, response_model=KeyShownOnce, responses=GONE, summary="Make a key"
    )
    def make(body: KeyMade, by: Authority = write) -> Response:
        """The answer holds the key; it is shown this once."""
        made = admin.create_key(
            body.team_id,
            app_id=body.app_id,
            name=body.name,
            capture=_policy(body.capture),
            playback=_mode(body.playback),
            expires_ms=_moment(body.expires_at),
            scopes=body.scopes,
            by=by,
        )
        return _once(made, 201)

    _add_key_changes(routes, admin, guard, KeyKind.INFERENCE, "keys")


def _add_management_keys(routes: APIRouter, admin: Admin, guard: Guard) -> None:
    read, write = Depends(guard.require("keys:read")), Depends(guard.require("keys:write"))
    tag = "management-keys"

    @routes.get(f"/{tag}", tags=[tag], response_model=Keys, responses=GONE, summary="List management keys")
    def keys(team_id: TeamFilter = None, by: Authority = read) -> Response:
        """The management keys this key sees, the newest first; revoked ones too."""
        return _listed(admin.list_keys(team_id, kind=KeyKind.MANAGEMENT, by=by))

    @routes.post(
        f"/{tag}", tags=[tag], status_code=201, response_model=KeyShownOnce, responses=GONE, summary="Make a key"
    )
    def make(body: ManagementKeyMade, by: Authority = write) -> Response:
        """The answer holds the key; it is shown this once."""
        expires_ms = _moment(body.expires_at)
        made = admin.create_management_key(
            body.scopes, team_id=body.team_id, name=body.name, expires_ms=expires_ms, by=by
        )
        return _once(made, 201)

    _add_key_changes(routes, admin, guard, KeyKind.MANAGEMENT, tag)


def _add_key_changes(routes: APIRouter, admin: Admin, guard: Guard, kind: KeyKind, tag: str) -> None:
    """What both kinds of keys have in common. A key of the other kind is not found here."""
    read, write = Depends(guard.require("keys:read")), Depends(guard.require("keys:write"))
    path = f"/{tag}/{{key_id}}"

    @routes.get(path, tags=[tag], response_model=KeyShown, responses=GONE, summary="One key")
    def show(key_id: InPath, by: Authority = read) -> Response:
        """One key, without its secret."""
        return _shown(admin.show_key(key_id, kind=kind, by=by))

    @routes.patch(path, tags=[tag], response_model=KeyShown, responses=GONE | TAKEN, summary="Change a key")
    def change(key_id: InPath, body: KeyChanged, by: Authority = write) -> Response:
        """Rename, disable, enable or expire it; what the body leaves out stays as it is."""
        given = body.model_fields_set
        capture: CapturePolicy | Unset | None = _policy(body.capture) if "capture" in given else UNSET
        changed = admin.set_key(
            key_id,
            kind=kind,
            name=body.name if "name" in given else UNSET,
            capture=capture,
            playback=_mode(body.playback) if "playback" in given else UNSET,
            expires_ms=_moment(body.expires_at) if "expires_at" in given else UNSET,
            disabled=body.disabled if "disabled" in given else UNSET,
            by=by,
        )
        return _shown(changed)

    @routes.delete(path, tags=[tag], response_model=KeyShown, responses=GONE, summary="Revoke a key")
    def revoke(key_id: InPath, by: Authority = write) -> Response:
        """The key ends for ever, at once and in every worker. Its records stay."""
        return _shown(admin.revoke_key(key_id, kind=kind, by=by))

    @routes.post(
        f"{path}/rotate", tags=[tag], response_model=KeyShownOnce, responses=GONE | TAKEN, summary="Rotate a key"
    )
    def rotate(key_id: InPath, body: KeyRotated | None = None, by: Authority = write) -> Response:
        """A new secret under the same id; the answer holds the new key, which is shown this once."""
        grace_ms = (body or KeyRotated()).grace_seconds * 1000
        return _once(admin.rotate_key(key_id, kind=kind, grace_ms=grace_ms, by=by))


def _add_provider_keys(routes: APIRouter, admin: Admin, guard: Guard) -> None:
    read, write = Depends(guard.require("teams:read")), Depends(guard.require("teams:write"))
    tag = "provider-keys"
    path = f"/{tag}/{{team_id}}/{{provider}}"

    @routes.get(f"/{tag}", tags=[tag], response_model=ProviderKeys, responses=GONE, summary="List provider keys")
    def provider_keys(team_id: TeamFilter = None, by: Authority = read) -> Response:
        """Which teams have keys of their own, and for which providers."""
        return _listed(admin.list_provider_keys(team_id, by=by))

    @routes.put(path, tags=[tag], response_model=ProviderKeyShown, responses=GONE, summary="Set a provider key")
    def put(team_id: InPath, provider: InPath, body: ProviderKeySet, by: Authority = write) -> Response:
        """The team's calls to this provider use it from now on, before the operator's. It cannot be read back."""
        return _shown(admin.set_provider_key(team_id, provider, body.secret, base_url=body.base_url, by=by))

    @routes.delete(path, tags=[tag], status_code=204, responses=GONE, summary="Remove a provider key")
    def remove(team_id: InPath, provider: InPath, by: Authority = write) -> Response:
        """The team's calls to this provider use the operator's key again."""
        admin.remove_provider_key(team_id, provider, by=by)
        return Response(status_code=204)


def _shown(document: Struct, status: int = 200) -> Response:
    return answers.json(plain(document), status)


def _listed(documents: Sequence[Struct]) -> Response:
    return answers.json({"data": [plain(document) for document in documents]})


def _once(made: NewKey, status: int = 200) -> Response:
    return answers.json({"key": made.key, **plain(made.info)}, status)


def _policy(capture: Capture | None) -> CapturePolicy | None:
    return None if capture is None else CapturePolicy(capture)


def _mode(playback: Mode | None) -> PlaybackMode | None:
    return None if playback is None else PlaybackMode(playback)


def _moment(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    try:
        return to_ms(moment)
    except (OverflowError, ValueError) as error:
        raise CallerFault("invalid_field", "This time is out of range.", param="expires_at") from error
