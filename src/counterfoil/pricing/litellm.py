"""LiteLLM's price file (``model_prices_and_context_window.json``) as a price file of ours.

The result is YAML for the operator to read, trim and keep: an import is a decision, not a dependency. The numbers are
carried over digit by digit from the JSON text, so ``1.5e-07`` dollars a token becomes exactly $0.15 per million. What
has no counterpart here is listed at the end as a comment rather than dropped silently.

The file's format was read 2026-11 (github.com/BerriAI/litellm, MIT licence); its prices carry no dates, so an imported
price holds from the import on, unless the operator adds ``from``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from counterfoil.errors import ConfigError
from counterfoil.pricing import meters as m
from counterfoil.pricing.rates import exact, plain_dollars

FILE_BYTES_MAX: Final = 64 * 1024 * 1024

_PROVIDERS: Final = {
    "azure_ai": "azure",
    "azure_text": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "fireworks_ai-embedding-models": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "voyage": "voyageai",
    "xai": "x-ai",
}
"""Their names of providers, where ours differ. Names that begin with ``vertex_ai`` are ``google``."""

_PREFIXES: Final = ("vertex_ai",)

_FIELDS: Final[dict[str, tuple[str, int]]] = {
    "input_cost_per_token": (m.INPUT, 1),
    "output_cost_per_token": (m.OUTPUT, 1),
    "cache_read_input_token_cost": (m.CACHE_READ, 1),
    "cache_creation_input_token_cost": (m.CACHE_WRITE, 1),
    "cache_creation_input_token_cost_above_1hr": (m.CACHE_WRITE_1H, 1),
    "cache_read_input_audio_token_cost": (m.CACHE_READ_AUDIO, 1),
    "cache_read_input_image_token_cost": (m.CACHE_READ_IMAGE, 1),
    "input_cost_per_audio_token": (m.INPUT_AUDIO, 1),
    "input_cost_per_image_token": (m.INPUT_IMAGE, 1),
    "input_cost_per_video_token": (m.INPUT_VIDEO, 1),
    "output_cost_per_audio_token": (m.OUTPUT_AUDIO, 1),
    "output_cost_per_image_token": (m.OUTPUT_IMAGE, 1),
    "output_cost_per_video_token": (m.OUTPUT_VIDEO, 1),
    "output_cost_per_reasoning_token": (m.OUTPUT_REASONING, 1),
    "citation_cost_per_token": (m.OUTPUT_CITATION, 1),
    "input_cost_per_character": ("characters", 1),
    "output_cost_per_character": ("output_characters", 1),
    "input_cost_per_query": ("search_units", 1),
    "input_cost_per_request": (m.REQUESTS, 1),
    "input_cost_per_image": ("input_images", 1),
    "output_cost_per_image": ("images", 1),
    "input_cost_per_pixel": ("input_pixels", 1),
    "ocr_cost_per_page": ("pages", 1),
    "annotation_cost_per_page": ("annotated_pages", 1),
    "input_cost_per_second": ("input_audio_ms", 1_000),
    "input_cost_per_audio_per_second": ("input_audio_ms", 1_000),
    "output_cost_per_second": ("output_audio_ms", 1_000),
    "input_cost_per_video_per_second": ("input_video_ms", 1_000),
    "output_cost_per_video_per_second": ("output_video_ms", 1_000),
    "file_search_cost_per_1k_calls": ("file_searches", 1_000),
    "code_interpreter_cost_per_session": ("code_executions", 1),
}
_TIERS: Final = {"_flex": "flex", "_priority": "priority", "_batches": "batch", "_batch": "batch"}
_ABOVE: Final = re.compile(r"(.+?)_above_(\d+)k_tokens\Z")
_COST: Final = re.compile(r"(^|_)cost(_|$)")


class _Price(NamedTuple):
    """One number of theirs as ours: for a tier ("" is standard), above so many input tokens (0 is always)."""

    tier: str
    meter: str
    above: int
    dollars: str
    size: int


def convert(data: bytes, wanted: Callable[[str, str], bool] = lambda _provider, _model: True) -> str:
    """The price file that ``data`` amounts to, as YAML with the models that ``wanted`` (provider, model) lets through.

    Raises :class:`ConfigError` when ``data`` is not LiteLLM's file.
    """
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"The LiteLLM file is larger than {FILE_BYTES_MAX} bytes.")
    try:
        models = msgspec.json.Decoder(dict[str, dict[str, Any]], float_hook=str).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"This is not LiteLLM's price file: {error}.") from error
    unknown: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    lines = [
        "# Imported from LiteLLM's price file. Prices carry no dates there; add from: where you know one.",
        "prices:",
    ]
    for provider, model, entry in _models(models):
        if wanted(provider, model):
            lines += _entry(provider, model, entry, unknown, seen)
    if len(lines) == 2:
        lines[1] = "prices: []"
    if unknown:
        lines.append("# Not imported, because there is no such meter here (and how many models have it):")
        lines += [f"#   {_quoted(name)[1:-1]}: {count}" for name, count in sorted(unknown.items())]
    return "\n".join(lines) + "\n"


def _models(models: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Provider and model as this project names them. Names for one region only keep the region in the model's name."""
    for key, entry in models.items():
        theirs = entry.get("litellm_provider")
        if key == "sample_spec" or not isinstance(theirs, str):
            continue
        provider = "google" if theirs.startswith(_PREFIXES) else _PROVIDERS.get(theirs, theirs)
        head, slash, rest = key.partition("/")
        model = rest if slash and (head == theirs or _PROVIDERS.get(head, head) == provider or head in theirs) else key
        if provider and model:
            yield provider, model, entry


