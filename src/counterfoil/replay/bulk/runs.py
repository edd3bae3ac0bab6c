"""Bulk runs as a worker offers them: start, look, cancel, resume; and what is taken up when a worker starts.

Each run is driven by exactly one worker, the one that holds its lock. Any worker answers questions about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, cast

import msgspec

from counterfoil.errors import CallerFault, Fault
from counterfoil.ledger.filters import Filter
from counterfoil.ledger.intents import open_ids
from counterfoil.replay.bulk import identity
from counterfoil.replay.bulk.appraiser import Appraiser
from counterfoil.replay.bulk.asked import Asked, External, checked
from counterfoil.replay.bulk.choice import Chosen, choose
from counterfoil.replay.bulk.driver import Driver, Halt
from counterfoil.replay.bulk.outcome import Verdict
from counterfoil.replay.bulk.rehearsal import Rehearsal, rehearse
from counterfoil.replay.bulk.store import Progress, Run, RunState, RunStore
from counterfoil.replay.one import Replayer
from counterfoil.tenancy.principal import Principal

RUNS_DRIVEN_MAX: Final = 16
"""Runs that one worker drives at once; another one is refused rather than starved."""
ENDING_SECONDS: Final = 10.0
"""How long resuming waits for the last items of a cancelled run; longer calls are for the caller to wait for."""

SETTLED_SECONDS: Final = 30.0
"""How long a run waits for the calls of a dead worker to become records: its replacement takes a second."""
SWEEP_SECONDS: Final = 3600.0
"""How often runs that were kept long enough are looked for."""
MS_PER_DAY: Final = 86_400_000
_SETTLED_STEP: Final = 0.2
_log = logging.getLogger("counterfoil.replay")


class Runs:
    """One worker's bulk runs, kept for ``retention_days`` (0: for ever). Lives on its loop.

    ``holder(key_id, team_id)`` gives a key's principal as of now.
    """

    def __init__(
        self,
        store: RunStore,
        replayer: Replayer,
        journal: Path,
        holder: Callable[[str, str], Principal],
        now_ms: Callable[[], int],
        retention_days: int = 0,
    ) -> None:
        self.store = store
        self.replayer = replayer
        self._journal = journal
        self._holder = holder
        self._now_ms = now_ms
        self._retention_days = retention_days
        self._rehearsing = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None
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
        chosen = await self._chosen(principal, asked)
        created_ms = self._now_ms()
        run = Run(
            run_id=identity.run(created_ms, os.urandom(10)),
            team_id=principal.team_id,
            key_id=principal.key_id,
            created_ms=created_ms,
            state=RunState.RUNNING,
            reason=None,
            finished_ms=None,
            items=len(chosen.generations),
            budget_nanos=asked.budget_nanos,
            excluded=chosen.excluded,
            secret=os.urandom(identity.SECRET_BYTES),
            asked=msgspec.structs.replace(asked, ids=()),
        )
        with contextlib.ExitStack() as lock:
            descriptor = self._claimed(run.run_id, lock)
            await asyncio.to_thread(self.store.add, run, chosen.generations)
            lock.pop_all()
        self._drive(run, descriptor)
        return run

    async def rehearse(self, principal: Principal, asked: Asked) -> Rehearsal:
        """What a run would do and may cost; nothing is sent. Raises :class:`CallerFault` as :meth:`start` does."""
        checked(asked)
        async with self._rehearsing:
            chosen = await self._chosen(principal, asked)
            return await rehearse(self.replayer, principal.team_id, asked, chosen)

    async def delete(self, run: Run) -> None:
        """Forget ``run``: what was asked, its items, results and verdicts. Its calls' records stay in the ledger.

        Raises :class:`CallerFault` ``conflict`` while it is driven, or is to be.
        """
        if run.state is RunState.RUNNING or run.run_id in self._drivers or not await self._forgotten(run.run_id):
            raise CallerFault("conflict", "This run is under way: cancel it first.")

    async def sweep(self) -> int:
        """Forget the runs that ended longer ago than they are kept; give how many."""
        if not self._retention_days:
            return 0
        before_ms = self._now_ms() - self._retention_days * MS_PER_DAY
        old = await asyncio.to_thread(self.store.ended_before, before_ms)
        return sum([await self._forgotten(run_id) for run_id in old if run_id not in self._drivers])

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
        with contextlib.ExitStack() as lock:
            descriptor = self._claimed(run.run_id, lock)
            budget = run.budget_nanos if budget_nanos is None else budget_nanos
            await asyncio.to_thread(self.store.begin_again, run.run_id, principal.key_id, budget)
            again = await asyncio.to_thread(self.store.find, run.team_id, run.run_id)
            if again is None:  # deleted meanwhile
                raise CallerFault("not_found")
            lock.pop_all()
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
        """Go on with every run that is to be running and that nobody drives; forget old ones now and then."""
        for run in self.store.unfinished():
            descriptor = self.store.claim(run.run_id)
            if descriptor is not None:
                self._drive(run, descriptor)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweeping())

    async def close(self) -> None:
        """Stop driving; runs that are not over go on in the next worker that starts."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait((self._sweeper,))
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

    async def _chosen(self, principal: Principal, asked: Asked) -> Chosen:
        chosen = await asyncio.to_thread(choose, self.replayer.reader, principal.team_id, asked)
        if not chosen.generations:
            counts = sorted(chosen.excluded.items())
            left = ", ".join(f"{count} {reason}" for reason, count in counts) or "no generation fits"
            raise CallerFault("invalid_field", f"There is nothing to run again: {left}.", param="filter")
        return chosen

    def _claimed(self, run_id: str, lock: contextlib.ExitStack) -> int:
        """The descriptor that makes this worker the driver of a run; ``lock`` lets go of it, unless it is emptied."""
        descriptor = None if run_id in self._drivers else self.store.claim(run_id)
        if descriptor is None:
            raise CallerFault("conflict", "This run is under way.")
        lock.callback(os.close, descriptor)
        return descriptor

    async def _forgotten(self, run_id: str) -> bool:
        """Delete a run that nobody drives, or is to drive; False for any other."""
        descriptor = self.store.claim(run_id)
        if descriptor is None:
            return False
        try:
            if await asyncio.to_thread(self.store.state, run_id) is RunState.RUNNING:  # resumed meanwhile
                return False
            await asyncio.to_thread(self.store.delete, run_id)
        finally:
            os.close(descriptor)
        self._used.pop(run_id, None)
        return True

    async def _sweeping(self) -> None:
        while True:
            try:
                if swept := await self.sweep():
                    _log.info("replay_runs_forgotten", extra={"runs": swept})
            except Fault as fault:
                _log.warning("replay_sweep_failed", extra={"reason": fault.short_code})
            await asyncio.sleep(SWEEP_SECONDS)

    def _drive(self, run: Run, descriptor: int) -> None:
        def acting() -> Principal:
            return self._holder(run.key_id, run.team_id)

        used = self._used.setdefault(run.run_id, set())
        driver = Driver(run, self.store, self.replayer, self._appraiser, acting, used)
        self._drivers[run.run_id] = driver
        self._tasks[run.run_id] = asyncio.get_running_loop().create_task(self._driven(run, driver, descriptor))

    async def _driven(self, run: Run, driver: Driver, descriptor: int) -> None:
        """Drive to the end, note how it ended, and let go of the run: in this order.

        Where that cannot be noted the run still says that it is running: the next worker that starts goes on with it.
        """
        state, reason = RunState.STOPPED, cast("str | None", "internal")
        try:
            if await self._settled(run):
                state, reason = await driver.drive()
            else:
                state, reason = (RunState.RUNNING, None) if self.closing else (RunState.STOPPED, "unsettled")
        except Fault as fault:
            reason = fault.short_code
        finally:
            try:
                await self._note_end(run, state, reason)
            finally:
                del self._drivers[run.run_id], self._tasks[run.run_id]
                os.close(descriptor)

    async def _note_end(self, run: Run, state: RunState, reason: str | None) -> None:
        if state is RunState.RUNNING:
            return
        about = {"run_id": run.run_id, "state": state.value, "reason": reason}
        try:
            await asyncio.to_thread(self.store.end, run.run_id, state, reason, self._now_ms())
        except Fault:
            _log.exception("replay_run_end_not_noted", extra=about)
            return
        _log.info("replay_run_ended", extra=about)
        if state is RunState.FINISHED:
            self._used.pop(run.run_id, None)

    async def _settled(self, run: Run) -> bool:
        """Whether no call of this run is open in any journal, so that the ledger knows all that was done before."""
        deadline = asyncio.get_running_loop().time() + SETTLED_SECONDS
        while asyncio.get_running_loop().time() < deadline and not self.closing:
            open_now = await asyncio.to_thread(open_ids, self._journal)
            if not any(identity.belongs(run.secret, run.created_ms, one) for one in open_now):
                return True
            await asyncio.sleep(_SETTLED_STEP)
        return False


def month(run: Run) -> Filter | None:
    """What the run's filter would have found in the 30 days before it; None for a list of ids."""
    if run.asked.filter is None:
        return None
    days_30 = 30 * 86_400_000
    return msgspec.structs.replace(
        run.asked.filter, team_id=run.team_id, since_ms=run.created_ms - days_30, until_ms=run.created_ms
    )
