"""From the model a client names to the targets that may serve it, in the order they are tried.

``provider/model`` names one target. An alias names several: *ordered* targets are tried from the first, *weighted*
ones start at a target drawn by weight and go on with the others in their order. A bare name that is no alias goes to
the provider of type ``google`` on Gemini's own paths, and nowhere on the others.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from itertools import accumulate

from msgspec import Struct

from counterfoil.errors import CallerFault
from counterfoil.providers.provider import Provider

ATTEMPTS_MAX = 8
"""Targets tried for one call. A bound on what one call may cost in time and money; real fallback lists are shorter."""


_NATIVE = {"messages": "anthropic", "count_tokens": "anthropic", "gemini": "google"}
"""The family of each surface that is not OpenAI's."""


class Target(Struct, frozen=True):
    """One place a call may go: a provider and that provider's own name of the model."""

    provider: Provider
    model: str
    model_id: str  # provider/model


class Alias(Struct, frozen=True):
    """A configured route. ``weights`` is empty for ordered targets."""

    targets: tuple[Target, ...]
    weights: tuple[int, ...] = ()


class Routes:
    """Every target this gateway knows. ``draw()`` gives a uniform number in [0, 1) for weighted aliases."""

    def __init__(
        self, providers: Mapping[str, Provider], aliases: Mapping[str, Alias], draw: Callable[[], float]
    ) -> None:
        self._providers = providers
        self._aliases = aliases
        self._draw = draw
        self._google = next((p for p in providers.values() if p.family == "google"), None)
        self._known: dict[tuple[str, str], tuple[Target, ...]] = {}

    def plan(self, model: str, surface: str) -> tuple[Target, ...]:
        """The targets for ``model`` on ``surface``, never empty.

        Raises :class:`CallerFault` ``model_not_found`` or ``unsupported_surface``.
        """
        known = self._known.get((model, surface))
        if known is not None:
            return known
        alias = self._aliases.get(model)
        if alias is not None:
            return _speaking(self._arranged(alias), surface, model)
        plan = _speaking((self._target(model, surface),), surface, model)
        if len(self._known) < 4096:  # names come from clients: bounded, and not worth evicting
            self._known[(model, surface)] = plan
        return plan

    def providers(self) -> Mapping[str, Provider]:
        """The configured providers by name."""
        return self._providers

    def aliases(self) -> Mapping[str, Alias]:
        """The configured aliases by name."""
        return self._aliases

    def _arranged(self, alias: Alias) -> tuple[Target, ...]:
        if not alias.weights:
            return alias.targets[:ATTEMPTS_MAX]
        targets = alias.targets
        point = self._draw() * sum(alias.weights)
        first = next((at for at, upto in enumerate(accumulate(alias.weights)) if point < upto), 0)
        return (targets[first], *targets[:first], *targets[first + 1 :])[:ATTEMPTS_MAX]

    def _target(self, model: str, surface: str) -> Target:
        name, slash, own = model.partition("/")
        provider = self._providers.get(name)
        if slash and own and provider is not None:
            return Target(provider, own, model)
        if not slash and surface == "gemini" and self._google is not None:
            return Target(self._google, model, f"{self._google.name}/{model}")
        said = f"No provider or alias serves the model {model!r}. {self._advice(name, own, surface)}"
        raise CallerFault("model_not_found", said, param="model")

    def _advice(self, name: str, own: str, surface: str) -> str:
        """What to write instead: the alias or the provider that was nearly named, or a bare name's provider."""
        near = difflib.get_close_matches(name, self._providers if own else self._aliases, 1)
        if near:
            return f"Did you mean {near[0]}/{own}?" if own else f"Did you mean {near[0]}?"
        family = _NATIVE.get(surface, "openai")
        first = next((one.name for one in self._providers.values() if one.family == family), None)
        such = f", such as {first}/{name}" if first is not None and not own else ""
        return f"Name it provider/model{such}; GET /v1/models lists what there is."


def _speaking(targets: tuple[Target, ...], surface: str, model: str) -> tuple[Target, ...]:
    speaking = tuple(target for target in targets if surface in target.provider.surfaces)
    if speaking:
        return speaking
    raise CallerFault(
        "unsupported_surface",
        f"The provider of {model!r} does not speak this endpoint's protocol; it speaks {_spoken(targets[0], model)}.",
        param="model",
    )


def _spoken(target: Target, model: str) -> str:
    if target.provider.family == "anthropic":
        return "Anthropic's (/v1/messages)"
    return f"Google's (/v1beta/models/{model}:…)" if target.provider.family == "google" else "OpenAI's (/v1/…)"
