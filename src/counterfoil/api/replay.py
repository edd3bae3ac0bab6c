"""Run a recorded generation again, and compare any two.

A key of the team with ``generations:replay`` (every inference key has it) may run what its team recorded. The answer of
a rerun shows bodies, so it needs ``generations:content`` as well. Another team's generation is not found.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from counterfoil.api import answers, reading, view
from counterfoil.errors import CallerFault
from counterfoil.replay import diff
from counterfoil.replay.one import RUNS_MAX, CannotReplay, Original, Plan, Replayer, Rerun, TooExpensive, Wish
from counterfoil.replay.override import Edit, Overrides
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.principal import Principal

REPLAY: Final = "generations:replay"
SHOWN_BYTES_MAX: Final = 1 << 20
"""A dry run shows a body up to this size; a larger one is named by its length."""
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "The body, or an override in it, is not valid; field names it."},
    404: {"description": "No such generation in this team. Another team's looks exactly the same."},
    409: {"description": "It cannot be run again, or may cost more than allowed; reason says why."},
    **reading.REFUSALS,
}
_BODY: Final = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "model": {"type": "string", "description": "provider/model or an alias."},
                        "provider": {"type": "string", "description": "Who serves it, the model's own name kept."},
                        "patch": {"type": "object", "description": "A JSON merge patch of the request (RFC 7396)."},
                        "edits": {
                            "type": "array",
                            "description": "Edits by JSON pointer (RFC 6901), in order.",
                            "items": {
                                "type": "object",
                                "required": ["path"],
                                "properties": {
                                    "path": {"type": "string"},
                                    "value": {},
                                    "op": {"enum": ["replace", "add", "remove"]},
                                },
                            },
                        },
                        "stream": {"type": "boolean", "description": "Ask the provider for a stream, or not."},
                        "dry_run": {"type": "boolean", "description": "Only say what would be sent."},
                        "max_cost_nanos": {"type": "integer", "description": "Of all runs together."},
                        "n": {"type": "integer", "minimum": 1, "maximum": RUNS_MAX},
                        "pass_through": {
                            "type": "boolean",
                            "description": "Answer with the new generation's own body, as it comes.",
                        },
                    },
                }
            }
        }
    }
}


@dataclass(frozen=True, slots=True)
class ReplayParts:
    """What the endpoints need: who asks, and who runs."""

    directory: Directory
    replayer: Replayer


class _Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a rerun; the overrides stand beside the rest."""

    model: str | None = None
    provider: str | None = None
    patch: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    edits: tuple[msgspec.Raw, ...] = ()
    stream: bool | None = None
    dry_run: bool = False
    max_cost_nanos: Annotated[int, msgspec.Meta(ge=0)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=RUNS_MAX)] = 1
    pass_through: bool = False


_decode = msgspec.json.Decoder(_Asked).decode


def router(parts: ReplayParts) -> APIRouter:
    """The rerun and the difference. Include it before the paths that hold an id."""
    routes = APIRouter(tags=["replay"])
    replayer = parts.replayer

    @routes.get("/v1/generations/diff", summary="The difference of two generations", responses=_ANSWERS)
    async def difference(
        request: Request,
        a: Annotated[str, Query(min_length=1, description="An id, ours or the provider's.")],
        b: Annotated[str, Query(min_length=1, description="Another.")],
        team: Annotated[str | None, Query(description="For a management key of all teams.")] = None,
    ) -> Response:
        """What differs: text word by word, tool calls by structure, tokens, times, cost. Unknown figures are null."""
        who = reading.principal(parts.directory, request)
        seen = reading.team(who, team)
        who.need(reading.CONTENT)
        left, right = await asyncio.to_thread(lambda: (replayer.reader.find(seen, a), replayer.reader.find(seen, b)))
        if left is None or right is None:
            return answers.raw(answers.NOT_FOUND, 404)
        return answers.json(diff.plain(await asyncio.to_thread(replayer.difference, left, right)))

    @routes.post(
        "/v1/generations/{id}/replay", summary="Run a generation again", responses=_ANSWERS, openapi_extra=_BODY
    )
    async def replay(
        request: Request,
        id: str,  # noqa: A002  # the parameter's public name
        team: Annotated[str | None, Query(description="For a management key of all teams.")] = None,
    ) -> Response:
        """Send the captured request again, changed as asked, and answer with both records and their difference."""
        who = reading.principal(parts.directory, request)
        seen = reading.team(who, team, REPLAY)
        who.need(reading.CONTENT)
        wish, passes = _wish(await request.body())
        try:
            original = await asyncio.to_thread(replayer.original, seen, id)
            if original is None:
                return answers.raw(answers.NOT_FOUND, 404)
            plan = replayer.plan(original, wish)
            if wish.dry_run:
                return answers.json(_planned(original, plan, wish))
            replayer.check(plan, wish)
        except (CannotReplay, TooExpensive) as refused:
            return answers.refusal("conflict", reason=refused.reason, message=refused.message, field=refused.param)
        acting = parts.directory.for_team(who, original.stored.team_id)
        if passes:
            return await _passed(replayer, acting, original, plan)
        done = await replayer.runs(acting, original, plan, wish)
        return answers.raw(await asyncio.to_thread(_shown, replayer, original, done))

    return routes


