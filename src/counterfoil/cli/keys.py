"""``counterfoil keys``: API keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from cyclopts import App, CycloptsError, Parameter, Token

from counterfoil.cli import output
from counterfoil.cli.times import duration_ms, moment_ms
from counterfoil.cli.where import HERE, LOCAL, AsJson, Place, Source, admin
from counterfoil.clock import wall_ms
from counterfoil.record.record import CapturePolicy, PlaybackMode
from counterfoil.tenancy.documents import NewKey, plain
from counterfoil.tenancy.keys import KeyKind, ParsedKey, parse

app = App(name="keys", help="API keys: create, list, disable, rotate, expire, revoke.")


def _public_id(_: type, tokens: Sequence[Token]) -> str:
    """The public id in what was typed, which may be the key itself: that is what somebody has whose key leaked."""
    [token] = tokens
    found = parse(token.value)
    if isinstance(found, ParsedKey):
        return found.kid
    if token.value.startswith("cf_"):  # never repeated: it may be nearly all of a key
        raise CycloptsError(msg="This key is mistyped or cut short; give its public id, as `keys list` shows it.")
    return token.value


KeyId = Annotated[
    str, Parameter(help="The key's public id, as `keys list` shows it, or the key itself.", converter=_public_id)
]
Capture = Literal["full", "metadata", "off"]
Mode = Literal["strict", "prefer", "off"]
_COLUMNS: Final = ("key_id", "kind", "team_id", "app_id", "name", "state", "scopes", "expires_at", "created_at")


@app.command
def create(
    *,
    team: Annotated[str | None, Parameter(help="The team; made when it is missing.")] = None,
    app: Annotated[str | None, Parameter(help="The application calls are attributed to; made when missing.")] = None,
    name: Annotated[str | None, Parameter(help="A name for people.")] = None,
    expires: Annotated[str, Parameter(help="30d, 2026-12-31, never.")] = "never",
    scopes: Annotated[
        tuple[str, ...],
        Parameter(
            help="Makes a management key with these scopes; without --team for all teams.",
            consume_multiple=True,
            negative=(),
        ),
    ] = (),
    content: Annotated[bool, Parameter(help="May read bodies also where the team guards them.", negative=())] = False,
    capture: Annotated[Capture | None, Parameter(help="Keep no more than this of this key's calls.")] = None,
    playback: Annotated[
        Mode | None, Parameter(help="Whether recordings answer its calls, when a call does not say itself.")
    ] = None,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Make a key and print it, alone. It is shown this once."""
    wanted = tuple(part for scope in scopes for part in scope.split(",") if part)
    if scopes and not wanted:
        raise CycloptsError(msg="--scopes names no scope: an inference key is made without it.")
    if team is None and not wanted:
        raise CycloptsError(msg="Say whose key this is: --team NAME (or --scopes for a management key of all teams).")
    if wanted and (app is not None or capture is not None or playback is not None or content):
        raise CycloptsError(
            msg="--app, --capture, --playback and --content are for inference keys; --scopes makes a management key."
        )
    expires_ms = moment_ms(expires, wall_ms())
    with admin(place.root, create=True) as tenancy:
        if wanted:
            made = tenancy.create_management_key(
                wanted, team_id=team, name=name, expires_ms=expires_ms, make_missing=True
            )
        else:
            made = tenancy.create_key(
                team or "",
                app_id=app,
                name=name,
                capture=None if capture is None else CapturePolicy(capture),
                playback=None if playback is None else PlaybackMode(playback),
                expires_ms=expires_ms,
                scopes=("generations:content",) if content else (),
                make_missing=True,
            )
    _show_new(made, as_json=as_json)


@app.command(name="list")
def list_(
    *,
    team: Annotated[str | None, Parameter(help="Only this team's.")] = None,
    kind: Annotated[Literal["inference", "management"] | None, Parameter(help="Only keys of this kind.")] = None,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """List keys, the newest first. Secrets are not kept and cannot be shown."""
    remote = source.remote()
    if remote is not None:
        rows: list[dict[str, Any]] = []
        for chosen, path in ((KeyKind.INFERENCE, "/v1/keys"), (KeyKind.MANAGEMENT, "/v1/management-keys")):
            if kind in (None, chosen.value):
                rows += remote.get(path, {"team_id": team})["data"]
    else:
        with admin(source.root) as tenancy:
            rows = [plain(key) for key in tenancy.list_keys(team, kind=None if kind is None else KeyKind(kind))]
    output.listing(
        rows, _COLUMNS, as_json=as_json, empty="There are no keys. Make one: counterfoil keys create --team NAME"
    )


@app.command
def revoke(
    key_id: KeyId,
    /,
    *,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """End a key for ever, at once."""
    with admin(place.root) as tenancy:
        output.document(tenancy.revoke_key(key_id), as_json=as_json)


@app.command
def disable(
    key_id: KeyId,
    /,
    *,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Refuse a key until it is enabled again."""
    with admin(place.root) as tenancy:
        output.document(tenancy.set_key(key_id, disabled=True), as_json=as_json)


@app.command
def enable(
    key_id: KeyId,
    /,
    *,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Accept a disabled key again."""
    with admin(place.root) as tenancy:
        output.document(tenancy.set_key(key_id, disabled=False), as_json=as_json)


@app.command
def expire(
    key_id: KeyId,
    when: Annotated[str, Parameter(help="30d, 2026-12-31, never.")],
    /,
    *,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Set when a key expires."""
    with admin(place.root) as tenancy:
        output.document(tenancy.set_key(key_id, expires_ms=moment_ms(when, wall_ms())), as_json=as_json)


@app.command
def playback(
    key_id: KeyId,
    mode: Annotated[Mode, Parameter(help="strict: only recordings; prefer: a recorded success first; off.")],
    /,
    *,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Set whether recordings answer a key's calls, when a call does not say itself."""
    with admin(place.root) as tenancy:
        output.document(tenancy.set_key(key_id, playback=PlaybackMode(mode)), as_json=as_json)


@app.command
def rotate(
    key_id: KeyId,
    /,
    *,
    grace: Annotated[str, Parameter(help="How long the old secret still works: 1h, 7d, at most 30d.")] = "0s",
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Give a key a new secret and print the new key, alone. Its id stays."""
    with admin(place.root) as tenancy:
        _show_new(tenancy.rotate_key(key_id, grace_ms=duration_ms(grace)), as_json=as_json)


def _show_new(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        output.json({"key": made.key, **plain(made.info)})
    else:
        output.lines(made.key)
