"""Bulk runs: many recorded generations run again, under a budget, with a report.

A run belongs to a team and is seen with ``generations:replay`` in that team; another team's run is not found. To start
or resume one, and to read texts in its report, takes ``generations:content`` too, as a single rerun does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse

from counterfoil.api import answers, reading
from counterfoil.api.filtering import filters
from counterfoil.api.schema import REF
from counterfoil.errors import CallerFault
from counterfoil.ledger.filters import Filter
from counterfoil.replay.bulk import prose
from counterfoil.replay.bulk.asked import (
    CONCURRENCY_MAX,
    ITEMS_MAX,
    Asked,
    Judge,
    Name,
    Target,
)
from counterfoil.replay.bulk.identity import is_run
from counterfoil.replay.bulk.outcome import Verdict
from counterfoil.replay.bulk.report import Report, report
from counterfoil.replay.bulk.runs import Runs, month
from counterfoil.replay.bulk.store import Run, RunState
from counterfoil.replay.diff import TextDifference
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.principal import Principal

REPLAY: Final = "generations:replay"
RESULTS_MAX: Final = 1_000
VERDICTS_MAX: Final = 10_000
EVENTS_SECONDS: Final = 0.3
"""How often a stream of events looks for news."""
PING_SECONDS: Final = 15.0
RETRIES_MAX: Final = 5
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "The body or a parameter is not valid; field names it."},
    404: {"description": "No such run in this team. Another team's looks exactly the same."},
    409: {"description": "The run is under way, or this worker drives too many."},
    **reading.REFUSALS,
}
_TEXT: Final = {"schema": {"type": "string"}}
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "For Last-Event-ID."},
        "event": {"type": "string", "enum": ["item", "progress", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_EVENTS: Final[dict[str, Any]] = {
    "summary": "A bulk run as it goes, as server-sent events",
    "response_class": StreamingResponse,
    "responses": {200: {"content": {"text/event-stream": {"schema": _EVENT}}}, **_ANSWERS},
}
_REPORT: Final[dict[str, Any]] = {
    "summary": "The report on a bulk run",
    "responses": {200: {"content": {"text/markdown": _TEXT, "text/html": _TEXT}}, **_ANSWERS},
}
Nanos = Annotated[int, Meta(ge=0)]
Team = Annotated[str | None, Query(description="For a management key of all teams.")]


@dataclass(frozen=True, slots=True)
class ReplaysParts:
    """What the endpoints need: who asks, and who drives."""

    directory: Directory
    runs: Runs


class RunFilter(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The filters of lists, by the same names."""

    since: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    status: int | None = None
    success: bool | None = None
    error_code: str | None = None
    model: str | None = None
    provider: str | None = None
    endpoint: str | None = None
    app: str | None = None
    key: str | None = None
    session: str | None = None
    end_user: str | None = None
    stream: bool | None = None
    byok: bool | None = None
    replay_of: str | None = None
    judge_of: str | None = None
    min_cost_nanos: int | None = None
    max_cost_nanos: int | None = None
    reruns: bool = False


class RunBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a bulk run is started with: a filter or ids, and against what."""

    name: Name | None = None
    filter: RunFilter | None = None
    ids: Annotated[tuple[str, ...], Meta(max_length=ITEMS_MAX)] = ()
    sample: Annotated[int, Meta(ge=1, le=ITEMS_MAX)] | None = None
    seed: int = 0
    targets: tuple[str | Target, ...] = (Target(),)
    concurrency: Annotated[int, Meta(ge=1, le=CONCURRENCY_MAX)] = 4
    rate: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    budget_nanos: Nanos | None = None
    retries: Annotated[int, Meta(ge=0, le=RETRIES_MAX)] = 2
    judges: tuple[Judge, ...] = ()
    dry_run: bool = False


class RunAgain(msgspec.Struct, forbid_unknown_fields=True):
    """What a bulk run goes on with."""

    budget_nanos: Nanos | None = None


class RunVerdict(msgspec.Struct, forbid_unknown_fields=True):
    """What a judge outside found of one item at one target."""

    item: int
    target: int
    judge: str
    passed: bool | None = None
    score: float | None = None


class RunVerdicts(msgspec.Struct, forbid_unknown_fields=True):
    """Verdicts, posted together."""

    verdicts: Annotated[tuple[RunVerdict, ...], Meta(max_length=VERDICTS_MAX)]


def _documented(kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """How a request's body is documented, and the schemas that it refers to."""
    [schema], schemas = msgspec.json.schema_components([kind], ref_template=REF)
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}, schemas


