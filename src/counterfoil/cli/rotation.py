"""Exchanging a secret of the data folder, so that a kill at any moment leaves an exchange that can be ended.

The folder's lock is held throughout: no gateway runs meanwhile. In each exchange

1. the new secret is written beside the old one (``NAME.next``). From here on nothing reads the old one (a command says
   how to go on) until the exchange has ended;
2. what hangs on the secret is made anew, one transaction a database. What is new already is left alone, so that doing
   it again after a crash does the rest;
3. the new secret takes the old one's place, by one rename.

:func:`rotate` does 2 and 3 for one that was interrupted; ``serve`` has that done before it takes the folder. Decision
0060 says what each exchange makes anew, and why no gateway may run.
"""

from __future__ import annotations

import os
from typing import Final, Literal

import apsw
from msgspec import Struct

from counterfoil.capture.seal import Resealer, commitment_key
from counterfoil.clock import wall_ms
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger import exchange
from counterfoil.replay.bulk import store
from counterfoil.tenancy import vault

Name = Literal["kek", "pepper", "signing"]
NAMES: Final[tuple[Name, ...]] = ("kek", "pepper", "signing")


class Exchanged(Struct, frozen=True, kw_only=True):
    """What an exchange came to.

    ``done`` counts what was sealed anew, or the chains that were handed over; ``unreadable`` opened under neither
    secret and stays as it was. ``finished`` says that one which had been interrupted was ended, and none begun.
    """

    secret: str
    done: int
    unreadable: int
    finished: bool


def rotate(folder: DataFolder, name: Name) -> Exchanged:
    """Exchange a secret; or end the exchange that was interrupted. The folder's lock is the caller's.

    Raises :class:`ConfigError` when something cannot be read or written; doing it again goes on.
    """
    interrupted = folder.next_secret(name) is not None
    try:
        if not interrupted:
            _prepare(folder, name)
            folder.begin_exchange(name)
        done, unreadable = _made_anew(folder, name)
        folder.end_exchange(name)
    except (apsw.Error, OSError) as error:
        raise ConfigError(f"The exchange of {name} could not be ended ({error}). Do it again.") from error
    return Exchanged(secret=name, done=done, unreadable=unreadable, finished=interrupted)


def _prepare(folder: DataFolder, name: Name) -> None:
    """What is to be done while the old secret is in force."""
    if name == "kek":
        folder.keep_commitment(commitment_key(folder.own_secret("kek")))
    if name == "pepper":
        used = vault.hanging(folder)
        retire(folder, [number for number in folder.pepper_numbers() if number not in used])


def retire(folder: DataFolder, numbers: list[int]) -> None:
    """Destroy these peppers of before. The folder's lock is the caller's. Raises :class:`ConfigError`."""
    try:
        for number in numbers:
            folder.drop_pepper(number)
    except OSError as error:
        raise ConfigError(f"A pepper in {folder.secrets} cannot be destroyed ({error.strerror or error}).") from error


def _made_anew(folder: DataFolder, name: Name) -> tuple[int, int]:
    """What hangs on a secret, under the new one: how much was done, how much opens under neither."""
    old, new = folder.own_secret(name), folder.own_secret(f"{name}.next")
    if name == "pepper":
        folder.keep_pepper()  # digests cannot be made anew without the keys: each moves on when it is used
        return 0, 0
    if name == "signing":
        return exchange.hand_over(folder, old, new, wall_ms), 0
    reseal = Resealer(old, new, os.urandom)
    exchange.rewrap(folder, new, reseal)
    vault.exchange(folder, reseal)
    store.exchange(folder, reseal)
    for path in folder.root.glob("playback.db*"):  # derived, under a key of the old one
        path.unlink()
    return reseal.done, reseal.unreadable
