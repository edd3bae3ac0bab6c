"""Which generations a run reruns: those of a filter or a list that still have their bodies, perhaps a sample of them.

What is left out is counted by reason, and the first of them are named, so that nobody has to guess why a run is smaller
than what was asked for.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from counterfoil.errors import CallerFault
from counterfoil.ledger.kept import unkept
from counterfoil.ledger.query import LedgerReader
from counterfoil.record import ids
from counterfoil.record.record import CaptureState
from counterfoil.replay.bulk.asked import ITEMS_MAX, Asked

MATCHED_MAX: Final = 1_000_000
"""Records among which a sample is drawn: some 100 MB while it is."""
NAMED_MAX: Final = 1_000
"""Generations that cannot be run again and are named; beyond that they are only counted."""
NOT_SAMPLED: Final = "not_sampled"


class LeftOut(Struct, frozen=True):
    """A generation that cannot be run again, and why."""

    request_id: str
    reason: str


class Chosen(Struct, frozen=True):
    """What is run again, in the order of the ids (or of the list), and what is not: ``excluded`` counts by reason."""

    generations: Sequence[int]
    excluded: dict[str, int]
    left_out: Sequence[LeftOut] = ()


def choose(reader: LedgerReader, team_id: str, asked: Asked) -> Chosen:
    """What ``asked`` means in this team. Raises :class:`CallerFault` when it is too much or names what is not there."""
    found = _listed(reader, team_id, asked.ids) if asked.filter is None else _filtered(reader, team_id, asked)
    return _drawn(found, asked)


def _filtered(reader: LedgerReader, team_id: str, asked: Asked) -> Chosen:
    wanted = None if asked.filter is None else msgspec.structs.replace(asked.filter, team_id=team_id)
    found = [] if wanted is None else reader.identities(wanted, MATCHED_MAX + 1)
    if len(found) > MATCHED_MAX:
        raise CallerFault("invalid_field", f"More than {MATCHED_MAX} records fit; narrow the filter.", param="filter")
    gone = [one for one in found if one.capture_state is not CaptureState.STORED]
    return Chosen(
        [one.value for one in found if one.capture_state is CaptureState.STORED],
        dict(Counter(one.capture_state.value for one in gone)),
        [LeftOut(ids.text(one.value), one.capture_state.value) for one in gone[:NAMED_MAX]],
    )


def _listed(reader: LedgerReader, team_id: str, wanted: Sequence[str]) -> Chosen:
    there: dict[int, None] = {}
    excluded: Counter[str] = Counter()
    left_out: list[LeftOut] = []
    for any_id in wanted:
        stored = reader.find(team_id, any_id)
        if stored is None:
            raise CallerFault("not_found")
        reason = unkept(stored)
        if reason is None:
            there[ids.parse(stored.id) or 0] = None
            continue
        excluded[reason.value] += 1
        if len(left_out) < NAMED_MAX:
            left_out.append(LeftOut(stored.id, reason.value))
    return Chosen(list(there), dict(excluded), left_out)


def _drawn(found: Chosen, asked: Asked) -> Chosen:
    """A sample when one is asked for: equal seeds draw equal samples of equal records."""
    there, excluded = found.generations, found.excluded
    if asked.sample is not None and asked.sample < len(there):
        drawn = random.Random(asked.seed).sample(there, asked.sample)  # noqa: S311  # to be repeated, not to be secret
        excluded = {**excluded, NOT_SAMPLED: len(there) - len(drawn)}
        kept = set(drawn)
        there = sorted(drawn) if asked.filter is not None else [one for one in there if one in kept]
    if len(there) > ITEMS_MAX:
        message = f"{len(there)} generations fit, a run has at most {ITEMS_MAX}: give a sample."
        raise CallerFault("invalid_field", message, param="sample")
    return Chosen(there, excluded, found.left_out)
