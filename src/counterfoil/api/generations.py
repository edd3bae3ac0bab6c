"""Many records, and what belongs to one: lists, sums, exports, captured bodies and their erasure.

Lists are newest first, with a cursor that stays valid while records come: it names a place, not an offset. Every sum
says how many records it could not price, so an unknown cost never passes for none.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from counterfoil.api import answers, reading
from counterfoil.api.parts import ControlParts
from counterfoil.api.reading import Desk
from counterfoil.errors import CallerFault
from counterfoil.ledger.query import PAGE_ROWS_MAX, Cursor, Filter, StoredRecord, Summary
from counterfoil.record.money import CURRENCY

ERASE: Final = "generations:erase"
THREADS: Final = 2
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "No such generation."}, **reading.REFUSALS}
_encode = msgspec.json.Encoder().encode


def filters(
    app: str | None = None,
    key: str | None = None,
    endpoint: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    status: int | None = None,
    error_code: str | None = None,
    success: bool | None = None,
    stream: bool | None = None,
    byok: bool | None = None,
    session: str | None = None,
    replay_of: str | None = None,
    end_user: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    min_cost_nanos: int | None = None,
    max_cost_nanos: int | None = None,
) -> Filter:
    """Which records: everything given must hold. Times are Unix milliseconds of admission."""
    return Filter(
        app_id=app,
        key_id=key,
        endpoint=endpoint,
        model_id=model,
        provider=provider,
        status_code=status,
        error_code=error_code,
        success=success,
        stream=stream,
        byok=byok,
        session_id=session,
        replay_of=replay_of,
        end_user=end_user,
        since_ms=since_ms,
        until_ms=until_ms,
        min_cost_nanos=min_cost_nanos,
        max_cost_nanos=max_cost_nanos,
    )


Wanted = Annotated[Filter, Depends(filters)]


def cursor_text(cursor: Cursor | None) -> str | None:
    """A cursor as clients carry it."""
    if cursor is None:
        return None
    return base64.urlsafe_b64encode(f"{cursor.created_at_ms}.{cursor.seq}".encode()).decode().rstrip("=")


def parse_cursor(text: str | None) -> Cursor | None:
    """The cursor in ``text``. Raises :class:`CallerFault` ``invalid_field`` for any other text."""
    if not text:
        return None
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        at, _, seq = plain.partition(".")
        return Cursor(int(at), int(seq))
    except ValueError as error:
        raise CallerFault("invalid_field", "This is no cursor of a list.", param="cursor") from error


def sums(summary: Summary) -> dict[str, Any]:
    """A summary as it is answered. ``unpriced_records`` are in ``records`` and not, or not wholly, in ``cost_nanos``."""
    return {
        "records": summary.records,
        "successes": summary.successes,
        "errors": summary.records - summary.successes,
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "cost_nanos": summary.cost_nanos,
        "currency": CURRENCY,
        "unpriced_records": summary.unpriced,
        "by_cost_state": summary.by_cost_state,
    }


def router(parts: ControlParts) -> APIRouter:
    """The endpoints under ``/v1/generations``."""
    routes = APIRouter(tags=["generations"])
    desk = Desk("counterfoil-lists", THREADS)

    def narrowed(request: Request, wanted: Filter) -> Filter:
        who = reading.principal(parts.directory, request)
        team_id = reading.team(who, request.query_params.get("team"))
        return msgspec.structs.replace(wanted, team_id=team_id)

    @routes.get("/v1/generations/search", summary="Records, newest first", responses=reading.REFUSALS)
    async def search(
        request: Request,
        wanted: Wanted,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_ROWS_MAX)] = 50,
    ) -> Response:
        """A page of records without their bodies, and the cursor of the next (null at the end)."""
        narrow = narrowed(request, wanted)
        page = await desk.run(parts.reader.page, narrow, parse_cursor(cursor), limit)
        rows = b",".join(listed(record) for record in page.records)
        return answers.raw(b'{"data":[%b],"next":%b}' % (rows, _encode(cursor_text(page.next))))

    @routes.get("/v1/generations/summary", summary="Sums over records", responses=reading.REFUSALS)
    async def summary(request: Request, wanted: Wanted) -> Response:
        """Counts, tokens and cost, and how many records have a cost that is unknown or known in part only."""
        narrow = narrowed(request, wanted)
        return answers.json(sums(await desk.run(parts.reader.summary, narrow)))

    @routes.get("/v1/generations/export", summary="Every record, as JSON lines", responses=reading.REFUSALS)
    async def export(request: Request, wanted: Wanted) -> Response:
        """One record a line, newest first, then a manifest: how many, and the SHA-256 of the lines before it."""
        narrow = narrowed(request, wanted)
        return StreamingResponse(exported(narrow), media_type="application/x-ndjson")

    async def exported(wanted: Filter) -> AsyncIterator[bytes]:
        count, digest = 0, hashlib.sha256()
        cursor: Cursor | None = None
        while True:
            page = await desk.run(parts.reader.page, wanted, cursor, PAGE_ROWS_MAX)
            lines = b"".join(listed(record) + b"\n" for record in page.records)
            digest.update(lines)
            count += len(page.records)
            yield lines
            cursor = page.next
            if cursor is None:
                break
        yield _encode({"manifest": {"records": count, "sha256": digest.hexdigest()}}) + b"\n"

    @routes.delete("/v1/generations/{any_id}/content", summary="Erase the captured bodies", responses=_NOT_FOUND)
    async def erase(request: Request, any_id: str) -> Response:
        """Destroy the bodies of one generation. The record stays, and the chain with it."""
        who = reading.principal(parts.directory, request)
        team_id = reading.team(who, request.query_params.get("team"), ERASE)
        found = await desk.run(parts.reader.find, team_id, any_id)
        if found is None:
            return answers.raw(answers.NOT_FOUND, 404)
        return answers.json({"ok": True, "erased": await desk.run(parts.erase, found.team_id, found.id)})

    return routes


def listed(record: StoredRecord) -> bytes:
    """A record in a list: its canonical bytes and its place in the chain, without the bodies."""
    return b'%b,"chain":%b}' % (record.data[:-1], _encode(record.chain))
