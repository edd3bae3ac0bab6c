"""Every surface, and the way from a path to its surface."""

from __future__ import annotations

from collections.abc import Mapping

from counterfoil.errors import CallerFault
from counterfoil.surfaces import astray, azure
from counterfoil.surfaces.audio import SpeechSurface, TranscriptionSurface
from counterfoil.surfaces.azure import AzureSurface
from counterfoil.surfaces.base import Surface
from counterfoil.surfaces.chat import ChatSurface
from counterfoil.surfaces.families import AnthropicSurface, GoogleSurface, JsonSurface, UnknownSurface
from counterfoil.surfaces.gemini import METHODS, GeminiSurface, method_of
from counterfoil.surfaces.images import ImageEditsSurface, ImagesSurface
from counterfoil.surfaces.messages import CountTokensSurface, MessagesSurface
from counterfoil.surfaces.responses import CompactSurface, InputTokensSurface, ResponsesSurface
from counterfoil.surfaces.vectors import VectorSurface

_FIXED: dict[str, JsonSurface] = {
    surface.path: surface
    for surface in (
        ChatSurface("chat", "/v1/chat/completions"),
        ChatSurface("completions", "/v1/completions"),
        ResponsesSurface("responses", "/v1/responses"),
        CompactSurface("responses_compact", "/v1/responses/compact"),
        InputTokensSurface("responses_input_tokens", "/v1/responses/input_tokens"),
        MessagesSurface("messages", "/v1/messages"),
        CountTokensSurface("count_tokens", "/v1/messages/count_tokens"),
        VectorSurface("embeddings", "/v1/embeddings"),
        VectorSurface("moderations", "/v1/moderations"),
        VectorSurface("rerank", "/v1/rerank"),
        ImagesSurface("images_generations", "/v1/images/generations"),
        ImageEditsSurface("images_edits", "/v1/images/edits"),
        SpeechSurface("audio_speech", "/v1/audio/speech"),
        TranscriptionSurface("audio_transcriptions", "/v1/audio/transcriptions"),
        TranscriptionSurface("audio_translations", "/v1/audio/translations"),
    )
}
_AZURE: dict[str, AzureSurface] = {
    operation: AzureSurface(operation, _FIXED[f"/v1/{operation}"]) for operation in azure.OPERATIONS
}
_GEMINI: dict[str, Surface] = {method: GeminiSurface(method) for method in METHODS}

ALL: tuple[Surface, ...] = (*_FIXED.values(), *_GEMINI.values(), *_AZURE.values())
"""Every surface once."""

_PROTOCOLS = {path: surface.protocol for path, surface in _FIXED.items()}


def refusal(path: str) -> CallerFault:
    """Why nothing is served at ``path``, and what may have been meant."""
    return astray.refusal(path, _PROTOCOLS, METHODS)


UNKNOWN_OPENAI: Surface = UnknownSurface(JsonSurface, refusal)
UNKNOWN_ANTHROPIC: Surface = UnknownSurface(AnthropicSurface, refusal)
UNKNOWN_GOOGLE: Surface = UnknownSurface(GoogleSurface, refusal)

_GOOGLE_PREFIXES = ("/v1beta/", "/v1beta1/", "/v1/models/", "/v1/tunedModels/")


def served() -> list[tuple[str, str]]:
    """Every path that takes calls, and the protocol it speaks."""
    fixed = [(path, surface.protocol) for path, surface in _FIXED.items()]
    gemini = [(f"/v1beta/models/{{model}}:{method}", surface.protocol) for method, surface in _GEMINI.items()]
    return [*fixed, *gemini, *((surface.path, surface.protocol) for surface in _AZURE.values())]


def is_google(path: str) -> bool:
    """Whether ``path`` can only be a method of Gemini's, one that we serve or not."""
    return path.startswith(("/v1beta/", "/v1beta1/")) and ":" in path


def find(path: str) -> Surface | None:
    """The surface at ``path`` (decoded, without the query), or None."""
    surface = _FIXED.get(path)
    if surface is None and path.startswith("/v1"):
        method = method_of(path)
        if method is not None:
            return _GEMINI[method]
    elif surface is None and path.startswith(azure.PREFIX):
        operation = azure.operation_of(path)
        if operation is not None:
            return _AZURE[operation]
    return surface


def unknown(path: str) -> Surface:
    """Who renders the errors of a path that :func:`find` does not know: the family whose prefix it has."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return UNKNOWN_ANTHROPIC
    if path.startswith(_GOOGLE_PREFIXES) and (":" in path or not path.startswith("/v1/models/")):
        return UNKNOWN_GOOGLE
    return UNKNOWN_OPENAI


def as_client(surface: Surface, headers: Mapping[bytes, bytes]) -> Surface:
    """The one of :func:`unknown` whose family the client shows by its headers, else ``surface``."""
    if b"x-goog-api-key" in headers or b"x-goog-api-client" in headers:
        return UNKNOWN_GOOGLE
    return UNKNOWN_ANTHROPIC if b"anthropic-version" in headers else surface
