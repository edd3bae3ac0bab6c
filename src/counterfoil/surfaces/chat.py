"""``/v1/chat/completions`` and ``/v1/completions``: the protocol most providers speak.

A stream's usage stands in a frame of its own, with empty ``choices``, and comes only when the request asked for it with
``stream_options.include_usage``. We always ask; from a client that did not, the frame is withheld. A usage object on a
frame with choices (Perplexity, OpenRouter, Groq's ``x_groq``) is part of the answer and passes.

OpenAI's search models search the web for every answer and bill it by the call, as others do for answers that cite
pages; usage does not count it. One search at least is metered then, and the usage is *partial*.

Source: OpenAI API reference, chat completion chunk object, and guide to web search, read 2026-11.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from counterfoil.errors import CallerFault
from counterfoil.surfaces import metering
from counterfoil.surfaces.base import Call, Outgoing, Request
from counterfoil.surfaces.calls import flag, json_body, model_of, sliceable, splice_model, tags_of, word
from counterfoil.surfaces.families import JsonSurface
from counterfoil.surfaces.foreign import mapping, parse, sequence, text
from counterfoil.surfaces.stream import DROP, END, LAST, PASS, StreamMeter, Verdict, telling
from counterfoil.wire.json_object import JsonObject, read, tail_object

_FINISH = re.compile(rb'"finish_reason"\s*:\s*"(\w+)"')
_SEARCHES = re.compile(r"(?:^|/)gpt-[\w.-]*-search-(preview|api)")
_PRO_SEARCH = re.compile(rb'"search_type"\s*:\s*"pro"')
_ASK = b'"stream_options":{"include_usage":true},'
_OUTPUT_NAMES = (
    "content",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "tool_calls",
    "function_call",
    "refusal",
    "audio",
    "images",
)


class ChatSurface(JsonSurface):
    """Chat completions and completions: ``/v1/chat/completions``, ``/v1/completions``."""

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        body, content_type = json_body(request)
        values = body.values
        model = model_of(body)
        stream = flag(body, "stream")
        usage_splice = _ask_for_usage(body) if stream else None
        tagged = "metadata" in values
        return Call(
            endpoint=self.path,
            model=model,
            stream=stream,
            body=body.body,
            content_type=content_type,
            adds_usage=usage_splice is not None,
            model_span=body.span("model"),
            usage_splice=usage_splice,
            end_user=word(body, "safety_identifier" if "safety_identifier" in values else "user"),
            session_id=word(body, "session_id"),
            tags=tags_of(body) if tagged else None,
            service_tier=word(body, "service_tier"),
        )

    def prepare(self, call: Call, model: str) -> Outgoing:
        """The client's bytes with the model exchanged and, in a stream, the usage frame asked for."""
        body = call.body
        if call.usage_splice is None:
            return Outgoing(self.upstream_path, splice_model(body, call.model_span or (0, 0), model), call.content_type)
        start, end, asked = call.usage_splice
        model_start, model_end = call.model_span or (0, 0)
        written = msgspec.json.encode(model)
        first, last = sorted(((start, end, asked), (model_start, model_end, written)))
        pieces = sliceable(body)
        spliced = b"".join((pieces[: first[0]], first[2], pieces[first[1] : last[0]], last[2], pieces[last[1] :]))
        return Outgoing(self.upstream_path, spliced, call.content_type)

    def meter(self, call: Call) -> ChatMeter:
        """A meter for one answer."""
        return ChatMeter(call)


def _ask_for_usage(body: JsonObject) -> tuple[int, int, bytes] | None:
    """The splice that makes a stream request ask for usage, or None when the client asked itself."""
    raw = body.values.get("stream_options")
    if raw is None:
        start = body.body.index(b"{") + 1
        return start, start, _ASK
    start, end = body.span("stream_options")
    written = bytes(raw)
    if written == b"null":
        return start, end, b'{"include_usage":true}'
    if written[0] != 0x7B:  # {
        raise CallerFault("invalid_field", "The field stream_options must be an object.", param="stream_options")
    options = read(written)
    asked = options.values.get("include_usage")
    if asked is None:
        comma = b"," if options.values else b""
        return start + 1, start + 1, b'"include_usage":true' + comma
    if bytes(asked) == b"true":
        return None
    if bytes(asked) not in (b"false", b"null"):
        message = "The field stream_options.include_usage must be a boolean."
        raise CallerFault("invalid_field", message, param="stream_options.include_usage")
    inner_start, inner_end = options.span("include_usage")
    return start + inner_start, start + inner_end, b"true"


