"""What is said to a request that found no surface."""

from __future__ import annotations

import pytest

from counterfoil.surfaces import registry


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        pytest.param("/chat/completions", "/v1/chat/completions? The base URL of OpenAI's", id="no version"),
        pytest.param("/v1/v1/messages", "/v1/messages? The base URL of Anthropic's", id="a version too many"),
        pytest.param("/v1/messages/", "/v1/messages?", id="a slash too many"),
        pytest.param("/v1beta/v1beta/models/x:generateContent", "/v1beta/models/{model}:generateContent?", id="Google"),
        pytest.param("/v1/chat/completion", "/v1/chat/completions?", id="mistyped"),
        pytest.param("/v1/openai/v1/responses", "/v1/responses?", id="somebody else's base"),
        pytest.param("/v1/v1/models", "/v1/models?", id="a list"),
    ],
)
def test_a_wrong_address_is_told_the_right_one(path: str, meant: str) -> None:
    """An SDK's base URL has a version too many or too few: the answer says which path was meant, and how to mend it."""
    assert f"did you mean {meant}" in registry.refusal(path).message


@pytest.mark.parametrize(
    "path",
    ["/v1/files", "/v1/files/file-1", "/v1/responses/resp_1/cancel", "/v1/messages/batches", "/v1beta/cachedContents"],
)
def test_what_a_provider_stores_is_named_as_such(path: str) -> None:
    """Who asks for a file or a stored response learns that it is not served on purpose."""
    assert "what a provider stores" in registry.refusal(path).message


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1", f"/v1/{'x/' * 50_000}", "/v1//:", "/"])
def test_anything_else_is_sent_to_the_list(path: str) -> None:
    """No guess is made where none is near, and nothing of the path is repeated."""
    assert registry.refusal(path).message == "This gateway has no such endpoint; GET /docs lists those it has."


@pytest.mark.parametrize(
    ("headers", "protocol"),
    [
        ({b"x-goog-api-key": b"k"}, "google"),
        ({b"anthropic-version": b"2023-06-01", b"x-api-key": b"k"}, "anthropic"),
        ({b"authorization": b"Bearer k"}, "openai"),
    ],
    ids=["google", "anthropic", "openai"],
)
def test_an_sdk_is_known_by_its_headers(headers: dict[bytes, bytes], protocol: str) -> None:
    """``/v1/files`` is a path of all three."""
    assert registry.as_client(registry.unknown("/v1/files"), headers).protocol == protocol
