"""What an answer says: its text, its tool calls, its refusal, read from the captured bytes of any surface.

One reader for all protocols, because their parts do not collide: a chat completion has ``choices``, a Responses answer
``output``, a Messages answer ``content`` blocks, Gemini ``candidates``. Streams are read frame by frame into the same
parts. Reading never fails: what is no JSON (audio, an empty body) has no text, and its bytes are compared by digest.

Tool calls are compared by structure, so their arguments are parsed; ids that a provider draws anew for each call are
left out, because they differ between equal answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from counterfoil.capture.body import Capture
from counterfoil.wire import sse

JSON_BYTES_MAX: Final = 64 << 20
"""A longer answer is not parsed: no generated text is that long, and the difference still has its digest."""

_KNOWN: Final = frozenset({"choices", "candidates", "output", "content", "text", "error", "type"})
"""A member that says which answer this is (or an error, which the record compares): nothing read means nothing said."""

_decode = msgspec.json.Decoder().decode
Object = dict[str, Any]


class ToolCall(Struct, frozen=True):
    """A function that the model asks for. ``arguments`` is parsed JSON, or the text itself when it is no JSON."""

    name: str
    arguments: Any


class Said(Struct, frozen=True):
    """What an answer says. ``digest`` is the SHA-256 of a body that holds no JSON (audio, plain text), else None."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    digest: str | None = None


class _Draft:
    """The parts of an answer while its frames come. Tools are keyed by their place in the protocol's own order."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.tools: dict[Any, list[Any]] = {}

    def tool(self, key: Any, name: object = None, arguments: object = None) -> None:
        """Add to the tool call at ``key``: a name, a piece of the arguments' text, or the arguments themselves."""
        known = self.tools.setdefault(key, ["", None])
        if isinstance(name, str) and name:
            known[0] = name
        if isinstance(arguments, str):
            known[1] = (known[1] if isinstance(known[1], str) else "") + arguments
        elif arguments not in (None, {}):
            known[1] = arguments

    def said(self) -> Said:
        calls = tuple(ToolCall(name, _arguments(arguments)) for name, arguments in self.tools.values())
        return Said("".join(self.text), "".join(self.reasoning), "".join(self.refusal), calls)


def said(capture: Capture) -> Said:
    """What the captured response of any surface says."""
    return read(capture.response_body, capture.response_type.lower())


def read(body: bytes, media_type: str) -> Said:
    """What ``body`` says; ``media_type`` tells an event stream from a whole answer."""
    if not body:
        return Said()
    draft = _Draft()
    values = list(_values(body, media_type))
    if not values:
        return _plain(body, media_type)
    streamed = media_type.startswith("text/event-stream")
    for value in values:
        _read(draft, value, streamed=streamed)
    told = draft.said()
    if told == Said() and not any(_KNOWN & value.keys() for value in values):
        return _plain(body, "")  # vectors, images: only their bytes can be compared
    return told


def _plain(body: bytes, media_type: str) -> Said:
    """A body without JSON: text (a transcription as plain text), or bytes that only a digest can compare."""
    if media_type.startswith("text/") and not media_type.startswith("text/event-stream"):
        return Said(text=body.decode("utf-8", "replace"))
    return Said(digest=hashlib.sha256(body).hexdigest())


def _values(body: bytes, media_type: str) -> Iterable[Object]:
    if len(body) > JSON_BYTES_MAX:
        return []
    if media_type.startswith("text/event-stream"):
        cutter = sse.Cutter()
        frames = cutter.push(body)
        rest = cutter.rest()
        data = [sse.fields(frame.raw)[1] for frame in (*frames, *([rest] if rest else []))]
        return _objects([_json(part) for part in data])
    value = _json(body)
    if isinstance(value, list):
        return _objects(cast("list[Any]", value))
    return [cast("Object", value)] if isinstance(value, dict) else []


