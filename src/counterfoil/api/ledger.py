"""The ledger as a whole, for whoever may see every team; and the proof of one record, for whoever may see the record.

A verification reads everything there is, so it is asked for by an admin, runs elsewhere (``ledger/verification.py``)
and is looked at later. It is the gateway's word about itself: whoever wants more keeps checkpoints and proofs.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from counterfoil.api import answers, reading
from counterfoil.api.parts import ControlParts
from counterfoil.api.reading import Desk
from counterfoil.api.schema import REF
from counterfoil.errors import CallerFault
from counterfoil.ledger.evidence import CHECKPOINTS_MAX, Evidence, Shown
from counterfoil.ledger.verification import Verification, Verifications
from counterfoil.tenancy.documents import plain
from counterfoil.tenancy.names import ALL_TEAMS
from counterfoil.tenancy.principal import ScopeMissing

ADMIN: Final = "admin"
THREADS: Final = 1
"""Proofs and pages of checkpoints read at once: each reads some 4,096 digests at most."""
_NOT_YET: Final[dict[int | str, dict[str, Any]]] = {
    404: {"description": "No such record in this team. Another team's looks exactly the same."},
    409: {"description": "No checkpoint covers the record yet; one does within a minute."},
    **reading.REFUSALS,
}
_INVALID: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "The body or a parameter is not valid; field names it."}
}
_VERIFYING: Final[dict[int | str, dict[str, Any]]] = {
    **_INVALID,
    409: {"description": "A verification is under way."},
    **reading.REFUSALS,
}
_NONE_YET: Final[dict[int | str, dict[str, Any]]] = {
    404: {"description": "None was asked for yet."},
    **reading.REFUSALS,
}


class VerificationBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be verified: everything, or the chain and its checkpoints alone."""

    chain_only: bool = False


[_BODY], _BODY_SCHEMAS = msgspec.json.schema_components([VerificationBody], ref_template=REF)


def components() -> dict[str, Any]:
    """JSON Schemas by name, for ``components.schemas`` of the OpenAPI document."""
    return _BODY_SCHEMAS


def router(parts: ControlParts) -> APIRouter:
    """The endpoints under ``/v1/ledger``, and a record's proof."""
    routes = APIRouter(tags=["ledger"])

    @routes.get("/v1/ledger", summary="The ledger's figures", responses=reading.REFUSALS)
    def ledger(request: Request) -> Response:
        """Records, open intents, bodies, erasures, checkpoints and bytes. Needs a management key of all teams."""
        _of_all_teams(parts, request, reading.READ)
        return answers.json(parts.reader.stats())

    if parts.evidence is not None:
        _add_evidence(routes, parts, parts.evidence)
    if parts.verifications is not None:
        _add_verification(routes, parts, parts.verifications)
    return routes


def _add_evidence(routes: APIRouter, parts: ControlParts, evidence: Evidence) -> None:
    desk = Desk("evidence", THREADS)

    @routes.get("/v1/generations/{id}/proof", summary="The proof of one record", responses=_NOT_YET, tags=["ledger"])
    async def proof(
        request: Request,
        any_id: Annotated[str, Path(alias="id", description="Ours or the provider's.")],
        team: Annotated[str | None, Query(description="For a management key of all teams.")] = None,
    ) -> Response:
        """That the record stands in a signed ledger, checkable offline with the public key alone.

        It shows no byte of any other record. `docs/guarantees.md` has the steps of a check.
        """

        def proven() -> dict[str, Any] | None:
            reader = reading.principal(parts.directory, request)
            stored = parts.reader.find(reading.team(reader, team), any_id)
            return None if stored is None else evidence.proof(stored)

        found = await desk.run(proven)
        return answers.raw(answers.NOT_FOUND, 404) if found is None else answers.json(found)

    @routes.get("/v1/ledger/checkpoints", summary="The signed checkpoints", responses=_INVALID | reading.REFUSALS)
    async def checkpoints(
        request: Request,
        after: Annotated[int | None, Query(ge=0, description="Behind this number, the oldest first.")] = None,
        before: Annotated[int | None, Query(ge=0, description="Before this number, the newest first.")] = None,
        limit: Annotated[int, Query(ge=1, le=CHECKPOINTS_MAX)] = 50,
    ) -> Response:
        """The newest first; with `after` the oldest first, for whoever keeps them elsewhere as they come.

        `statement`, `signature` and `public_key` are the line that a second place keeps. `next` is the number where the
        next page begins (as `after`, or as `before`), null when this one is the last. Needs a management key of all
        teams.
        """

        def read() -> list[Shown]:
            _of_all_teams(parts, request, reading.READ)
            if after is not None and before is not None:
                raise CallerFault("invalid_field", "Give after or before, not both.", param="before")
            return evidence.checkpoints(after, before, limit)

        found = await desk.run(read)
        return answers.json({"data": [shown(one) for one in found], "next": next_page(found, limit)})


def _add_verification(routes: APIRouter, parts: ControlParts, verifications: Verifications) -> None:
    @routes.post(
        "/v1/ledger/verification",
        summary="Verify the ledger",
        responses=_VERIFYING,
        status_code=202,
        openapi_extra={"requestBody": {"content": {"application/json": {"schema": _BODY}}}},
    )
    async def verify(request: Request) -> Response:
        """Have everything checked, in a process beside the gateway; one at a time. Look at it with GET.

        Needs `admin` over all teams.
        """
        _of_all_teams(parts, request, ADMIN)
        try:
            wanted = msgspec.json.decode(await request.body() or b"{}", type=VerificationBody)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CallerFault("invalid_field", str(error)) from error
        return answers.json(verified(verifications.begin(chain_only=wanted.chain_only)), 202)

    @routes.get("/v1/ledger/verification", summary="What the last verification found", responses=_NONE_YET)
    def verification(request: Request) -> Response:
        """`state` (`running`, `finished`, `failed`, `interrupted`), and `report` when it is finished.

        The report is what `counterfoil ledger verify --json` prints. Needs `admin` over all teams.
        """
        _of_all_teams(parts, request, ADMIN)
        found = verifications.last()
        return answers.raw(answers.NOT_FOUND, 404) if found is None else answers.json(verified(found))


def verified(one: Verification) -> dict[str, Any]:
    """A verification as it is answered."""
    return plain(one)


def shown(one: Shown) -> dict[str, Any]:
    """A checkpoint as it is answered."""
    return {"number": one.number, **msgspec.to_builtins(one.said), **msgspec.to_builtins(one.line)}


def next_page(found: list[Shown], limit: int) -> int | None:
    """Where the next page begins, None when ``found`` is the last one."""
    return found[-1].number if len(found) == limit else None


def _of_all_teams(parts: ControlParts, request: Request, scope: str) -> None:
    who = reading.principal(parts.directory, request)
    who.need(scope)
    if who.team_id != ALL_TEAMS:
        raise ScopeMissing("admin", "The ledger's figures are of all teams; this key sees its own only.")
