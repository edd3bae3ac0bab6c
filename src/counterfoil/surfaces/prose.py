"""The text of a call that a model reads and writes, for an estimate of its tokens where the provider reports none.

What is taken is what every protocol gives to the model: instructions, messages, the schemas of tools; and of an answer
the generated text, reasoning and arguments of tools. Where the model reads or writes more than can be seen, the text is
:attr:`Prose.whole` no more, and its tokens are a lower bound: pictures, sound and files; tools, which each provider
explains and calls in words of its own; what a provider keeps from earlier calls.

The walk is the same for all protocols, over names that mean the same in each, so that a field nobody has seen yet costs
a few tokens of accuracy and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from counterfoil.surfaces.foreign import mapping, parse, sequence
from counterfoil.wire.sse import fields

CHARACTERS_MAX: Final = 2_000_000
"""More text than any context window holds; beyond it nothing is estimated."""

_READ: Final = (
    "system", "instructions", "systemInstruction", "system_instruction", "messages", "input", "prompt", "contents",
)  # fmt: skip
_SCHEMAS: Final = ("tools", "functions", "response_format", "text", "output_config")
"""Read by the model as they are written: names, descriptions, and the punctuation between them."""
_MEDIA: Final = frozenset(
    {"image_url", "input_audio", "inlineData", "inline_data", "fileData", "file_data", "file_id", "image", "audio"}
    | {"file", "video_url"}
)
_UNSEEN: Final = (
    "previous_response_id", "conversation", "cachedContent", "mcp_servers", "web_search_options", "plugins",
    "container", "tools", "functions", "thinking", "reasoning_format",
)  # fmt: skip
"""Fields that make the provider give the model more to read than stands in the request; above all the tools, which
every provider explains to its models in words of its own."""
_SOURCES: Final = frozenset({"image", "document"})
_SILENT: Final = frozenset(
    {"type", "role", "id", "call_id", "tool_call_id", "tool_use_id", "status", "cache_control", "phase"}
    | {"signature", "thoughtSignature", "thought_signature", "encrypted_content", "data", "logprobs", "annotations"}
)
"""Names and seals: not what the model reads, or not as it stands here."""
_ARGUMENTS: Final = ("input", "args")
_CALLS: Final = frozenset({"tool_calls", "function_call", "functionCall", "partial_json", "arguments", *_ARGUMENTS})
_WRITTEN: Final = frozenset(
    {"text", "content", "reasoning", "reasoning_content", "thinking", "partial_json", "arguments", "refusal", "name"}
)
_INSIDE: Final = frozenset(
    {"choices", "delta", "message", "output", "content_block", "parts", "candidates", "tool_calls", "function"}
    | {"functionCall", "function_call", "summary"}
)
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Prose(Struct, frozen=True):
    """Text by the piece, the messages it came in, and whether it is all that the model read or wrote."""

    pieces: tuple[str, ...]
    messages: int
    whole: bool


def asked(body: bytes) -> Prose | None:
    """What a JSON request gives the model to read; None when it is no such request, or too long."""
    request = mapping(parse(body))
    if not request:
        return None
    pieces: list[str] = []
    whole = not any(request.get(name) for name in _UNSEEN)
    for name in _READ:
        whole = _read(request.get(name), pieces) and whole
    pieces += [_encode(request[name]).decode() for name in _SCHEMAS if request.get(name)]
    if sum(map(len, pieces)) > CHARACTERS_MAX:
        return None
    messages = len(sequence(request.get("messages") or request.get("input")))  # Gemini's contents have no frame
    return Prose(tuple(pieces), messages, whole)


def _read(value: Any, pieces: list[str]) -> bool:
    """Gather the text in ``value``; False when it holds something that is no text."""
    if isinstance(value, str):
        pieces.append(value)
        return True
    whole = True
    for each in sequence(value):
        whole = _read(each, pieces) and whole
    for name, each in mapping(value).items():
        if name in _MEDIA or (name == "source" and mapping(value).get("type") in _SOURCES):
            whole = whole and not each
        elif name not in _SILENT:
            whole = _read(each, pieces) and whole
    return whole


def answered(body: bytes, *, streamed: bool) -> Prose | None:
    """What the model wrote, as far as ``body`` has it: a JSON object, or an event stream. None when it is too long."""
    pieces: list[str] = []
    stream = streamed and body.lstrip()[:1] not in (b"[", b"{")  # Gemini streams an array of parts, too
    whole = [_write(each, pieces) for each in (_frames(body) if stream else _each(parse(body)))]
    if sum(map(len, pieces)) > CHARACTERS_MAX:
        return None
    return Prose(("".join(pieces),), 0, all(whole))


def _frames(body: bytes) -> Iterator[Any]:
    """The frames of a stream that hold something new: Responses repeats in other events what its deltas said."""
    for raw in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        name, data = fields(raw)
        frame = mapping(parse(data))
        kind = str(frame.get("type") or name.decode("latin-1"))
        if kind.startswith("response."):
            if kind.endswith(".delta") and isinstance(frame.get("delta"), str):
                yield {"text": frame["delta"]}
        else:
            for choice in map(mapping, sequence(frame.get("choices"))):
                if "delta" in choice:
                    choice.pop("message", None)  # Perplexity's: all that was said so far
            yield frame


def _write(value: Any, pieces: list[str]) -> bool:
    """Gather what was written; False when a tool was called, which takes tokens that do not show."""
    whole = True
    for name, each in mapping(value).items():
        if name in _CALLS and each:
            whole = False
        if name in _WRITTEN and isinstance(each, str):
            pieces.append(each)
        elif name in _ARGUMENTS and isinstance(each, dict):
            pieces.append(_encode(each).decode())
        elif name in _INSIDE or name in _WRITTEN:
            for inner in _each(each):
                whole = _write(inner, pieces) and whole
    return whole


def _each(value: Any) -> Iterable[Any]:
    found = sequence(value)
    return found or (value,)
