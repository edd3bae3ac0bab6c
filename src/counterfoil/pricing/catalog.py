"""The catalogue: every provider's list as one canonical JSON text, of which only the providers in use are decoded.

The text is package data (``catalog.json.zst``), made by ``tools/build_catalog.py``; reading it is the caller's
business (``ledger.books``), because this package does no I/O. A book embeds the text, so a book priced with an old
catalogue keeps that catalogue for ever.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from counterfoil.pricing.match import ModelIndex
from counterfoil.pricing.rates import Model, Provider

FORMAT: Final = 1


class Source(Struct, frozen=True):
    """Where the facts of a catalogue come from: package, version, the SHA-256 of its data file, licence."""

    package: str
    version: str
    sha256: str
    url: str
    license: str


class Catalog(Struct, frozen=True):
    """A catalogue as stored. ``providers`` holds each provider's list undecoded."""

    format: int
    source: Source
    providers: dict[str, msgspec.Raw]


_decoder = msgspec.json.Decoder(Catalog)
_provider_decoder = msgspec.json.Decoder(Provider)


class Lists:
    """The providers' lists of one catalogue, decoded when first asked for."""

    __slots__ = ("_found", "catalog")

    def __init__(self, text: bytes | memoryview | msgspec.Raw) -> None:
        """``text`` is a catalogue's JSON. Raises :class:`msgspec.DecodeError` or ``ValidationError`` when it is not."""
        self.catalog = _decoder.decode(text)
        self._found: dict[str, tuple[Provider, ModelIndex]] = {}

    @property
    def names(self) -> list[str]:
        """Every provider of the catalogue, sorted."""
        return sorted(self.catalog.providers)

    def provider(self, name: str) -> Provider | None:
        """One provider's list, or None when the catalogue has no such provider."""
        found = self._load(name)
        return None if found is None else found[0]

    def models(self, name: str) -> list[str]:
        """The models that a provider's own list prices and the provider still offers, in list order."""
        found = self.provider(name)
        return [] if found is None else [model.id for model in found.models if not model.deprecated]

    def routed(self, provider: str, model: str) -> tuple[str, str]:
        """The list of the one among a router's providers that the model's name picks, and the name without it.

        Hugging Face's router takes ``org/model:groq``; its providers' lists are named ``huggingface_groq`` and so on.
        Anything else comes back as it is: which provider the router picks by itself is not in the answer.
        """
        name, _, picked = model.rpartition(":")
        route = f"{provider}_{picked}"
        return (route, name) if name and route in self.catalog.providers else (provider, model)

    def find(self, provider: str, model: str) -> tuple[str, Model] | None:
        """The list that prices ``model`` at ``provider`` and its entry: the provider's own, else one it resells."""
        found = self._load(provider)
        if found is None:
            return None
        for name in (provider, *found[0].lists):
            if (hit := self._hit(name, model)) is not None:
                return name, hit
        return None

    def _hit(self, name: str, model: str) -> Model | None:
        """The entry of ``model`` in one list, also where its owner's name stands before it (``google/gemini-…``)."""
        found = self._load(name)
        if found is None:
            return None
        hit = found[1].find(model)
        if hit is None and model.startswith(f"{name}/"):
            hit = found[1].find(model[len(name) + 1 :])
        return hit

    def _load(self, name: str) -> tuple[Provider, ModelIndex] | None:
        found = self._found.get(name)
        if found is None and name in self.catalog.providers:
            provider = _provider_decoder.decode(self.catalog.providers[name])
            found = self._found[name] = (provider, ModelIndex(provider.models))
        return found
