"""``GET /v1/models``: what the team may call, in the shape every OpenAI client knows."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from counterfoil.api import answers, reading
from counterfoil.api.parts import ControlParts


def router(parts: ControlParts) -> APIRouter:
    """The list, and one of it by name; a name may hold slashes."""
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models", summary="What this key may call", responses=reading.REFUSALS)
    async def models(request: Request) -> Response:
        """The aliases of the configuration and the models of each configured provider, as ``provider/model``."""
        principal = reading.principal(parts.directory, request)
        return answers.json({"object": "list", "data": parts.models(principal)})

    @routes.get("/v1/models/{name:path}", summary="One model", responses=reading.REFUSALS)
    async def model(request: Request, name: str) -> Response:
        """One entry of the list; 404 when this key may not call it."""
        principal = reading.principal(parts.directory, request)
        found = [entry for entry in parts.models(principal) if entry["id"] == name]
        return answers.json(found[0]) if found else answers.raw(answers.NOT_FOUND, 404)

    return routes
