"""System calls that fail below a running gateway, one after the other: it recovers, or ends and says why.

strace makes the chosen call on the chosen files fail, as a broken or full disk would. Whatever fails when, no answer is
acknowledged that is not kept, a sync is believed only when everything before it was written anew, and the folder is
whole afterwards.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from counterfoil.demo.processes import ProcessFailed
from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream
from emulators.waiting import wait_until
from faults import checker
from faults.checker import Sent

CALLS: Final = 10
SYNC_FAILURES_MAX: Final = 5
LOG = "ledger.db-wal"
FILES: Final = (LOG, "ledger.db", "ledger.db-shm", "journal/writer-000.intents", "reserve")
TRACED: Final = "fsync,fdatasync,pwrite64,write,ftruncate,fallocate,mmap"


@dataclass(frozen=True)
class Fault:
    """From its ``first`` time on, ``times`` times (0: for ever), ``call`` on one of ``files`` fails with ``error``.

    Each thread counts for itself, so a fault meets the start, the writer and the keeper.
    """

    call: str
    error: str
    first: int
    times: int = 1
    files: tuple[str, ...] = FILES

    def __str__(self) -> str:
        return f"{self.call}-{self.error}-{self.first}{'+' if self.times == 0 else ''}"

    def wrapper(self, data: Path, log: Path) -> list[str]:
        """The command that runs a gateway with this fault. Its process is the gateway; strace hides behind it."""
        last = "+" if self.times == 0 else f"..{self.first + self.times - 1}"
        inject = f"inject={self.call}:error={self.error}:when={self.first}{last}"
        paths = [word for name in self.files for word in ("-P", str(data / name))]
        return ["strace", "-D", "-f", "-qq", "-y", "-o", str(log), *paths, "-e", f"trace={TRACED}", "-e", inject, "--"]


SHORT = [
    Fault("fdatasync", "EIO", 3, files=(LOG,)),
    Fault("pwrite64", "EIO", 25, 2, files=(LOG,)),
    Fault("pwrite64", "ENOSPC", 30, files=(LOG,)),
    Fault("mmap", "ENOMEM", 1, files=("journal/writer-000.intents",)),
]
LONG = [
    Fault("mmap", "ENOMEM", 1, files=("ledger.db-shm",)),
    *(Fault("fdatasync", "EIO", first, times) for first in range(1, 9) for times in (1, 3)),
    *(Fault("fsync", "EIO", first) for first in range(1, 4)),
    *(
        Fault("pwrite64", error, first, times)
        for error in ("EIO", "ENOSPC")
        for first in range(1, 40, 4)
        for times in (1, 4)
    ),
    *(Fault("ftruncate", "EIO", first) for first in (1, 2)),
    *(Fault("fallocate", "ENOSPC", first) for first in (1, 2)),
    *(Fault("mmap", "ENOMEM", first) for first in range(1, 6)),
]


@pytest.fixture(scope="module", autouse=True)
def _strace() -> None:
    """Skip where nobody can look at another process's system calls."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    probe = subprocess.run(["strace", "-qq", "-e", "trace=fsync", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace cannot trace here: {probe.stderr.strip()}")


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give one provider for all faults."""
    with ScriptedUpstream(checker.mixed) as running:
        yield running


@pytest.fixture(scope="module")
def sent() -> Sent:
    """Give what was sent over all faults: the folder is the same one."""
    return Sent()


@pytest.fixture(scope="module")
def stopped(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway on one folder for all faults, each of which starts it anew."""
    local = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
    running: Gateway = start_gateway({"providers": {"local": local}, "ledger": {"checkpoint_seconds": 1}})
    running.key()
    yield running
    running.stop()


@pytest.fixture
def gateway(stopped: Gateway) -> Iterator[Gateway]:
    """Give it stopped."""
    stopped.stop()
    yield stopped
    stopped.wrapper = ()
    stopped.stop()


def suffer(gateway: Gateway, upstream: ScriptedUpstream, sent: Sent, fault: Fault, log: Path, *, verify: bool) -> str:
    """Run the gateway with ``fault`` and calls; give what became of it. The folder is checked in the end."""
    gateway.wrapper = fault.wrapper(gateway.data, log)
    try:
        gateway.start()
    except ProcessFailed as failure:
        said = str(failure)
        assert "counterfoil: " in said, said
        assert "Traceback" not in said, said
        outcome = "refused to start"
    else:
        outcome = calls_under(gateway, sent)
    believed_no_failed_sync(log)
    if outcome != "recovered":
        gateway.stop()
        gateway.wrapper = ()
        gateway.start()
    checker.check(gateway, upstream, sent, verify=verify)
    gateway.stop()
    return outcome


