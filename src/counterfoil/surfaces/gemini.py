"""Gemini: ``/v1beta/models/{model}:generateContent`` and its relatives, also under ``/v1`` and ``/v1beta1``.

The model is in the path, so the body is never touched. ``streamGenerateContent`` answers with an event stream when the
query says ``alt=sse`` and else with one JSON array that grows; both are metered as they pass. Neither has an end marker
that comes alone: the stream is over when it ends, and the frame with ``finishReason`` may be the last. So from that
frame on every frame waits until the next with output comes or the stream ends (early Gemini models wrote
``finishReason`` in every frame; several candidates finish one after the other).

A ``key`` in the query is where Google's own clients once put it. Keys of ours are taken from headers only, so it is no
way to ask; but whatever stands there is a secret, and goes neither upstream nor into the record.

Clients generated from Google's own definitions ask for ``$alt=json;enum-encoding=int``: then every enumeration is a
number. Only the first finish reasons have the same numbers at AI Studio and at Vertex; others are kept as numbers.

Source: Gemini API reference (GenerateContentResponse, UsageMetadata), read 2026-11; the numbers: googleapis,
``generativelanguage/v1beta/generative_service.proto`` and ``aiplatform/v1beta1/prediction_service.proto``.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote_plus

import msgspec
from msgspec import Struct

from counterfoil.errors import CallerFault
from counterfoil.record.usage import Usage, UsageSource
from counterfoil.surfaces import metering
from counterfoil.surfaces.base import Call, Meter, Outgoing, Request
from counterfoil.surfaces.calls import checked_model, escaped, identifier, json_body, refused_call, tags_of
from counterfoil.surfaces.families import EVENT_STREAM, GoogleSurface
from counterfoil.surfaces.foreign import UNREADABLE, enum, mapping, parse, sequence, text
from counterfoil.surfaces.stream import LAST, MORE, PASS, StreamMeter, Verdict, telling
from counterfoil.wire.json_array import ArrayCutter
from counterfoil.wire.json_object import tail_object
from counterfoil.wire.sse import fields

METHODS = ("generateContent", "streamGenerateContent", "embedContent", "batchEmbedContents", "countTokens")

_PATH = re.compile(rf"/(v1|v1beta|v1beta1)/(models|tunedModels)/(.+):({'|'.join(METHODS)})\Z", re.DOTALL)
_NAMES = ("responseId", "modelVersion")
_NAMED = re.compile(rb'"(responseId|modelVersion)"\s*:\s*"([^"\\]+)"')
_FINISH = re.compile(rb'"finishReason"\s*:\s*("\w+"|\d+)')
_SEARCH = re.compile(rb'"google_?[sS]earch')
_FINISHES = ("", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")
_BLOCKS = ("", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT")
_TRAFFIC = ("", "ON_DEMAND", "PROVISIONED_THROUGHPUT")
_WHOLE_PART = ("functionCall", "inlineData", "executableCode", "codeExecutionResult", "fileData")


def method_of(path: str) -> str | None:
    """The Gemini method that ``path`` calls, or None when it is no such path."""
    found = _PATH.match(path)
    return found[4] if found else None


def without_key(query: str) -> str:
    """``query`` without its ``key`` parameter, everything else in its own bytes."""
    if "key" not in query and "%" not in query:
        return query
    return "&".join(part for part in query.split("&") if unquote_plus(part.partition("=")[0]) != "key")


class GeminiSurface(GoogleSurface):
    """One Gemini method at any model."""

    def __init__(self, method: str) -> None:
        super().__init__("gemini", f"/v1beta/models/{{model}}:{method}")
        self.method = method
        self.unary_output = method in ("generateContent", "streamGenerateContent")

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        found = _PATH.match(request.path)
        name = found[3].replace("%2F", "/").replace("%2f", "/") if found else ""
        model = checked_model(f"tunedModels/{name}" if found and found[2] == "tunedModels" else name)
        if any(segment in (".", "..") for segment in name.split("/")):
            raise CallerFault("invalid_field", "The model's name must not hold . or .. as a segment.", param="model")
        query = without_key(request.query)
        if not query.isascii() or not query.isprintable() or " " in query:
            raise CallerFault("invalid_http", "The query holds characters that must be escaped.")
        body, content_type = json_body(request)
        return Call(
            endpoint=_endpoint(request.path, query),
            model=model,
            stream=self.method == "streamGenerateContent",
            body=body.body,
            content_type=content_type,
            tags=tags_of(body, "labels") if "labels" in body.values else None,
        )

    def refused(self, request: Request) -> Call:
        """The model and whether it streams stand in the path, however odd the body is."""
        found = _PATH.match(request.path)
        return msgspec.structs.replace(
            refused_call(request),
            endpoint=_endpoint(request.path, without_key(request.query)),
            model=identifier(found[3]) or "" if found else "",
            stream=self.method == "streamGenerateContent",
        )

    def prepare(self, call: Call, model: str) -> Outgoing:
        """The client's body, at the path of ``model``; the rest of the query is kept."""
        query = call.endpoint.partition("?")[2]
        collection = "" if model.startswith(("models/", "tunedModels/")) else "models/"
        path = f"/{collection}{quote(model, safe='/@~')}:{self.method}"
        return Outgoing(f"{path}?{query}" if query else path, call.body, call.content_type)

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        if self.unary_output:
            return GeminiMeter(call)
        return CountMeter(call) if self.method == "countTokens" else EmbedMeter(call)

    def streams(self, call: Call, content_type: str) -> bool:
        """Event streams, and the JSON array of a stream without ``alt=sse``."""
        return content_type[:17].lower() == EVENT_STREAM or (call.stream and "json" in content_type)