_START, _RESUME, _JUDGE = (_documented(kind) for kind in (RunBody, RunAgain, RunVerdicts))


def components() -> dict[str, Any]:
    """JSON Schemas by name, for ``components.schemas`` of the OpenAPI document."""
    return {**_START[1], **_RESUME[1], **_JUDGE[1]}


class _Gate:
    """Who asks, and which run it may see."""

    def __init__(self, parts: ReplaysParts) -> None:
        self._directory = parts.directory
        self._runs = parts.runs

    def who(self, request: Request, *, content: bool = False) -> Principal:
        principal = reading.principal(self._directory, request)
        principal.need(REPLAY)
        if content:
            principal.need(reading.CONTENT)
        return principal

    async def found(self, principal: Principal, run_id: str, team: str | None) -> Run:
        """Raises :class:`CallerFault` ``not_found``, for another team's run as for none."""
        seen = reading.team(principal, team, REPLAY)
        run = await asyncio.to_thread(self._runs.store.find, seen, run_id) if is_run(run_id) else None
        if run is None:
            raise CallerFault("not_found")
        return run


def router(parts: ReplaysParts) -> APIRouter:
    """The endpoints under ``/v1/replays``."""
    routes = APIRouter(tags=["replay"])
    gate = _Gate(parts)
    _add_beginning(routes, parts, gate)
    _add_steering(routes, parts, gate)
    _add_outcome(routes, parts.runs, gate)
    return routes


def _add_beginning(routes: APIRouter, parts: ReplaysParts, gate: _Gate) -> None:
    """Start, list, look."""
    runs = parts.runs

    @routes.post(
        "/v1/replays", summary="Start a bulk run", responses=_ANSWERS, status_code=201, openapi_extra=_START[0]
    )
    async def start(request: Request, team: Team = None) -> Response:
        """Run many generations again: those of a filter, or a list of ids. Answers at once; the run goes on.

        With `dry_run` nothing is sent and no run is made. The answer (200) says what a run would do: how many calls to
        which target, which generations cannot be run again and why, what the calls may cost and which nobody can price.
        """
        principal = gate.who(request, content=True)
        named = reading.team(principal, team, REPLAY)
        if named is None:
            raise CallerFault("invalid_field", "Name the team whose generations are to run again.", param="team")
        body: RunBody = _read(await request.body(), RunBody)
        asked = _asked(body)
        acting = parts.directory.for_team(principal, named)
        if body.dry_run:
            return answers.json(await runs.rehearse(acting, asked))
        run = await runs.start(acting, asked)
        return answers.json(await asyncio.to_thread(shown, runs, run), 201)

    @routes.get("/v1/replays", summary="The bulk runs", responses=_ANSWERS)
    async def listed(request: Request, team: Team = None) -> Response:
        """The newest 200, newest first."""
        seen = reading.team(gate.who(request), team, REPLAY)
        return answers.json(
            {"data": await asyncio.to_thread(lambda: [shown(runs, r) for r in runs.store.listed(seen)])}
        )

    @routes.get("/v1/replays/{id}", summary="One bulk run and how far it is", responses=_ANSWERS)
    async def one(request: Request, id: str, team: Team = None) -> Response:  # noqa: A002  # the parameter's public name
        """What was asked, its state, and its progress."""
        return answers.json(await asyncio.to_thread(shown, runs, await gate.found(gate.who(request), id, team)))