class ChatMeter(StreamMeter):
    """Reads chat completions and completions."""

    words = telling(b'"usage"', b'"finish_reason"', b"error")
    holes = (b'"content":"', b'"obfuscation":"')

    _cites = False

    def event(self, name: bytes, data: bytes) -> Verdict:
        """One chunk, ``[DONE]``, or an error."""
        if data.strip() == b"[DONE]":
            self._reading.complete = True
            return END
        body = mapping(parse(data))
        failed = body.get("error") or body.get("object") == "error" or name == b"error"
        verdict = self.complain(body) if failed else PASS
        self.note(body)
        choices = sequence(body.get("choices"))
        for choice in choices:
            if self._choice(mapping(choice)):
                verdict = LAST
        usage = body.get("usage") or mapping(body.get("x_groq")).get("usage")
        if self.merge_usage(usage) and not choices:
            self._usage_final = True
            if self._call.adds_usage and verdict is PASS:
                return DROP
        return verdict

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Read one choice; whether it failed, which OpenRouter says there and not always beside it."""
        finish = text(choice.get("finish_reason"))
        if finish:
            self._reading.finish_reason = self._reading.finish_reason or finish
            self._usage_final = True
            self.endings += 1
        if not self.output_seen:
            self.output_seen = has_output(choice)
        for said in _said(choice):
            if "annotations" in said and not self._cites:
                self._cites = _cites(said["annotations"])
        if not choice.get("error"):
            return False
        if self._reading.error_code is None:
            self.complain(choice)
        return True

    def long(self, head: bytes, tail: bytes) -> Verdict:
        """A chunk too long to hold (an image): how it ended and its usage stand at its end."""
        self.output_seen = True
        self.merge_usage(parse(tail_object(tail, b"usage")))
        found = _FINISH.search(tail)
        if found is not None:
            self._choice({"finish_reason": found[1].decode()})
        return PASS

    def body(self, body: Any) -> None:
        """A whole completion."""
        answer = mapping(body)
        self.note(answer)
        choices = sequence(answer.get("choices"))
        for choice in choices:
            self._choice(mapping(choice))
        self.merge_usage(answer.get("usage") or mapping(answer.get("x_groq")).get("usage"))
        if not choices and (answer.get("error") or answer.get("object") == "error"):
            self.complain(answer)

    def settle(self) -> None:
        """Fill the reading, with a search that the usage does not count."""
        super().settle()
        reading = self._reading
        if "extra_properties" in self._usage:
            traffic = text(mapping(mapping(self._usage["extra_properties"]).get("google")).get("traffic_type"))
            reading.service_tier = traffic or reading.service_tier  # Vertex AI, OpenAI's way
        model = reading.native_model or self._call.model
        if self._cites or "-search-" in model:
            found = _SEARCHES.search(model)
            if self._cites or (found and (self._usage or self.output_seen)):
                meter = "web_searches.preview" if found and found[1] == "preview" else "web_searches"
                reading.usage = metering.unseen(reading.usage, {meter: 1})
        if self._call.stream and "search_context_size" in self._usage and _PRO_SEARCH.search(self._call.body):
            reading.usage = metering.pro_search(reading.usage)


def _cites(annotations: object) -> bool:
    """Whether an answer cites pages of the web, so that somebody looked for them."""
    return bool(annotations) and any(mapping(note).get("type") == "url_citation" for note in sequence(annotations))


def has_output(choice: dict[str, Any]) -> bool:
    """Whether a choice (of a chunk or of a whole answer) holds generated output; a role alone is none."""
    if choice.get("text"):
        return True
    for said in _said(choice):
        for name in _OUTPUT_NAMES:  # twice as fast as any(), and in the head of every stream
            if said.get(name):
                return True
    return False


def _said(choice: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """What a choice says: in a chunk its delta, in an answer its message; Perplexity's have both, one of them empty."""
    delta, message = choice.get("delta"), choice.get("message")
    if message is None:
        return (mapping(delta),)
    return (mapping(message), mapping(delta))
