"""On whose behalf tenancy is changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from counterfoil.errors import CallerFault
from counterfoil.tenancy.names import ALL_TEAMS
from counterfoil.tenancy.principal import Principal, ScopeMissing
from counterfoil.tenancy.scopes import ADMIN, allows, lacking


class Authority(Struct, frozen=True):
    """Who changes something, what they may, and for which team (``*`` for all). ``name`` goes into the audit."""

    name: str
    scopes: frozenset[str]
    team_id: str

    @classmethod
    def of(cls, principal: Principal) -> Authority:
        """The authority of a key."""
        return cls(principal.key_id, principal.scopes, principal.team_id)

    def need(self, scope: str) -> None:
        """Raises :class:`ScopeMissing` without the right ``scope``."""
        if not allows(self.scopes, scope):
            raise ScopeMissing(scope)

    def sees(self, team_id: str | None) -> bool:
        """Whether what belongs to ``team_id`` (None: to all teams) exists for this authority."""
        return self.team_id in (ALL_TEAMS, team_id)

    def need_all_teams(self, scope: str) -> None:
        """Raises :class:`ScopeMissing` for an authority confined to one team."""
        self.need(scope)
        if self.team_id != ALL_TEAMS:
            raise ScopeMissing(scope, "A key of one team cannot do this for other teams.")

    def need_to_grant(self, scopes: Iterable[str]) -> None:
        """Raises :class:`ScopeMissing` when ``scopes`` holds a right this authority has not itself."""
        missing = lacking(self.scopes, scopes)
        if missing:
            raise ScopeMissing(missing[0], f"This key cannot grant what it lacks: {', '.join(missing)}.")

    def visible_team(self, wanted: str | None) -> str | None:
        """The team to list for: the wanted one, or the only one this authority sees; None for all.

        Raises :class:`CallerFault` (not found) for a team it does not see.
        """
        if wanted is not None and not self.sees(wanted):
            raise CallerFault("not_found")
        return wanted if wanted is not None or self.team_id == ALL_TEAMS else self.team_id


OPERATOR: Final = Authority("operator", frozenset({ADMIN}), ALL_TEAMS)
"""Whoever can write to the data folder: the command line on the gateway's own machine."""
