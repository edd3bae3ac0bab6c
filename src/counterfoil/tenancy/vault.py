"""The secrets of tenancy at rest: API keys as keyed digests, provider keys sealed.

Two keys are derived from the folder's secrets with HKDF-SHA256, each under its own ``info``, so that the pepper and the
key-encryption key serve other rooms without any two uses sharing a key. A provider key is sealed with AES-256-GCM; the
team, the provider and the address it may be sent to are authenticated with it, so a row that is moved to another team,
or pointed at another host, by somebody who can write to the database does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, cast

import apsw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder

NONCE_BYTES: Final = 12
DIGEST_BYTES: Final = 32
NUMBER_BYTES: Final = 2
_SEAL_PURPOSE: Final = b"counterfoil provider key seal v1"
_SEALED: Final = "SELECT team_id, provider, sealed, base_url FROM provider_keys"
_RESEAL: Final = "UPDATE provider_keys SET sealed = ? WHERE team_id = ? AND provider = ?"
_DIGESTS: Final = """
SELECT s.key_id, s.digest FROM key_secrets AS s JOIN keys AS k USING (key_id) WHERE k.revoked_ms IS NULL
"""


class ProviderKey(Struct, frozen=True, eq=False):
    """A team's own key for one provider; ``base_url`` is where it goes instead of the provider's usual address."""

    secret: str
    base_url: str | None = None

    def __repr__(self) -> str:
        """Without the secret."""
        return f"ProviderKey(base_url={self.base_url!r})"


class Sealed(NamedTuple):
    """A provider key as stored."""

    sealed: bytes
    base_url: str | None


class Vault:
    """Digests API keys and seals provider keys under one data folder's secrets."""

    def __init__(self, folder: DataFolder) -> None:
        self._peppers = {
            number: _derived(pepper, b"counterfoil api key digest v1") for number, pepper in folder.peppers().items()
        }
        self._newest = max(self._peppers)
        self._cipher = AESGCM(_derived(folder.secret("kek"), _SEAL_PURPOSE))

    def digest(self, key_text: str, like: bytes | None = None) -> bytes:
        """What is stored of an API key: HMAC-SHA256 of its whole text under the pepper, and which pepper that was.

        With ``like``, a stored digest, under the pepper of that one (the newest, if that one is gone).
        """
        number = self._newest if like is None else number_of(like)
        pepper = self._peppers.get(number)
        if pepper is None:
            number, pepper = self._newest, self._peppers[self._newest]
        digest = hmac.digest(pepper, key_text.encode(), hashlib.sha256)
        return digest if number == 1 else number.to_bytes(NUMBER_BYTES, "big") + digest

    def is_old(self, digest: bytes) -> bool:
        """Whether a stored digest was made with a pepper of before."""
        return number_of(digest) != self._newest

    def seal(self, team_id: str, provider: str, key: ProviderKey, entropy: Callable[[int], bytes]) -> bytes:
        """``key`` sealed for ``team_id`` and ``provider``: nonce and ciphertext."""
        nonce = entropy(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key.secret.encode(), _bound_to(team_id, provider, key.base_url))

    def unseal(self, team_id: str, provider: str, stored: Sealed) -> ProviderKey:
        """The key in ``stored``. Raises :class:`GatewayFault` when it was altered, moved, or sealed elsewhere."""
        nonce, text = stored.sealed[:NONCE_BYTES], stored.sealed[NONCE_BYTES:]
        try:
            secret = self._cipher.decrypt(nonce, text, _bound_to(team_id, provider, stored.base_url))
        except (InvalidTag, ValueError) as error:
            message = f"The team's own key for {provider} cannot be opened. Set it again."
            raise GatewayFault("internal", message) from error
        return ProviderKey(secret.decode(), stored.base_url)


def number_of(digest: bytes) -> int:
    """The number of the pepper that a stored digest was made with. The first one's have no number."""
    return 1 if len(digest) == DIGEST_BYTES else int.from_bytes(digest[:NUMBER_BYTES], "big")


def hanging(folder: DataFolder) -> dict[int, list[str]]:
    """The keys, by their public ids, that hang on each pepper by its number; those that can be used no more do not."""
    found: dict[int, list[str]] = {}
    if not folder.control_db.exists():
        return found
    connection = apsw.Connection(str(folder.control_db), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        for key_id, digest in connection.execute(_DIGESTS):
            found.setdefault(number_of(digest), []).append(key_id)
    finally:
        connection.close()
    return found


def exchange(folder: DataFolder, reseal: Callable[[bytes, bytes, bytes], bytes | None]) -> None:
    """Seal every team's provider keys anew, all or none. Raises :class:`apsw.Error`.

    ``reseal(purpose, bound_to, sealed)`` gives what takes the place of a blob, None where it stays.
    """
    if not folder.control_db.exists():
        return
    connection = apsw.Connection(str(folder.control_db))
    try:
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            for team_id, provider, sealed, base_url in list(connection.execute(_SEALED)):
                fresh = reseal(_SEAL_PURPOSE, _bound_to(team_id, provider, base_url), sealed)
                if fresh is not None:
                    connection.execute(_RESEAL, (fresh, team_id, provider))
    finally:
        connection.close()


class Wallet:
    """One team's provider keys, unsealed when first asked for and then kept as long as the wallet itself."""

    def __init__(self, vault: Vault, team_id: str, stored: Mapping[str, Sealed]) -> None:
        self._vault = vault
        self._team_id = team_id
        self._stored = stored
        self._open: dict[str, ProviderKey] = {}
        self._lock = threading.Lock()

    @classmethod
    def empty(cls, team_id: str) -> Wallet:
        """A wallet with nothing in it, which needs no vault."""
        return cls(cast("Vault", None), team_id, {})

    @property
    def providers(self) -> frozenset[str]:
        """The providers the team has a key for."""
        return frozenset(self._stored)

    def key(self, provider: str) -> ProviderKey | None:
        """The key for ``provider``, None when there is none."""
        stored = self._stored.get(provider)
        if stored is None:
            return None
        with self._lock:
            found = self._open.get(provider)
            if found is None:
                found = self._open[provider] = self._vault.unseal(self._team_id, provider, stored)
            return found


def _bound_to(team_id: str, provider: str, base_url: str | None) -> bytes:
    return "\0".join((team_id, provider, base_url or "")).encode()


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose).derive(secret)
