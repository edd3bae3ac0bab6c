"""Who reads and what they may see: the rules that every reading endpoint shares.

- Any key of a team reads the records of its team, whichever key made the call.
- A management key needs ``generations:read``. One of all teams may name a ``team``; one of a team only its own.
- Bodies need ``generations:content``, which an inference key has unless its team asks for it by name.
- The team is part of the query, so what belongs to others is not found rather than refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from starlette.requests import Request

from counterfoil.tenancy import keys
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.names import ALL_TEAMS
from counterfoil.tenancy.principal import Principal, ScopeMissing

READ: Final = "generations:read"
CONTENT: Final = "generations:content"
REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"description": "No key, or one that cannot be used; reason says why."},
    403: {"description": "The key lacks the scope that needs names."},
    503: {"description": "The ledger cannot be read."},
}
_T = TypeVar("_T")


def principal(directory: Directory, request: Request) -> Principal:
    """Whoever holds the request's key. Raises :class:`~counterfoil.tenancy.principal.KeyRefused`."""
    headers: list[tuple[bytes, bytes]] = request.scope["headers"]
    return directory.authenticate(keys.from_headers(dict(reversed(headers))))


def team(reader: Principal, named: str | None, scope: str = READ) -> str | None:
    """The team whose records ``reader`` asks for, None for all; ``named`` is the ``team`` it named, if any.

    Raises :class:`~counterfoil.tenancy.principal.ScopeMissing` for a key without ``scope``, or for a team not its own.
    """
    reader.need(scope)
    if reader.team_id == ALL_TEAMS:
        return named or None
    if named and named != reader.team_id:
        raise ScopeMissing("admin", "This key sees its own team only.")
    return reader.team_id


class Desk:
    """A few threads that read the ledger, so that no query ever holds up the loop that relays calls."""

    def __init__(self, name: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[..., _T], *values: Any) -> _T:
        """The result of ``work(*values)``, computed in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *values)

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False)
