"""What of the ledger is kept or asked for elsewhere: signed checkpoints, and a gateway's verification of itself."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from counterfoil import config
from counterfoil.api import ledger as api
from counterfoil.cli import output
from counterfoil.cli.remote import Remote
from counterfoil.cli.where import HERE, LOCAL, AsJson, Place, Source
from counterfoil.clock import wall_ms
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.evidence import CHECKPOINTS_MAX, Evidence
from counterfoil.ledger.intents import IntentLog, writer_numbers
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.signing import Checkpoint, Signer
from counterfoil.ledger.store import Store
from counterfoil.ledger.witness import Second, Witnessed, line_of, places

POLL_SECONDS: Final = 0.5
_COLUMNS: Final = ("number", "writer", "first_sequence", "last_sequence", "digest", "signed_at_ms")
_LINE: Final = Witnessed.__struct_fields__

Read = Callable[[dict[str, int]], dict[str, Any]]


def checkpoint(*, as_json: AsJson = False, place: Place = HERE) -> None:
    """Sign where each idle writer's chain stands now. A running gateway signs its own every minute.

    Each goes to the second places that the configuration names, as a running gateway's do.
    """
    folder = DataFolder.existing(place.root)
    seconds = _second_places(place)
    signer = Signer(folder.secret("signing"), wall_ms)
    signed = list(_signed(folder, signer))
    for one in signed:
        _hand_over(one, signer.public_key, seconds)
    output.listing(
        [msgspec.to_builtins(one.said) for one in signed],
        ("writer", "last_sequence", "digest", "signed_at_ms"),
        as_json=as_json,
        empty="Every writer belongs to a running gateway, which signs by itself.",
    )


def checkpoints(
    *,
    limit: Annotated[
        int, Parameter(validator=Number(gte=1, lte=CHECKPOINTS_MAX), help="At most so many, the newest.")
    ] = 20,
    lines: Annotated[
        bool,
        Parameter(help="Print all, the oldest first, as a second place keeps them: one JSON line each.", negative=()),
    ] = False,
    after: Annotated[int, Parameter(help="With --lines: only those behind this number.")] = 0,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """List the signed checkpoints, or write them where they are out of the gateway's reach."""
    read = _reader(source)
    if lines:
        for one in _every(read, after):
            kept = {name: one[name] for name in _LINE}
            sys.stdout.write(msgspec.json.encode(kept).decode() + "\n")
        return
    found = read({"limit": limit})["data"]
    output.listing(found, _COLUMNS, as_json=as_json, empty="Nothing is signed yet: there is no record.")


def verified(remote: Remote, *, chain_only: bool) -> dict[str, Any]:
    """What a gateway finds of its own ledger; waits until it has.

    Raises :class:`ConfigError` when it refuses, and when it could not end the verification.
    """
    remote.call("POST", "/v1/ledger/verification", body={"chain_only": chain_only})
    while True:
        found = remote.get("/v1/ledger/verification")
        if found["state"] == "finished":
            return found["report"]
        if found["state"] != "running":
            why = found["reason"] or "the gateway stopped"
            raise ConfigError(f"The verification did not end ({why}). Ask again.")
        time.sleep(POLL_SECONDS)


def _second_places(place: Place) -> Sequence[Second]:
    """The second places of the configuration of this folder; of another folder's there are none."""
    settings = config.ledger_settings(place.config, os.environ)
    found = places(settings.checkpoint_folder, settings.checkpoint_url, settings.checkpoint_token)
    if not found or place.config is not None or place.data is None:
        return found
    if _same(config.data_folder(None, os.environ, None), place.data):
        return found
    sys.stderr.write("The configuration's second places are another folder's; nothing is sent there.\n")
    return []


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


def _signed(folder: DataFolder, signer: Signer) -> Iterator[Checkpoint]:
    LedgerReader.prepare(folder)
    for number in writer_numbers(folder.journal):
        log = IntentLog.claim(folder.journal, number)
        if log is None:
            continue
        connection = database.open_writer(folder.ledger_db, "fsync")
        try:
            yield Store(connection, number).sign(signer)
        finally:
            connection.close()
            log.close()


def _hand_over(signed: Checkpoint, public_key: bytes, seconds: Sequence[Second]) -> None:
    """Have a checkpoint kept in every second place. Raises :class:`ConfigError` for one that does not take it."""
    line = line_of(signed.statement, signed.signature, public_key)
    for second in seconds:
        try:
            second.keep(signed.said.writer, line)
        except OSError as error:
            raise ConfigError(
                f"The checkpoint of {signed.said.writer} is signed, but {second.name} did not take it "
                f"({error.strerror or error}). Try again; a gateway sends its newest again when it starts."
            ) from error


def _reader(source: Source) -> Read:
    """Reads a page of checkpoints, from a gateway or from the folder here, as the control plane answers it."""
    remote = source.remote()
    if remote is not None:

        def asked(query: dict[str, int]) -> dict[str, Any]:
            return remote.get("/v1/ledger/checkpoints", {**query})

        return asked
    evidence = Evidence(DataFolder.existing(source.root))

    def read(query: dict[str, int]) -> dict[str, Any]:
        found = evidence.checkpoints(**query)
        return {"data": [api.shown(one) for one in found], "next": api.next_page(found, query["limit"])}

    return read


def _every(read: Read, after: int) -> Iterator[dict[str, Any]]:
    at: int | None = after
    while at is not None:
        page = read({"after": at, "limit": CHECKPOINTS_MAX})
        yield from page["data"]
        at = page["next"]
