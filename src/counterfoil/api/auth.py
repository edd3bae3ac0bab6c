"""Who may call an endpoint of the control plane, said where the endpoint is declared.

``Depends(guard.require("keys:write"))`` gives the caller's :class:`~counterfoil.tenancy.authority.Authority`, or
answers 401 with the reason, or 403 with the scope that is missing. The rooms below check again what they are asked to
do; this is what makes an endpoint that forgot to ask show in a test.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

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