def calls_under(gateway: Gateway, sent: Sent) -> str:
    """Call until it has recovered from whatever fails, or its process has ended."""
    key = gateway.key()
    for number in range(CALLS):
        status = sent.call(gateway, key, stream=number % 2 == 1)
        assert status in (200, 503, None)
        if status != 200:
            wait_until(lambda: not gateway.process.alive() or is_ready(gateway))
        if not gateway.process.alive():
            return "ended"
    forget_refusals(sent)
    return "recovered"


def is_ready(gateway: Gateway) -> bool:
    """Whether it takes calls."""
    try:
        return gateway.request("GET", "/health/ready").status == 200
    except OSError:
        return False


def forget_refusals(sent: Sent) -> None:
    """A refusal may go unrecorded when there was no ledger to record it."""
    sent.acknowledged = {mark: one for mark, one in sent.acknowledged.items() if one[1] == 200}


def believed_no_failed_sync(trace: Path) -> None:
    """What a failed sync of the log was responsible for is written anew before a sync of new writes is believed.

    A log that begins anew (its header is written) has nothing to do with what was in it. A sync without writes since
    the failure belongs to a checkpoint, which believes in what it then writes to the database file.
    """
    unsynced: set[str] = set()  # offsets written since the last good sync
    doubtful: set[str] = set()  # offsets that a failed sync may have left unwritten
    for line in trace.read_text(errors="replace").splitlines():
        found = re.search(r"(fdatasync|pwrite64)\(\d+<[^>]+" + LOG + r">(?:.*, \d+, (\d+))?\)\s+= (-?\d+)", line)
        if found is None:
            continue
        call, offset, result = found[1], found[2], int(found[3])
        if call == "pwrite64" and result >= 0:
            if offset == "0":
                doubtful.clear()
            unsynced.add(offset)
            doubtful.discard(offset)
        elif call == "fdatasync" and result < 0:
            doubtful |= unsynced
            unsynced.clear()
        elif call == "fdatasync" and unsynced:
            assert not doubtful, f"{len(doubtful)} writes rest on a sync after a failed one: {line}"
            unsynced.clear()


@pytest.mark.parametrize("fault", SHORT, ids=str)
def test_a_failing_call_loses_nothing(
    gateway: Gateway, upstream: ScriptedUpstream, sent: Sent, fault: Fault, tmp_path: Path
) -> None:
    """It is met (the trace says so), survived or refused in one line, and nothing is lost."""
    log = tmp_path / "strace.log"
    outcome = suffer(gateway, upstream, sent, fault, log, verify=False)  # the last test reads it all again
    assert "INJECTED" in log.read_text(), "the fault was never met: the test shows nothing"
    assert outcome == ("refused to start" if fault.call == "mmap" else "recovered")


def test_a_disk_that_never_syncs_ends_the_gateway(
    gateway: Gateway, upstream: ScriptedUpstream, sent: Sent, tmp_path: Path
) -> None:
    """After five failures nothing more is acknowledged; the process ends with status 1, and the next one is whole."""
    fault = Fault("fdatasync", "EIO", 3, 0, files=(LOG,))
    log = tmp_path / "strace.log"
    gateway.wrapper = fault.wrapper(gateway.data, log)
    gateway.start()
    assert calls_under(gateway, sent) == "ended"
    assert gateway.stop() == 1
    assert "ledger_poisoned" in gateway.process.log_tail()
    assert log.read_text().count("INJECTED") >= SYNC_FAILURES_MAX
    forget_refusals(sent)
    gateway.wrapper = ()
    gateway.start()
    checker.check(gateway, upstream, sent)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_any_call_may_fail_at_any_time(
    gateway: Gateway, upstream: ScriptedUpstream, sent: Sent, tmp_path: Path
) -> None:
    """Write, sync, truncate, allocate, map: each at each of its first times, once or several times in a row."""
    outcomes: list[str] = []
    met = 0
    for number, fault in enumerate(LONG):
        log = tmp_path / f"strace-{number}.log"
        outcomes.append(suffer(gateway, upstream, sent, fault, log, verify=number % 8 == 7))
        met += "INJECTED" in log.read_text()
    print(f"{len(LONG)} faults, {met} met; { ({word: outcomes.count(word) for word in set(outcomes)}) }")
    assert met > len(LONG) // 2
