"""``/openai/deployments/{deployment}/…``: OpenAI's protocol at the paths of Azure's SDKs. The deployment is the model.

Azure's clients name the model in the path; their body may name it too, or another one, or none. Here the path decides:
``deployment`` is an alias, or ``provider/model``. Everything else is the surface behind it: what is read, what is sent,
how errors look. ``api-version`` is taken and not looked at; the key comes as ``api-key``, or as a bearer.

A body without a model is captured as it came and gets one on its way to the provider, which needs it there.

Source: Azure OpenAI REST API reference, inference, 2024-10-21; the SDK ``openai`` (``lib/azure.py``), read 2026-11.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from counterfoil.errors import CallerFault
from counterfoil.surfaces.base import Call, Meter, Outgoing, Request
from counterfoil.surfaces.calls import checked_model, escaped, identifier
from counterfoil.surfaces.families import JsonSurface
from counterfoil.surfaces.forms import FormSurface, unwrap, wrapped
from counterfoil.wire.json_object import read
from counterfoil.wire.multipart import boundary_of, is_form, parts_of

PREFIX: Final = "/openai/deployments/"
OPERATIONS: Final = (
    "chat/completions",
    "completions",
    "embeddings",
    "audio/speech",
    "audio/transcriptions",
    "audio/translations",
    "images/generations",
    "images/edits",
)
_PATH = re.compile(rf"{PREFIX}(.+?)/({'|'.join(OPERATIONS)})\Z", re.DOTALL)


def operation_of(path: str) -> str | None:
    """The operation that ``path`` asks of a deployment, or None when it is no such path."""
    found = _PATH.match(path)
    return found[2] if found else None


class AzureSurface(JsonSurface):
    """One operation of any deployment; ``inner`` is the surface that it is an operation of."""

    def __init__(self, operation: str, inner: JsonSurface) -> None:
        super().__init__(inner.name, f"{PREFIX}{{model}}/{operation}")
        self.inner = inner
        self.unary_output = inner.unary_output

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        deployment = checked_model(_deployment(request.path))
        body, content_type, replayable = self._taken(request)
        named = body if _names_model(body, content_type) else with_model(body, content_type, deployment)
        call = self.inner.peek(_request(request, named, content_type))
        call = msgspec.structs.replace(call, endpoint=escaped(request.path), model=deployment, replayable=replayable)
        if named is body:
            return call
        return msgspec.structs.replace(call, body=body, model_span=None, usage_splice=None)

    def refused(self, request: Request) -> Call:
        """The deployment stands in the path, however odd the body is."""
        deployment = identifier(_deployment(request.path)) or ""
        return msgspec.structs.replace(self.inner.refused(request), endpoint=escaped(request.path), model=deployment)

    def prepare(self, call: Call, model: str) -> Outgoing:
        """The client's bytes with the model exchanged, or put in."""
        if call.model_span is None:
            named = with_model(call.body, call.content_type, model)
            headers = {b"content-type": call.content_type.encode("latin-1")}
            call = self.inner.peek(Request("POST", self.inner.path, "", headers, named))
        elif not is_form(call.content_type):
            call = msgspec.structs.replace(call, replayable=None)  # which says to the inner surface that it is a form
        return self.inner.prepare(call, model)

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        return self.inner.meter(call)

    def streams(self, call: Call, content_type: str) -> bool:
        """As the surface behind it does."""
        return self.inner.streams(call, content_type)

    def _taken(self, request: Request) -> tuple[bytes, str, bytes | None]:
        """The body, its content type, and the JSON object to resubmit where the body is none."""
        content_type = request.headers.get(b"content-type", b"").decode("latin-1")
        if not isinstance(self.inner, FormSurface):
            return request.body, content_type, None
        if is_form(content_type):
            return request.body, content_type, wrapped(request.body, content_type)
        body = read(request.body)
        if "multipart" in body.values and len(body.values) == 1:
            return *unwrap(body), request.body
        return request.body, content_type, None


def with_model(body: bytes, content_type: str, model: str) -> bytes:
    """``body``, which names none, with ``model`` in front of everything else. Raises :class:`CallerFault`."""
    if is_form(content_type):
        head = b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n' % boundary_of(content_type)
        return b"%b%b\r\n%b" % (head, model.encode(), body)
    start = body.index(b"{") + 1
    comma = b"," if read(body).values else b""
    return b'%b"model":%b%b%b' % (body[:start], msgspec.json.encode(model), comma, body[start:])


def _deployment(path: str) -> str:
    """The deployment in a path, with the slash of ``provider/model`` escaped or not."""
    found = _PATH.match(path)
    return found[1].replace("%2F", "/").replace("%2f", "/") if found else ""


def _names_model(body: bytes, content_type: str) -> bool:
    if is_form(content_type):
        return any(part.name == "model" for part in parts_of(body, boundary_of(content_type)))
    return "model" in read(body).values


def _request(request: Request, body: bytes, content_type: str) -> Request:
    headers = (
        request.headers
        if body is request.body
        else {**request.headers, b"content-type": content_type.encode("latin-1")}
    )
    return msgspec.structs.replace(request, body=body, headers=headers)


def plain(target: str, surface: AzureSurface, content_type: str, body: bytes, model: str) -> tuple[str, bytes]:
    """The same call at the path of the surface behind, naming ``model`` in its body: where another model can be asked.

    Raises :class:`CallerFault` for a body that cannot be read.
    """
    if not _names_model(body, content_type):
        return surface.inner.path, with_model(body, content_type, model)
    headers = {b"content-type": content_type.encode("latin-1", "replace")}
    span = surface.inner.peek(Request("POST", surface.inner.path, "", headers, body)).model_span
    if span is None:
        raise CallerFault("invalid_field", f"The model of {target} cannot be exchanged.", param="model")
    written = model.encode() if is_form(content_type) else msgspec.json.encode(model)
    return surface.inner.path, body[: span[0]] + written + body[span[1] :]
