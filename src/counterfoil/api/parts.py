"""What the control plane is made of, and what it asks a running gateway.

The gateway fills the hooks; without one (tests, or pages over a copy of a data folder) the defaults tell the truth
about a process that answers readers and takes no calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from counterfoil.ledger.evidence import Evidence
    from counterfoil.ledger.query import LedgerReader
    from counterfoil.ledger.verification import Verifications
    from counterfoil.pricing.book import PriceBook
    from counterfoil.replay.bulk.runs import Runs
    from counterfoil.replay.one import Replayer
    from counterfoil.tenancy.admin import Admin
    from counterfoil.tenancy.directory import Directory, Principal


class Health(Struct, frozen=True):
    """``live``: the process can answer. ``ready``: new calls are taken; otherwise ``reasons`` say why, in words."""

    live: bool = True
    ready: bool = True
    reasons: tuple[str, ...] = ()


class Waits(Struct, frozen=True):
    """A histogram of milliseconds: ``counts[i]`` waits took at most ``bounds_ms[i]`` (cumulative), ``total`` in all.

    ``p99_ms`` is the bound that 99 of 100 did not exceed; None without any.
    """

    bounds_ms: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    total: int = 0
    sum_ms: float = 0.0
    p99_ms: float | None = None


class Figures(Struct, frozen=True, kw_only=True):
    """The gateway's figures over all its workers. ``admitted == settled + open + refused``.

    The counts go on over restarts. ``interrupted`` calls are settled, ended by a crash, ``unauthorized`` ones came
    without a valid key, ``rejected`` ones were no request. ``records`` is None while the ledger cannot be read, and
    ``last_checkpoint_ms`` (Unix milliseconds) before the first;
    ``unwitnessed`` checkpoints wait for a second place. ``workers`` run; ``workers_ready`` take calls.
    """

    admitted: int = 0
    settled: int = 0
    open: int = 0
    refused: int = 0
    interrupted: int = 0
    unauthorized: int = 0
    rejected: int = 0
    crashed: int = 0
    records: int | None = 0
    commits: int = 0
    commit_wait: Waits = Waits()
    queue_depth: int = 0
    last_checkpoint_ms: int | None = None
    unwitnessed: int = 0
    disk_free_bytes: int = 0
    disk_reserve_bytes: int = 0
    workers: int = 0
    workers_ready: int = 0


def _no_models(_: Principal) -> list[dict[str, Any]]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlParts:
    """Everything :func:`counterfoil.api.app.build` needs.

    ``models`` gives what a principal's team may call, as OpenAI model objects (``id``, ``object``, ``owned_by`` and
    more). ``replayer`` is there when a gateway can run calls again, ``runs`` when many. ``evidence`` makes proofs,
    ``verifications`` has the ledger verified. ``erase`` destroys the bodies of one generation (team id, request id,
    why) and gives whether there were any.
    """

    reader: LedgerReader
    directory: Directory
    admin: Admin
    book: Callable[[], PriceBook]
    erase: Callable[[str, str, str], bool]
    models: Callable[[Principal], list[dict[str, Any]]] = _no_models
    replayer: Replayer | None = None
    runs: Runs | None = None
    evidence: Evidence | None = None
    verifications: Verifications | None = None
    health: Callable[[], Health] = Health
    metrics: Callable[[], Figures] = Figures
