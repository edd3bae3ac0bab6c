"""``counterfoil doctor``: whether this machine, this folder and this configuration hold what the gateway promises.

Every check gives one finding: ``good``, ``warning`` (it works, with less margin than it should) or ``problem`` (a
promise is broken). Nothing is changed, and nothing that a running gateway holds is disturbed. Exit 0 without problems.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import resource
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import apsw
import msgspec
from cyclopts import Parameter
from msgspec import Struct

from counterfoil import __version__, config
from counterfoil.cli import output
from counterfoil.cli.remote import Remote
from counterfoil.cli.where import LOCAL, AsJson, Source
from counterfoil.clock import wall_ms
from counterfoil.compose import make_book
from counterfoil.config import Config
from counterfoil.errors import ConfigError, Fault
from counterfoil.folder import FORMAT_VERSION, DataFolder
from counterfoil.ledger import reserve, tally
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.signing import IDLE_PERIOD_S
from counterfoil.record import words

SQLITE_MINIMUM: Final = 3_051_003
"""The first version past the WAL-reset bug of 3.7.0–3.51.2, https://sqlite.org/wal.html."""
DISK_BYTES_WARNING: Final = 2 << 30
DISK_BYTES_PROBLEM: Final = 256 << 20
SYNC_MS_WARNING: Final = 50.0
"""Every answer waits for one sync; a disk slower than this is felt by clients."""
QUEUE_RECORDS_WARNING: Final = 1000
"""What one commit takes in a tenth of a second; that many and more were never there at once in a healthy gateway."""
CONNECT_SECONDS_MAX: Final = 5.0
CHECKPOINT_MS_WARNING: Final = 2000 * IDLE_PERIOD_S
"""A running gateway signs at least every :data:`IDLE_PERIOD_S`, also when nothing happens."""
CLOCK_SECONDS_WARNING: Final = 5.0
_LITERAL_SECRET = re.compile(
    r"""(?im)\b\w*(?:api_key|token|secret|password)["']?[ \t]*:[ \t]*["']?(?!\$\{|(?:none|null)\b|~|["'\s#,}])\S"""
)
EARLIEST_MS: Final = 1_760_000_000_000
"""October 2025. A clock before it is wrong: this version did not exist."""
_REMOTE_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs"}
)
_MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})


class State(StrEnum):
    """How bad a finding is."""

    GOOD = "good"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Struct, frozen=True):
    """One thing that was looked at. ``said`` tells what was found and, unless it is good, what to do."""

    check: str
    state: State
    said: str


def doctor(
    *,
    providers: Annotated[bool, Parameter(help="Also open a connection to every provider.", negative=())] = False,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> int:
    """Find out what is wrong with this installation, or with --url whether a gateway elsewhere is well."""
    remote = source.remote()
    if remote is None:
        found = list(examine(source.data, source.config, os.environ, providers=providers))
    else:
        found = list(examine_remote(remote))
    bad = sum(finding.state is State.PROBLEM for finding in found)
    if as_json:
        output.json({"ok": not bad, "findings": [msgspec.to_builtins(finding) for finding in found]})
        return int(bad > 0)
    marks = {State.GOOD: "ok", State.WARNING: "!!", State.PROBLEM: "XX"}
    width = max(len(finding.check) for finding in found)
    output.lines(*(f"{marks[one.state]}  {one.check:<{width}}  {output.cell(one.said)}" for one in found))
    output.lines("", _verdict(bad, sum(finding.state is State.WARNING for finding in found)))
    return int(bad > 0)


def _verdict(problems: int, warnings: int) -> str:
    said = [f"{number} {name}{'s' * (number != 1)}" for number, name in ((problems, "problem"), (warnings, "warning"))]
    if problems:
        return f"{' and '.join(said)}." if warnings else f"{said[0]}."
    return f"No problem, {said[1]}." if warnings else "Everything is in order."


def examine_remote(remote: Remote) -> Iterator[Finding]:
    """What a gateway elsewhere says of itself."""
    for check in ("live", "ready"):
        answer = remote.send("GET", f"/health/{check}")
        good = answer.status == HTTPStatus.OK
        said = "yes" if good else f"{answer.status}: {', '.join(_reasons(answer.body))}"
        yield Finding(check, State.GOOD if good else State.PROBLEM, said)
        if check == "live":
            yield _clock_beside(answer.headers.get("date", ""), time.time())
        else:
            yield from _said_by(answer.body)
    answer = remote.send("GET", "/v1/models")
    good = answer.status == HTTPStatus.OK
    said = "accepted" if good else f"{answer.status}: {', '.join(_reasons(answer.body))}"
    yield Finding("key", State.GOOD if good else State.PROBLEM, said)


def examine(
    data: Path | None, config_file: Path | None, environ: Mapping[str, str], *, providers: bool
) -> Iterator[Finding]:
    """Every finding about this machine, the configuration and the data folder, in order."""
    yield Finding("version", State.GOOD, f"Counterfoil {__version__}, Python {platform.python_version()}")
    yield sqlite_version(apsw.sqlite_lib_version(), apsw.SQLITE_VERSION_NUMBER)
    yield clock(wall_ms())
    settings, finding = configuration(config_file, environ)
    yield finding
    yield exposed(config_file or Path(environ.get("COUNTERFOIL_CONFIG") or "counterfoil.yaml"))
    yield descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0], settings)
    try:
        root = config.data_folder(config_file, environ, data)
    except ConfigError as error:
        yield Finding("data folder", State.PROBLEM, str(error))
        return
    yield from folder(root)
    yield from ledger(root)
    if providers and settings is not None:
        yield from reachable(settings)


