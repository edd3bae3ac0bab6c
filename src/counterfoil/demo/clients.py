"""The demonstration's calls, made by the official SDKs as any application would make them.

Every call gives the generation's id as the client itself sees it, in the answer's headers: nothing here knows more than
an application does.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import anthropic
import openai

SEED: Final = 11
TEMPERATURE: Final = 0.7
MAX_TOKENS: Final = 60
TIMEOUT_SECONDS: Final = 60.0
SEEDED: Final[dict[str, Any]] = {"seed": SEED, "temperature": TEMPERATURE}
"""What Anthropic's SDK has no parameters for, and this model server takes all the same."""
NO_PROMPT_CACHE: Final[dict[str, Any]] = {"cache_prompt": False}
"""Equal seeds give equal text only when the model does not pick up a half-computed prompt."""


class Answer(NamedTuple):
    """What a client has in hand after a call: the generation's id and the text."""

    generation_id: str
    text: str


class RequestRefused(Exception):
    """The gateway answered a plain request with an error. The text holds the status and the error's own message."""


class Applications:
    """The applications of the demonstration: one that uses the OpenAI SDK, one that uses Anthropic's."""

    def __init__(self, url: str, key: str) -> None:
        # Retries would hide an error behind a second call, and a demonstration should show what happened.
        self._openai = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=TIMEOUT_SECONDS)
        self._anthropic = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=TIMEOUT_SECONDS)

    def ask_openai(self, model: str, question: str) -> Answer:
        """One answer at once, through Chat Completions."""
        raw = self._openai.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=MAX_TOKENS,
            temperature=TEMPERATURE,
            seed=SEED,
            extra_body=NO_PROMPT_CACHE,
        )
        return Answer(raw.headers["x-request-id"], raw.parse().choices[0].message.content or "")

    def stream_openai(self, model: str, question: str, show: Callable[[str], None]) -> Answer:
        """One answer piece by piece, through Chat Completions; ``show`` gets each piece as it comes."""
        raw = self._openai.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=MAX_TOKENS,
            temperature=TEMPERATURE,
            seed=SEED,
            stream=True,
        )
        pieces: list[str] = []
        for chunk in raw.parse():
            piece = (chunk.choices[0].delta.content or "") if chunk.choices else ""
            pieces.append(piece)
            show(piece)
        return Answer(raw.headers["x-request-id"], "".join(pieces))

    def ask_anthropic(self, model: str, question: str) -> Answer:
        """One answer at once, through Messages."""
        raw = self._anthropic.messages.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=MAX_TOKENS,
            extra_body=SEEDED,
        )
        text = "".join(block.text for block in raw.parse().content if block.type == "text")
        return Answer(raw.headers["request-id"], text)

    def stream_anthropic(self, model: str, question: str, show: Callable[[str], None]) -> Answer:
        """One answer piece by piece, through Messages."""
        with self._anthropic.messages.stream(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=MAX_TOKENS,
            extra_body=SEEDED,
        ) as stream:
            pieces: list[str] = []
            for piece in stream.text_stream:
                pieces.append(piece)
                show(piece)
            return Answer(stream.response.headers["request-id"], "".join(pieces))


def look_up(url: str, key: str, generation_id: str) -> dict[str, Any]:
    """The record of a generation, as ``GET /v1/generations?id=`` gives it. Raises :class:`RequestRefused`."""
    _, record = _request(url, "GET", f"/v1/generations?{urlencode({'id': generation_id})}", key)
    return record


def resubmit(url: str, key: str, record: Mapping[str, Any], changes: Mapping[str, Any]) -> Answer:
    """Post a record's ``replay_request`` to its ``endpoint``, ``changes`` laid over it, and link it to the original."""
    headers, body = _request(
        url,
        "POST",
        record["endpoint"],
        key,
        body={**record["replay_request"], **changes},
        headers={"x-counterfoil-replay-of": record["request_id"]},
    )
    return Answer(headers["x-generation-id"], body["choices"][0]["message"]["content"])


def _request(
    url: str,
    method: str,
    path: str,
    key: str,
    *,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[Mapping[str, str], dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(
            method,
            path,
            body=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json", **(headers or {})},
        )
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise RequestRefused(f"{method} {path} was answered with {response.status}: {json.dumps(answer)}")
    return {name.lower(): value for name, value in response.getheaders()}, answer
