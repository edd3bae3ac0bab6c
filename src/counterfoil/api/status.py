"""Is it alive, does it take calls, how much has it done: ``/health/live``, ``/health/ready``, ``/metrics``; no key.

The figures hold totals only, over all workers: no team, model or key, so that a scraper needs no credential and no
series multiplies. Names follow Prometheus' conventions: a prefix, base units, ``_total`` for what only grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response

from counterfoil.api import answers
from counterfoil.api.parts import Figures, Health
from counterfoil.record.times import timestamp

_COUNTERS: Final = (
    ("admitted", "counterfoil_calls_admitted", "Calls taken in: admitted = settled + open + refused."),
    ("settled", "counterfoil_calls_settled", "Calls whose record is durable."),
    ("refused", "counterfoil_calls_refused", "Calls that the ledger could not take, and that a crash ended unsent."),
    ("interrupted", "counterfoil_calls_interrupted", "Settled calls that a crash of their worker ended."),
    ("unauthorized", "counterfoil_calls_unauthorized", "Requests without a valid key: answered, not admitted."),
    ("rejected", "counterfoil_requests_rejected", "Connections whose bytes were no request."),
    ("crashed", "counterfoil_calls_crashed", "Settled calls that failed by a bug of ours. Please report them."),
    ("commits", "counterfoil_ledger_commits", "Group commits, each of one record or many."),
)
_GAUGES: Final = (
    ("open", "counterfoil_calls_open", "Calls in flight."),
    ("queue_depth", "counterfoil_ledger_queue_depth", "Records that wait for their commit."),
    ("unwitnessed", "counterfoil_ledger_checkpoints_unwitnessed", "Checkpoints that wait for a second place."),
    ("disk_free_bytes", "counterfoil_disk_free_bytes", "Free bytes on the data folder's file system."),
    ("disk_reserve_bytes", "counterfoil_disk_reserve_bytes", "Bytes kept aside to finish calls when the disk is full."),
    ("workers", "counterfoil_workers", "Workers that run."),
    ("workers_ready", "counterfoil_workers_ready", "Workers that take calls."),
)


def router(health: Callable[[], Health], figures: Callable[[], Figures]) -> APIRouter:
    """The three paths over the gateway's own hooks."""
    routes = APIRouter(tags=["status"])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reading(figures))

    @routes.get("/health/live", summary="Is the process alive?", responses={503: {"description": "It is not."}})
    async def live() -> Response:
        """200 as long as the process can answer at all; restart it otherwise. With the figures of all workers."""
        alive = health().live
        return answers.json({"ok": alive, **summary(figures())}, 200 if alive else 503)

    @routes.get("/health/ready", summary="Does it take calls?", responses={503: {"description": "It does not."}})
    async def ready() -> Response:
        """200 when new calls are taken; 503 with the reasons otherwise. With the figures of all workers."""
        state = health()
        if state.ready:
            return answers.json({"ok": True, **summary(figures())})
        return answers.refusal("not_ready", reasons=list(state.reasons), **summary(figures()))

    @routes.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """The text format 0.0.4."""
        return Response(generate_latest(registry), media_type=None, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    return routes


def summary(now: Figures) -> dict[str, Any]:
    """The figures that tell an operator whether all is well, as ``/health`` gives them. ``p99`` is an upper bound."""
    waits, checkpoint_ms = now.commit_wait, now.last_checkpoint_ms
    return {
        "workers": {"running": now.workers, "ready": now.workers_ready},
        "calls": {
            "admitted": now.admitted,
            "settled": now.settled,
            "open": now.open,
            "refused": now.refused,
            "interrupted": now.interrupted,
        },
        "ledger": {
            "records": now.records,
            "queue_depth": now.queue_depth,
            "commit_wait_ms": {
                "mean": round(waits.sum_ms / waits.total, 3) if waits.total else None,
                "p99": waits.p99_ms,
            },
            "unwitnessed": now.unwitnessed,
            "last_checkpoint_at": None if checkpoint_ms is None else timestamp(checkpoint_ms),
        },
        "disk": {"free_bytes": now.disk_free_bytes, "reserve_bytes": now.disk_reserve_bytes},
    }


class _Reading(Collector):
    """Reads the gateway's figures once a scrape."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        now = self._figures()
        for field, name, meaning in _COUNTERS:
            yield CounterMetricFamily(name, meaning, value=getattr(now, field))
        for field, name, meaning in _GAUGES:
            yield GaugeMetricFamily(name, meaning, value=getattr(now, field))
        if now.records is not None:
            yield CounterMetricFamily("counterfoil_ledger_records", "Records in the ledger.", value=now.records)
        waits = now.commit_wait
        buckets = [
            (str(bound / 1000), float(count)) for bound, count in zip(waits.bounds_ms, waits.counts, strict=True)
        ]
        yield HistogramMetricFamily(
            "counterfoil_ledger_commit_wait_seconds",
            "From a batch's start to its durable commit, counted for each record in it.",
            buckets=[*buckets, ("+Inf", float(waits.total))],
            sum_value=waits.sum_ms / 1000,
        )
        yield GaugeMetricFamily(
            "counterfoil_ledger_last_checkpoint_timestamp_seconds",
            "When the last signed checkpoint was made; 0 before the first.",
            value=(now.last_checkpoint_ms or 0) / 1000,
        )