def _wish(body: bytes) -> tuple[Wish, bool]:
    try:
        asked = _decode(body or b"{}")
        edits = tuple(msgspec.json.decode(edit, type=Edit) for edit in asked.edits)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallerFault("invalid_field", str(error)) from error
    if asked.pass_through and (asked.n != 1 or asked.dry_run):
        raise CallerFault("invalid_field", "pass_through is for one run.", param="pass_through")
    changes = Overrides(patch=asked.patch, edits=edits, model=asked.model, provider=asked.provider, stream=asked.stream)
    return Wish(overrides=changes, dry_run=asked.dry_run, max_cost_nanos=asked.max_cost_nanos, n=asked.n), (
        asked.pass_through
    )


async def _passed(replayer: Replayer, who: Principal, original: Original, plan: Plan) -> Response:
    """The new generation's own body as it comes. Its head is not known before it: the status is in the record."""
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
    task = asyncio.create_task(replayer.run(who, original, plan, pieces.put_nowait))
    task.add_done_callback(lambda _: pieces.put_nowait(None))
    first = await pieces.get()
    media_type = "text/event-stream" if plan.stream and not task.done() else original.capture.response_type

    async def relayed() -> AsyncIterator[bytes]:
        piece = first
        try:
            while piece is not None:
                yield piece
                piece = await pieces.get()
        finally:
            await _ended(task)

    return StreamingResponse(relayed(), media_type=media_type, headers={"x-replay-of": original.stored.id})


async def _ended(task: asyncio.Task[Rerun]) -> None:
    """The reader has left or has everything: hang up, as a client would."""
    if not task.done():
        task.cancel()
    await asyncio.wait((task,))


def _planned(original: Original, plan: Plan, wish: Wish) -> dict[str, Any]:
    body = plan.request.body
    shown = body.decode("utf-8", "replace") if len(body) <= SHOWN_BYTES_MAX else None
    high = plan.estimate.high_nanos
    return {
        "ok": True,
        "dry_run": True,
        "replay_of": original.stored.id,
        "endpoint": plan.request.target,
        "content_type": plan.request.content_type,
        "model_id": plan.model_id,
        "provider": plan.provider,
        "same_bytes": plan.same_bytes,
        "body_bytes": len(body),
        "body": shown,
        "n": wish.n,
        "estimate": plan.estimate,
        "estimate_high_nanos_all_runs": None if high is None else high * wish.n,
    }


def _shown(replayer: Replayer, original: Original, done: list[Rerun]) -> bytes:
    """Both records and the difference, for each run."""
    runs: list[bytes] = []
    for run in done:
        stored = replayer.reader.find(original.stored.team_id, run.request_id)
        if stored is None:  # the ledger could not be written, and the caller was told so by the status
            runs.append(msgspec.json.encode({"request_id": run.request_id, "status_code": run.status, "record": None}))
            continue
        between = msgspec.json.encode(replayer.difference(original.stored, stored))
        runs.append(
            b'{"request_id":%b,"status_code":%d,"record":%b,"difference":%b}'
            % (msgspec.json.encode(run.request_id), run.status, view.listed_now(stored), between)
        )
    return b'{"ok":true,"original":%b,"runs":[%b]}' % (view.listed_now(original.stored), b",".join(runs))
