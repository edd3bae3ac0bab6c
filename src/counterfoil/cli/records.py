"""The records that a command is about, and where it reads them: from a folder here, or from a gateway elsewhere.

Both give the same bytes, so that what a command prints does not depend on where it asked. A local folder is read as its
operator, who sees every team and every body.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final, Protocol

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from counterfoil.api import generations, lookup, view
from counterfoil.api.filtering import cursor_text, filters, parse_cursor
from counterfoil.cli import output
from counterfoil.cli.remote import Remote
from counterfoil.cli.where import Source
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger.kept import captured
from counterfoil.ledger.query import Filter, LedgerReader, StoredRecord
from counterfoil.record import ids

PAGE: Final = 1000
_NANOS: Final = Number(gte=-(1 << 62), lte=1 << 62)
_decode_page = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which records. Everything given must hold; the names are those of the control plane's filters."""

    team: Annotated[str | None, Parameter(help="Only this team's. A local folder shows every team's.")] = None
    since: Annotated[str | None, Parameter(help="Not older than this: 90s, 30m, 24h, 7d, 4w.")] = None
    from_: Annotated[str | None, Parameter(name="--from", help="At or after this time: 2026-11-02T10:00Z.")] = None
    to: Annotated[str | None, Parameter(help="Before this time.")] = None
    model: Annotated[str | None, Parameter(help="Only this model, provider/model.")] = None
    provider: Annotated[str | None, Parameter(help="Only this provider's.")] = None
    endpoint: Annotated[str | None, Parameter(help="Only calls of this path.")] = None
    app: Annotated[str | None, Parameter(help="Only this application's.")] = None
    by_key: Annotated[str | None, Parameter(help="Only calls made with the key of this public id.")] = None
    session: Annotated[str | None, Parameter(help="Only this session's.")] = None
    end_user: Annotated[str | None, Parameter(help="Only this end user's.")] = None
    status: Annotated[int | None, Parameter(help="Only with this HTTP status.")] = None
    error_code: Annotated[str | None, Parameter(help="Only with this error, such as upstream:timeout.")] = None
    failed: Annotated[
        bool | None, Parameter(name="--failed", negative="--succeeded", help="Only failures, or only successes.")
    ] = None
    stream: Annotated[
        bool | None, Parameter(name="--stream", negative="--unary", help="Only streamed answers, or only others.")
    ] = None
    byok: Annotated[
        bool | None, Parameter(name="--byok", negative="--own-keys", help="With the team's provider key, or without.")
    ] = None
    replay_of: Annotated[str | None, Parameter(help="Only reruns of this record.")] = None
    judge_of: Annotated[str | None, Parameter(help="Only judges' calls about this record.")] = None
    reruns: Annotated[
        bool | None, Parameter(name="--reruns", negative="--no-reruns", help="Only reruns, or all but them.")
    ] = None
    judges: Annotated[
        bool | None, Parameter(name="--judges", negative="--no-judges", help="Only judges' calls, or all but them.")
    ] = None
    min_cost_nanos: Annotated[
        int | None, Parameter(validator=_NANOS, help="Only where what is known of the cost is at least this.")
    ] = None
    max_cost_nanos: Annotated[
        int | None, Parameter(validator=_NANOS, help="Only where the whole cost is known and at most this.")
    ] = None

    def filter(self) -> Filter:
        """The filter for a local ledger. Raises :class:`~counterfoil.errors.CallerFault` for a time that is none."""
        values = {name: getattr(self, name) for name in self.__slots__ if name not in ("team", "failed", "by_key")}
        success = None if self.failed is None else not self.failed
        return msgspec.structs.replace(filters(**values, key=self.by_key, success=success), team_id=self.team)

    def query(self) -> dict[str, str | int | None]:
        """The same for the control plane."""
        renamed = {"from_": "from", "by_key": "key"}
        given = {renamed.get(name, name): getattr(self, name) for name in self.__slots__ if name != "failed"}
        given["success"] = None if self.failed is None else not self.failed
        return {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}


ALL: Final = Selection()
_KINDS: Final[dict[str, type]] = {"status": int, "min_cost_nanos": int, "max_cost_nanos": int}
_FLAGS: Final = frozenset({"failed", "stream", "byok", "reruns", "judges"})
_WORDS: Final = {"true": True, "false": False}


