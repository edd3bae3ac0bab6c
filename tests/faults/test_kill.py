"""``kill -9`` of whatever runs, at instants nobody chose: every call still has exactly one record, and soon."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream
from emulators.waiting import wait_until
from faults import checker
from faults.checker import Sent

KILLS = int(os.environ.get("COUNTERFOIL_TEST_KILLS", "8"))
KILLS_MANY = int(os.environ.get("COUNTERFOIL_TEST_KILLS", "200"))
KILLS_ON_ONE_FOLDER = 40
"""Each check reads every record of the folder: a new one now and then keeps a round's length from growing."""
VERIFY_EVERY = 10
CALLS_BEFORE_A_KILL_MAX = 60
RECOVERY_CPU_SECONDS_MAX = 2.0
"""What a start may compute until it is ready, recovery included: what a machine that does nothing else waits for. How
long it took by the clock, on a machine that does, is printed."""


class Tally:
    """What a series of kills came to."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.cpu: list[float] = []
        self.calls = 0
        self.interrupted = 0

    def add(self, sent: Sent, records: list[dict[str, Any]]) -> None:
        """Count a folder that is done with."""
        self.calls += len(sent.marks)
        self.interrupted += sum(record["error_code"] == "gateway:interrupted" for record in records)

    def conclude(self, what: str) -> None:
        """Say it, and fail when it shows nothing or took too long."""
        took = sorted(self.took)
        print(
            f"{len(took)} kills of {what}, {self.calls} calls, {self.interrupted} interrupted; "
            f"recovered after {took[len(took) // 2]:.2f} s (median), {took[-1]:.2f} s (worst)"
            + (f", with at most {max(self.cpu):.2f} s of CPU" if self.cpu else "")
        )
        assert self.interrupted > 0, "no kill met a call in flight: the test shows nothing"
        assert max(self.cpu, default=0.0) <= RECOVERY_CPU_SECONDS_MAX


def kill_and_restart(gateway: Gateway, upstream: ScriptedUpstream, kills: int, tally: Tally) -> None:
    """Kill the gateway ``kills`` times under load, and check everything each time."""
    sent, chance = Sent(), random.Random()
    records: list[dict[str, Any]] = []
    for number in range(1, kills + 1):
        with checker.load(gateway, sent):
            some_calls(upstream, chance)
            gateway.process.kill()
        began = time.monotonic()
        gateway.start()
        tally.took.append(time.monotonic() - began)
        tally.cpu.append(cpu_seconds(gateway.process.pid))
        records = checker.check(gateway, upstream, sent, verify=number % VERIFY_EVERY == 0 or number == kills)
    tally.add(sent, records)


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far. proc(5), stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def some_calls(upstream: ScriptedUpstream, chance: random.Random) -> None:
    """Return when the provider has seen some calls more: an instant that depends on nothing else."""
    instant = len(upstream.seen) + chance.randint(1, CALLS_BEFORE_A_KILL_MAX)
    wait_until(lambda: len(upstream.seen) >= instant)


def test_killing_the_process_loses_no_call(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Restarted on its folder, the gateway has one record of each call that its provider saw."""
    upstream.script = checker.mixed
    tally = Tally()
    kill_and_restart(gateway, upstream, min(KILLS, KILLS_ON_ONE_FOLDER), tally)
    tally.conclude("the only process")


