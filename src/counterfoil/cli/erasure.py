"""``counterfoil generations erase``: the bodies of some generations go, their records stay.

What was asked and answered is destroyed for good; that a call was made, what it cost, and the chain are as before. Who
erased what is in the audit (``counterfoil teams history``) and, signed, in the ledger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from counterfoil.cli import output, records
from counterfoil.cli.records import ALL, Selection
from counterfoil.cli.remote import Remote
from counterfoil.cli.where import LOCAL, AsJson, Source, admin
from counterfoil.clock import wall_ms
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger.retention import Eraser
from counterfoil.record.record import CaptureState

OPERATOR: Final = "requested by the operator"

Erase = Callable[[str, str], bool]
"""Destroys the bodies of a generation (team id, request id) and says whether there were any."""


class _Kept(msgspec.Struct):
    state: str


class _Row(msgspec.Struct):
    request_id: str
    team_id: str
    capture: _Kept

    @property
    def has_bodies(self) -> bool:
        return self.capture.state == CaptureState.STORED


def erase(
    *generation_ids: Annotated[str, Parameter(help="Our ids (gen_…), or the provider's own.")],
    selection: Selection = ALL,
    yes: Annotated[bool, Parameter(help="Do it; otherwise it is only said what would be erased.", negative=())] = False,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Destroy what was captured of some generations, for ever: by id, or all that a filter finds (--end-user ann).

    Records, costs and the chain stay. Backups made before still have the bodies.
    """
    if bool(generation_ids) == (selection != ALL):
        raise ConfigError("Say which: ids, or a filter such as --end-user ann or --session s1.")
    with records.opened(source) as ledger:
        found = [_row(ledger.one(one)) for one in generation_ids] or list(map(_row, records.every(ledger, selection)))
    going = [row for row in found if row.has_bodies]
    if not yes and going:
        raise ConfigError(
            f"This destroys the bodies of {len(going):,} of {len(found):,} generations. Do it with --yes."
        )
    done = 0
    with _eraser(source) as erase_one:
        for row in going:
            done += erase_one(row.team_id, row.request_id)
    if as_json:
        output.json({"ok": True, "generations": len(found), "erased": done})
    else:
        rest = "" if done == len(found) else " The others had none (any more)."
        output.lines(f"Erased the bodies of {done:,} of {len(found):,} generations.{rest}")


def _row(data: bytes) -> _Row:
    return msgspec.json.decode(data, type=_Row)


@contextlib.contextmanager
def _eraser(source: Source) -> Generator[Erase]:
    remote = source.remote()
    if remote is not None:
        yield lambda team_id, request_id: _erased(remote, team_id, request_id)
        return
    eraser = Eraser.of(DataFolder.existing(source.root), wall_ms)
    with admin(source.root) as tenancy:

        def erase_here(team_id: str, request_id: str) -> bool:
            tenancy.note_erasure(team_id, request_id)
            return eraser.erase_id(team_id, request_id, OPERATOR)

        yield erase_here


def _erased(remote: Remote, team_id: str, request_id: str) -> bool:
    path = f"/v1/generations/{output.in_path(request_id)}/content"
    return bool(remote.call("DELETE", path, {"team": team_id})["erased"])
