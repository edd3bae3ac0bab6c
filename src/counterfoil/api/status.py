"""Is it alive, does it take calls, how much has it done: ``/health/live``, ``/health/ready``, ``/metrics``; no key.

The figures hold totals only, no team, model or key, so that a scraper needs no credential.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response

from counterfoil.api import answers
from counterfoil.api.parts import Figures, Health

_COUNTERS: Final = (
    ("admitted", "Calls taken in: admitted = settled + open + refused."),
    ("settled", "Calls whose record is durable."),
    ("refused", "Calls refused before dispatch: overload, no ledger, shutting down."),
)
_GAUGES: Final = (
    ("open", "counterfoil_calls_open", "Calls in flight."),
    ("queue_depth", "counterfoil_ledger_queue_depth", "Records that wait for the next group commit."),
    ("disk_free_bytes", "counterfoil_disk_free_bytes", "Free bytes on the data folder's file system."),
    ("disk_reserve_bytes", "counterfoil_disk_reserve_bytes", "Bytes kept aside to finish calls when the disk is full."),
)


def router(health: Callable[[], Health], figures: Callable[[], Figures]) -> APIRouter:
    """The three paths over the gateway's own hooks."""
    routes = APIRouter(tags=["status"])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reading(figures))

    @routes.get("/health/live", summary="Is the process alive?", responses={503: {"description": "It is not."}})
    async def live() -> Response:
        """200 as long as the process can answer at all; restart it otherwise."""
        return answers.json({"ok": health().live}, 200 if health().live else 503)

    @routes.get("/health/ready", summary="Does it take calls?", responses={503: {"description": "It does not."}})
    async def ready() -> Response:
        """200 when new calls are taken; 503 with the reasons otherwise."""
        state = health()
        if state.ready:
            return answers.json({"ok": True})
        return answers.refusal("not_ready", reasons=list(state.reasons))

    @routes.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """The text format 0.0.4."""
        return Response(generate_latest(registry), media_type=None, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    return routes


class _Reading(Collector):
    """Reads the gateway's figures once a scrape."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        now = self._figures()
        for name, meaning in _COUNTERS:
            yield CounterMetricFamily(f"counterfoil_calls_{name}", meaning, value=getattr(now, name))
        for field, name, meaning in _GAUGES:
            yield GaugeMetricFamily(name, meaning, value=getattr(now, field))
        waits = now.commit_wait
        buckets = [
            (str(bound / 1000), float(count)) for bound, count in zip(waits.bounds_ms, waits.counts, strict=True)
        ]
        yield HistogramMetricFamily(
            "counterfoil_commit_wait_seconds",
            "From the end of an answer to the durable commit of its record.",
            buckets=[*buckets, ("+Inf", float(waits.total))],
            sum_value=waits.sum_ms / 1000,
        )
        yield GaugeMetricFamily(
            "counterfoil_last_checkpoint_timestamp_seconds",
            "When the last signed checkpoint was made; 0 before the first.",
            value=(now.last_checkpoint_ms or 0) / 1000,
        )