@pytest.mark.faults
@pytest.mark.timeout(300 + 10 * KILLS_MANY)
def test_killing_the_process_many_times_loses_no_call(
    start_gateway: Any, local_config: dict[str, Any], upstream: ScriptedUpstream
) -> None:
    """The long form: 200 kills, or as many as COUNTERFOIL_TEST_KILLS says, each folder with at most 40."""
    upstream.script = checker.mixed
    tally = Tally()
    for left in range(KILLS_MANY, 0, -KILLS_ON_ONE_FOLDER):
        gateway = start_gateway(local_config)
        upstream.seen.clear()
        kill_and_restart(gateway, upstream, min(left, KILLS_ON_ONE_FOLDER), tally)
        gateway.stop()
    tally.conclude("the only process")


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started, oldest first."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    """Whether the process is there and not merely waiting for its parent to hear of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_free(data: Path) -> bool:
    """Whether nobody holds the folder."""
    descriptor = os.open(data / "lock", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def owners(data: Path) -> set[int]:
    """The processes that own a journal. Seen from outside: taking a lock to find out would get in their way."""
    journals = {str(path.stat().st_ino) for path in (data / "journal").glob("*.intents")}
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(lock[4]) for lock in locks if lock[1] == "FLOCK" and lock[5].rpartition(":")[2] in journals}


def two_serve(gateway: Gateway) -> bool:
    """Whether two workers run, each with a journal, and no call is open in any."""
    workers = set(children(gateway.process.pid))
    return len(workers) == 2 and owners(gateway.data) == workers and checker.settled(gateway)


def kill_workers(gateway: Gateway, upstream: ScriptedUpstream, kills: int, tally: Tally) -> None:
    """Kill one worker of two, every third time both, and check everything each time."""
    sent, chance = Sent(), random.Random()
    records: list[dict[str, Any]] = []
    for number in range(1, kills + 1):
        wait_until(lambda: two_serve(gateway))
        with checker.load(gateway, sent):
            some_calls(upstream, chance)
            victims = children(gateway.process.pid)[: 2 if number % 3 == 0 else 1]
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            wait_until(lambda victims=victims: not any(runs(victim) for victim in victims))
        tally.took.append(wait_until(lambda: two_serve(gateway)))
        records = checker.check(gateway, upstream, sent, verify=number % VERIFY_EVERY == 0 or number == kills)
    tally.add(sent, records)


@pytest.mark.faults
@pytest.mark.timeout(300 + 10 * KILLS_MANY)
def test_killing_workers_many_times_loses_no_call(
    start_gateway: Any, local_config: dict[str, Any], upstream: ScriptedUpstream
) -> None:
    """The long form: a quarter as many kills of one worker of two, or of both at once."""
    upstream.script = checker.mixed
    tally = Tally()
    for left in range(KILLS_MANY // 4, 0, -KILLS_ON_ONE_FOLDER):
        gateway = start_gateway(local_config, workers=2)
        upstream.seen.clear()
        kill_workers(gateway, upstream, min(left, KILLS_ON_ONE_FOLDER), tally)
        gateway.stop()
    tally.conclude("workers")


def test_a_killed_worker_is_replaced_and_a_killed_parent_takes_its_workers_along(
    start_gateway: Any, local_config: dict[str, Any], upstream: ScriptedUpstream
) -> None:
    """The other worker serves on, the new one records the dead one's calls; without a parent all stop by themselves."""
    upstream.script = checker.mixed
    gateway = start_gateway(local_config, workers=2)
    tally = Tally()
    kill_workers(gateway, upstream, 3, tally)
    tally.conclude("workers")
    upstream.seen.clear()
    workers = children(gateway.process.pid)
    gateway.process.kill()
    took = wait_until(lambda: is_free(gateway.data))
    print(f"the folder was free {took:.2f} s after its parent was killed")
    wait_until(lambda: not any(runs(worker) for worker in workers))
    gateway.start()
    said = gateway.command("ledger", "verify", check=False)
    assert said.returncode == 0, said.stdout
    gateway.stop()


def test_a_folder_belongs_to_one_gateway(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A second one says who has it, ends, and leaves the first one untouched."""
    upstream.script = checker.mixed
    sent = Sent()
    assert sent.call(gateway, gateway.key()) == 200
    second = gateway.command("serve", "--host", "127.0.0.1", "--port", "0", check=False)
    assert second.returncode != 0
    assert "Another gateway is running" in second.stderr
    assert sent.call(gateway, gateway.key(), stream=True) == 200
    checker.check(gateway, upstream, sent)