def _add_steering(routes: APIRouter, parts: ReplaysParts, gate: _Gate) -> None:
    """Cancel, resume, judge, delete."""
    runs = parts.runs

    @routes.delete("/v1/replays/{id}", summary="Delete a bulk run", responses=_ANSWERS)
    async def delete(request: Request, id: str, team: Team = None) -> Response:  # noqa: A002
        """Forget what was asked, the results and the verdicts. The records of its calls stay. 409 while it runs."""
        await runs.delete(await gate.found(gate.who(request), id, team))
        return answers.json({"ok": True, "deleted": id})

    @routes.post("/v1/replays/{id}/cancel", summary="Cancel a bulk run", responses=_ANSWERS)
    async def cancel(request: Request, id: str, team: Team = None) -> Response:  # noqa: A002
        """Start no more calls. Those in flight end, and count. A cancelled run can be resumed."""
        principal = gate.who(request)
        run = await gate.found(principal, id, team)
        cancelled = await runs.cancel(run)
        again = await gate.found(principal, id, team)
        return answers.json({"ok": True, "cancelled": cancelled, **await asyncio.to_thread(shown, runs, again)})

    @routes.post(
        "/v1/replays/{id}/resume", summary="Go on with a bulk run", responses=_ANSWERS, openapi_extra=_RESUME[0]
    )
    async def resume(request: Request, id: str, team: Team = None) -> Response:  # noqa: A002
        """Run what is not done, as this key, perhaps with another budget. Nothing finished is paid again."""
        principal = gate.who(request, content=True)
        run = await gate.found(principal, id, team)
        again = _read(await request.body(), RunAgain)
        acting = parts.directory.for_team(principal, run.team_id)
        resumed = await runs.resume(acting, run, again.budget_nanos)
        return answers.json(await asyncio.to_thread(shown, runs, resumed))

    @routes.post(
        "/v1/replays/{id}/verdicts",
        summary="Verdicts of judges outside",
        responses=_ANSWERS,
        openapi_extra=_JUDGE[0],
    )
    async def verdicts(request: Request, id: str, team: Team = None) -> Response:  # noqa: A002
        """For judges of type `external`: a later verdict on an item replaces the earlier one."""
        run = await gate.found(gate.who(request), id, team)
        posted = _read(await request.body(), RunVerdicts).verdicts
        judged = [(one.item, one.target, Verdict(one.judge, one.passed, one.score)) for one in posted]
        return answers.json({"ok": True, "kept": await runs.post(run, judged)})


def _add_outcome(routes: APIRouter, runs: Runs, gate: _Gate) -> None:
    """Results, events, the report."""

    @routes.get("/v1/replays/{id}/results", summary="What came of each item", responses=_ANSWERS)
    async def results(
        request: Request,
        id: str,  # noqa: A002
        after: Annotated[int, Query(ge=0, description="`next` of the page before.")] = 0,
        limit: Annotated[int, Query(ge=1, le=RESULTS_MAX)] = 100,
        team: Team = None,
    ) -> Response:
        """Figures of both sides, agreement, every call made, verdicts; in the order in which the items ended.

        `next` goes on where this page ends, null at the end; `last` is the place of its last row, for news later.
        """
        run = await gate.found(gate.who(request), id, team)
        rows = await asyncio.to_thread(runs.store.results, run.run_id, after, limit)
        last = rows[-1][0] if rows else None
        more = last if len(rows) == limit else None
        return answers.json({"data": [result for _, result in rows], "next": more, "last": last})

    @routes.get("/v1/replays/{id}/events", **_EVENTS)
    async def events(request: Request, id: str, team: Team = None) -> Response:  # noqa: A002
        """`item` for each result, `progress` when it changed, `end` when the run is over. Last-Event-ID is honoured."""
        run = await gate.found(gate.who(request), id, team)
        last = request.headers.get("last-event-id", "")
        begin = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else 0
        return StreamingResponse(_events(runs, run, begin), media_type="text/event-stream")

    @routes.get("/v1/replays/{id}/report", **_REPORT)
    async def reported(
        request: Request,
        id: str,  # noqa: A002
        format: Annotated[str, Query(pattern="^(json|markdown|html)$")] = "json",  # noqa: A002  # the public name
        texts: Annotated[bool, Query(description="Show in the page what the largest differences say.")] = False,  # noqa: FBT002
        team: Team = None,
    ) -> Response:
        """Per target: cost, latency and tokens against the originals, errors, agreement, the largest differences."""
        principal = gate.who(request, content=texts)
        run = await gate.found(principal, id, team)
        return await asyncio.to_thread(_reported, runs, run, format, texts, str(request.base_url))