def _json(data: bytes) -> Any:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _read(draft: _Draft, value: Object, *, streamed: bool) -> None:
    """One value: a whole answer, or one frame of a stream."""
    kind = value.get("type")
    if isinstance(kind, str) and kind.startswith("response."):
        _responses_event(draft, kind, value)
    elif kind in ("content_block_start", "content_block_delta"):
        _messages_event(draft, value)
    elif "choices" in value:
        for choice in _objects(value["choices"]):
            _choice(draft, choice, streamed=streamed)
    elif "candidates" in value:
        for candidate in _objects(value["candidates"]):
            for part in _objects(_object(candidate.get("content")).get("parts")):
                _gemini_part(draft, part)
    elif "output" in value:
        for item in _objects(value["output"]):
            _responses_item(draft, item)
    elif "content" in value and kind == "message":
        for at, block in enumerate(_objects(value["content"])):
            _block(draft, at, block)
    elif isinstance(value.get("text"), str):
        draft.text.append(value["text"])  # a transcription
    elif kind == "transcript.text.delta":
        _add(draft.text, value.get("delta"))


def _choice(draft: _Draft, choice: Object, *, streamed: bool) -> None:
    """What one choice says. Perplexity's frames hold a message beside the delta: all that was said so far."""
    _add(draft.text, choice.get("text"))
    index = choice.get("index", 0)
    names = ("delta",) if streamed and "delta" in choice else ("message", "delta")
    for message in (_object(choice.get(name)) for name in names):
        content = message.get("content")
        _add(draft.text, content)
        for part in _objects(content):
            _add(draft.text, part.get("text"))
        _add(draft.refusal, message.get("refusal"))
        _add(draft.reasoning, message.get("reasoning_content") or message.get("reasoning"))
        for at, call in enumerate(_objects(message.get("tool_calls"))):
            function = _object(call.get("function"))
            draft.tool((index, call.get("index", at)), function.get("name"), function.get("arguments"))
        function = _object(message.get("function_call"))
        if function:
            draft.tool((index, "function"), function.get("name"), function.get("arguments"))


def _messages_event(draft: _Draft, value: Object) -> None:
    at = value.get("index")
    block = _object(value.get("content_block"))
    if block:
        _block(draft, at, block)
    delta = _object(value.get("delta"))
    _add(draft.text, delta.get("text"))
    _add(draft.reasoning, delta.get("thinking"))
    if isinstance(delta.get("partial_json"), str):
        draft.tool(at, None, delta["partial_json"])


def _block(draft: _Draft, at: Any, block: Object) -> None:
    match block.get("type"):
        case "text":
            _add(draft.text, block.get("text"))
        case "thinking":
            _add(draft.reasoning, block.get("thinking"))
        case "tool_use" | "server_tool_use":
            draft.tool(at, block.get("name"), block.get("input"))
        case _:
            pass


def _responses_event(draft: _Draft, kind: str, value: Object) -> None:
    match kind:
        case "response.output_text.delta":
            _add(draft.text, value.get("delta"))
        case "response.refusal.delta":
            _add(draft.refusal, value.get("delta"))
        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
            _add(draft.reasoning, value.get("delta"))
        case "response.output_item.done":
            item = _object(value.get("item"))
            if item.get("type") in ("function_call", "custom_tool_call"):
                _responses_item(draft, item)
        case _:
            pass


def _responses_item(draft: _Draft, item: Object) -> None:
    match item.get("type"):
        case "message":
            for part in _objects(item.get("content")):
                _add(draft.text, part.get("text"))
                _add(draft.refusal, part.get("refusal"))
        case "reasoning":
            for part in (*_objects(item.get("summary")), *_objects(item.get("content"))):
                _add(draft.reasoning, part.get("text"))
        case "function_call" | "custom_tool_call":
            draft.tool(len(draft.tools), item.get("name"), item.get("arguments", item.get("input")))
        case _:
            pass


def _gemini_part(draft: _Draft, part: Object) -> None:
    call = _object(part.get("functionCall"))
    if call:
        draft.tool(len(draft.tools), call.get("name"), call.get("args") or {})
    _add(draft.reasoning if part.get("thought") else draft.text, part.get("text"))


def _arguments(value: Any) -> Any:
    if isinstance(value, str):
        if not value:
            return {}
        parsed = _json(value.encode("utf-8", "surrogatepass"))
        return value if parsed is None else parsed
    return {} if value is None else value


def _add(parts: list[str], value: object) -> None:
    if isinstance(value, str):
        parts.append(value)


def _object(value: Any) -> Object:
    return cast("Object", value) if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Object]:
    return [item for item in cast("list[Any]", value) if isinstance(item, dict)] if isinstance(value, list) else []
