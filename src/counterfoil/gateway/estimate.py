"""Tokens counted by us where a provider reports none: old servers, streams cut short, calls that were given up.

An estimate is better than *unknown* and worse than a report, and says so everywhere: ``usage.source`` is ``estimated``,
``usage.estimated`` names the counts that are ours, and the cost's state is ``estimated``. What the provider did report
(Anthropic tells the input when a stream begins) is kept; only the rest is estimated.

The tokenizer is OpenAI's, from the optional extra ``tokenizer``. It is loaded before the gateway serves, because
importing it holds the interpreter's lock for a fifth of a second at a time: later, every call would wait for that. The
counting runs in a thread, off the loop. It is exact for the text of OpenAI's models and an approximation for all
others; docs/pricing.md has the errors measured. Rejected: counting bytes (off by half where the language is not
English), and asking a provider's own counter (a second call that the client did not make).
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from typing import Any, Final

import msgspec

from counterfoil.errors import ConfigError
from counterfoil.gateway.relay import Relay, Way
from counterfoil.record.usage import Usage, UsageSource
from counterfoil.surfaces import prose
from counterfoil.surfaces.base import Call, Reading

PACKAGE: Final = "bpe_openai"
PIECE_CHARACTERS: Final = 65_536
"""Text is counted in pieces of this size, so that no single count takes long."""
PER_MESSAGE: Final = 4
OPENING: Final = 3
"""Tokens that frame a message, and that open the answer. Source: OpenAI cookbook, counting tokens, read 2026-11."""
SURFACES: Final = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
_NEW_WORDS, _OLD_WORDS = "o200k_base", "cl100k_base"
_OLD: Final = ("gpt-4-", "gpt-3.5", "text-embedding")
_REFUSED: Final = frozenset({"invalid_response", "response_too_large"})
_WANTING: Final = frozenset({UsageSource.ABSENT, UsageSource.PARTIAL})


class Tokenizer:
    """Counts tokens, once :meth:`load` has loaded it. Safe from one thread at a time.

    Raises :class:`ConfigError` when the extra is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec(PACKAGE) is None:
            raise ConfigError(
                "estimates.tokens needs the extra tokenizer. In the clone: "
                ".venv/bin/pip install --require-hashes --no-deps -r requirements/tokenizer.txt"
            )
        self._encodings: dict[str, Any] = {}

    def load(self) -> Tokenizer:
        """Load the vocabularies, which takes two seconds and 170 MB."""
        # Not imported at the top: an optional extra of 70 MB, which most gateways never need.
        package: Any = importlib.import_module(PACKAGE)
        self._encodings = {name: package.get_encoding(name) for name in (_NEW_WORDS, _OLD_WORDS)}
        return self

    def count(self, text: str, model: str) -> int:
        """The tokens of ``text`` for ``model``, or for the nearest model that is known."""
        encoding = self._encodings[_OLD_WORDS if model == "gpt-4" or model.startswith(_OLD) else _NEW_WORDS]
        pieces = (text[at : at + PIECE_CHARACTERS] for at in range(0, len(text), PIECE_CHARACTERS))
        return sum(len(encoding.encode_ordinary(piece.encode(errors="replace").decode())) for piece in pieces)


class Estimator:
    """Completes the usage of answers whose provider did not. ``loop`` runs the counting in its default executor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tokenizer: Tokenizer) -> None:
        self._loop = loop
        self._tokenizer = tokenizer
        self._turn = asyncio.Lock()

    def wanted(self, call: Call, relay: Relay) -> bool:
        """Whether there is something to estimate: a good answer of generated text whose usage nobody told in full."""
        usage, fault = relay.reading().usage, relay.fault
        if not 200 <= relay.status < 300 or usage.source not in _WANTING:
            return False
        if fault is not None and fault.short_code in _REFUSED and not relay.reading().has_output:
            return False  # it was no answer
        if usage.estimated and usage.completion_tokens:
            return False  # the tokens are reported; what is missing beside them cannot be counted in text
        path = call.endpoint.partition("?")[0]
        return path in SURFACES or path.endswith(("generateContent", "streamGenerateContent"))

    async def complete(self, call: Call, model: str, relay: Relay) -> None:
        """Put into the relay's reading what can be estimated. Leaves it alone where too little was kept to count."""
        streamed = relay.way is Way.STREAM
        kept = not relay.too_large and (relay.keeps or not streamed)
        body = b"".join(relay.chunks) if kept else None
        reading = relay.reading()
        async with self._turn:
            reading.usage = await self._loop.run_in_executor(
                None, self.estimate, reading, call.body, body, model, streamed
            )

    def estimate(self, reading: Reading, request: bytes, answer: bytes | None, model: str, streamed: bool) -> Usage:  # noqa: FBT001  positions of an executor's call
        """The usage of ``reading`` with the counts that it lacks. ``answer`` is None when it was not kept."""
        usage = reading.usage
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        ours: list[str] = []
        whole = True
        if not prompt:
            asked = prose.asked(request)
            if asked is not None:
                prompt = self._count(asked, model)
                ours.append("prompt_tokens")
            whole = asked is not None and asked.whole
        answered = None if answer is None else prose.answered(answer, streamed=streamed)
        if answered is not None and reading.has_output and not answered.pieces[0]:
            answered = None  # there was an answer, in words that are not known here
        if answered is not None:
            counted = self._tokenizer.count(answered.pieces[0], model)
            if counted > completion or not completion:
                completion = counted
                ours.append("completion_tokens")
        if not ours:
            return usage
        return msgspec.structs.replace(
            usage,
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            source=UsageSource.ESTIMATED if whole and answered is not None and answered.whole else UsageSource.PARTIAL,
            estimated=(*ours, *(usage.estimated or ())),
        )

    def _count(self, text: prose.Prose, model: str) -> int:
        return sum(self._tokenizer.count(piece, model) for piece in text.pieces) + framing(text)


def framing(text: prose.Prose) -> int:
    """The tokens around the messages of a request."""
    return PER_MESSAGE * text.messages + OPENING if text.messages else 0