def _entry(
    provider: str, model: str, entry: dict[str, Any], unknown: Counter[str], seen: set[tuple[str, str, str]]
) -> list[str]:
    """The lines of one model: one for each service tier it has a price for."""
    found = _prices(entry, unknown)
    lines: list[str] = []
    for tier in sorted({price.tier for price in found}):
        if (provider, model, tier) in seen:
            continue  # one model under several names of theirs; the first is the plainest
        seen.add((provider, model, tier))
        rates = _rates([price for price in found if price.tier == tier])
        head = [f"provider: {_quoted(provider)}", f"model: {_quoted(model)}"] + ([f"tier: {tier}"] if tier else [])
        if rates:
            lines.append(f"  - {{{', '.join(head)}, rates: {{{', '.join(rates)}}}}}")
        elif not tier:
            lines.append(f"  - {{{', '.join(head)}, free: true}}")
    return lines


def _prices(entry: dict[str, Any], unknown: Counter[str]) -> list[_Price]:
    found: list[_Price] = []
    for name, value in entry.items():
        if name == "search_context_cost_per_query" and isinstance(value, dict):
            found += _search(value)  # pyright: ignore[reportUnknownArgumentType] - foreign JSON
            continue
        if not _COST.search(name) or not isinstance(value, str | int) or isinstance(value, bool):
            continue
        price = _price(name, str(value))
        if price is None:
            unknown[name] += 1
        else:
            found.append(price)
    return found


def _search(costs: dict[str, Any]) -> list[_Price]:
    """A web search is priced by the size of its context; the medium one is their default, and so ours."""
    value = costs.get("search_context_size_medium")
    return [_Price("", "web_searches", 0, str(value), 1)] if isinstance(value, str | int) else []


def _price(name: str, value: str) -> _Price | None:
    tier = ""
    for end, word in _TIERS.items():
        if name.endswith(end):
            name, tier = name.removesuffix(end), word
            break
    above = 0
    if (match := _ABOVE.match(name)) is not None:
        name, above = match[1], int(match[2]) * 1_000
    known = _FIELDS.get(name)
    if known is None or value.startswith("-"):
        return None
    return _Price(tier, known[0], above, value, known[1])


def _rates(prices: list[_Price]) -> list[str]:
    rates: list[str] = []
    for meter in dict.fromkeys(price.meter for price in prices):
        own = sorted((price for price in prices if price.meter == meter), key=lambda price: price.above)
        if own[0].above:
            continue  # a price for long calls only says nothing about the others
        bands = {price.above: _dollars(meter, price) for price in own if price.above}
        size = _size_word(meter, own[0].size)
        if not bands and not size:
            rates.append(f"{meter}: {_dollars(meter, own[0])}")
            continue
        parts = [f"price: {_dollars(meter, own[0])}"] + ([f"per: {size}"] if size else [])
        if bands:
            parts.append("above: {" + ", ".join(f"{above}: {text}" for above, text in bands.items()) + "}")
        rates.append(f"{meter}: {{{', '.join(parts)}}}")
    return rates


def _size_word(meter: str, size: int) -> str:
    if m.base(meter).endswith("_ms"):
        return "second"
    return "" if size == 1 else str(size)


def _dollars(meter: str, price: _Price) -> str:
    """The price as a plain decimal number: per million for tokens, per ``size`` units for the rest."""
    scale = m.TOKENS_PER_PRICE if meter in m.TOKEN_METERS else 1
    try:
        nanos, size = exact(price.dollars, 1)
    except ValueError as error:
        raise ConfigError(f"The LiteLLM file has a price that is no number: {price.dollars}.") from error
    return plain_dollars(nanos * scale, size)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in escaped) + '"'