def _endpoint(path: str, query: str) -> str:
    """The path to resubmit to, as a client writes it, with what the query says of the answer's form."""
    return f"{escaped(path)}?{query}" if query else escaped(path)


class GeminiMeter(StreamMeter):
    """Reads generated content, as an event stream, a growing array, or one object."""

    words = telling(b'"finishReason"', b'"blockReason"', b"error")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._array: ArrayCutter | None = None
        self._lead: bytes | None = b""  # what came before the first byte that tells what this is
        self._meters: dict[str, int] = {}
        self._unread = False

    def push(self, data: bytes) -> bytes:
        """Take the next bytes of the body; give those that may leave now."""
        if self._lead is not None:
            data = self._lead + data
            first = data.lstrip(b" \t\r\n\xef\xbb\xbf")[:1]
            self._lead = None if first else data
            if not first:
                return b""
            if first in b"[{":
                self._array = self._cutter = ArrayCutter()
        return super().push(data) if self._array is None else self._push(data)

    def end(self) -> bytes:
        """Give every byte still kept back that the client may have."""
        lead, self._lead = self._lead, None
        return (lead or b"") + super().end()

    def _judge(self, raw: bytes, head: bytes) -> Verdict:
        if self._array is None or head:
            return super()._judge(raw, head)
        return self.event(b"", self._array.element(raw))

    def event(self, name: bytes, data: bytes) -> Verdict:
        """One part of the answer."""
        body = mapping(parse(data))
        if not body:
            return PASS
        if "error" in body:
            return self.complain(body)
        finished_before = self._reading.complete
        had_output = self._read(body)
        if not self._reading.complete:
            return PASS
        more = finished_before and had_output
        self.endings += more or not finished_before
        return MORE if more else LAST

    def _read(self, body: dict[str, Any]) -> bool:
        """Keep what one part says; whether it holds output."""
        reading = self._reading
        self.note(body, *_NAMES)
        self._use(mapping(body.get("usageMetadata")))
        output = False
        for entry in sequence(body.get("candidates")):
            candidate = mapping(entry)
            finish = enum(candidate.get("finishReason"), _FINISHES)
            if finish:
                reading.finish_reason = finish
                reading.complete = True
            parts = sequence(mapping(candidate.get("content")).get("parts"))
            output = output or any(_has_output(mapping(part)) for part in parts)
            if "groundingMetadata" in candidate:
                self._ground(mapping(candidate["groundingMetadata"]))
        blocked = enum(mapping(body.get("promptFeedback")).get("blockReason"), _BLOCKS)
        if blocked:
            reading.finish_reason = blocked
            reading.complete = True
        self.output_seen = self.output_seen or output
        return output

    def _ground(self, grounding: dict[str, Any]) -> None:
        """Count what the answer was grounded in: each query of the web, and places of the map, once a prompt."""
        queries = sum(bool(query) for query in sequence(grounding.get("webSearchQueries")))
        if queries:
            self._meters["web_searches"] = self._meters.get("web_searches", 0) + queries
        if any("maps" in mapping(chunk) for chunk in sequence(grounding.get("groundingChunks"))):
            self._meters["map_searches"] = 1

    def _use(self, usage: dict[str, Any]) -> None:
        """Keep the newest usage and the tier that it names."""
        if self.merge_usage(usage):
            traffic = enum(usage.get("trafficType"), _TRAFFIC)
            tier = text(usage.get("serviceTier")) or (traffic if traffic != "ON_DEMAND" else None)
            self._reading.service_tier = tier or self._reading.service_tier

    def long(self, head: bytes, tail: bytes) -> Verdict:
        """A part too long to hold (an image): how it ended and its usage stand at its end."""
        self.output_seen = True
        self._unread = True
        self._use(mapping(parse(tail_object(tail, b"usageMetadata"))))
        self.note(
            {name.decode(): value.decode("utf-8", "replace") for name, value in _NAMED.findall(head + tail)}, *_NAMES
        )
        found = _FINISH.search(tail)
        if found is None:
            return PASS
        more = self._reading.complete
        self._reading.finish_reason = enum(parse(found[1]), _FINISHES)
        self._reading.complete = True
        self.endings += 1
        return MORE if more else LAST

    def whole(self, status: int, body: bytes) -> None:
        """Read a unary answer; an array of parts is read part by part."""
        if status >= 400:
            super().whole(status, body)
            return
        parsed = parse(body)
        for part in parsed if isinstance(parsed, list) else [parsed]:  # pyright: ignore[reportUnknownVariableType]
            self.body(part)
        self._reading.complete = True

    def body(self, body: Any) -> None:
        """One part of the answer, or all of it."""
        answer = mapping(body)
        self._reading.has_output = self._read(answer) or self._reading.has_output
        if "error" in answer:
            self.complain(answer)

    def settle(self) -> None:
        """Fill the reading; of a stream that broke off, the newest interim count is what is known."""
        if not self._reading.complete and self._last:
            self._interim()
        usage = metering.gemini_usage_of(self._usage, self._meters or None)
        if self._unread and _SEARCH.search(self._call.body):
            usage = metering.unseen(usage, {"web_searches": 0})
        self._reading.usage = usage

    def _interim(self) -> None:
        """Take the usage of the newest part that left unread."""
        last = self._last.rstrip(b"\r\n")
        last = last[max(last.rfind(b"\n\n"), last.rfind(b"\r\n\r\n"), 0) :]
        _, data = fields(last.strip(b"\r\n"))
        self.merge_usage(mapping(parse(data)).get("usageMetadata"))
        self._last = b""


