"""``GET /v1/models`` and ``GET /v1beta/models``: what the team may call, in the shapes every SDK knows.

OpenAI's and Anthropic's clients ask the same path and read different fields of what it gives, so each entry has both
kinds. Google's want a shape of their own, and are shown what speaks their protocol: under ``/v1beta``, and also under
``/v1`` when the key comes as ``x-goog-api-key``. Refusals, too, have the shape that the asking SDK can show.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from counterfoil.api import answers, reading
from counterfoil.api.parts import ControlParts
from counterfoil.errors import CallerFault, Fault
from counterfoil.surfaces import render
from counterfoil.surfaces.gemini import METHODS

_GOOGLE_KEY: Final = "x-goog-api-key"
_NO_DATE: Final = "1970-01-01T00:00:00Z"
"""Anthropic's clients want a date, and say that this one stands for an unknown one."""

_ONE: Final[dict[int | str, dict[str, Any]]] = {
    404: {"description": "There is no such model, or this key may not call it."},
    **reading.REFUSALS,
}


def router(parts: ControlParts) -> APIRouter:
    """The lists, and one of each by name; a name may hold slashes."""
    routes = APIRouter(tags=["models"], route_class=_SdkShaped)

    def callable_by(request: Request) -> list[dict[str, Any]]:
        return parts.models(reading.principal(parts.directory, request))

    @routes.get("/v1/models", summary="What this key may call", responses=reading.REFUSALS)
    async def models(request: Request) -> Response:
        """The aliases of the configuration and the models of each configured provider, as ``provider/model``."""
        if _GOOGLE_KEY in request.headers:
            return await google_models(request)
        listed = [_entry(model) for model in callable_by(request)]
        ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {}
        return answers.json({"object": "list", "data": listed, "has_more": False, **ends})

    @routes.get("/v1/models/{name:path}", summary="One model", responses=_ONE)
    async def model(request: Request, name: str) -> Response:
        """One entry of the list; 404 when this key may not call it."""
        if _GOOGLE_KEY in request.headers:
            return await google_model(request, name)
        found = [_entry(model) for model in callable_by(request) if model["id"] == name]
        return answers.json(_found(found))

    @routes.get("/v1beta/models", summary="What this key may call with Google's SDK", responses=reading.REFUSALS)
    async def google_models(request: Request) -> Response:
        """The models and aliases that speak Google's protocol."""
        return answers.json({"models": [_google_entry(model) for model in callable_by(request) if _is_google(model)]})

    @routes.get("/v1beta/models/{name:path}", summary="One such model", responses=_ONE)
    async def google_model(request: Request, name: str) -> Response:
        """One entry of that list, with or without its provider; 404 when this key may not call it."""
        wanted = (name, f"google/{name}")
        found = [model for model in callable_by(request) if _is_google(model) and model["id"] in wanted]
        return answers.json(_google_entry(_found(found)))

    return routes


class _SdkShaped(APIRoute):
    """Renders faults in the shape of the SDK that asks, as the calls' own paths do."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that FastAPI made, with its faults rendered."""
        handle = super().get_route_handler()

        async def shaped(request: Request) -> Response:
            try:
                return await handle(request)
            except Fault as fault:
                return answers.raw(_renderer(request)(fault, ""), fault.status, dict(fault.headers))

        return shaped


def _renderer(request: Request) -> Callable[[Fault, str], bytes]:
    if _GOOGLE_KEY in request.headers or request.url.path.startswith("/v1beta"):
        return render.google_error
    return render.anthropic_error if "anthropic-version" in request.headers else render.openai_error


def _found(models: list[dict[str, Any]]) -> dict[str, Any]:
    if not models:
        raise CallerFault("model_not_found", "There is no such model, or this key may not call it; see GET /v1/models.")
    return models[0]


def _entry(model: dict[str, Any]) -> dict[str, Any]:
    return {**model, "type": "model", "display_name": model["id"], "created_at": _NO_DATE}


def _is_google(model: dict[str, Any]) -> bool:
    return "google" in model.get("protocols", ())


def _google_entry(model: dict[str, Any]) -> dict[str, Any]:
    name = model["id"]
    return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": METHODS}
