"""What one call is to another one: it reruns it, or it judges it. Pure.

A link is one short text, so that it passes through the journal, a column and an index as one thing: ``gen_…`` for a
rerun, ``judge:gen_…`` for a judge's call. In a record the two are fields of their own.
"""

from __future__ import annotations

from typing import Final

import msgspec

from counterfoil.record.record import Record

JUDGE: Final = "judge:"


def judging(generation: str) -> str:
    """The link of a call that judges ``generation``."""
    return JUDGE + generation


def linked(record: Record, link: str) -> Record:
    """``record`` with what ``link`` says: ``replay_of``, or ``judge_of``."""
    if link.startswith(JUDGE):
        return msgspec.structs.replace(record, judge_of=link[len(JUDGE) :])
    return msgspec.structs.replace(record, replay_of=link)