def sqlite_version(text: str, number: int) -> Finding:
    """SQLite is past the bug that can corrupt a write-ahead log."""
    if number < SQLITE_MINIMUM:
        said = f"SQLite {text} can corrupt its write-ahead log. Install apsw 3.51.3 or newer."
        return Finding("sqlite", State.PROBLEM, said)
    return Finding("sqlite", State.GOOD, f"SQLite {text}")


def clock(now_ms: int) -> Finding:
    """The wall clock is not before the program."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_ms / 1000))
    if now_ms < EARLIEST_MS:
        return Finding("clock", State.PROBLEM, f"The clock says {shown}. Set it; records and prices go by it.")
    return Finding("clock", State.GOOD, shown)


def configuration(path: Path | None, environ: Mapping[str, str]) -> tuple[Config | None, Finding]:
    """The configuration can be read, down to every variable in it, and its prices too."""
    try:
        settings = config.load(path, environ, {})
        if settings.prices_book is None:
            make_book(settings)
    except ConfigError as error:
        return None, Finding("configuration", State.PROBLEM, str(error))
    if not settings.providers:
        said = "No provider is configured: no call can be served. Name one in counterfoil.yaml."
        return settings, Finding("configuration", State.WARNING, said)
    names = ", ".join(settings.providers)
    return settings, Finding("configuration", State.GOOD, f"providers: {names}; {len(settings.models)} aliases")


def exposed(path: Path) -> Finding:
    """A configuration file that holds a secret itself, rather than a variable's name, is for its owner alone."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        holds = _LITERAL_SECRET.search(path.read_text(encoding="utf-8", errors="replace")) is not None
    except OSError:
        return Finding("configuration file", State.GOOD, "none, or none that you can read")
    if holds and mode & 0o077:
        said = (
            f"{path} holds a secret and others can read it (mode {mode:o}). Run: chmod 600 {path}, or use a variable."
        )
        return Finding("configuration file", State.WARNING, said)
    return Finding("configuration file", State.GOOD, "others cannot read a secret in it")


def descriptors(limit: int, settings: Config | None) -> Finding:
    """The process may open as many files as it may have connections."""
    wanted = 2 * (settings.limits.connections if settings else 1_000) + 64
    if limit != resource.RLIM_INFINITY and limit < wanted:
        said = f"{limit} open files are allowed, {wanted} are needed at the limit of connections. Raise it: ulimit -n."
        return Finding("open files", State.WARNING, said)
    return Finding("open files", State.GOOD, "no limit" if limit == resource.RLIM_INFINITY else f"{limit} allowed")


def folder(root: Path) -> Iterator[Finding]:
    """Everything about one data folder."""
    if not root.exists():
        said = f"{root.absolute()} does not exist yet; `counterfoil serve` makes it."
        yield Finding("data folder", State.WARNING, said)
        return
    try:
        DataFolder.existing(root)
    except ConfigError as error:
        yield Finding("data folder", State.PROBLEM, str(error))
        return
    yield Finding("data folder", State.GOOD, f"{root.absolute()}, format {FORMAT_VERSION}")
    yield permissions(root)
    yield lock(root)
    yield disk(shutil.disk_usage(root).free)
    yield file_system(root, Path("/proc/self/mountinfo"))
    yield sync_speed(root, time.perf_counter_ns)


