"""The three families of surfaces: what all surfaces of one protocol do alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from counterfoil.errors import CallerFault, Fault
from counterfoil.surfaces import render
from counterfoil.surfaces.base import Call, Meter, Outgoing, Request
from counterfoil.surfaces.calls import refused_call, splice_model

EVENT_STREAM = "text/event-stream"

UNKNOWN = "unknown"
"""The name of the surfaces that only render errors."""

Renderer = Callable[[Fault, str], bytes]


class JsonSurface:
    """A surface at one fixed path whose requests are JSON objects with a ``model``.

    ``path`` is what clients call, ``upstream_path`` what follows a provider's base path (which holds the version).
    """

    protocol: str = "openai"
    unary_output: bool = True
    error_renderer: ClassVar[Renderer] = staticmethod(render.openai_error)
    stream_error_renderer: ClassVar[Renderer] = staticmethod(render.openai_stream_error)

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.upstream_path = path.removeprefix("/v1")

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        raise NotImplementedError

    def refused(self, request: Request) -> Call:
        """What a record may still say of a request that :meth:`peek` refused."""
        return refused_call(request)

    def prepare(self, call: Call, model: str) -> Outgoing:
        """The client's bytes with the model exchanged."""
        span = call.model_span
        body = call.body if span is None else splice_model(call.body, span, model)
        return Outgoing(self.upstream_path, body, call.content_type)

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        raise NotImplementedError

    def streams(self, call: Call, content_type: str) -> bool:
        """Whether an answer of ``content_type`` goes to ``push`` and ``end`` rather than to ``whole``."""
        return content_type[:17].lower() == EVENT_STREAM

    def render_error(self, fault: Fault, request_id: str) -> tuple[str, bytes]:
        """The error body in this protocol's shape."""
        return render.JSON, type(self).error_renderer(fault, request_id)

    def render_stream_error(self, fault: Fault, request_id: str) -> bytes:
        """One event-stream frame in this protocol's shape."""
        return type(self).stream_error_renderer(fault, request_id)


class AnthropicSurface(JsonSurface):
    """The Anthropic family."""

    protocol = "anthropic"
    error_renderer = staticmethod(render.anthropic_error)
    stream_error_renderer = staticmethod(render.anthropic_stream_error)


class GoogleSurface(JsonSurface):
    """The Google family."""

    protocol = "google"
    error_renderer = staticmethod(render.google_error)
    stream_error_renderer = staticmethod(render.google_stream_error)


class UnknownSurface(JsonSurface):
    """Stands in where no surface is: it only renders errors."""

    def __init__(self, like: type[JsonSurface], refusal: Callable[[str], CallerFault]) -> None:
        super().__init__(UNKNOWN, "")
        self.protocol = like.protocol
        self.refusal = refusal  # by path: what the one who wrote the address may have meant
        self._like = like(UNKNOWN, "")

    def peek(self, request: Request) -> Call:
        """Always raises ``unsupported_endpoint``."""
        raise self.refusal(request.path)

    def render_error(self, fault: Fault, request_id: str) -> tuple[str, bytes]:
        """In the shape of the family whose prefix the path has."""
        return self._like.render_error(fault, request_id)

    def render_stream_error(self, fault: Fault, request_id: str) -> bytes:
        """In the shape of the family whose prefix the path has."""
        return self._like.render_stream_error(fault, request_id)
