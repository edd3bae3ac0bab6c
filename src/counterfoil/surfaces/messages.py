"""``/v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's protocol.

Usage comes in two events: ``message_start`` has the input and where it was cached, ``message_delta`` the final counts;
the second covers the first field by field. A refusal before any output is not billed, and a fallback that answered in
its place is billed by its own prices. Source: Anthropic API reference, streaming; refusals and fallback, read 2026-11.
"""

from __future__ import annotations

from typing import Any

from counterfoil.record.usage import Usage, UsageSource, served_instead
from counterfoil.surfaces.base import Call, Meter, Request
from counterfoil.surfaces.calls import flag, identifier, json_body, model_of, tags_of, value_of, word
from counterfoil.surfaces.families import AnthropicSurface
from counterfoil.surfaces.foreign import mapping, parse, sequence, text
from counterfoil.surfaces.metering import usage_of
from counterfoil.surfaces.stream import END, PASS, StreamMeter, Verdict, telling

_TEXTUAL = ("text", "thinking")
_ANYWHERE = (None, "global", "not_available")
"""What ``inference_geo`` says where no price depends on it (platform.claude.com, data residency, read 2026-11)."""


class MessagesSurface(AnthropicSurface):
    """``/v1/messages``."""

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        body, content_type = json_body(request)
        user, tags = None, None
        if "metadata" in body.values:
            user = identifier(mapping(value_of(body, "metadata")).get("user_id"))
            tags = tags_of(body)
            if tags is not None:
                tags.pop("user_id", None)
        return Call(
            endpoint=self.path,
            model=model_of(body),
            stream=flag(body, "stream"),
            body=body.body,
            content_type=content_type,
            model_span=body.span("model"),
            end_user=user,
            session_id=word(body, "session_id"),
            tags=tags or None,
            service_tier=word(body, "service_tier"),
        )

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        return MessagesMeter(call)


class CountTokensSurface(MessagesSurface):
    """``/v1/messages/count_tokens``: free, and nothing is generated."""

    unary_output = False

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        return CountMeter(call)


class MessagesMeter(StreamMeter):
    """Reads Messages."""

    words = telling(b'"usage"', b"message_stop", b"error")
    holes = (b'"text":"', b"")

    _thought = False

    def event(self, name: bytes, data: bytes) -> Verdict:
        """One event."""
        body = mapping(parse(data))
        match body.get("type") or name.decode("latin-1"):
            case "message_start":
                message = mapping(body.get("message"))
                self.note(message)
                self._use(message.get("usage"))
            case "message_delta":
                self._reading.finish_reason = text(mapping(body.get("delta")).get("stop_reason"))
                self.endings += self._reading.finish_reason is not None
                if self._use(body.get("usage")):
                    self._usage_final = True
            case "message_stop" if body:
                self._reading.complete = True
                return END
            case "error":
                return self.complain({"type": "error", **body})
            case "content_block_start" if not self.output_seen:
                block = mapping(body.get("content_block"))
                self.output_seen = _has_content(block)
                self._thought = self._thought or block.get("type") == "thinking"
            case "content_block_delta" if not self.output_seen:
                delta = mapping(body.get("delta"))
                self.output_seen = any(delta.get(part) for part in (*_TEXTUAL, "partial_json", "citation"))
            case _:
                pass
        return PASS

    def long(self, head: bytes, tail: bytes) -> Verdict:
        """A block too long to hold: output, and nothing else."""
        self.output_seen = True
        return PASS

    def _use(self, usage: object) -> bool:
        used = mapping(usage)
        tier = "fast" if used.get("speed") == "fast" else text(used.get("service_tier"))
        self._reading.service_tier = tier or self._reading.service_tier
        geography = text(used.get("inference_geo"))
        if geography not in _ANYWHERE:
            self._reading.region = geography
        return self.merge_usage(used)

    def body(self, body: Any) -> None:
        """A whole message."""
        answer = mapping(body)
        self.note(answer)
        self._use(answer.get("usage"))
        self._reading.finish_reason = text(answer.get("stop_reason"))
        blocks = [mapping(block) for block in sequence(answer.get("content"))]
        self._reading.has_output = any(_has_content(block) for block in blocks)
        self._thought = any(block.get("type") == "thinking" for block in blocks)
        if answer.get("type") == "error":
            self.complain(answer)

    def settle(self) -> None:
        """Fill the reading; a refusal before any output is a meter of its own, because it is not billed."""
        super().settle()
        reading = self._reading
        if reading.finish_reason == "refusal" and not (reading.has_output or self.output_seen or self._thought):
            reading.usage = usage_of(self._usage, {"refusals": 1})
        reading.native_model = served_instead(reading.usage.meters) or reading.native_model


class CountMeter(StreamMeter):
    """Reads the answer of a token count, which consumes nothing."""

    def event(self, name: bytes, data: bytes) -> Verdict:
        """Nothing is known about a stream of counts."""
        return PASS

    def body(self, body: Any) -> None:
        """The count itself is the answer, not a consumption."""
        self._reading.usage = Usage(source=UsageSource.REPORTED)
        self._reading.has_output = bool(mapping(body))

    def settle(self) -> None:
        """Nothing is left to do."""


def _has_content(block: dict[str, Any]) -> bool:
    """Whether a content block holds output: text that is not empty, or anything that is not text."""
    kind = block.get("type")
    return bool(block.get(kind)) if kind in _TEXTUAL else kind is not None
