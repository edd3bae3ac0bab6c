"""Many records: lists, sums and exports. And the erasure of what was captured of one.

Lists are newest first. Every sum says how many records it could not price, so an unknown cost never passes for none.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from counterfoil.api import answers, reading, view
from counterfoil.api.filtering import cursor_text, filters, grouping, parse_cursor
from counterfoil.api.lookup import unkept
from counterfoil.api.parts import ControlParts
from counterfoil.api.reading import Desk
from counterfoil.errors import CallerFault
from counterfoil.ledger.filters import GROUPS
from counterfoil.ledger.query import (
    GROUPS_MAX,
    PAGE_ROWS_MAX,
    Cursor,
    Filter,
    Group,
    LedgerReader,
    Page,
    Summary,
)
from counterfoil.record.charge import CostState
from counterfoil.record.coverage import Sums
from counterfoil.record.money import CURRENCY
from counterfoil.tenancy.authority import Authority

ERASE: Final = "generations:erase"
THREADS: Final = 2
"""Lists read at once, in threads apart from the lookup's, so that an export cannot keep a lookup waiting."""
EXPORT_ROWS: Final = 100
EXPORT_REST: Final = 1.0
"""An export reads so many records at a time, and rests for as long as that took: half of the time is the calls' own."""
JSON_LINES: Final = "application/x-ndjson"
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "A parameter is not valid; field names it."},
    **reading.REFUSALS,
}
_EXPORT: Final[dict[str, Any]] = {
    "summary": "Every record, as JSON lines",
    "response_class": StreamingResponse,
    "responses": {200: {"content": {JSON_LINES: {"schema": {"type": "string"}}}}, **_REFUSALS},
}
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {
    404: {"description": "No such record in this team. Another team's looks exactly the same."},
    **reading.REFUSALS,
}
_TIMES: Final = ("month", "day", "hour")
_encode = msgspec.json.Encoder().encode

Wanted = Annotated[Filter, Depends(filters)]
Team = Annotated[str | None, Query(description="For a management key of all teams: only this team's.")]
By = Annotated[
    str | None,
    Query(description=f"Tell the sums apart by one or several of {', '.join(GROUPS)}.", examples=["app,day"]),
]
Limit = Annotated[int, Query(ge=1, le=PAGE_ROWS_MAX, description="Records of one page.")]


def router(parts: ControlParts) -> APIRouter:
    """The endpoints under ``/v1/generations`` that are about more than one record, and the erasure."""
    routes = APIRouter(tags=["generations"])
    desk = Desk("lists", THREADS)

    def narrowed(request: Request, wanted: Filter, team: str | None) -> Filter:
        who = reading.principal(parts.directory, request)
        return msgspec.structs.replace(wanted, team_id=reading.team(who, team))

    def read(request: Request, wanted: Filter, team: str | None, cursor: str | None, limit: int) -> bytes:
        page = parts.reader.page(narrowed(request, wanted, team), parse_cursor(cursor), limit)
        return page_answer([view.listed_now(stored) for stored in page.records], cursor_text(page.next))

    @routes.get("/v1/generations/search", summary="Records, newest first", responses=_REFUSALS)
    async def search(
        request: Request,
        wanted: Wanted,
        team: Team = None,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
        limit: Limit = 50,
    ) -> Response:
        """A page of records without what was captured of them, and what they add up to.

        ``next`` is the cursor of the next page, null at the end; ``sums`` says what part of the cost is not known.
        """
        return answers.raw(await desk.run(read, request, wanted, team, cursor, limit))

    @routes.get("/v1/generations/summary", summary="Sums over records", responses=_REFUSALS)
    async def summary(request: Request, wanted: Wanted, team: Team = None, by: By = None) -> Response:
        """Counts, tokens and cost, and of how many records the cost is unknown or known in part only.

        With `by` also `groups`: the same for all records that are alike in these, which together are the whole sum.
        """

        def read() -> dict[str, Any]:
            return summed(parts.reader, narrowed(request, wanted, team), grouping(by))

        return answers.json(await desk.run(read))

    @routes.get("/v1/generations/export", **_EXPORT)
    async def export(request: Request, wanted: Wanted, team: Team = None) -> Response:
        """One record a line, newest first; then a manifest: how many they are, and the SHA-256 of all lines before it.

        It also says what they cost, and which records and meters could not be priced. An export without a manifest
        was cut short.
        """
        narrow = await desk.run(narrowed, request, wanted, team)
        first = await desk.run(parts.reader.page, narrow, None, EXPORT_ROWS)
        return StreamingResponse(_exported(desk, parts, narrow, first), media_type=JSON_LINES)

    _add_erasure(routes, parts, desk)
    return routes