def where(selection: Selection, conditions: Sequence[str]) -> Selection:
    """``selection`` narrowed by conditions such as ``model=openai/gpt-4o``, by the options' names.

    Raises :class:`ConfigError` for one that names no option, or a value that it cannot have.
    """
    given: dict[str, Any] = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        field = name.strip().replace("-", "_")
        field = {"from": "from_", "key": "by_key"}.get(field, field)
        if not equals or field not in Selection.__slots__:
            raise ConfigError(f"{condition!r} names no condition. Write, for example, --where model=openai/gpt-4o.")
        try:
            given[field] = _WORDS[value] if field in _FLAGS else _KINDS.get(field, str)(value)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{value!r} is no value for {name}.") from error
    return dataclasses.replace(selection, **given)


@dataclass(frozen=True, slots=True)
class Rows:
    """A page of records as JSON objects, newest first, and the cursor of the next page."""

    data: list[bytes]
    next: str | None


class Records(Protocol):
    """Reads records from somewhere."""

    def page(self, selection: Selection, cursor: str | None, limit: int) -> Rows:
        """Some records, without their bodies."""
        ...

    def one(self, any_id: str) -> bytes:
        """One record as ``GET /v1/generations`` gives it. Raises :class:`ConfigError` when there is none."""
        ...

    def summary(self, selection: Selection, by: Sequence[str] = ()) -> dict[str, Any]:
        """Sums, as ``GET /v1/generations/summary`` gives them."""
        ...


@contextmanager
def opened(source: Source) -> Generator[Records]:
    """The records of ``source``."""
    remote = source.remote()
    if remote is not None:
        yield _RemoteRecords(remote)
        return
    with reader(source) as ledger:
        yield _LocalRecords(ledger, str(source.root.absolute()))


@contextmanager
def reader(source: Source) -> Generator[LedgerReader]:
    """The ledger of a local folder, closed at the end."""
    ledger = LedgerReader(DataFolder.existing(source.root))
    try:
        yield ledger
    finally:
        ledger.close()


def every(records: Records, selection: Selection) -> Iterator[bytes]:
    """Every record of ``selection``, newest first."""
    cursor: str | None = None
    while True:
        rows = records.page(selection, cursor, PAGE)
        yield from rows.data
        cursor = rows.next
        if cursor is None:
            return


def found(ledger: LedgerReader, any_id: str, where: str) -> StoredRecord:
    """The record with this id. Raises :class:`ConfigError` that says where it is not."""
    stored = ledger.find(None, any_id)
    if stored is None:
        raise _none(any_id, f"in {where}")
    return stored


def _none(any_id: str, where: str) -> ConfigError:
    hint = "" if ids.parse(any_id) else " Ids of ours look like gen_01KC2D0J5G4Q9W7T3M8XN6PVRB."
    return ConfigError(f"There is no record {output.cell(any_id)} {where}.{hint}")


class _LocalRecords:
    def __init__(self, ledger: LedgerReader, where: str) -> None:
        self._ledger = ledger
        self._where = where

    def page(self, selection: Selection, cursor: str | None, limit: int) -> Rows:
        page = self._ledger.page(selection.filter(), parse_cursor(cursor), limit)
        rows = [view.listed_now(stored) for stored in page.records]
        return Rows(rows, cursor_text(page.next))

    def one(self, any_id: str) -> bytes:
        stored = found(self._ledger, any_id, self._where)
        request = lookup.replayable(captured(self._ledger, stored))
        return view.served(stored.data, stored.chain, stored.capture_state, request)

    def summary(self, selection: Selection, by: Sequence[str] = ()) -> dict[str, Any]:
        return msgspec.to_builtins(generations.summed(self._ledger, selection.filter(), by))


class _RemoteRecords:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def page(self, selection: Selection, cursor: str | None, limit: int) -> Rows:
        page = _decode_page(self._remote.read("/v1/generations/search", _page_query(selection, cursor, limit)))
        return Rows([bytes(row) for row in _decode_rows(page["data"])], msgspec.json.decode(page["next"]))

    def one(self, any_id: str) -> bytes:
        answer = self._remote.send("GET", "/v1/generations", {"id": any_id})
        if answer.status == HTTPStatus.NOT_FOUND:
            raise _none(any_id, "that this key may see")
        return self._remote.accepted(answer)

    def summary(self, selection: Selection, by: Sequence[str] = ()) -> dict[str, Any]:
        return self._remote.get("/v1/generations/summary", {**selection.query(), "by": ",".join(by) or None})


def _page_query(selection: Selection, cursor: str | None, limit: int) -> dict[str, str | int | None]:
    return {**selection.query(), "cursor": cursor, "limit": limit}
