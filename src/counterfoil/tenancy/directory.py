"""Who holds this key? Asked once per call, so the answer for a key seen before costs about a microsecond.

The cache is keyed by the BLAKE2s digest of the key's text, so a worker's memory, a core dump or a heap profile holds no
API key at rest. The digest needs no secret of its own (a keyed one costs half a microsecond more): whoever finds it
would have to invert it over 202 random bits, and equal time needs no care on the cached way, because a dict compares
two digests only when their randomised hashes agree. Only good keys are cached, so guessing cannot fill the memory.
Everything cached is dropped when the epoch changes (see ``epoch``).

On the other way, each key costs one HMAC and one query, whether its kid exists or not; digests are compared in constant
time, and a wrong secret looks exactly like an unknown kid. A key whose digest was made with a pepper of before gets one
under the newest (``renewal``), so each key moves on with its first use after an exchange.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import blake2s
from typing import Final

import msgspec

from counterfoil.clock import wall_ms
from counterfoil.folder import DataFolder
from counterfoil.record.record import PlaybackMode, strictest
from counterfoil.tenancy import queries
from counterfoil.tenancy.epoch import UNSETTLED
from counterfoil.tenancy.keys import KeyKind, KeyReason, parse
from counterfoil.tenancy.names import ALL_TEAMS
from counterfoil.tenancy.principal import KeyRefused, Principal, ScopeMissing
from counterfoil.tenancy.renewal import Renewal
from counterfoil.tenancy.scopes import TEAM_MEMBER
from counterfoil.tenancy.store import Row, Store
from counterfoil.tenancy.vault import Sealed, Vault, Wallet

CACHED_KEYS_MAX: Final = 100_000
"""About 60 MB. A gateway with more keys than that in use drops the oldest entry for each new one."""
_NO_DIGEST: Final = bytes(32)


class Directory:
    """Checks keys for one process. Safe from any thread; one per worker."""

    def __init__(self, folder: DataFolder, now_ms: Callable[[], int] = wall_ms) -> None:
        """Open the tenancy of ``folder``. Raises :class:`~counterfoil.errors.ConfigError` when that fails."""
        self._store = Store(folder)
        self._vault = Vault(folder)
        self._renewal = Renewal(folder.control_db)
        self._now_ms = now_ms
        self._epoch = self._store.epoch.view
        self._seen_epoch = -1
        self._principals: dict[bytes, Principal] = {}
        self._wallets: dict[str, Wallet] = {}

    def authenticate(self, key_text: str) -> Principal:
        """The holder of ``key_text``. Raises :class:`KeyRefused`, whose ``reason`` says what is wrong with it.

        A revocation that any process on the folder has committed counts from the next call of this on.
        """
        if self._epoch[0] == self._seen_epoch:
            # Text that cannot be a key need not survive the encoding: `?` is no letter of one.
            digest = blake2s(key_text.encode("ascii", "replace")).digest()
            principal = self._principals.get(digest)
            if principal is not None:
                expires_at_ms = principal.expires_at_ms
                if expires_at_ms is None or self._now_ms() < expires_at_ms:
                    return principal
        return self._find(key_text)

    def holder(self, key_id: str, team_id: str) -> Principal:
        """The holder of the key with this public id, acting in ``team_id``: for work that outlives its request.

        Asked before each step of such work, so that a revoked key stops it. Raises :class:`KeyRefused`, and
        :class:`ScopeMissing` for a team that key does not see.
        """
        with self._store.lock:
            self._refresh()
            rows = self._store.rows(queries.HOLDER, (key_id,))
            if not rows:
                raise KeyRefused(KeyReason.UNKNOWN)
            reasons = [_refusal(row, self._now_ms()) for row in rows]
            good = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
            if not good:
                raise KeyRefused(reasons[0] or KeyReason.UNKNOWN)
            return self.for_team(self._principal(key_id, good[0]), team_id)

    def for_team(self, principal: Principal, team_id: str) -> Principal:
        """``principal`` acting inside ``team_id``: with that team's provider keys, and no more captured than it allows.

        Raises :class:`ScopeMissing` for a team it does not see, :class:`KeyRefused` for one that is disabled.
        """
        if principal.team_id == team_id:
            return principal
        if not principal.sees(team_id):
            raise ScopeMissing("admin", "This key sees its own team only.")
        with self._store.lock:
            self._refresh()
            rows = self._store.rows(queries.TEAM, (team_id,))
            if not rows or rows[0][4]:
                raise KeyRefused(KeyReason.TEAM_DISABLED)
            capture = strictest(rows[0][2], principal.capture)
            return msgspec.structs.replace(principal, team_id=team_id, capture=capture, wallet=self._wallet(team_id))

    def close(self) -> None:
        """Close the database. Principals given out stay usable."""
        self._renewal.close()
        with self._store.lock:
            self._seen_epoch = -1
            self._principals.clear()
            self._epoch = memoryview(bytes(8)).cast("Q")
            self._store.close()

    def _find(self, key_text: str) -> Principal:
        parsed = parse(key_text)
        if isinstance(parsed, KeyReason):
            raise KeyRefused(parsed)
        with self._store.lock:
            may_cache = self._refresh()
            row = self._match(key_text, parsed.kid)
            if row is None or row[2] != parsed.kind:
                raise KeyRefused(KeyReason.UNKNOWN)
            reason = _refusal(row, self._now_ms())
            if reason is not None:
                raise KeyRefused(reason, row[3], parsed.kid)
            principal = self._principal(parsed.kid, row)
            if may_cache:
                self._remember(key_text, principal)
        return principal

    def _refresh(self) -> bool:
        """Drop what is older than the epoch; whether what is read next may be cached. Holds the lock."""
        epoch = self._epoch[0]
        if epoch & UNSETTLED:
            self._store.epoch.settle_after_crash()
            epoch = self._epoch[0]
        if epoch != self._seen_epoch:
            self._principals.clear()
            self._wallets.clear()
            self._seen_epoch = -1 if epoch & UNSETTLED else epoch
        return not epoch & UNSETTLED

    def _match(self, key_text: str, kid: str) -> Row | None:
        found: Row | None = None
        rows = self._store.rows(queries.HOLDER, (kid,))
        for row in rows or [(_NO_DIGEST,)]:
            if hmac.compare_digest(row[0], self._vault.digest(key_text, row[0])):
                found = row
        if found is not None and self._vault.is_old(found[0]):
            self._renewal.renew(kid, found[0], self._vault.digest(key_text))
        return found

    def _principal(self, key_id: str, row: Row) -> Principal:
        _, secret_expires, kind, team_id, app_id, scopes, capture, _, key_expires, _, team_capture, guarded = row[:12]
        held = frozenset(scopes.split())
        if kind == KeyKind.INFERENCE:
            held |= TEAM_MEMBER if guarded else TEAM_MEMBER | {"generations:content"}
        return Principal(
            key_id=key_id,
            team_id=ALL_TEAMS if team_id is None else team_id,
            app_id=app_id,
            kind=KeyKind(kind),
            scopes=held,
            capture=strictest(team_capture, capture),
            playback=None if row[14] in (None, PlaybackMode.OFF) else PlaybackMode(row[14]),
            content_needs_scope=bool(guarded),
            expires_at_ms=min((at for at in (secret_expires, key_expires) if at is not None), default=None),
            wallet=self._wallet(team_id or ALL_TEAMS),
        )

    def _wallet(self, team_id: str) -> Wallet:
        wallet = self._wallets.get(team_id)
        if wallet is None:
            rows = self._store.rows(queries.SEALED_KEYS, (team_id,))
            stored = {provider: Sealed(sealed, base_url) for provider, sealed, base_url in rows}
            wallet = self._wallets[team_id] = Wallet(self._vault, team_id, stored)
        return wallet

    def _remember(self, key_text: str, principal: Principal) -> None:
        if len(self._principals) >= CACHED_KEYS_MAX:
            del self._principals[next(iter(self._principals))]
        digest = blake2s(key_text.encode()).digest()
        self._principals[digest] = principal


def _refusal(row: Row, now_ms: int) -> KeyReason | None:
    _, secret_expires, *_, disabled, key_expires, revoked, _, _, team_disabled, app_disabled, _ = row
    if revoked is not None:
        return KeyReason.REVOKED
    if any(at is not None and at <= now_ms for at in (secret_expires, key_expires)):
        return KeyReason.EXPIRED
    if disabled:
        return KeyReason.DISABLED
    if team_disabled:
        return KeyReason.TEAM_DISABLED
    return KeyReason.APP_DISABLED if app_disabled else None
