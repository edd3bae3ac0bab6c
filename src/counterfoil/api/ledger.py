"""``GET /v1/ledger``: the figures of the whole ledger, for whoever may see every team."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from counterfoil.api import answers, reading
from counterfoil.api.parts import ControlParts
from counterfoil.tenancy.names import ALL_TEAMS
from counterfoil.tenancy.principal import ScopeMissing


def router(parts: ControlParts) -> APIRouter:
    """The one endpoint."""
    routes = APIRouter(tags=["ledger"])

    @routes.get("/v1/ledger", summary="The ledger's figures", responses=reading.REFUSALS)
    def ledger(request: Request) -> Response:
        """Records, open intents, bodies, erasures, checkpoints and bytes. Needs a management key of all teams."""
        who = reading.principal(parts.directory, request)
        who.need(reading.READ)
        if who.team_id != ALL_TEAMS:
            raise ScopeMissing("admin", "The ledger's figures are of all teams; this key sees its own only.")
        return answers.json(parts.reader.stats())

    return routes
