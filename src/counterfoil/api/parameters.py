"""Refuses query parameters that an endpoint does not know, and those that are given twice.

A filter that silently does nothing is worse than none: a sum for ``app_id=web``, where the parameter is called ``app``,
would be the sum of everything. So would one for two models be that of the second alone. Endpoints that answer SDKs or
probes, which send words of their own, do not ask for this.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, Final

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request

from counterfoil.errors import CallerFault

REFUSED: Final[dict[int | str, dict[str, Any]]] = {400: {"description": "A parameter is not valid; field names it."}}
"""What the document says of every endpoint that asks for this, beside its own."""
_NAME: Final = re.compile(r"[A-Za-z][\w.-]{0,39}\Z", re.ASCII)
"""What is repeated of a name that nobody knows: it may be anything, a credential in the wrong place among it."""


def known_only(request: Request) -> None:
    """A dependency of routes. Raises :class:`CallerFault` for a parameter that is unknown or comes twice."""
    given = [name for name, _ in request.query_params.multi_items()]
    if not given:
        return
    route = request.scope.get("route")
    known = sorted(set(_declared(route.dependant))) if isinstance(route, APIRoute) else []
    for name in given:
        if name not in known:
            raise CallerFault("invalid_field", _unknown(name, known), param=name if _NAME.match(name) else None)
        if given.count(name) > 1:
            raise CallerFault("invalid_field", f"{name} is given twice; ask once for each.", param=name)


def _declared(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        yield field.alias
    for other in dependant.dependencies:
        yield from _declared(other)


def _unknown(name: str, known: list[str]) -> str:
    said = f"There is no parameter {name} here" if _NAME.match(name) else "There is no such parameter here"
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"{said}; did you mean {near[0]}?"
    return f"{said}; there are: {', '.join(known)}." if known else f"{said}; this endpoint has none."
