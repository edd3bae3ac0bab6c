"""``counterfoil secrets``: the data folder's own secrets, exchanged and shown, never their values."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from counterfoil.cli import output, rotation
from counterfoil.cli.rotation import Name
from counterfoil.cli.where import HERE, AsJson, Place
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger import handover
from counterfoil.ledger.signing import Signer
from counterfoil.tenancy import vault

app = App(name="secrets", help="The folder's own secrets: show, rotate, retire.")

_SAID: Final = {
    "kek": "{done} keys are wrapped anew; no body and no record was touched.",
    "pepper": "Keys made before stay valid, and move on when they are next used (counterfoil secrets show).",
    "signing": "{done} chains were handed over; what the old key signed stays proven.",
}


@app.command
def rotate(
    secret: Annotated[
        Name,
        Parameter(help="kek wraps data keys and provider keys; pepper digests API keys; signing signs the ledger."),
    ],
    /,
    *,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Exchange a secret, or end an exchange that was interrupted. The gateway must be stopped meanwhile."""
    with _held(place) as folder:
        exchanged = rotation.rotate(folder, secret)
    if as_json:
        output.json(exchanged)
        return
    output.lines(f"The interrupted exchange of {secret} is ended." if exchanged.finished else f"{secret} is exchanged.")
    output.lines(_SAID[secret].format(done=exchanged.done))
    if exchanged.unreadable:
        output.lines(
            f"{exchanged.unreadable} opened under neither secret, so they were lost before; they are as before."
        )
    output.lines("Backups of before open with the secrets in them: keep them as carefully as ever, or delete them.")


@app.command
def retire(
    *,
    yes: Annotated[bool, Parameter(help="Also when keys hang on them, which are unknown then.", negative=())] = False,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Destroy the peppers of before. Keys that have not been used since an exchange are unknown from then on."""
    with _held(place) as folder:
        numbers = folder.pepper_numbers()
        hanging = vault.hanging(folder)
        lost = sorted({key_id for number in numbers for key_id in hanging.get(number, ())})
        if lost and not yes:
            named = ", ".join(lost[:5]) + (" …" if len(lost) > 5 else "")
            raise ConfigError(f"{len(lost)} keys have not been used since ({named}). Destroy them with --yes.")
        rotation.retire(folder, numbers)
    if as_json:
        output.json({"retired": numbers, "keys_lost": lost})
    else:
        output.lines(f"{len(numbers)} peppers of before are destroyed; {len(lost)} keys with them.")


@app.command
def show(*, as_json: AsJson = False, place: Place = HERE) -> None:
    """Show when each secret was made, what hangs on older ones, and the public keys. No secret is shown."""
    folder = DataFolder.existing(place.root)
    signing, kek, pepper = (_made(folder.secrets / name) for name in ("signing", "kek", "pepper"))
    hanging = vault.hanging(folder)
    old = [{"number": number, "keys": len(hanging.get(number, ()))} for number in folder.pepper_numbers()]
    public = Signer(folder.secret("signing"), lambda: 0).public_key.hex()
    before = [msgspec.json.decode(one.statement, type=handover.Said) for one in handover.read(folder)]
    rows: list[dict[str, Any]] = [
        {"secret": "kek", "made": kek, "notes": ""},
        {"secret": "pepper", "made": pepper, "notes": _notes(old)},
        {"secret": "signing", "made": signing, "notes": f"public key {public}"},
    ]
    rows += [{"secret": "signing, before", "made": "", "notes": f"public key {said.previous}"} for said in before]
    if as_json:
        output.json(
            {
                "kek": {"made": kek},
                "pepper": {"made": pepper, "older": old},
                "signing": {"made": signing, "public_key": public, "before": [said.previous for said in before]},
            }
        )
    else:
        output.lines(*output.table(rows, ("secret", "made", "notes")))


def _notes(old: list[dict[str, int]]) -> str:
    keys = sum(one["keys"] for one in old)
    return f"{keys} keys not used since an exchange" if keys else ""


def _made(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def _held(place: Place) -> Generator[DataFolder]:
    """The folder, which no gateway has meanwhile. Raises :class:`ConfigError` when one does."""
    folder = DataFolder.existing(place.root)
    lock = folder.lock()
    try:
        yield folder
    finally:
        os.close(lock)
