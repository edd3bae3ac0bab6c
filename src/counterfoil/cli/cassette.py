"""``counterfoil cassette``: recordings in a file that a test suite can commit."""

from __future__ import annotations

import asyncio
import functools
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from counterfoil.capture.body import Capture
from counterfoil.cli import output, records
from counterfoil.cli.records import ALL, Selection
from counterfoil.cli.remote import Remote
from counterfoil.cli.where import HERE, LOCAL, AsJson, Place, Source
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger.query import LedgerReader
from counterfoil.replay import cassette, importing
from counterfoil.replay.cassette import Interaction
from counterfoil.replay.redact import Rules
from counterfoil.wire import canonical

app = App(name="cassette", help="Recordings in a file: export, import.")

LIMIT: Final = 1000
"""Recordings that are exported unless more are asked for: a cassette is read whole, by tests and by people."""


@app.command
def export(
    output_file: Annotated[Path, Parameter(help="The cassette to write.")],
    /,
    *,
    selection: Selection = ALL,
    limit: Annotated[int, Parameter(help="At most so many, the newest.")] = LIMIT,
    redact_pointer: Annotated[
        tuple[str, ...],
        Parameter(help="Exchange this JSON value: /user, request:/messages/*/content.", negative=()),
    ] = (),
    redact_pattern: Annotated[
        tuple[str, ...], Parameter(help="Exchange what this regular expression matches in any text.", negative=())
    ] = (),
    redact_header: Annotated[
        tuple[str, ...],
        Parameter(help="Exchange the value of this captured header, or of this header of a form's part.", negative=()),
    ] = (),
    ignore: Annotated[
        tuple[str, ...], Parameter(help="A JSON pointer that shall not count when requests are matched.", negative=())
    ] = (),
    source: Source = LOCAL,
) -> None:
    """Write recordings to a cassette, the oldest first. Only whole answers with full capture can be in one."""
    try:
        ignored = canonical.pointers(",".join(ignore))
    except ValueError as error:
        raise ConfigError(f"--ignore: {error}") from error
    rules = Rules(redact_pointer, redact_pattern, tuple(name.lower() for name in redact_header))
    found, left = _found(source, selection, limit)
    made = cassette.redacted(found, rules, ignored)
    cassette.write(output_file, made)
    rest = f"; {left} records hold no whole answer that was kept, and were left out" if left else ""
    sys.stderr.write(f"{len(found)} recordings in {output_file}{rest}.\n")


@app.command(name="import")
def import_(
    file: Annotated[Path, Parameter(help="The cassette to read.")],
    /,
    *,
    team: Annotated[str, Parameter(help="The team whose recordings they become.")],
    retention_days: Annotated[int, Parameter(help="How long the bodies are kept.")] = 30,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Put the recordings of a cassette into the ledger, where playback finds them. Also while the gateway runs.

    Each becomes a record of its own that cost nothing, with `playback_of` its original's id.
    """
    read = cassette.read(file)
    made = asyncio.run(importing.run(DataFolder.existing(place.root), read, team, retention_days))
    if as_json:
        output.json({"imported": made})
    else:
        output.lines(f"{len(made)} recordings of {team}: playback answers with them.")


def _found(source: Source, selection: Selection, limit: int) -> tuple[list[Interaction], int]:
    """The newest recordings of ``selection``, the oldest of them first, and how many records are none."""
    found: list[Interaction] = []
    left = 0
    remote = source.remote()
    with records.opened(source) as ledger, _bodies(source, remote) as captured:
        for row in records.every(ledger, selection):
            record = msgspec.json.decode(row)
            one = cassette.of_record(record, functools.partial(captured, record))
            if one is None:
                left += 1
                continue
            found.append(one)
            if len(found) == limit:
                break
    return found[::-1], left


class _bodies:  # noqa: N801  a context manager is used like a function
    """Gives the bodies of a record, from a folder here or over HTTP."""

    def __init__(self, source: Source, remote: Remote | None) -> None:
        self._remote = remote
        self._reader = None if remote is not None else LedgerReader(DataFolder.existing(source.root))

    def __enter__(self) -> Callable[[dict[str, Any]], Capture | None]:
        return self._of

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()

    def _of(self, record: dict[str, Any]) -> Capture | None:
        if self._remote is not None:
            return content_of(self._remote, record)
        assert self._reader is not None  # noqa: S101  one of the two is there
        stored = self._reader.find(record["team_id"], record["request_id"])
        return None if stored is None else self._reader.capture(stored)


def content_of(remote: Remote, record: dict[str, Any]) -> Capture:
    """The bodies of a record, from the gateway that has it. Raises :class:`ConfigError`."""
    content = remote.get(f"/v1/generations/{record['request_id']}/content")
    try:
        request, response = content["request"], content["response"]
        body = _bytes(response)
        cuts = response.get("chunk_bytes")
        return Capture(
            _bytes(request),
            request["content_type"],
            None,
            body if cuts is None else tuple(_cut(body, cuts)),
            response["content_type"],
            response["status"],
            tuple(response.get("chunk_at_us") or ()),
            tuple(
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in request.get("headers", {}).items()
            ),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError("The gateway's answer holds no bodies that this version can read.") from error


def _bytes(part: Any) -> bytes:
    return part["body"].encode() if part["encoding"] == "utf-8" else b64decode(part["body"])


def _cut(body: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield body[at : at + size]
        at += size
