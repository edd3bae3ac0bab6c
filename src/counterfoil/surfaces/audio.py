"""``/v1/audio/speech``, ``/v1/audio/transcriptions`` and ``/v1/audio/translations``.

Speech answers with sound, or with events that hold it. Sound is passed on as it comes, all but its last byte, which
waits for the record. It tells no usage: what is known is the text that was asked to be spoken, counted in characters
(code points) and marked as an estimate, since the provider did not say it.

Transcriptions answer with JSON, plain text or subtitles, or a stream of events. Usage is tokens or a duration; where
there is none, the ``duration`` of a verbose answer serves.

Source: OpenAI API reference, audio, read 2026-11.
"""

from __future__ import annotations

from typing import Any

from counterfoil.record.usage import Usage, UsageSource
from counterfoil.surfaces import metering
from counterfoil.surfaces.base import Call, Meter, Request
from counterfoil.surfaces.calls import json_body, model_of, value_of, word
from counterfoil.surfaces.families import JsonSurface
from counterfoil.surfaces.foreign import mapping, parse
from counterfoil.surfaces.forms import FormSurface
from counterfoil.surfaces.stream import END, PASS, StreamMeter, Verdict, telling

_EVENTS = (b"data:", b"event:", b":", b"\xef\xbb\xbf")


class SpeechSurface(JsonSurface):
    """``/v1/audio/speech``."""

    unary_output = False

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        body, content_type = json_body(request)
        spoken = value_of(body, "input")
        return Call(
            endpoint=self.path,
            model=model_of(body),
            stream=value_of(body, "stream_format") == "sse",
            body=body.body,
            content_type=content_type,
            model_span=body.span("model"),
            end_user=word(body, "user"),
            session_id=word(body, "session_id"),
            meters={"characters": len(spoken)} if isinstance(spoken, str) and spoken else None,
        )

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        return SpeechMeter(call)

    def streams(self, call: Call, content_type: str) -> bool:
        """Everything but JSON: sound can be long, and is heard while it is made."""
        return "json" not in content_type


class SpeechMeter(StreamMeter):
    """Reads speech, as sound or as events."""

    words = telling(b"speech.audio.done", b"error")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._sound: bool | None = None if call.stream else True
        self._lead = b""  # what came before it was clear what this is
        self._tail = b""

    def push(self, data: bytes) -> bytes:
        """Take the next bytes of the body; give those that may leave now."""
        if self._sound is None:
            data = self._lead = self._lead + data
            if not data.startswith(_EVENTS) and any(mark.startswith(data) for mark in _EVENTS):
                return b""
            self._sound = not data.startswith(_EVENTS)
        if not self._sound:
            return super().push(data)
        if self._ended or not data:
            return data
        self.output_seen = True
        leaving = self._tail + data[:-1]
        self._tail = data[-1:]
        return leaving

    def end(self) -> bytes:
        """Give what was kept back. Sound has no end marker but the end of the body."""
        if self._sound is None:
            self._tail = self._lead
        rest = super().end()
        if self._sound is False:
            return rest
        self._reading.complete = True
        rest, self._tail = self._tail, b""
        return rest

    def event(self, name: bytes, data: bytes) -> Verdict:
        """One event."""
        body = mapping(parse(data))
        if body.get("error") or name == b"error" or body.get("type") == "error":
            return self.complain({"type": "error", **body})
        self.output_seen = self.output_seen or bool(body.get("audio"))
        if body.get("type") != "speech.audio.done":
            return PASS
        self.merge_usage(body.get("usage"))
        self._reading.complete = True
        return END

    def long(self, head: bytes, tail: bytes) -> Verdict:
        """A large piece of sound."""
        self.output_seen = True
        return PASS

    def whole(self, status: int, body: bytes) -> None:
        """Read an error, or sound that came as one piece."""
        if status >= 400:
            super().whole(status, body)
            return
        self._reading.complete = True
        self._reading.has_output = bool(body)

    def settle(self) -> None:
        """Fill the reading: the provider's tokens, else the characters that were to be spoken."""
        super().settle()
        heard = self._reading.has_output or self.output_seen
        if self._reading.usage.source is UsageSource.ABSENT and heard and self._call.meters:
            self._reading.usage = Usage(meters=self._call.meters, source=UsageSource.ESTIMATED)


class TranscriptionSurface(FormSurface):
    """``/v1/audio/transcriptions`` and ``/v1/audio/translations``."""

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        return TranscriptionMeter(call)


class TranscriptionMeter(StreamMeter):
    """Reads transcriptions."""

    words = telling(b"transcript.text.done", b"error")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._duration: object = None

    def event(self, name: bytes, data: bytes) -> Verdict:
        """One event."""
        if data.strip() == b"[DONE]":
            return PASS
        body = mapping(parse(data))
        if body.get("error") or name == b"error" or body.get("type") == "error":
            return self.complain({"type": "error", **body})
        kind = body.get("type")
        self.output_seen = self.output_seen or bool(body.get("delta") or body.get("text"))
        if kind != "transcript.text.done":
            return PASS
        self.body(body)
        self._reading.complete = True
        return END

    def body(self, body: Any) -> None:
        """A whole transcription as JSON."""
        answer = mapping(body)
        self.note(answer)
        self.note({"id": mapping(answer.get("x_groq")).get("id")})
        self.merge_usage(answer.get("usage"))
        self._duration = answer.get("duration")

    def whole(self, status: int, body: bytes) -> None:
        """Read JSON, or text of which nothing is known."""
        super().whole(status, body)
        self._reading.has_output = status < 400 and bool(body)

    def settle(self) -> None:
        """Fill the reading: tokens, else the duration."""
        super().settle()
        if not self._reading.usage.total_tokens:
            seconds = self._usage.get("seconds") if self._usage.get("type") == "duration" else self._duration
            heard = metering.milliseconds(seconds)
            self._reading.usage = metering.usage_of(self._usage, {"input_audio_ms": heard} if heard else None)