def _has_output(part: dict[str, Any]) -> bool:
    return bool(part.get("text")) or any(name in part for name in _WHOLE_PART)


class _Embedded(Struct, rename={"usage": "usageMetadata"}):
    """What is read of an embedding's answer; the vectors are passed over."""

    usage: Any = None


_embedded = msgspec.json.Decoder(_Embedded, float_hook=Decimal)


class EmbedMeter(StreamMeter):
    """Reads embeddings, which report usage only on some hosts."""

    def event(self, name: bytes, data: bytes) -> Verdict:
        """There are no streams of embeddings; what comes as one passes unread."""
        return PASS

    def whole(self, status: int, body: bytes) -> None:
        """Read a unary answer without its vectors."""
        if status >= 400:
            super().whole(status, body)
            return
        self._reading.complete = True
        try:
            self._usage = mapping(_embedded.decode(body).usage)
        except UNREADABLE:
            return
        self._reading.has_output = True

    def settle(self) -> None:
        """Fill the reading."""
        self._reading.usage = metering.gemini_usage_of(self._usage)


class CountMeter(EmbedMeter):
    """Reads the answer of a token count, which consumes nothing."""

    def settle(self) -> None:
        """The count itself is the answer, not a consumption."""
        if self._reading.has_output:
            self._reading.usage = Usage(source=UsageSource.REPORTED)
