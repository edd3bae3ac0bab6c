"""What the gateway asks of the rooms below it, as narrow as it is: a ledger and a directory fit, and so does less."""

from __future__ import annotations

from typing import Protocol

from counterfoil.ledger.settlement import Intent, Settlement, Waiter
from counterfoil.tenancy.principal import Principal


class Bookkeeper(Protocol):
    """Where calls are noted before they are sent, and recorded when they have ended."""

    def admit(self, intent: Intent) -> int:
        """Keep an intent; give its slot. Raises :class:`GatewayFault`: then nothing may be sent."""
        ...

    def put(self, settlement: Settlement, waiter: Waiter) -> None:
        """Make a settlement durable; ``waiter`` is told when it is, perhaps at once."""
        ...


class Doorkeeper(Protocol):
    """Who knows the holders of keys."""

    def authenticate(self, key_text: str) -> Principal:
        """The holder of a key. Raises :class:`KeyRefused`."""
        ...
