"""A bulk run without its calls: how many there would be, which cannot be made and why, and what they may cost.

Each item is looked at as the driver would look at it before its call: the original is opened, the request made anew,
its targets planned and priced. So what is said here is what the run would do at this moment; nothing is sent or kept.

Where there are more items than :data:`ITEMS_LOOKED_AT_MAX`, so many of them are looked at, evenly over all, and the
sums are raised in proportion and say so (``extrapolated``). What a judge would be asked depends on answers that nobody
has yet; its calls are estimated as if each candidate said what the original said.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Final

from msgspec import Struct

from counterfoil.errors import CallerFault
from counterfoil.record import ids
from counterfoil.replay.bulk.asked import Asked, ModelJudge, Target
from counterfoil.replay.bulk.choice import Chosen, LeftOut
from counterfoil.replay.bulk.modeljudge import Hearing, ask
from counterfoil.replay.one import CannotReplay, Original, Replayer, Wish
from counterfoil.replay.text import said

ITEMS_LOOKED_AT_MAX: Final = 2_000
"""Some two seconds of a thread; more of them say little more about the sum."""
NAMED_MAX: Final = 100
"""Calls of one target that are named with what is wrong with them; all are counted."""
UNPRICED: Final = "unpriced"
_SLICE: Final = 20
"""Items that one turn in a thread looks at, so that the loop's other work comes in between."""


class Expected(Struct, frozen=True, kw_only=True):
    """The calls to one target, or of one judge, and what they may cost: at least ``low``, at most ``high``.

    The sums are of the calls with a known price. ``unestimated`` have none, ``cannot`` will not be made at all; both by
    reason, and some of them by name.
    """

    name: str
    calls: int
    low_nanos: int
    high_nanos: int
    unestimated: dict[str, int]
    cannot: dict[str, int]
    named: list[LeftOut]


class Rehearsal(Struct, frozen=True, kw_only=True):
    """What a run would do. ``fits_budget`` is null without a budget, or when not every call could be estimated."""

    items: int
    looked_at: int
    extrapolated: bool
    excluded: dict[str, int]
    not_replayable: Sequence[LeftOut]
    targets: list[Expected]
    judges: list[Expected]
    calls: int
    low_nanos: int
    high_nanos: int
    unestimated: int
    budget_nanos: int | None
    fits_budget: bool | None


class _Tally:
    """What is added up about one target or judge."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = self.low = self.high = 0
        self.unestimated: Counter[str] = Counter()
        self.cannot: Counter[str] = Counter()
        self.named: list[LeftOut] = []

    def add(self, generation: str, low: int | None, high: int | None, reason: str | None = None) -> None:
        """One call that would be made."""
        self.calls += 1
        if low is None or high is None:
            self.unestimated[UNPRICED] += 1
            self._name(generation, reason or UNPRICED)
        else:
            self.low += low
            self.high += high

    def refuse(self, generation: str, reason: str) -> None:
        """One call that cannot be made."""
        self.cannot[reason] += 1
        self._name(generation, reason)

    def _name(self, generation: str, reason: str) -> None:
        if len(self.named) < NAMED_MAX:
            self.named.append(LeftOut(generation, reason))

    def expected(self, items: int, looked_at: int) -> Expected:
        """The sums for ``items``, of which so many were looked at."""

        def raised(figure: int) -> int:
            return figure if looked_at == items else -(-figure * items // looked_at)

        return Expected(
            name=self.name,
            calls=raised(self.calls),
            low_nanos=raised(self.low),
            high_nanos=raised(self.high),
            unestimated={reason: raised(count) for reason, count in self.unestimated.items()},
            cannot={reason: raised(count) for reason, count in self.cannot.items()},
            named=self.named,
        )


async def rehearse(replayer: Replayer, team_id: str, asked: Asked, chosen: Chosen) -> Rehearsal:
    """What a run of ``chosen`` would do. Looks at items in threads, a few at a time."""
    generations = _evenly(chosen.generations)
    targets = [(target, _Tally(target.label)) for target in asked.targets]
    judges = [(judge, _Tally(judge.name)) for judge in asked.judges if isinstance(judge, ModelJudge)]

    def look(some: list[int]) -> None:
        for value in some:
            _look(replayer, team_id, value, targets, judges)

    remaining = iter(generations)
    while some := list(islice(remaining, _SLICE)):
        await asyncio.to_thread(look, some)
    counts = len(chosen.generations), len(generations)
    expected = ([tally.expected(*counts) for _, tally in targets], [tally.expected(*counts) for _, tally in judges])
    return _summed(asked, chosen, counts, *expected)


def _evenly(generations: Sequence[int]) -> Sequence[int]:
    if len(generations) <= ITEMS_LOOKED_AT_MAX:
        return generations
    return [generations[at * len(generations) // ITEMS_LOOKED_AT_MAX] for at in range(ITEMS_LOOKED_AT_MAX)]


def _look(
    replayer: Replayer,
    team_id: str,
    value: int,
    targets: list[tuple[Target, _Tally]],
    judges: list[tuple[ModelJudge, _Tally]],
) -> None:
    """Look at one item as the driver would before it calls."""
    generation = ids.text(value)
    try:
        original = replayer.original(team_id, generation)
    except CannotReplay as refused:
        original, reason = None, refused.reason
    except CallerFault as fault:
        original, reason = None, fault.short_code
    else:
        reason = "not_found"
    if original is None:
        for _, tally in targets:
            tally.refuse(generation, reason)
        return
    for target, tally in targets:
        try:
            plan = replayer.plan(original, Wish(overrides=target.overrides))
        except CallerFault as fault:
            tally.refuse(generation, fault.short_code)
            continue
        tally.add(generation, plan.estimate.low_nanos, plan.estimate.high_nanos, plan.estimate.reason)
        for judge, judged in judges:
            _hear(replayer, team_id, original, judge, judged)


def _hear(replayer: Replayer, team_id: str, original: Original, judge: ModelJudge, tally: _Tally) -> None:
    text = said(original.capture).text
    try:
        _, high = ask(replayer, team_id, Hearing(judge, original, text, text, original.stored.id))
    except CallerFault as fault:
        tally.refuse(original.stored.id, fault.short_code)
    else:
        tally.add(original.stored.id, None if high is None else 0, high)


def _summed(
    asked: Asked, chosen: Chosen, counts: tuple[int, int], targets: list[Expected], judges: list[Expected]
) -> Rehearsal:
    items, looked_at = counts
    every = [*targets, *judges]
    unestimated = sum(sum(one.unestimated.values()) for one in every)
    high = sum(one.high_nanos for one in every)
    budget = asked.budget_nanos
    return Rehearsal(
        items=items,
        looked_at=looked_at,
        extrapolated=looked_at < items,
        excluded=chosen.excluded,
        not_replayable=chosen.left_out,
        targets=targets,
        judges=judges,
        calls=sum(one.calls for one in every),
        low_nanos=sum(one.low_nanos for one in every),
        high_nanos=high,
        unestimated=unestimated,
        budget_nanos=budget,
        fits_budget=None if budget is None or unestimated else high <= budget,
    )
