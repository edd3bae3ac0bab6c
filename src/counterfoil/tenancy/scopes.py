"""What a key may do, as words: ``room:right``, ``room:*`` for every right in a room, ``admin`` for everything. Pure.

An inference key makes calls and reads what its own team made. A management key does what its scopes say, for one team
or for all, and never makes calls. Nobody can hand on a right they do not have.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from counterfoil.errors import CallerFault

INFERENCE: Final = "inference"
ADMIN: Final = "admin"
SCOPES: Final[dict[str, str]] = {
    "generations:read": "Read records, without the bodies of the calls.",
    "generations:content": "Read bodies too: replay_request and what was answered.",
    "generations:replay": "Run recorded calls again.",
    "generations:erase": "Erase the bodies of calls.",
    "keys:read": "List keys.",
    "keys:write": "Create, rotate, disable and revoke keys.",
    "teams:read": "List teams, applications and the names of provider keys.",
    "teams:write": "Create and change teams, applications and provider keys.",
    "prices:read": "Read price books.",
    "prices:write": "Import prices.",
    ADMIN: "Everything.",
}
"""What can be granted, and its meaning. ``room:*`` stands for all rights of a room, later ones included."""

_ROOMS: Final = {scope.partition(":")[0] for scope in SCOPES if ":" in scope}
GRANTABLE: Final = (*SCOPES, *(f"{room}:*" for room in sorted(_ROOMS)))
TEAM_MEMBER: Final = frozenset({INFERENCE, "generations:read", "generations:replay"})
"""What every inference key may do, in its own team; ``generations:content`` too, unless the team guards it."""


def allows(held: Iterable[str], wanted: str) -> bool:
    """Whether ``held`` scopes include ``wanted``, itself or under a wildcard."""
    rights = frozenset(held)
    if wanted in rights:
        return True
    if wanted == INFERENCE:
        return False
    return ADMIN in rights or f"{wanted.partition(':')[0]}:*" in rights


def checked(scopes: Iterable[str]) -> tuple[str, ...]:
    """``scopes`` in order and once each. Raises :class:`CallerFault` for one that does not exist."""
    wanted = sorted(set(scopes))
    for scope in wanted:
        if scope not in GRANTABLE:
            raise CallerFault(
                "invalid_field", f"There is no scope {scope!r}; there are: {', '.join(GRANTABLE)}.", param="scopes"
            )
    return tuple(wanted)


def lacking(held: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Those of ``wanted`` that a holder of ``held`` may not hand on. ``room:*`` needs ``room:*``, not its parts."""
    rights = frozenset(held)
    return [scope for scope in wanted if not allows(rights, scope)]