def shown(runs: Runs, run: Run) -> dict[str, Any]:
    """A run as it is answered. Blocks on the database."""
    asked = run.asked
    return {
        "run_id": run.run_id,
        "name": asked.name,
        "team_id": run.team_id,
        "key_id": run.key_id,
        "created_ms": run.created_ms,
        "finished_ms": run.finished_ms,
        "state": run.state,
        "reason": run.reason,
        "items": run.items,
        "excluded": run.excluded,
        "filter": asked.shown_filter or None,
        "sample": asked.sample,
        "seed": asked.seed,
        "targets": [{**msgspec.to_builtins(target), "name": target.label} for target in asked.targets],
        "judges": msgspec.to_builtins(asked.judges),
        "concurrency": asked.concurrency,
        "rate": asked.rate,
        "retries": asked.retries,
        "budget_nanos": run.budget_nanos,
        "in_flight": runs.in_flight(run.run_id),
        "progress": runs.progress(run),
    }


def _read(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallerFault("invalid_field", str(error)) from error


def _asked(body: RunBody) -> Asked:
    told = body.filter
    wanted: Filter | None = None
    if told is not None:
        values = {name: getattr(told, name) for name in told.__struct_fields__ if name != "reruns"}
        left_out = None if told.reruns or told.replay_of or told.judge_of else False
        wanted = msgspec.structs.replace(filters(**values), rerun=left_out, judge=left_out)
    return Asked(
        name=body.name,
        filter=wanted,
        shown_filter=msgspec.to_builtins(told) if told is not None else {},
        ids=body.ids,
        sample=body.sample,
        seed=body.seed,
        targets=tuple(Target(model=one) if isinstance(one, str) else one for one in body.targets),
        concurrency=body.concurrency,
        rate=body.rate,
        budget_nanos=body.budget_nanos,
        retries=body.retries,
        judges=body.judges,
    )


async def _events(runs: Runs, run: Run, place: int) -> AsyncIterator[bytes]:
    """News of a run until it is over, or this worker stops; then the reader connects again, to another."""
    last: Any = None
    quiet = 0.0
    while True:
        state = await asyncio.to_thread(runs.store.state, run.run_id)
        progress = await asyncio.to_thread(runs.progress, run)
        rows = await asyncio.to_thread(runs.store.results, run.run_id, place, RESULTS_MAX)
        for place, result in rows:  # noqa: PLR1704  # goes on from the last one
            yield _event("item", result, place)
        quiet = 0.0 if rows or progress != last else quiet + EVENTS_SECONDS
        if progress != last:
            last = progress
            yield _event("progress", {"state": state, "progress": progress})
        if state is None:
            yield _event("end", {"state": "deleted"})
            return
        if state is not RunState.RUNNING and len(rows) < RESULTS_MAX and runs.in_flight(run.run_id) is None:
            yield _event("end", {"state": state, "progress": progress})
            return
        if runs.closing:
            return
        if quiet >= PING_SECONDS:
            quiet = 0.0
            yield b": still here\n\n"
        if len(rows) < RESULTS_MAX:
            await asyncio.sleep(EVENTS_SECONDS)


def _event(name: str, value: Any, place: int | None = None) -> bytes:
    head = b"" if place is None else b"id: %d\n" % place
    return b"%bevent: %b\ndata: %b\n\n" % (head, name.encode(), msgspec.json.encode(value))


def _reported(runs: Runs, run: Run, kind: str, texts: bool, base_url: str) -> Response:  # noqa: FBT001  # handed through
    results = [result for _, result in runs.store.results(run.run_id)]
    wanted = month(run)
    sums = None if wanted is None else runs.replayer.reader.summary(wanted)
    made = report(run, runs.progress(run), results, sums)
    if kind == "json":
        return answers.json(made)
    if kind == "markdown":
        return PlainTextResponse(prose.markdown(made), media_type="text/markdown")
    shown_texts = _texts(runs, run, made) if texts else {}
    return HTMLResponse(prose.page(made, shown_texts, base_url), headers=answers.PAGE)


def _texts(runs: Runs, run: Run, made: Report) -> dict[str, TextDifference]:
    """The word diffs of the largest differences, by the rerun's id."""
    found: dict[str, TextDifference] = {}
    for one in (one for target in made.targets for one in target.largest):
        a, b = (runs.replayer.reader.find(run.team_id, request_id) for request_id in (one.original, one.rerun))
        if a is not None and b is not None and (text := runs.replayer.difference(a, b).text) is not None:
            found[one.rerun] = text
    return found
