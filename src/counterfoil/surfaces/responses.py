"""``/v1/responses`` and what stands below it: OpenAI's Responses protocol.

Azure, OpenRouter, DeepSeek and Bedrock's gateway speak it too.

A stream ends with one of three events that hold the whole response, usage included; only that event is parsed late in
a stream. Source: OpenAI API reference, Responses streaming events, read 2026-11.
"""

from __future__ import annotations

import re
from typing import Any

from counterfoil.surfaces import metering, render
from counterfoil.surfaces.base import Call, Meter, Request
from counterfoil.surfaces.calls import flag, json_body, model_of, tags_of, word
from counterfoil.surfaces.complaint import complaint_in
from counterfoil.surfaces.families import JsonSurface
from counterfoil.surfaces.foreign import mapping, parse, sequence, text
from counterfoil.surfaces.messages import CountMeter
from counterfoil.surfaces.stream import END, PASS, StreamMeter, Verdict, telling
from counterfoil.wire.json_object import tail_object

_ENDS = ("response.completed", "response.failed", "response.incomplete")
_END_IN_HEAD = re.compile(rb"response\.(completed|failed|incomplete)\b")
_UNFINISHED = ("queued", "in_progress")
_QUIET_ITEMS = (None, "message", "reasoning")
_PREVIEW = "web_search_preview"
_TOOLS = {
    "web_search_call": "web_searches",
    "file_search_call": "file_searches",
    "image_generation_call": "image_generations",
    "code_interpreter_call": "code_executions",
    "shell_call": "code_executions",
}


_ASKED = {
    b'"web_search': "web_searches",
    b'"file_search': "file_searches",
    b'"image_generation': "image_generations",
    b'"code_interpreter': "code_executions",
    b'"shell"': "code_executions",
}
"""How a request names the tools that are billed by the call."""


class ResponsesSurface(JsonSurface):
    """``/v1/responses``."""

    stream_error_renderer = staticmethod(render.responses_stream_error)

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        body, content_type = json_body(request)
        values = body.values
        return Call(
            endpoint=self.path,
            model=model_of(body),
            stream=flag(body, "stream"),
            body=body.body,
            content_type=content_type,
            model_span=body.span("model"),
            end_user=word(body, "safety_identifier" if "safety_identifier" in values else "user"),
            session_id=word(body, "session_id"),
            tags=tags_of(body) if "metadata" in values else None,
            service_tier=word(body, "service_tier"),
        )

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        return ResponsesMeter(call)


class CompactSurface(ResponsesSurface):
    """``/v1/responses/compact``: a conversation made shorter by a model, billed as its answer is."""


class InputTokensSurface(ResponsesSurface):
    """``/v1/responses/input_tokens``: free, and nothing is generated."""

    unary_output = False

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        return CountMeter(call)


class ResponsesMeter(StreamMeter):
    """Reads Responses."""

    words = telling(b"response.completed", b"response.failed", b"response.incomplete", b"error")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._meters: dict[str, int] = {}
        self._containers: set[str] = set()
        self._unread = False

    def event(self, name: bytes, data: bytes) -> Verdict:
        """One event."""
        if data.strip() == b"[DONE]":
            return PASS
        body = mapping(parse(data))
        kind = body.get("type") or name.decode("latin-1")
        if kind in _ENDS and body:  # a name over half an object is the end of a connection, not of an answer
            self.body(body.get("response"))
            self._reading.complete = True
            return END
        if kind == "error" or (body.get("error") and "type" not in body):
            return self.complain({"type": "error", **body})
        if kind in ("response.created", "response.in_progress"):
            self.note(mapping(body.get("response")))
        elif not self.output_seen:
            self.output_seen = _is_output(str(kind), body)
        return PASS

    def long(self, head: bytes, tail: bytes) -> Verdict:
        """A snapshot of a large response: its usage stands near its end. Its calls of tools cannot be counted."""
        found = _END_IN_HEAD.search(head)
        if found is None:
            self.output_seen = True
            return PASS
        self.merge_usage(parse(tail_object(tail, b"usage")))
        self._reading.finish_reason = found[1].decode()
        self._reading.complete = True
        self.output_seen = True
        self._unread = True
        return END

    def body(self, body: Any) -> None:
        """A whole response."""
        answer = mapping(body)
        self.note(answer)
        self.merge_usage(answer.get("usage"))
        reading = self._reading
        reason = text(mapping(answer.get("incomplete_details")).get("reason"))
        status = text(answer.get("status"))
        reading.finish_reason = reason or (None if status in _UNFINISHED else status)
        output = sequence(answer.get("output"))
        reading.has_output = reading.has_output or bool(output)
        for item in map(mapping, output):
            meter = _TOOLS.get(str(item.get("type")))
            if meter == "web_searches" and _previews(answer):
                meter = "web_searches.preview"
            if meter is not None and self._is_billed(item):
                self._meters[meter] = self._meters.get(meter, 0) + 1
        if complaint_in(answer) is not None:
            self.complain(answer)

    def _is_billed(self, item: dict[str, Any]) -> bool:
        """Whether a tool's item is one more to pay for: code and commands are billed by the container, not the run."""
        container = text(item.get("container_id")) or text(mapping(item.get("environment")).get("container_id"))
        if container is None:
            return item.get("type") != "shell_call" and _was_done(item)  # without one, the client's own shell ran
        known = container in self._containers
        self._containers.add(container)
        return not known

    def settle(self) -> None:
        """Fill the reading; a usage that counts searches itself is believed before our own count."""
        super().settle()
        if self._meters:
            self._reading.usage = metering.usage_of(self._usage, self._meters)
        if self._unread:
            asked = {meter: 0 for word, meter in _ASKED.items() if word in self._call.body}
            self._reading.usage = metering.unseen(self._reading.usage, asked)


def _previews(answer: dict[str, Any]) -> bool:
    """Whether the searches of a response were made by the earlier version of the tool, which has its own price."""
    return any(str(mapping(tool).get("type")).startswith(_PREVIEW) for tool in sequence(answer.get("tools")))


def _was_done(item: dict[str, Any]) -> bool:
    """Whether a search item was carried out; opening or reading a page that was found is not a search."""
    if item.get("type") == "image_generation_call" and item.get("result"):
        return True  # its status may stay at "generating" although the image is there
    action = mapping(item.get("action")).get("type", "search")
    return action == "search" and item.get("status", "completed") == "completed"


def _is_output(kind: str, body: dict[str, Any]) -> bool:
    """Whether an event holds generated output."""
    if kind.endswith(".delta"):
        return bool(body.get("delta"))
    if kind == "response.output_item.added":
        return mapping(body.get("item")).get("type") not in _QUIET_ITEMS
    return kind.endswith((".done", ".partial_image"))
