"""``counterfoil apps``: the applications of a team, which calls are attributed to."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from counterfoil.cli import output
from counterfoil.cli.where import HERE, LOCAL, AsJson, Place, Source, admin, listed

app = App(name="apps", help="Applications of a team: create, list, rename, disable.")

TeamId = Annotated[str, Parameter(help="The team's id.")]
AppId = Annotated[str, Parameter(help="The application's id: a-z, 0-9, `.`, `_` and `-`.")]
_COLUMNS: Final = ("team_id", "app_id", "name", "disabled", "created_at")


@app.command
def create(
    app_id: AppId,
    /,
    *,
    team: TeamId,
    name: Annotated[str | None, Parameter(help="A name for people.")] = None,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Make an application of a team."""
    with admin(place.root) as tenancy:
        output.document(tenancy.create_app(team, app_id, name=name), as_json=as_json)


@app.command(name="list")
def list_(
    *,
    team: Annotated[str | None, Parameter(help="Only this team's.")] = None,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """List applications."""
    rows = listed(source, "/v1/apps", lambda tenancy: tenancy.list_apps(team), {"team_id": team})
    output.listing(rows, _COLUMNS, as_json=as_json, empty="There are no applications.")


@app.command
def rename(app_id: AppId, name: str, /, *, team: TeamId, as_json: AsJson = False, place: Place = HERE) -> None:
    """Give an application another name for people; an empty one takes it away."""
    with admin(place.root) as tenancy:
        output.document(tenancy.set_app(team, app_id, name=name or None), as_json=as_json)


@app.command
def disable(app_id: AppId, /, *, team: TeamId, as_json: AsJson = False, place: Place = HERE) -> None:
    """Refuse all keys of an application, at once."""
    with admin(place.root) as tenancy:
        output.document(tenancy.set_app(team, app_id, disabled=True), as_json=as_json)


@app.command
def enable(app_id: AppId, /, *, team: TeamId, as_json: AsJson = False, place: Place = HERE) -> None:
    """Accept the keys of a disabled application again."""
    with admin(place.root) as tenancy:
        output.document(tenancy.set_app(team, app_id, disabled=False), as_json=as_json)
