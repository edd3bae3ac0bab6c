"""``/v1/embeddings``, ``/v1/moderations`` and ``/v1/rerank``: unary calls whose answers hold numbers, not text.

Only the few fields that matter are parsed; the vectors are skipped. Rerank is spoken as Cohere, Jina, Voyage and
Together do: usage stands in ``usage`` or in ``meta.billed_units``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from counterfoil.surfaces.base import Call, Request
from counterfoil.surfaces.calls import json_body, model_of, tags_of, word
from counterfoil.surfaces.families import JsonSurface
from counterfoil.surfaces.foreign import UNREADABLE, mapping
from counterfoil.surfaces.stream import PASS, StreamMeter, Verdict


class _Answer(Struct):
    """What is read of an answer; everything else is passed over unparsed."""

    id: Any = None
    model: Any = None
    usage: Any = None
    meta: Any = None
    service_tier: Any = None


_decoder = msgspec.json.Decoder(_Answer, float_hook=Decimal)


class VectorSurface(JsonSurface):
    """Embeddings, moderations, rerank."""

    unary_output = False

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        body, content_type = json_body(request)
        return Call(
            endpoint=self.path,
            model=model_of(body),
            stream=False,
            body=body.body,
            content_type=content_type,
            model_span=body.span("model"),
            end_user=word(body, "user"),
            session_id=word(body, "session_id"),
            tags=tags_of(body) if "metadata" in body.values else None,
        )

    def meter(self, call: Call) -> VectorMeter:
        """A meter for one answer."""
        return VectorMeter(call)


class VectorMeter(StreamMeter):
    """Reads embeddings, moderations and rankings."""

    def event(self, name: bytes, data: bytes) -> Verdict:
        """These protocols have no streams; what comes as one passes unread."""
        self.output_seen = True
        return PASS

    def whole(self, status: int, body: bytes) -> None:
        """Read a unary answer without its vectors."""
        if status >= 400:
            super().whole(status, body)
            return
        self._reading.complete = True
        try:
            answer = _decoder.decode(body)
        except UNREADABLE:
            return
        self.note({"id": answer.id, "model": answer.model, "service_tier": answer.service_tier})
        self._reading.has_output = True
        if not self.merge_usage(answer.usage):
            meta = mapping(answer.meta)
            self.merge_usage({"billed_units": meta.get("billed_units"), "tokens": meta.get("tokens")})
