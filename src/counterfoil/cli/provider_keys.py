"""``counterfoil provider-keys``: a team's own keys at providers, used before the operator's.

The secret comes from a prompt, from the standard input or from a variable; never as an argument, where every process on
the machine and the shell's history could read it.
"""

from __future__ import annotations

import getpass
import os
import sys
from typing import Annotated, Final

from cyclopts import App, Parameter

from counterfoil.cli import output
from counterfoil.cli.where import HERE, LOCAL, AsJson, Place, Source, admin, listed
from counterfoil.errors import ConfigError

app = App(name="provider-keys", help="A team's own provider keys: set, list, remove.")

Provider = Annotated[str, Parameter(help="The provider's name, as in the configuration.")]
TeamId = Annotated[str, Parameter(help="The team's id.")]
SECRET_LETTERS_MAX: Final = 4096
_COLUMNS: Final = ("team_id", "provider", "hint", "base_url", "created_at")


@app.command(name="set")
def set_(
    provider: Provider,
    /,
    *,
    team: TeamId,
    from_env: Annotated[str | None, Parameter(help="Take the secret from this variable.")] = None,
    base_url: Annotated[str | None, Parameter(help="Where it is sent instead of the provider's own address.")] = None,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Give a team its own key for a provider: asked for, read from the standard input, or taken from a variable."""
    secret = _secret(from_env)
    with admin(place.root) as tenancy:
        made = tenancy.set_provider_key(team, provider, secret, base_url=base_url)
    output.document(made, as_json=as_json)


@app.command(name="list")
def list_(
    *,
    team: Annotated[str | None, Parameter(help="Only this team's.")] = None,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """List provider keys; their secrets cannot be shown."""
    rows = listed(source, "/v1/provider-keys", lambda tenancy: tenancy.list_provider_keys(team), {"team_id": team})
    output.listing(rows, _COLUMNS, as_json=as_json, empty="No team has provider keys of its own.")


@app.command
def remove(provider: Provider, /, *, team: TeamId, place: Place = HERE) -> None:
    """Take a team's own key away; its calls use the operator's again."""
    with admin(place.root) as tenancy:
        tenancy.remove_provider_key(team, provider)


def _secret(variable: str | None) -> str:
    if variable is not None:
        if not os.environ.get(variable):
            raise ConfigError(f"The variable {variable} is not set.")
        return os.environ[variable].strip()
    if sys.stdin.isatty():
        return getpass.getpass("Provider key: ").strip()
    return sys.stdin.readline(SECRET_LETTERS_MAX + 2).strip()
