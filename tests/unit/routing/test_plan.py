"""From a model's name to the targets that are tried."""

from __future__ import annotations

import pytest

from counterfoil.config.model import ProviderConfig
from counterfoil.errors import CallerFault
from counterfoil.providers.provider import build
from counterfoil.routing.plan import Alias, Routes, Target

OPENAI = build("openai", ProviderConfig(type="openai", base_url="https://api.openai.com/v1", api_key="k"))
LOCAL = build("local", ProviderConfig(type="openai", base_url="http://127.0.0.1:9001/v1", api_key="none"))
ANTHROPIC = build("anthropic", ProviderConfig(type="anthropic", base_url="https://api.anthropic.com/v1", api_key="k"))
GOOGLE = build(
    "gemini-ours",
    ProviderConfig(type="google", base_url="https://generativelanguage.googleapis.com/v1beta", api_key="k"),
)
A, B = Target(OPENAI, "gpt-4o-mini", "openai/gpt-4o-mini"), Target(LOCAL, "small", "local/small")


def routes(*, draw: float = 0.0) -> Routes:
    """Routes over four providers and two aliases; a weighted one draws ``draw``."""
    providers = {p.name: p for p in (OPENAI, LOCAL, ANTHROPIC, GOOGLE)}
    aliases = {"fast": Alias((A, B)), "spread": Alias((A, B), (1, 3))}
    return Routes(providers, aliases, lambda: draw)


def test_a_full_name_goes_to_its_provider_with_the_rest_as_the_model() -> None:
    """Only the first slash separates: the provider's own name of a model may hold more."""
    (target,) = routes().plan("local/org/model:7b", "chat")
    assert (target.provider.name, target.model, target.model_id) == ("local", "org/model:7b", "local/org/model:7b")


def test_an_ordered_alias_gives_its_targets_in_order() -> None:
    """The first target is tried first, always."""
    assert routes(draw=0.99).plan("fast", "chat") == (A, B)


@pytest.mark.parametrize(("draw", "first"), [(0.0, A), (0.24, A), (0.26, B), (0.999, B)])
def test_a_weighted_alias_starts_where_the_draw_falls(draw: float, first: Target) -> None:
    """With weights 1 and 3 the first quarter of the draws begins at the first target, and the other one follows."""
    plan = routes(draw=draw).plan("spread", "chat")
    assert plan[0] == first
    assert set(plan) == {A, B}


def test_a_bare_name_is_googles_on_geminis_paths_only() -> None:
    """Gemini's SDK sends bare names; on every other surface a bare name that is no alias is unknown."""
    (target,) = routes().plan("gemini-2.5-flash", "gemini")
    assert (target.provider, target.model_id) == (GOOGLE, "gemini-ours/gemini-2.5-flash")
    with pytest.raises(CallerFault) as caught:
        routes().plan("gemini-2.5-flash", "chat")
    assert caught.value.code == "user:model_not_found"


@pytest.mark.parametrize("model", ["nowhere/x", "x", "openai/", "/x", ""])
def test_an_unknown_model_is_the_callers_fault(model: str) -> None:
    """404 in the surface's shape, not a provider's error."""
    with pytest.raises(CallerFault) as caught:
        routes().plan(model, "chat")
    assert (caught.value.code, caught.value.status) == ("user:model_not_found", 404)


def test_a_provider_that_does_not_speak_the_protocol_is_refused() -> None:
    """Anthropic's API has no chat completions, and nobody translates here."""
    with pytest.raises(CallerFault) as caught:
        routes().plan("anthropic/claude-sonnet-4-5", "chat")
    assert caught.value.code == "user:unsupported_surface"


def test_a_server_of_ones_own_speaks_every_protocol() -> None:
    """What a self-hosted server lacks gives its own 404; the gateway does not guess."""
    assert routes().plan("local/small", "messages") == (B,)


@pytest.mark.parametrize(
    ("model", "surface", "advice"),
    [
        pytest.param("gpt-4o", "chat", "such as openai/gpt-4o;", id="a bare name"),
        pytest.param("claude-opus", "messages", "such as anthropic/claude-opus;", id="a bare name of Anthropic's"),
        pytest.param("opnai/gpt-4o", "chat", "Did you mean openai/gpt-4o?", id="a mistyped provider"),
        pytest.param("fats", "chat", "Did you mean fast?", id="a mistyped alias"),
        pytest.param(
            "somewhere/x", "chat", "Name it provider/model; GET /v1/models", id="a provider that is not there"
        ),
    ],
)
def test_who_names_no_model_is_told_what_to_write(model: str, surface: str, advice: str) -> None:
    """The refusal of a model says which name would have been right."""
    with pytest.raises(CallerFault) as caught:
        routes().plan(model, surface)
    assert advice in caught.value.message


def test_who_asks_in_the_wrong_protocol_is_told_the_right_one() -> None:
    """An Anthropic model on OpenAI's embeddings is refused with Anthropic's path."""
    with pytest.raises(CallerFault, match="it speaks Anthropic's"):
        routes().plan("anthropic/claude-opus", "embeddings")
