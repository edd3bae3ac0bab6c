"""Puts the recordings of a cassette into a ledger, as records that cost nothing and can be played.

A writer of its own opens the ledger beside those of a running gateway, as another worker would, and leaves its chain
signed. What such a record says of its answer (usage, finish reason, the provider's id) is read from the recorded bytes
by the surface's own meter; when, for whom and by what id it was first recorded stays in ``playback_of``.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from counterfoil.capture.body import Capture
from counterfoil.clock import wall_ms
from counterfoil.errors import ConfigError, Fault
from counterfoil.folder import DataFolder
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.recordings import IMPORTED
from counterfoil.ledger.settlement import NO_SLOT, Settlement
from counterfoil.providers.classify import fault_of
from counterfoil.record.charge import PLAYED
from counterfoil.record.ids import IdSource
from counterfoil.record.record import CapturePolicy, Record
from counterfoil.record.times import timestamp
from counterfoil.replay.cassette import Cassette, Interaction
from counterfoil.surfaces import registry
from counterfoil.surfaces.base import Call, Reading, Request, Surface

KEY_ID: Final = "cassette"
"""The key of imported records: none."""


async def run(folder: DataFolder, cassette: Cassette, team_id: str, retention_days: int) -> list[str]:
    """Import every recording, in order; give the ids of their records, which are durable on return.

    Raises :class:`ConfigError` for a recording that is no call of ours, before anything is written.
    """
    source = IdSource(wall_ms, os.urandom)
    made = [_settlement(one, team_id, source.next()) for one in cassette.interactions]
    ledger = Ledger.open(folder, durability="fsync", loop=asyncio.get_running_loop(), retention_days=retention_days)
    try:
        await asyncio.gather(*[ledger.settle(settlement) for settlement in made])
    finally:
        await ledger.close()
    return [settlement.record.request_id for settlement in made]


def _settlement(one: Interaction, team_id: str, request_id: str) -> Settlement:
    recording = one.recording
    capture = recording.capture
    surface, call = _called(one)
    reading = read(surface, call, capture)
    fault = None if recording.success else fault_of(capture.response_status, reading.error_message, reading.error_code)
    now_ms = wall_ms()
    record = Record(
        created_at=timestamp(now_ms),
        request_id=request_id,
        team_id=team_id,
        app_id=None,
        key_id=KEY_ID,
        endpoint=call.endpoint,
        model_id=recording.model_id,
        provider=IMPORTED,
        native_response_id=reading.native_response_id,
        stream=call.stream,
        byok=False,
        status_code=capture.response_status,
        success=fault is None,
        error_code=fault.code if fault is not None else None,
        error_message=fault.message if fault is not None else None,
        latency_ms=min(recording.generation_ms, _first_ms(capture, recording.generation_ms)),
        generation_ms=recording.generation_ms,
        throughput=None,
        usage=reading.usage,
        cost_nanos=PLAYED.nanos,
        cost_state=PLAYED.state,
        cost_reason="imported from a cassette; no provider was called",
        finish_reason=reading.finish_reason,
        requested_model=call.model,
        native_model=reading.native_model,
        session_id=call.session_id,
        end_user=call.end_user,
        tags=call.tags or {},
        playback_of=recording.generation_id,
    )
    bodies = Capture(
        call.body,
        call.content_type,
        call.replayable,
        capture.response,
        capture.response_type,
        capture.response_status,
        capture.offsets_us,
        capture.request_fields,
    )
    return Settlement(NO_SLOT, record, CapturePolicy.FULL, bodies, now_ms)


def _called(one: Interaction) -> tuple[Surface, Call]:
    path, _, query = one.endpoint.partition("?")
    surface = registry.find(path)
    capture = one.recording.capture
    name = one.recording.generation_id
    if surface is None:
        raise ConfigError(f"The recording {name} is of {path}, which is no endpoint of this version.")
    headers = {b"content-type": capture.request_type.encode("latin-1", "replace")}
    try:
        return surface, surface.peek(Request("POST", path, query, headers, capture.request))
    except Fault as fault:
        raise ConfigError(f"The recording {name} cannot be read: {fault.message}") from fault


def read(surface: Surface, call: Call, capture: Capture) -> Reading:
    """What the surface's meter reads in a captured answer."""
    meter = surface.meter(call)
    response = capture.response
    if isinstance(response, bytes) or capture.response_status >= 300:
        meter.whole(capture.response_status, capture.response_body)
    else:
        for chunk in response:
            meter.push(chunk)
        meter.end()
    return meter.reading()


def _first_ms(capture: Capture, otherwise: float) -> float:
    return capture.offsets_us[0] / 1000 if capture.offsets_us else otherwise
