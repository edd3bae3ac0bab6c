"""Who may call an endpoint of the control plane, said where the endpoint is declared.

``Depends(guard.require("keys:write"))`` gives the caller's :class:`~counterfoil.tenancy.authority.Authority`, or
answers 401 with the reason, or 403 with the scope that is missing. The rooms below check again what they are asked to
do; this is what makes an endpoint that forgot to ask show in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from counterfoil.api import reading
from counterfoil.tenancy.authority import Authority
from counterfoil.tenancy.directory import Directory


class Guard:
    """Makes dependencies that check keys against one directory."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def require(self, scope: str) -> Callable[[Request], Authority]:
        """A dependency that lets through whoever has ``scope``, and says on whose behalf the call is made."""

        def authority(request: Request) -> Authority:
            principal = reading.principal(self._directory, request)
            principal.need(scope)
            return Authority.of(principal)

        return authority


def key_first(directory: Directory) -> type[APIRoute]:
    """A class of routes that check the key before anything of the body is read.

    FastAPI reads a body that an endpoint declares before it asks what the endpoint depends on; a stranger must not be
    able to make us hold one. An endpoint that reads its body itself asks for the key before anyway.
    """

    class KeyFirst(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_known(request: Request) -> Response:
                reading.principal(directory, request)
                return await handle(request)

            return handle_known

    return KeyFirst
