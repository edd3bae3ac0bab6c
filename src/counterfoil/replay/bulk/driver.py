"""Drives one run, item by item, and asks the ledger what is done. Read :meth:`Driver.drive` and :meth:`_item` first.

The rule that makes a kill harmless: the id of every call is computed (``identity``), and before a call is made the
ledger is asked whether it has a record of that id. A record that says anything final is the result; one that says
``gateway:interrupted`` was in flight when a gateway died, and the next attempt has the next id. See decision 0021.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

import msgspec

from counterfoil.capture.body import Capture
from counterfoil.errors import CallerFault, Fault, GatewayFault
from counterfoil.ledger.query import StoredRecord
from counterfoil.record import codec
from counterfoil.record.record import CaptureState
from counterfoil.replay.bulk import identity
from counterfoil.replay.bulk.appraisal import Body, Task
from counterfoil.replay.bulk.appraiser import Appraiser
from counterfoil.replay.bulk.asked import ModelJudge
from counterfoil.replay.bulk.budget import Budget, Exhausted
from counterfoil.replay.bulk.modeljudge import Hearing, ask, heard
from counterfoil.replay.bulk.outcome import Result, State, Try, Verdict
from counterfoil.replay.bulk.store import Run, RunState, RunStore
from counterfoil.replay.diff import known_cost
from counterfoil.replay.one import CannotReplay, Original, Plan, Replayer, Rerun, Wish
from counterfoil.replay.text import said
from counterfoil.tenancy.principal import KeyRefused, Principal, ScopeMissing

WATCH_SECONDS: Final = 0.25
"""How soon a driver notices that another worker cancelled its run."""
INTERRUPTIONS_MAX: Final = 20
"""Restarts that one item survives; more of them are a gateway that the item itself kills."""
BACKOFF_SECONDS_MAX: Final = 30.0
RETRIED: Final = frozenset({"upstream:rate_limited", "upstream:overloaded", "gateway:overloaded"})
"""Refusals before any work was done. A timeout is not among them: the provider may have been paid for it."""
UNSENT: Final = "gateway:shutting_down"


class Halt(StrEnum):
    """Why a driver leaves before the end."""

    CANCELLED = "cancelled"
    BUDGET = "budget"
    KEY = "key"
    LEDGER = "ledger_unavailable"
    LEAVING = "leaving"  # the worker stops; the run goes on in the next one


class Driver:
    """Drives ``run`` to its end. ``acting()`` gives the principal it acts as, checked anew, or raises.

    ``used`` are the ids that this process has made calls with, also for earlier drivers of the run.
    """

    def __init__(
        self,
        run: Run,
        store: RunStore,
        replayer: Replayer,
        appraiser: Appraiser,
        acting: Callable[[], Principal],
        used: set[str],
    ) -> None:
        self.run = run
        self._store = store
        self._replayer = replayer
        self._appraiser = appraiser
        self._acting = acting
        self._halt: Halt | None = None
        self._used = used
        self._budget = Budget(None, 0)
        self._not_before = 0.0
        self._woken = asyncio.Event()
        self.in_flight = 0

    def halt(self, why: Halt) -> None:
        """Start nothing more; what is in flight ends."""
        self._halt = self._halt or why
        self._woken.set()

    async def drive(self) -> tuple[RunState, str | None]:
        """Run what is not done yet; give the state the run ends in, ``running`` when it goes on elsewhere."""
        finished = await asyncio.to_thread(self._store.finished, self.run.run_id)
        progress = await asyncio.to_thread(self._store.progress, self.run)
        open_spent = await asyncio.to_thread(self._unfinished_spent, finished)
        self._budget = Budget(self.run.budget_nanos, progress.spent_nanos + progress.held_nanos + open_spent)
        work = self._work(finished)
        watch = asyncio.create_task(self._watch())
        try:
            tasks = [asyncio.create_task(self._take(work)) for _ in range(self.run.asked.concurrency)]
            await asyncio.gather(*tasks)
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        match self._halt:
            case None:
                return RunState.FINISHED, None
            case Halt.CANCELLED:
                return RunState.CANCELLED, None
            case Halt.LEAVING:
                return RunState.RUNNING, None
            case reason:
                return RunState.STOPPED, reason

    async def _take(self, work: Iterator[tuple[int, int]]) -> None:
        """Take one piece of work after the other until there is none."""
        while self._halt is None:
            await self._pace()
            piece = next(work, None)
            if piece is None or self._halt is not None:
                return
            self.in_flight += 1
            try:
                result = await self._item(*piece)
                if result is not None:
                    await asyncio.to_thread(self._store.keep, self.run.run_id, result)
            except Exhausted:
                self.halt(Halt.BUDGET)
            except (KeyRefused, ScopeMissing):
                self.halt(Halt.KEY)
            except GatewayFault:
                self.halt(Halt.LEDGER)
            finally:
                self.in_flight -= 1

    def _work(self, finished: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for item in range(self.run.items):
            for target in range(len(self.run.asked.targets)):
                if (item, target) not in finished:
                    yield item, target

    async def _watch(self) -> None:
        """Notice what other workers decided, and that this one stops."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._replayer.gateway.stopping:
                self.halt(Halt.LEAVING)
            try:
                state = await asyncio.to_thread(self._store.state, self.run.run_id)
            except GatewayFault:
                self.halt(Halt.LEDGER)
                return
            if state is not RunState.RUNNING:
                self.halt(Halt.CANCELLED)

    async def _pace(self) -> None:
        """Wait for the next start that the rate allows, or for the end of a back-off."""
        loop = asyncio.get_running_loop()
        rate = self.run.asked.rate
        at = self._not_before
        if rate:
            self._not_before = max(at, loop.time()) + 1 / rate
        await self._sleep(at - loop.time())

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0 and self._halt is None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), seconds)

    # One item.

    async def _item(self, item: int, target: int) -> Result | None:
        """The result of one item at one target; None when the run halts before there is one."""
        try:
            original = await asyncio.to_thread(self._original, item)
            plan = self._replayer.plan(original, Wish(overrides=self.run.asked.targets[target].overrides))
        except CannotReplay as refused:
            return _skipped(item, target, refused.reason)
        except CallerFault as fault:
            return _skipped(item, target, fault.short_code)
        tries: list[Try] = []
        retries = 0
        while True:
            request_id = self._id(item, target, len(tries))
            stored = await asyncio.to_thread(self._find, request_id)
            answer: Rerun | None = None
            if stored is None:
                if self._budget.limited and plan.estimate.high_nanos is None:
                    return _skipped(item, target, "unpriced", tuple(tries))
                answer = await self._call(request_id, original, plan)
                if answer is None:
                    return None
                stored = await asyncio.to_thread(self._found, request_id)
            tries.append(self._try(stored, plan.estimate.high_nanos))
            error = tries[-1].error_code
            if error in RETRIED and retries < self.run.asked.retries:
                retries += 1
                await self._back_off(retries, answer)
            elif (not tries[-1].interrupted and error != UNSENT) or len(tries) - retries > INTERRUPTIONS_MAX:
                return await self._appraised(item, target, original, stored, tuple(tries))
            if self._halt is not None:
                return None

    def _original(self, item: int) -> Original:
        generation = self._store.item(self.run.run_id, item)
        original = self._replayer.original(self.run.team_id, generation)
        if original is None:
            raise CallerFault("not_found")
        return original

    async def _call(self, request_id: str, original: Original, plan: Plan) -> Rerun | None:
        """Make one call within the budget; None when the run halted meanwhile."""
        reserved = plan.estimate.high_nanos or 0
        await self._budget.reserve(reserved)
        spent = 0
        try:
            if self._stopped():
                return None
            acting = self._begin(request_id)
            spent = reserved
            answer = await self._replayer.run(acting, original, plan, request_id=request_id)
            spent = await asyncio.to_thread(self._cost, request_id, reserved)
            return answer
        finally:
            await self._budget.settle(reserved, spent)

    def _begin(self, request_id: str) -> Principal:
        """Who acts. Never calls with an id twice in one process, even when its record still waits to be written."""
        if request_id in self._used:
            raise GatewayFault("ledger_unavailable")
        acting = self._acting()
        self._used.add(request_id)
        return acting

    def _stopped(self) -> bool:
        if self._replayer.gateway.stopping:
            self.halt(Halt.LEAVING)
        return self._halt is not None

    async def _back_off(self, retries: int, answer: Rerun | None) -> None:
        """Let the whole run wait, as long as the provider says or longer each time."""
        if answer is None:
            return
        asked = answer.retry_after or ""
        seconds = float(asked) if asked.isascii() and asked.isdigit() else 0.5 * 2**retries
        seconds = min(seconds, BACKOFF_SECONDS_MAX)
        self._not_before = max(self._not_before, asyncio.get_running_loop().time() + seconds)
        await self._sleep(seconds)

    # What the ledger says.

    def _id(self, item: int, target: int, attempt: int, judge: int = 0) -> str:
        return identity.generation(self.run.secret, self.run.created_ms, item, target, attempt, judge)

    def _find(self, request_id: str) -> StoredRecord | None:
        return self._replayer.reader.find(self.run.team_id, request_id)

    def _found(self, request_id: str) -> StoredRecord:
        """The record of a call just made. Raises :class:`GatewayFault` when the ledger could not take it."""
        stored = self._find(request_id)
        if stored is None:
            raise GatewayFault("ledger_unavailable")
        return stored

    def _try(self, stored: StoredRecord, estimate: int | None) -> Try:
        record = codec.decode(stored.data)
        if record.error_code == UNSENT:
            return Try(record.request_id, record.error_code, 0)
        cost = known_cost(record)
        # What is known in part counts as at least that; what may come on top, as the estimate.
        held = max(estimate or 0, record.cost_nanos) if cost is None else 0
        return Try(record.request_id, record.error_code, cost, held)

    def _cost(self, request_id: str, estimate: int) -> int:
        one = self._try(self._found(request_id), estimate)
        return (one.cost_nanos or 0) + one.held_nanos

    def _unfinished_spent(self, finished: set[tuple[int, int]]) -> int:
        """What calls of items without a result have cost before, with their estimates where that is not known."""
        if self.run.budget_nanos is None:
            return 0
        total = 0
        for item, target in self._work(finished):
            calls = [self._find(self._id(item, target, 0))]
            while (last := calls[-1]) is not None:
                calls.append(self._find(self._id(item, target, len(calls))))
                total += self._cost(last.id, self._estimate(item, target))
            for judge in range(1, len(self.run.asked.judges) + 1):
                if (one := self._find(self._id(item, target, 0, judge))) is not None:
                    total += self._cost(one.id, 0)
        return total

    def _estimate(self, item: int, target: int) -> int:
        try:
            wish = Wish(overrides=self.run.asked.targets[target].overrides)
            return self._replayer.plan(self._original(item), wish).estimate.high_nanos or 0
        except Fault:
            return 0

    # What it is worth.

    async def _appraised(
        self, item: int, target: int, original: Original, stored: StoredRecord, tries: tuple[Try, ...]
    ) -> Result:
        capture = await asyncio.to_thread(self._capture, stored)
        checks = tuple(check for _, check in self.run.asked.checks)
        answers = (_body(original.capture), _body(capture) if capture is not None else None)
        found = await self._appraiser.appraise(Task(original.stored.data, stored.data, *answers, checks))
        verdicts = dict(zip((at for at, _ in self.run.asked.checks), found.verdicts, strict=True))
        judged: list[Try] = []
        for at, judge in enumerate(self.run.asked.judges):
            if isinstance(judge, ModelJudge):
                if capture is None or not found.b.success:
                    reason = "failed" if not found.b.success else "no_content"
                    verdicts[at] = Verdict(judge.name, passed=None if found.b.success else False, reason=reason)
                    continue
                hearing = Hearing(judge, original, said(original.capture).text, said(capture).text, stored.id)
                verdicts[at], calls = await self._judge(item, target, at + 1, hearing)
                judged += calls
        return Result(
            item=item,
            target=target,
            state=State.DONE if found.b.success else State.FAILED,
            a=found.a,
            b=found.b,
            agreement=found.agreement,
            tries=tries,
            judged=tuple(judged),
            verdicts=tuple(verdicts[at] for at in sorted(verdicts)),
        )

    def _capture(self, stored: StoredRecord) -> Capture | None:
        return self._replayer.reader.capture(stored) if stored.capture_state is CaptureState.STORED else None

    async def _judge(self, item: int, target: int, place: int, hearing: Hearing) -> tuple[Verdict, list[Try]]:
        """Have a model judge, once: a record that is there already is read, never paid for again."""
        judge = hearing.judge
        try:
            request, estimate = ask(self._replayer, self.run.team_id, hearing)
        except CallerFault as fault:
            return Verdict(judge.name, None, reason=fault.short_code), []
        calls: list[Try] = []
        while len(calls) <= INTERRUPTIONS_MAX:
            request_id = self._id(item, target, len(calls), place)
            stored = await asyncio.to_thread(self._find, request_id)
            if stored is None:
                if self._budget.limited and estimate is None:
                    return Verdict(judge.name, None, reason="unpriced"), calls
                await self._budget.reserve(estimate or 0)
                spent = 0
                try:
                    acting = self._begin(request_id)
                    spent = estimate or 0
                    await self._replayer.call(acting, request, request_id, hearing.judged)
                    spent = await asyncio.to_thread(self._cost, request_id, estimate or 0)
                finally:
                    await self._budget.settle(estimate or 0, spent)
                stored = await asyncio.to_thread(self._found, request_id)
            calls.append(self._try(stored, estimate))
            if not calls[-1].interrupted and calls[-1].error_code != UNSENT:
                capture = await asyncio.to_thread(self._capture, stored)
                verdict = heard(judge, capture, calls[-1].error_code)
                return msgspec.structs.replace(verdict, request_id=request_id), calls
        return Verdict(judge.name, None, reason="interrupted"), calls


def _skipped(item: int, target: int, reason: str, tries: tuple[Try, ...] = ()) -> Result:
    return Result(item=item, target=target, state=State.SKIPPED, reason=reason, tries=tries)


def _body(capture: Capture) -> Body:
    return Body(capture.response_body, capture.response_type)
