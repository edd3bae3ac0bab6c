"""``counterfoil teams``: tenants."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from counterfoil.cli import output
from counterfoil.cli.where import HERE, LOCAL, AsJson, Place, Source, admin, listed
from counterfoil.record.record import CapturePolicy
from counterfoil.tenancy.admin import LIST_MAX, UNSET, Admin
from counterfoil.tenancy.documents import Change

app = App(name="teams", help="Teams: create, list, show, set, disable.")

TeamId = Annotated[str, Parameter(help="The team's id: a-z, 0-9, `.`, `_` and `-`.")]
Name = Annotated[str | None, Parameter(help="A name for people.")]
Capture = Annotated[
    Literal["full", "metadata", "off", "default"] | None,
    Parameter(help="Keep no more than this of the team's calls; default: as configured."),
]
Guarded = Annotated[
    bool | None,
    Parameter(
        name="--guard-content",
        negative="--no-guard-content",
        help="Bodies are read only with the scope generations:content.",
    ),
]
_PLACE: Final = Number(gte=1)
_LIMIT: Final = Number(gte=1, lte=LIST_MAX)
_COLUMNS: Final = ("team_id", "name", "capture", "content_needs_scope", "disabled", "created_at")


@app.command
def create(
    team_id: TeamId,
    /,
    *,
    name: Name = None,
    capture: Capture = None,
    guarded: Guarded = None,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Make a team."""
    with admin(place.root, create=True) as tenancy:
        made = tenancy.create_team(team_id, name=name, capture=_policy(capture), content_needs_scope=bool(guarded))
    output.document(made, as_json=as_json)


@app.command(name="list")
def list_(*, as_json: AsJson = False, source: Source = LOCAL) -> None:
    """List the teams."""
    rows = listed(source, "/v1/teams", lambda tenancy: tenancy.list_teams())
    output.listing(rows, _COLUMNS, as_json=as_json, empty="There are no teams. Make one: counterfoil teams create NAME")


@app.command
def show(team_id: TeamId, /, *, as_json: AsJson = False, source: Source = LOCAL) -> None:
    """Show one team."""
    remote = source.remote()
    if remote is not None:
        output.details(remote.get(f"/v1/teams/{output.in_path(team_id)}"), as_json=as_json)
        return
    with admin(source.root) as tenancy:
        output.document(tenancy.show_team(team_id), as_json=as_json)


@app.command(name="set")
def set_(
    team_id: TeamId,
    /,
    *,
    name: Name = None,
    capture: Capture = None,
    guarded: Guarded = None,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Change a team; what is not given stays."""
    if name is None and capture is None and guarded is None:
        raise CycloptsError(msg="Say what to change: --name, --capture or --guard-content.")
    with admin(place.root) as tenancy:
        changed = tenancy.set_team(
            team_id,
            name=UNSET if name is None else name or None,
            capture=UNSET if capture is None else _policy(capture),
            content_needs_scope=UNSET if guarded is None else guarded,
        )
    output.document(changed, as_json=as_json)


@app.command
def disable(team_id: TeamId, /, *, as_json: AsJson = False, place: Place = HERE) -> None:
    """Refuse all keys of a team, at once."""
    with admin(place.root) as tenancy:
        output.document(tenancy.set_team(team_id, disabled=True), as_json=as_json)


@app.command
def enable(team_id: TeamId, /, *, as_json: AsJson = False, place: Place = HERE) -> None:
    """Accept the keys of a disabled team again."""
    with admin(place.root) as tenancy:
        output.document(tenancy.set_team(team_id, disabled=False), as_json=as_json)


@app.command
def history(
    *,
    team: Annotated[str | None, Parameter(help="Only this team's.")] = None,
    before: Annotated[int | None, Parameter(validator=_PLACE, help="Only those before this number.")] = None,
    limit: Annotated[int, Parameter(validator=_LIMIT, help="At most so many, the newest.")] = LIST_MAX,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Show who changed or erased what, the newest first."""
    query = {"team_id": team, "before": before, "limit": limit}

    def here(tenancy: Admin) -> list[Change]:
        return tenancy.list_changes(team, before=before, limit=limit)

    rows = listed(source, "/v1/changes", here, query)
    columns = ("number", "at", "actor", "action", "team_id", "subject", "detail")
    output.listing(rows, columns, as_json=as_json, empty="Nothing was changed yet.")


def _policy(capture: str | None) -> CapturePolicy | None:
    return None if capture in (None, "default") else CapturePolicy(capture)
