"""Bulk runs as a worker offers them: start, look, cancel, resume; and what is taken up when a worker starts.

Each run is driven by exactly one worker, the one that holds its lock. Any worker answers questions about it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec

from counterfoil.errors import CallerFault, Fault
from counterfoil.ledger.filters import Filter
from counterfoil.ledger.intents import open_ids
from counterfoil.ledger.query import LedgerReader
from counterfoil.record import ids
from counterfoil.record.record import CaptureState
from counterfoil.replay.bulk import identity
from counterfoil.replay.bulk.appraiser import Appraiser
from counterfoil.replay.bulk.asked import ITEMS_MAX, Asked, External, checked
from counterfoil.replay.bulk.driver import Driver, Halt
from counterfoil.replay.bulk.outcome import Verdict
from counterfoil.replay.bulk.store import Progress, Run, RunState, RunStore
from counterfoil.replay.one import Replayer, why
from counterfoil.tenancy.principal import Principal

MATCHED_MAX: Final = 1_000_000
"""Records among which a sample is drawn: some 100 MB while it is."""
RUNS_DRIVEN_MAX: Final = 16
"""Runs that one worker drives at once; another one is refused rather than starved."""
ENDING_SECONDS: Final = 10.0
"""How long resuming waits for the last items of a cancelled run; longer calls are for the caller to wait for."""

SETTLED_SECONDS: Final = 30.0
"""How long a run waits for the calls of a dead worker to become records: its replacement takes a second."""
_SETTLED_STEP: Final = 0.2
_log = logging.getLogger("counterfoil.replay")


class Runs:
    """One worker's bulk runs. Lives on its loop; ``holder(key_id, team_id)`` gives a key's principal as of now."""

    def __init__(
        self,
        store: RunStore,
        replayer: Replayer,
        journal: Path,
        holder: Callable[[str, str], Principal],
        now_ms: Callable[[], int],
    ) -> None:
        self.store = store
        self.replayer = replayer
        self._journal = journal
        self._holder = holder
        self._now_ms = now_ms
        self._appraiser = Appraiser()
        self._drivers: dict[str, Driver] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._used: dict[str, set[str]] = {}

    @property
    def closing(self) -> bool:
        """Whether this worker stops."""
        return self.replayer.gateway.stopping

    def in_flight(self, run_id: str) -> int | None:
        """Items under way, None when this worker does not drive the run."""
        driver = self._drivers.get(run_id)
        return None if driver is None else driver.in_flight

    # What is asked.

    async def start(self, principal: Principal, asked: Asked) -> Run:
        """Begin a run in the principal's team, and give it. Raises :class:`CallerFault` when nothing can be run."""
        checked(asked)
        self._room()
        chosen, excluded = await asyncio.to_thread(self._chosen, principal.team_id, asked)
        if not chosen:
            left = ", ".join(f"{count} {reason}" for reason, count in sorted(excluded.items())) or "no generation fits"
            raise CallerFault("invalid_field", f"There is nothing to run again: {left}.", param="filter")
        created_ms = self._now_ms()
        run = Run(
            run_id=identity.run(created_ms, os.urandom(10)),
            team_id=principal.team_id,
            key_id=principal.key_id,
            created_ms=created_ms,
            state=RunState.RUNNING,
            reason=None,
            finished_ms=None,
            items=len(chosen),
            budget_nanos=asked.budget_nanos,
            excluded=excluded,
            secret=os.urandom(identity.SECRET_BYTES),
            asked=msgspec.structs.replace(asked, ids=()),
        )
        descriptor = self.store.claim(run.run_id)
        await asyncio.to_thread(self.store.add, run, chosen)
        self._drive(run, descriptor)
        return run

    async def cancel(self, run: Run) -> bool:
        """Start nothing more of ``run``, wherever it is driven; False when it was over already."""
        ended = await asyncio.to_thread(self.store.end, run.run_id, RunState.CANCELLED, None, self._now_ms())
        driver = self._drivers.get(run.run_id)
        if driver is not None:
            driver.halt(Halt.CANCELLED)
        return ended

    async def resume(self, principal: Principal, run: Run, budget_nanos: int | None) -> Run:
        """Go on with ``run`` as ``principal``; with a new budget when one is given.

        Raises :class:`CallerFault` ``conflict`` when it is driven. One that was just cancelled is let go of first.
        """
        self._room()
        ending = self._tasks.get(run.run_id)
        if ending is not None and run.state is not RunState.RUNNING:
            await asyncio.wait((ending,), timeout=ENDING_SECONDS)
        descriptor = None if run.run_id in self._drivers else self.store.claim(run.run_id)
        if descriptor is None:
            raise CallerFault("conflict", "This run is under way.")
        budget = run.budget_nanos if budget_nanos is None else budget_nanos
        await asyncio.to_thread(self.store.begin_again, run.run_id, principal.key_id, budget)
        again = await asyncio.to_thread(self.store.find, run.team_id, run.run_id)
        if again is None:
            raise CallerFault("not_found")
        self._drive(again, descriptor)
        return again

    async def post(self, run: Run, verdicts: Iterable[tuple[int, int, Verdict]]) -> int:
        """Keep verdicts of judges outside; give how many. Raises :class:`CallerFault` for an unknown place or judge."""
        names = {judge.name for judge in run.asked.judges if isinstance(judge, External)}
        posted = list(verdicts)
        for item, target, verdict in posted:
            if not (0 <= item < run.items and 0 <= target < len(run.asked.targets)) or verdict.judge not in names:
                message = "A verdict names an item, a target and a judge of this run that is external."
                raise CallerFault("invalid_field", message, param="verdicts")
        await asyncio.to_thread(self.store.post, run.run_id, posted)
        return len(posted)

    def progress(self, run: Run) -> Progress:
        """How far ``run`` is. Blocks on the database."""
        return self.store.progress(run)

    # A worker's beginning and end.

    def take_up(self) -> None:
        """Go on with every run that is to be running and that nobody drives."""
        for run in self.store.unfinished():
            descriptor = self.store.claim(run.run_id)
            if descriptor is not None:
                self._drive(run, descriptor)

    async def close(self) -> None:
        """Stop driving; runs that are not over go on in the next worker that starts."""
        for driver in self._drivers.values():
            driver.halt(Halt.LEAVING)
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        await self._appraiser.close()
        self.store.close()

    # Inside.

    def _room(self) -> None:
        if len(self._drivers) >= RUNS_DRIVEN_MAX:
            raise CallerFault("conflict", f"This worker drives {RUNS_DRIVEN_MAX} runs already; wait for one to end.")

    def _drive(self, run: Run, descriptor: int | None) -> None:
        def acting() -> Principal:
            return self._holder(run.key_id, run.team_id)

        used = self._used.setdefault(run.run_id, set())
        driver = Driver(run, self.store, self.replayer, self._appraiser, acting, used)
        self._drivers[run.run_id] = driver
        self._tasks[run.run_id] = asyncio.get_running_loop().create_task(self._driven(run, driver, descriptor))

    async def _driven(self, run: Run, driver: Driver, descriptor: int | None) -> None:
        """Drive to the end, note how it ended, and let go of the run: in this order."""
        state, reason = RunState.STOPPED, cast("str | None", "internal")
        try:
            if await self._settled(run):
                state, reason = await driver.drive()
            else:
                state, reason = (RunState.RUNNING, None) if self.closing else (RunState.STOPPED, "unsettled")
        except Fault as fault:
            reason = fault.short_code
        finally:
            if state is not RunState.RUNNING:
                _log.info("replay_run_ended", extra={"run_id": run.run_id, "state": state.value, "reason": reason})
                await asyncio.to_thread(self.store.end, run.run_id, state, reason, self._now_ms())
            if state is RunState.FINISHED:
                self._used.pop(run.run_id, None)
            del self._drivers[run.run_id], self._tasks[run.run_id]
            if descriptor is not None:
                os.close(descriptor)

    async def _settled(self, run: Run) -> bool:
        """Whether no call of this run is open in any journal, so that the ledger knows all that was done before."""
        deadline = asyncio.get_running_loop().time() + SETTLED_SECONDS
        while asyncio.get_running_loop().time() < deadline and not self.closing:
            open_now = await asyncio.to_thread(open_ids, self._journal)
            if not any(identity.belongs(run.secret, run.created_ms, one) for one in open_now):
                return True
            await asyncio.sleep(_SETTLED_STEP)
        return False

    def _chosen(self, team_id: str, asked: Asked) -> tuple[Sequence[int], dict[str, int]]:
        """The generations to rerun, in the order of their ids, and how many were left out, by reason."""
        if asked.filter is None:
            return _drawn(*_listed(self.replayer.reader, team_id, asked.ids), asked)
        wanted = msgspec.structs.replace(asked.filter, team_id=team_id)
        found = self.replayer.reader.identities(wanted, MATCHED_MAX + 1)
        if len(found) > MATCHED_MAX:
            message = f"More than {MATCHED_MAX} records fit; narrow the filter."
            raise CallerFault("invalid_field", message, param="filter")
        excluded: dict[str, int] = {}
        there: list[int] = []
        for one in found:
            if one.capture_state is CaptureState.STORED:
                there.append(one.value)
            else:
                excluded[one.capture_state] = excluded.get(one.capture_state, 0) + 1
        return _drawn(there, excluded, asked)