def _add_erasure(routes: APIRouter, parts: ControlParts, desk: Desk) -> None:
    @routes.delete("/v1/generations/{id}/content", summary="Erase what was captured", responses=_NOT_FOUND)
    async def erase(
        request: Request,
        any_id: Annotated[str, Path(alias="id", description="Ours or the provider's.")],
        team: Team = None,
    ) -> Response:
        """Destroy the bodies of one generation. Its record stays, and the chain still verifies."""

        def erased() -> bool | None:
            who = reading.principal(parts.directory, request)
            found = parts.reader.find(reading.team(who, team, ERASE), any_id)
            if found is None:
                return None
            if unkept(found) is None:
                parts.admin.note_erasure(found.team_id, found.id, by=Authority.of(who))
            return parts.erase(found.team_id, found.id, f"requested with key {who.key_id}")

        done = await desk.run(erased)
        return answers.raw(answers.NOT_FOUND, 404) if done is None else answers.json({"ok": True, "erased": done})


async def _exported(desk: Desk, parts: ControlParts, wanted: Filter, page: Page) -> AsyncIterator[bytes]:
    exported = _Exported()
    while True:
        began = time.monotonic()
        lines = await desk.run(exported.add, page)
        worked = time.monotonic() - began
        yield lines
        if page.next is None:
            break
        cursor: Cursor = page.next
        began = time.monotonic()
        page = await desk.run(parts.reader.page, wanted, cursor, EXPORT_ROWS)
        await asyncio.sleep(EXPORT_REST * (worked + time.monotonic() - began))
    yield exported.manifest()


class _Exported:
    """What was exported so far. Used in a thread: a page of records takes longer than a call may be held up."""

    def __init__(self) -> None:
        self._count = 0
        self._digest = hashlib.sha256()
        self._sums = Sums()

    def add(self, page: Page) -> bytes:
        """The lines of one page more."""
        lines = b"".join(view.listed_now(stored) + b"\n" for stored in page.records)
        for stored in page.records:
            self._sums.add(stored.data)
        self._digest.update(lines)
        self._count += len(page.records)
        return lines

    def manifest(self) -> bytes:
        """The last line."""
        return manifest(self._count, self._digest.hexdigest(), self._sums)


def manifest(records: int, sha256: str, sums: Sums) -> bytes:
    """The last line of an export: how much it is, what it adds up to, and how much of that is not known."""
    return _encode({"manifest": {"records": records, "sha256": sha256, **sums.answer()}}) + b"\n"


def page_answer(rows: list[bytes], cursor: str | None) -> bytes:
    """A page as it is answered: its records, the cursor of the next one, and what these records add up to."""
    sums = Sums()
    for row in rows:
        sums.add(row)
    return b'{"data":[%b],"next":%b,"sums":%b}' % (b",".join(rows), _encode(cursor), _encode(sums.answer()))


def summed(reader: LedgerReader, wanted: Filter, by: Sequence[str]) -> dict[str, Any]:
    """Sums as they are answered, told apart by ``by`` where it names something.

    The groups come by time where ``by`` has one, and then those that cost most first. Raises :class:`CallerFault` where
    there are too many of them.
    """
    if not by:
        return sums(reader.summary(wanted))
    found = reader.summaries(wanted, by)
    if found is None:
        said = f"There are more than {GROUPS_MAX:,} such groups; ask for fewer records, or tell fewer things apart."
        raise CallerFault("invalid_field", said, param="by")
    whole, groups = found
    times = [index for index, name in enumerate(by) if name in _TIMES]

    def place(group: Group) -> tuple[list[str], int, list[str]]:
        return [group[index] or "" for index in times], -groups[group].cost_nanos, [value or "" for value in group]

    listed = [dict(zip(by, group, strict=True)) | sums(groups[group]) for group in sorted(groups, key=place)]
    return sums(whole) | {"groups": listed}


def sums(summary: Summary) -> dict[str, Any]:
    """A summary as it is answered. Records of ``unknown_cost`` are not in its sum, of ``partial_cost`` in part."""
    states = summary.by_cost_state
    return {
        "records": summary.records,
        "successes": summary.successes,
        "errors": summary.records - summary.successes,
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "cost_nanos": summary.cost_nanos,
        "currency": CURRENCY,
        "cost_complete": summary.unpriced == 0,
        "unknown_cost": states.get(CostState.UNKNOWN, 0),
        "partial_cost": states.get(CostState.PARTIAL, 0),
        "estimated_cost": states.get(CostState.ESTIMATED, 0),
        "by_cost_state": states,
        "unpriced_meters": summary.coverage.answer()["unpriced_meters"],
        "provider_reported": summary.reported.answer(),
        "byok": summary.byok,
    }
