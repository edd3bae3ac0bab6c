"""What tenancy shows of itself: the same values on the command line, over HTTP and in tests. None holds a secret."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from counterfoil.record.record import CapturePolicy, PlaybackMode
from counterfoil.record.times import LAST_MS, timestamp
from counterfoil.tenancy.keys import KeyKind


class Team(Struct, frozen=True, kw_only=True):
    """A tenant. ``capture`` null means the configuration's default; ``created_ms`` is Unix milliseconds."""

    team_id: str
    name: str | None
    capture: CapturePolicy | None
    content_needs_scope: bool
    disabled: bool
    created_ms: int


class App(Struct, frozen=True, kw_only=True):
    """An application of a team, for attribution."""

    team_id: str
    app_id: str
    name: str | None
    disabled: bool
    created_ms: int


class Key(Struct, frozen=True, kw_only=True):
    """A key without its secret. ``team_id`` null: a management key of all teams. ``state`` is for people to read."""

    key_id: str
    kind: KeyKind
    team_id: str | None
    app_id: str | None
    name: str | None
    scopes: tuple[str, ...]
    capture: CapturePolicy | None
    playback: PlaybackMode | None
    state: str
    created_ms: int
    created_by: str
    expires_ms: int | None
    rotated_ms: int | None
    revoked_ms: int | None


class NewKey(Struct, frozen=True, kw_only=True):
    """A key at the one moment its secret is known: when it was made or rotated."""

    key: str
    info: Key

    def __repr__(self) -> str:
        """Without the secret."""
        return f"NewKey(info={self.info!r})"


class ProviderKeyInfo(Struct, frozen=True, kw_only=True):
    """A team's own provider key without its secret; ``hint`` is the secret's last four letters."""

    team_id: str
    provider: str
    hint: str
    base_url: str | None
    created_ms: int


class Change(Struct, frozen=True, kw_only=True):
    """One line of the tenancy's own audit: who did what, to whom, when. ``detail`` is JSON without secrets."""

    number: int
    at_ms: int
    actor: str
    action: str
    team_id: str | None
    subject: str
    detail: str


def plain(document: Struct) -> dict[str, Any]:
    """``document`` as it is shown: JSON values, times (``…_ms``) as ``…_at`` in UTC with milliseconds."""
    shown: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(document).items():
        if name.endswith("_ms"):
            shown[f"{name[:-3]}_at".replace("at_at", "at")] = None if value is None else timestamp(min(value, LAST_MS))
        else:
            shown[name] = value
    return shown