def month(run: Run) -> Filter | None:
    """What the run's filter would have found in the 30 days before it; None for a list of ids."""
    if run.asked.filter is None:
        return None
    days_30 = 30 * 86_400_000
    return msgspec.structs.replace(
        run.asked.filter, team_id=run.team_id, since_ms=run.created_ms - days_30, until_ms=run.created_ms
    )


def _listed(reader: LedgerReader, team_id: str, wanted: Sequence[str]) -> tuple[list[int], dict[str, int]]:
    there: dict[int, None] = {}
    excluded: dict[str, int] = {}
    for any_id in wanted:
        stored = reader.find(team_id, any_id)
        if stored is None:
            raise CallerFault("not_found")
        if stored.capture_state is CaptureState.STORED:
            there[ids.parse(stored.id) or 0] = None
        else:
            reason = why(stored).value
            excluded[reason] = excluded.get(reason, 0) + 1
    return list(there), excluded


def _drawn(there: list[int], excluded: dict[str, int], asked: Asked) -> tuple[list[int], dict[str, int]]:
    """A sample when one is asked for: equal seeds draw equal samples of equal records."""
    if asked.sample is not None and asked.sample < len(there):
        drawn = random.Random(asked.seed).sample(there, asked.sample)  # noqa: S311  # to be repeated, not to be secret
        excluded = {**excluded, "not_sampled": len(there) - len(drawn)}
        there = sorted(drawn) if asked.filter is not None else [one for one in there if one in set(drawn)]
    if len(there) > ITEMS_MAX:
        message = f"{len(there)} generations fit, a run has at most {ITEMS_MAX}: give a sample."
        raise CallerFault("invalid_field", message, param="sample")
    return there, excluded
