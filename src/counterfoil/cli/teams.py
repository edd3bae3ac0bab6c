"""``counterfoil teams``: tenants."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from cyclopts import App, CycloptsError, Parameter

from counterfoil.cli import output
from counterfoil.cli.where import HERE, LOCAL, AsJson, Place, Source, admin
from counterfoil.record.record import CapturePolicy
from counterfoil.tenancy.admin import UNSET
from counterfoil.tenancy.documents import Team, plain

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
    _show(made, as_json=as_json)


@app.command(name="list")
def list_(*, as_json: AsJson = False, source: Source = LOCAL) -> None:
    """List the teams."""
    remote = source.remote()
    if remote is not None:
        rows: list[dict[str, Any]] = remote.get("/v1/teams")["data"]
    else:
        with admin(source.root) as tenancy:
            rows = [plain(team) for team in tenancy.list_teams()]
    output.listing(rows, _COLUMNS, as_json=as_json, empty="There are no teams. Make one: counterfoil teams create NAME")


@app.command
def show(team_id: TeamId, /, *, as_json: AsJson = False, source: Source = LOCAL) -> None:
    """Show one team."""
    remote = source.remote()
    if remote is not None:
        output.details(remote.get(f"/v1/teams/{output.in_path(team_id)}"), as_json=as_json)
        return
    with admin(source.root) as tenancy:
        _show(tenancy.show_team(team_id), as_json=as_json)


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
    _show(changed, as_json=as_json)


@app.command
def disable(team_id: TeamId, /, *, as_json: AsJson = False, place: Place = HERE) -> None:
    """Refuse all keys of a team, at once."""
    with admin(place.root) as tenancy:
        _show(tenancy.set_team(team_id, disabled=True), as_json=as_json)


@app.command
def enable(team_id: TeamId, /, *, as_json: AsJson = False, place: Place = HERE) -> None:
    """Accept the keys of a disabled team again."""
    with admin(place.root) as tenancy:
        _show(tenancy.set_team(team_id, disabled=False), as_json=as_json)


@app.command
def history(
    *,
    team: Annotated[str | None, Parameter(help="Only this team's.")] = None,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Show who changed what, the newest first."""
    remote = source.remote()
    if remote is not None:
        rows: list[dict[str, Any]] = remote.get("/v1/changes", {"team_id": team})["data"]
    else:
        with admin(source.root) as tenancy:
            rows = [plain(change) for change in tenancy.list_changes(team)]
    columns = ("at", "actor", "action", "team_id", "subject", "detail")
    output.listing(rows, columns, as_json=as_json, empty="Nothing was changed yet.")


def _policy(capture: str | None) -> CapturePolicy | None:
    return None if capture in (None, "default") else CapturePolicy(capture)


def _show(team: Team, *, as_json: bool) -> None:
    output.details(plain(team), as_json=as_json)