def ledger(root: Path) -> Iterator[Finding]:
    """The ledger can be read, and every call has its record or is under way. ``ledger verify`` checks what it holds."""
    data = DataFolder(root)
    if not data.ledger_db.exists() and not tally.records_lost(data):
        return
    reader = LedgerReader(data)
    try:
        stats, signed_ms = reader.stats(), reader.last_checkpoint_ms()
    except Fault as fault:
        yield Finding("ledger", State.PROBLEM, f"{fault} Run: counterfoil ledger verify")
        return
    finally:
        reader.close()
    said = f"{stats['records']:,} records, {stats['bodies']:,} bodies, {words.size(stats['bytes'])}"
    yield Finding("ledger", State.GOOD, said)
    yield Finding(
        "calls in flight", State.GOOD, f"{stats['open_intents']:,}; after a crash the next start settles them"
    )
    figures = tally.total(data.journal)
    counts, waits = figures.counts, figures.waits
    yield account(counts.admitted, counts.settled, figures.state.open, counts.refused)
    yield commits(waits.sum_us / 1000 / waits.total if waits.total else None, waits.quantile_ms(0.99))
    yield waiting(figures.state.queue_depth)
    running = figures.workers > 0
    age_ms = None if signed_ms is None else wall_ms() - signed_ms
    yield checkpoint(age_ms, stats["records"], running=running)
    yield kept_back(reserve.held_bytes(data.reserve), running=running)


def account(admitted: int, settled: int, still_open: int, refused: int) -> Finding:
    """Every call that was taken in has ended in one of the ways there are, or is under way."""
    said = f"{admitted:,} admitted = {settled:,} settled + {still_open:,} open + {refused:,} refused"
    if admitted != settled + still_open + refused:
        return Finding("calls", State.PROBLEM, f"{said} does not hold. This is a bug; please report it.")
    return Finding("calls", State.GOOD, said)


def commits(mean_ms: float | None, p99_ms: float | None) -> Finding:
    """How long records took to become durable; every answer waits for that."""
    if mean_ms is None or p99_ms is None:
        return Finding("commit wait", State.GOOD, "nothing was committed yet")
    said = f"{mean_ms:.2f} ms on average, 99 of 100 within {p99_ms:g} ms"
    return Finding("commit wait", State.WARNING if p99_ms > SYNC_MS_WARNING else State.GOOD, said)


def waiting(records: int) -> Finding:
    """How many records wait for their commit: more than pass in a moment is a disk that does not keep up."""
    said = f"{records:,} records wait for their commit"
    return Finding("queue", State.WARNING if records > QUEUE_RECORDS_WARNING else State.GOOD, said)


def checkpoint(age_ms: int | None, records: int, *, running: bool) -> Finding:
    """The newest signature under the ledger is as young as a running gateway keeps it."""
    if age_ms is None:
        said = "nothing is signed yet" + ("; a running gateway signs within a minute" if records else "")
        return Finding("checkpoint", State.GOOD, said)
    said = f"signed {words.duration(max(0, age_ms))} ago"
    if running and age_ms > CHECKPOINT_MS_WARNING:
        return Finding("checkpoint", State.WARNING, f"{said}, although a gateway runs. Look at its log.")
    return Finding("checkpoint", State.GOOD, said)


def kept_back(held_bytes: int, *, running: bool) -> Finding:
    """The disk kept back for calls in flight stands while a gateway runs."""
    if held_bytes or not running:
        return Finding("reserve", State.GOOD, f"{words.size(held_bytes)} of disk kept back for calls in flight")
    said = "The disk kept back was used up: it was full. The gateway refuses calls until there is room."
    return Finding("reserve", State.PROBLEM, said)


def permissions(root: Path) -> Finding:
    """Nobody but the owner may read the folder, its databases or its secrets."""
    wrong: list[str] = []
    strange: list[str] = []
    for path in [root, *sorted(root.rglob("*"))]:
        try:
            found = path.lstat()
        except FileNotFoundError:  # a running gateway's journal comes and goes
            continue
        if stat.S_IMODE(found.st_mode) & 0o077 and not stat.S_ISLNK(found.st_mode):
            wrong.append(str(path))
        if found.st_uid != os.geteuid() and os.geteuid() != 0:
            strange.append(str(path))
    if wrong:
        said = f"Others can read {_some(wrong)}. Run: chmod -R go= {root}"
        return Finding("permissions", State.PROBLEM, said)
    if strange:
        return Finding("permissions", State.WARNING, f"{_some(strange)} belongs to another user than you.")
    return Finding("permissions", State.GOOD, "only the owner can read it")


def lock(root: Path) -> Finding:
    """Whether a gateway runs on the folder. Looks without holding it up."""
    path = root / "lock"
    if not path.exists():
        return Finding("lock", State.GOOD, "no gateway has run on it")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Finding("lock", State.GOOD, "a gateway is running on it")
    finally:
        os.close(descriptor)
    return Finding("lock", State.GOOD, "free; no gateway is running on it")


def disk(free_bytes: int) -> Finding:
    """There is room for what is to come."""
    free = f"{free_bytes / (1 << 30):.1f} GiB free"
    if free_bytes < DISK_BYTES_PROBLEM:
        return Finding("disk", State.PROBLEM, f"{free}: the gateway will refuse calls. Make room.")
    return Finding("disk", State.WARNING if free_bytes < DISK_BYTES_WARNING else State.GOOD, free)


