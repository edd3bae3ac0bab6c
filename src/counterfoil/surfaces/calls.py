"""The fields that several protocols' requests share, read from a JSON body without parsing the rest of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from counterfoil.errors import CallerFault
from counterfoil.surfaces.base import Call, Request
from counterfoil.wire.json_object import JsonObject, read

MODEL_MAX = 256
"""Characters of a model name; none in use is longer than about 100."""

CONTENT_TYPE_MAX = 255
"""Bytes of a content type that is kept; one with a boundary has about 100."""

_IDENTIFIER_MAX = 512
"""Characters of an end user or session id. A longer one is no identifier and is left out of the record, not cut."""

_TAGS_MAX = 64
_TAGS_BYTES_MAX = 16 << 10
"""Metadata is kept as tags up to this many entries and bytes (OpenAI allows 16 of 512 characters)."""

_COPIED_BYTES_MAX = 4096

_value = msgspec.json.Decoder()
_text = msgspec.json.Decoder(str)
_tags = msgspec.json.Decoder(dict[str, str | int | float | bool | None])


def escaped(path: str) -> str:
    """A path to resubmit to, as a client writes it."""
    return quote(path, safe="/:@!$&'()*+,;=~")


def json_body(request: Request) -> tuple[JsonObject, str]:
    """The body as an object and the content type to send it with.

    JSON sent under another textual type (curl's default) is taken for what it is; a form is not.
    """
    content_type = request.headers.get(b"content-type", b"")
    if content_type == b"application/json":
        return read(request.body), "application/json"
    if content_type[:10].lower() == b"multipart/":
        raise CallerFault("unsupported_media_type", "Send the request body as application/json.")
    known = b"json" in content_type.lower() and content_type.isascii()
    return read(request.body), content_type.decode("ascii") if known else "application/json"


def refused_call(request: Request) -> Call:
    """What is recorded of a complete request that is no call: its bytes, and what of it can be read all the same."""
    try:
        body = read(request.body)
    except CallerFault:
        model, stream = "", False
    else:
        model, stream = word(body, "model") or "", bytes(body.values.get("stream", b"")) == b"true"
    return Call(
        endpoint=request.path,
        model=model if len(model) <= MODEL_MAX else "",
        stream=stream,
        body=request.body,
        content_type=media_type(request),
    )


def media_type(request: Request) -> str:
    """The request's content type as it was sent, when it is a bearable one."""
    content_type = request.headers.get(b"content-type", b"")
    return content_type.decode("ascii") if content_type.isascii() and len(content_type) <= CONTENT_TYPE_MAX else ""


def model_of(body: JsonObject) -> str:
    """The model that a JSON body names. Raises ``model_required`` or ``invalid_field``."""
    raw = body.values.get("model")
    if raw is None:
        raise CallerFault("model_required", param="model")
    written = bytes(raw)
    if written[0] != 0x22:  # "
        if written == b"null":
            raise CallerFault("model_required", param="model")
        raise CallerFault("invalid_field", "The field model must be a string.", param="model")
    if b"\\" in written:
        try:
            return checked_model(_text.decode(written))
        except msgspec.DecodeError as error:  # a lone surrogate
            raise CallerFault("invalid_field", "The field model is not valid text.", param="model") from error
    return checked_model(str(written[1:-1], "utf-8"))


def checked_model(model: str) -> str:
    """``model`` when it can be a model's name: printable (it travels in headers), neither empty nor too long."""
    if not model or model.isspace():
        raise CallerFault("model_required", param="model")
    if len(model) > MODEL_MAX or not model.isprintable():
        message = f"The field model must be printable text of at most {MODEL_MAX} characters."
        raise CallerFault("invalid_field", message, param="model")
    return model


def flag(body: JsonObject, name: str) -> bool:
    """A boolean field; absent and null are false. Raises ``invalid_field``."""
    raw = body.values.get(name)
    if raw is None:
        return False
    written = bytes(raw)
    if written == b"true":
        return True
    if written in (b"false", b"null"):
        return False
    raise CallerFault("invalid_field", f"The field {name} must be a boolean.", param=name)


def word(body: JsonObject, name: str) -> str | None:
    """A text field that is only recorded: anything but a bearable identifier is passed over, never refused."""
    raw = body.values.get(name)
    if raw is None:
        return None
    try:
        return identifier(_text.decode(raw))
    except msgspec.DecodeError:
        return None


def identifier(value: object) -> str | None:
    """``value`` when it can stand in a record as an identifier."""
    if isinstance(value, str) and 0 < len(value) <= _IDENTIFIER_MAX and value.isprintable():
        return value
    return None


def value_of(body: JsonObject, name: str) -> Any:
    """A field's value, or None when it is absent or not representable (a lone surrogate)."""
    raw = body.values.get(name)
    if raw is None:
        return None
    try:
        return _value.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def tags_of(body: JsonObject, name: str = "metadata") -> dict[str, Any] | None:
    """A field that is an object of scalars, when it is small enough to be tags."""
    raw = body.values.get(name)
    if raw is None or len(raw) > _TAGS_BYTES_MAX:
        return None
    try:
        tags = _tags.decode(raw)
    except msgspec.DecodeError:
        return None
    return tags if 0 < len(tags) <= _TAGS_MAX else None


def splice_model(body: bytes, span: tuple[int, int], model: str) -> bytes:
    """``body`` with the JSON value at ``span`` exchanged for ``model``; the same object when nothing changes."""
    start, end = span
    written = msgspec.json.encode(model)
    if body[start:end] == written:
        return body
    pieces = sliceable(body)
    return b"".join((pieces[:start], written, pieces[end:]))


def sliceable(body: bytes) -> bytes | memoryview:
    """What to cut ``body`` by: pieces of a long one are no copies. A short one's cost less as copies than as views."""
    return body if len(body) <= _COPIED_BYTES_MAX else memoryview(body)
