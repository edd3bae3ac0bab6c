"""Surfaces whose requests are forms with files: image edits, transcriptions, translations.

A form cannot be handed back as a JSON ``replay_request``, so the record keeps it inside one::

    {"multipart": {"content_type": "multipart/form-data; boundary=…", "body_base64": "…"}}

and these surfaces accept that object as a request: it is turned back into the original bytes before anything else is
looked at. Plain JSON requests are taken too, for providers that allow files by address.
"""

from __future__ import annotations

import binascii

import msgspec
from msgspec import Struct

from counterfoil.errors import CallerFault
from counterfoil.surfaces.base import Call, Outgoing, Request
from counterfoil.surfaces.calls import (
    checked_model,
    flag,
    identifier,
    json_body,
    model_of,
    refused_call,
    sliceable,
    splice_model,
    word,
)
from counterfoil.surfaces.families import JsonSurface
from counterfoil.wire.json_object import JsonObject
from counterfoil.wire.multipart import Part, boundary_of, is_form, parts_of

_TEXT_MAX = 1024
"""Bytes of a form value that is looked at; model names and flags are far shorter."""


class _Form(Struct, forbid_unknown_fields=True):
    content_type: str
    body_base64: str


_form = msgspec.json.Decoder(_Form)


class FormSurface(JsonSurface):
    """A surface that takes ``multipart/form-data``, the same wrapped in JSON, or plain JSON."""

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        content_type = request.headers.get(b"content-type", b"").decode("latin-1")
        if is_form(content_type):
            return self._peek_form(request.body, content_type, wrapped(request.body, content_type))
        if content_type[:10].lower() == "multipart/":
            raise CallerFault("unsupported_media_type", "Send a form as multipart/form-data.")
        body, json_type = json_body(request)
        if "multipart" in body.values and len(body.values) == 1:
            form, content_type = unwrap(body)
            return self._peek_form(form, content_type, request.body)
        return self.peek_json(body, json_type)

    def refused(self, request: Request) -> Call:
        """A refused form is kept as one that was taken: wrapped, so that it can be posted again."""
        call = refused_call(request)
        if not is_form(call.content_type):
            return call
        return msgspec.structs.replace(call, replayable=wrapped(request.body, call.content_type))

    def peek_json(self, body: JsonObject, content_type: str) -> Call:
        """A plain JSON request."""
        return Call(
            endpoint=self.path,
            model=model_of(body),
            stream=flag(body, "stream"),
            body=body.body,
            content_type=content_type,
            model_span=body.span("model"),
            end_user=word(body, "user"),
            meters=self.meters({name: bytes(raw).strip(b'"') for name, raw in body.values.items() if len(raw) <= 64}),
        )

    def _peek_form(self, form: bytes, content_type: str, replayable: bytes) -> Call:
        fields = _fields(parts_of(form, boundary_of(content_type)))
        if "model" not in fields:
            raise CallerFault("model_required", param="model")
        values = {name: form[part.start : part.end] for name, part in fields.items()}
        model = fields["model"]
        return Call(
            endpoint=self.path,
            model=_model(values["model"]),
            stream=_flag(values.get("stream", b""), "stream"),
            body=form,
            content_type=content_type,
            model_span=(model.start, model.end),
            end_user=identifier(values.get("user", b"").decode("utf-8", "replace")),
            session_id=identifier(values.get("session_id", b"").decode("utf-8", "replace")),
            meters=self.meters(values),
            replayable=replayable,
        )

    def meters(self, values: dict[str, bytes]) -> dict[str, int] | None:
        """What only the request tells; ``values`` are its short fields."""
        return None

    def prepare(self, call: Call, model: str) -> Outgoing:
        """The client's bytes with the model exchanged."""
        start, end = call.model_span or (0, 0)
        if call.replayable is None:
            return Outgoing(self.upstream_path, splice_model(call.body, (start, end), model), call.content_type)
        pieces = sliceable(call.body)
        spliced = b"".join((pieces[:start], model.encode(), pieces[end:]))
        return Outgoing(self.upstream_path, spliced, call.content_type)


def wrapped(form: bytes, content_type: str) -> bytes:
    """The JSON object that stands for a form."""
    return b'{"multipart":{"content_type":%b,"body_base64":"%b"}}' % (
        msgspec.json.encode(content_type),
        binascii.b2a_base64(form, newline=False),
    )


def unwrap(body: JsonObject) -> tuple[bytes, str]:
    """The form inside a replay request, and its content type."""
    try:
        form = _form.decode(body.values["multipart"])
        return binascii.a2b_base64(form.body_base64, strict_mode=True), form.content_type
    except (msgspec.DecodeError, ValueError) as error:
        message = "The field multipart must hold content_type and body_base64, and nothing else."
        raise CallerFault("invalid_field", message, param="multipart") from error


def _fields(parts: list[Part]) -> dict[str, Part]:
    """The short text fields by name. A repeated ``model`` is refused; other names may repeat (``image[]``)."""
    fields: dict[str, Part] = {}
    for part in parts:
        if part.is_file or (part.end - part.start > _TEXT_MAX and part.name != "model"):
            continue
        if part.name == "model" and "model" in fields:
            raise CallerFault("duplicate_key", param="model")
        fields.setdefault(part.name, part)
    return fields


def _model(value: bytes) -> str:
    try:
        return checked_model(value.decode())
    except UnicodeDecodeError as error:
        raise CallerFault("invalid_field", "The field model is not valid text.", param="model") from error


def _flag(value: bytes, name: str) -> bool:
    match value.strip().lower():
        case b"true" | b"1":
            return True
        case b"" | b"false" | b"0" | b"null":
            return False
        case _:
            raise CallerFault("invalid_field", f"The field {name} must be a boolean.", param=name)