def file_system(root: Path, mounts: Path) -> Finding:
    """The file system keeps the promises that a write-ahead log needs: shared memory, locks, durable syncs."""
    kind = _mounted(root.resolve(), mounts)
    if kind in _REMOTE_FILE_SYSTEMS:
        said = f"{kind} is a network file system; SQLite's log is not safe on it. Use a local disk."
        return Finding("file system", State.PROBLEM, said)
    if kind in _MEMORY_FILE_SYSTEMS:
        return Finding("file system", State.WARNING, f"{kind} is memory: nothing survives a restart of the machine.")
    return Finding("file system", State.GOOD, kind or "unknown")


def sync_speed(root: Path, now_ns: Callable[[], int]) -> Finding:
    """How long a write takes to be durable; every answer waits for one. Uses a file of its own."""
    path = root / f".doctor.{os.getpid()}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            took = sorted(_synced_ms(descriptor, now_ns) for _ in range(5))[2]
        finally:
            os.close(descriptor)
            path.unlink()
    except OSError as error:
        return Finding("sync", State.PROBLEM, f"{root} cannot be written ({error.strerror or error}).")
    said = f"{took:.2f} ms until a write is durable"
    if took > SYNC_MS_WARNING:
        said += "; every answer waits for that. Use a faster disk, or `ledger: {durability: write}`."
    return Finding("sync", State.WARNING if took > SYNC_MS_WARNING else State.GOOD, said)


def reachable(settings: Config) -> Iterator[Finding]:
    """A connection to each provider, or to the proxy on the way to it, can be opened. Sends nothing."""
    for name, provider in settings.providers.items():
        proxy = provider.proxy if provider.proxy not in (None, "none") else None
        host, port = _address(proxy or provider.base_url)
        where = f"{host}:{port}" + (" (its proxy)" if proxy else "")
        try:
            socket.create_connection((host, port), CONNECT_SECONDS_MAX).close()
        except OSError as error:
            yield Finding(f"provider {name}", State.WARNING, f"{where} cannot be reached ({error.strerror or error}).")
        else:
            yield Finding(f"provider {name}", State.GOOD, f"{where} answers")


def _said_by(body: bytes) -> Iterator[Finding]:
    """What a gateway's ``/health/ready`` tells of its account; nothing when it is an older one's."""
    try:
        said = msgspec.json.decode(body, type=_Ready)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return
    calls, wait = said.calls, said.ledger.commit_wait_ms
    yield account(calls["admitted"], calls["settled"], calls["open"], calls["refused"])
    yield commits(wait["mean"], wait["p99"])
    yield waiting(said.ledger.queue_depth)
    signed = said.ledger.last_checkpoint_at
    yield Finding("checkpoint", State.GOOD, "nothing is signed yet" if signed is None else f"signed at {signed}")
    yield kept_back(said.disk["reserve_bytes"], running=said.workers["running"] > 0)


class _Ledger(Struct):
    queue_depth: int
    commit_wait_ms: dict[str, float | None]
    last_checkpoint_at: str | None


class _Ready(Struct):
    calls: dict[str, int]
    ledger: _Ledger
    disk: dict[str, int]
    workers: dict[str, int]


def _clock_beside(date: str, now_s: float) -> Finding:
    """The other machine's clock, as the header Date of its answer tells it, to the second."""
    try:
        apart = parsedate_to_datetime(date).timestamp() - now_s
    except ValueError:
        return Finding("clock", State.WARNING, "The gateway does not tell its time.")
    if abs(apart) > CLOCK_SECONDS_WARNING:
        said = f"It is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's. One of them is wrong."
        return Finding("clock", State.WARNING, said)
    return Finding("clock", State.GOOD, "as here")


def _reasons(body: bytes) -> list[str]:
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return ["not an answer of a Counterfoil gateway"]
    reasons: list[str] = answer.get("reasons") or [answer.get("reason") or answer.get("error") or "unknown"]
    return reasons


def _synced_ms(descriptor: int, now_ns: Callable[[], int]) -> float:
    start = now_ns()
    os.write(descriptor, bytes(4096))
    os.fsync(descriptor)
    return (now_ns() - start) / 1e6


def _mounted(path: Path, mounts: Path) -> str | None:
    """The type of the file system that ``path`` lies on: the longest mount point above it. proc(5), mountinfo."""
    best, kind = "", None
    try:
        entries = mounts.read_text().splitlines()
    except OSError:
        return None
    for entry in entries:
        before, _, after = entry.partition(" - ")
        point = before.split(" ")[4].encode().decode("unicode_escape")
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after.split(" ", 1)[0]
    return kind


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _some(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
