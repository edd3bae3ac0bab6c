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

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder

NONCE_BYTES: Final = 12


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
        self._pepper = _derived(folder.secret("pepper"), b"counterfoil api key digest v1")
        self._cipher = AESGCM(_derived(folder.secret("kek"), b"counterfoil provider key seal v1"))

    def digest(self, key_text: str) -> bytes:
        """What is stored of an API key: HMAC-SHA256 of its whole text under the pepper."""
        return hmac.digest(self._pepper, key_text.encode(), hashlib.sha256)

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
