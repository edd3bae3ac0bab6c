"""Who asks: the answer to a key, and the refusal of one."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from counterfoil.errors import CallerFault
from counterfoil.record.record import CapturePolicy, PlaybackMode
from counterfoil.tenancy import scopes
from counterfoil.tenancy.keys import KeyKind, KeyReason
from counterfoil.tenancy.names import ALL_TEAMS
from counterfoil.tenancy.vault import ProviderKey, Wallet

_MESSAGES: Final[dict[KeyReason, str]] = {
    KeyReason.MISSING: "No API key was sent. Send it as `Authorization: Bearer`, `x-api-key` or `x-goog-api-key`.",
    KeyReason.MALFORMED: "This is not a Counterfoil API key; one begins with cf_sk_ or cf_mk_.",
    KeyReason.BAD_CHECKSUM: "This API key is mistyped or cut short.",
    KeyReason.UNKNOWN: "This API key is not known here.",
    KeyReason.REVOKED: "This API key was revoked.",
    KeyReason.DISABLED: "This API key is disabled.",
    KeyReason.EXPIRED: "This API key has expired.",
    KeyReason.APP_DISABLED: "The application of this API key is disabled.",
    KeyReason.TEAM_DISABLED: "The team of this API key is disabled.",
}


class KeyRefused(CallerFault):
    """A key that cannot be used; ``reason`` says why. Answered with 401 and ``WWW-Authenticate: Bearer``.

    ``team_id`` and ``key_id`` are set once the secret was right, so that the refusal can be recorded under its team.
    """

    def __init__(self, reason: KeyReason, team_id: str | None = None, key_id: str | None = None) -> None:
        super().__init__("unauthorized", _MESSAGES[reason], headers=(("www-authenticate", "Bearer"),))
        self.reason: str = reason.value
        self.team_id = team_id
        self.key_id = key_id


class ScopeMissing(CallerFault):
    """A good key without the right ``needs``. Answered with 403."""

    def __init__(self, needs: str, message: str | None = None) -> None:
        super().__init__("forbidden", message or f"This key lacks the scope {needs}.")
        self.needs = needs


class Principal(Struct, frozen=True, kw_only=True, eq=False):
    """A key that was checked, and everything a call needs to know of its holder. Holds no key text.

    ``capture`` is the strictest of the team's and the key's policy, full when neither says;
    ``playback`` the key's default, None for a provider's answers; ``scopes`` is complete, so
    an inference key's own rights are in it. ``team_id`` is ``*`` for a management key of all teams.
    """

    key_id: str
    team_id: str
    app_id: str | None
    kind: KeyKind
    scopes: frozenset[str]
    capture: CapturePolicy
    playback: PlaybackMode | None = None
    content_needs_scope: bool
    expires_at_ms: int | None
    wallet: Wallet

    def may(self, scope: str) -> bool:
        """Whether this key has the right ``scope``."""
        return scopes.allows(self.scopes, scope)

    def need(self, scope: str) -> None:
        """Raises :class:`ScopeMissing` when this key has not the right ``scope``."""
        if not self.may(scope):
            raise ScopeMissing(scope)

    def sees(self, team_id: str) -> bool:
        """Whether what belongs to ``team_id`` exists for this key."""
        return self.team_id in (team_id, ALL_TEAMS)

    @property
    def sees_content(self) -> bool:
        """Whether this key may read the bodies of the calls it sees."""
        return self.may("generations:content")

    def provider_key(self, provider: str) -> ProviderKey | None:
        """The team's own key for ``provider``, None when it has none.

        Raises :class:`~counterfoil.errors.GatewayFault` when it has one that cannot be unsealed: the operator's key
        must not silently pay in its place.
        """
        return self.wallet.key(provider)
