"""The meters a price list may price, and how one usage splits into parts that never overlap.

Usage reports totals with details *inside* them (cached tokens inside the input, audio inside both). A bill needs parts
that add up, so each total is split into *cells*: every token is in exactly one. Which cell is billed at which rate is
the price list's business (``sheet``); what the cells hold is decided here, once, for every provider:

- A token read from the cache is in a ``cache_read`` cell, one written to it in a ``cache_write`` cell, whatever its
  modality; the modality of cached tokens is known only where the provider reports it.
- Every other token is in the cell of its modality or purpose; what no detail claims stays in the plain cell.
- Details that exceed their total are cut, in the order cache reads, cache writes, modalities, and the split says so:
  the total is what a provider bills, and the parts must add up to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

# Cells of the input. Each is also the name of the meter that may have a rate of its own.
INPUT: Final = "input_tokens"
INPUT_TEXT: Final = "input_text_tokens"
INPUT_AUDIO: Final = "input_audio_tokens"
INPUT_IMAGE: Final = "input_image_tokens"
INPUT_VIDEO: Final = "input_video_tokens"
INPUT_TOOL: Final = "input_tool_tokens"
CACHE_READ: Final = "cache_read_tokens"
CACHE_READ_TEXT: Final = "cache_read_text_tokens"
CACHE_READ_AUDIO: Final = "cache_read_audio_tokens"
CACHE_READ_IMAGE: Final = "cache_read_image_tokens"
CACHE_READ_VIDEO: Final = "cache_read_video_tokens"
CACHE_WRITE: Final = "cache_write_tokens"
CACHE_WRITE_5M: Final = "cache_write_5m_tokens"
CACHE_WRITE_1H: Final = "cache_write_1h_tokens"
# Cells of the output.
OUTPUT: Final = "output_tokens"
OUTPUT_TEXT: Final = "output_text_tokens"
OUTPUT_AUDIO: Final = "output_audio_tokens"
OUTPUT_IMAGE: Final = "output_image_tokens"
OUTPUT_VIDEO: Final = "output_video_tokens"
OUTPUT_REASONING: Final = "output_reasoning_tokens"
OUTPUT_CITATION: Final = "output_citation_tokens"
# Beside the tokens.
REQUESTS: Final = "requests"
REFUSALS: Final = "refusals"
REQUEST_FEE: Final = "request_fee"
EMBEDDINGS: Final = "embeddings"
PROVIDER_COST: Final = "provider_cost"
BYOK_FEE: Final = "byok_fee"
BYOK_MINIMUM: Final = "byok_minimum"
BYOK_MAXIMUM: Final = "byok_maximum"

INPUT_CELLS: Final = (
    INPUT,
    INPUT_TEXT,
    INPUT_AUDIO,
    INPUT_IMAGE,
    INPUT_VIDEO,
    INPUT_TOOL,
    CACHE_READ,
    CACHE_READ_TEXT,
    CACHE_READ_AUDIO,
    CACHE_READ_IMAGE,
    CACHE_READ_VIDEO,
    CACHE_WRITE,
    CACHE_WRITE_5M,
    CACHE_WRITE_1H,
)
OUTPUT_CELLS: Final = (
    OUTPUT,
    OUTPUT_TEXT,
    OUTPUT_AUDIO,
    OUTPUT_IMAGE,
    OUTPUT_VIDEO,
    OUTPUT_REASONING,
    OUTPUT_CITATION,
)
TOKEN_METERS: Final = frozenset(INPUT_CELLS + OUTPUT_CELLS)

TOKENS_PER_PRICE: Final = 1_000_000
"""Token rates are per million unless a list says otherwise; every other meter's are per unit."""

_INPUT_MEASURES = frozenset(
    {"characters", "pages", "annotated_pages", "input_audio_ms", "input_video_ms", "input_images", "input_messages"}
    | {"embeddings", "search_units", "audio_ms", "input_pixels"}
)
_OUTPUT_MEASURES = frozenset({"images", "output_audio_ms", "output_video_ms", "videos", "output_characters"})
_TOOLS = frozenset(
    {"web_searches", "map_searches", "web_fetches", "social_searches", "file_searches", "attachment_searches"}
    | {"code_executions", "image_generations"}
)
KNOWN_METERS: Final = TOKEN_METERS | _INPUT_MEASURES | _OUTPUT_MEASURES | _TOOLS | {REQUESTS, REFUSALS}
"""Every meter that has a meaning here. Others are billed too, when a list names them."""
AUDIO_TIMES: Final = frozenset({"audio_ms", "input_audio_ms"})
"""How long one listened: what it costs says what the sound costs, however many tokens it was cut into."""
_PARENTS = {"input_audio_ms": "audio_ms", "output_audio_ms": "audio_ms", "annotated_pages": "pages"}


def base(meter: str) -> str:
    """A meter without its qualifiers: ``images`` for ``images.high.1024x1024``."""
    return meter.partition(".")[0]


def direction(meter: str) -> str:
    """Which side of a call a meter measures: ``input``, ``output``, or an empty string (requests, tools, fees).

    Two meters of one side measure the same content twice (an image and its tokens), so a list that prices one of
    them has priced that side; a tool call is never measured by anything else.
    """
    if meter in INPUT_CELLS:
        return "input"
    if meter in OUTPUT_CELLS:
        return "output"
    root = base(meter)
    return "input" if root in _INPUT_MEASURES else "output" if root in _OUTPUT_MEASURES else ""


def ancestors(meter: str) -> tuple[str, ...]:
    """The meters whose rate also prices ``meter``, nearest first: fewer qualifiers, then the wider measure."""
    names: list[str] = []
    name = meter
    while "." in name:
        name = name.rpartition(".")[0]
        names.append(name)
    root = base(meter)
    while root in _PARENTS:
        root = _PARENTS[root]
        names.append(root)
    return tuple(names)


def default_size(meter: str) -> int:
    """The units one price is for when nobody says otherwise: a million for tokens, one for all else."""
    return TOKENS_PER_PRICE if meter in TOKEN_METERS or base(meter).endswith("_tokens") else 1


class Split(NamedTuple):
    """Parts of one total that add up to it. ``cut`` tells that a detail claimed more than was left."""

    cells: list[tuple[str, int]]
    cut: bool


_READ_PARTS = (
    ("cached_text_tokens", CACHE_READ_TEXT),
    ("cached_audio_tokens", CACHE_READ_AUDIO),
    ("cached_image_tokens", CACHE_READ_IMAGE),
    ("cached_video_tokens", CACHE_READ_VIDEO),
)
_INPUT_PARTS = (
    ("audio_tokens", "cached_audio_tokens", INPUT_AUDIO),
    ("image_tokens", "cached_image_tokens", INPUT_IMAGE),
    ("video_tokens", "cached_video_tokens", INPUT_VIDEO),
)
_INPUT_REST = (("tool_tokens", "", INPUT_TOOL), ("text_tokens", "cached_text_tokens", INPUT_TEXT))
"""Details that may lie inside others (a tool's prompt is text): they take at most what is left, and are never cut."""
_OUTPUT_PARTS = (
    ("audio_tokens", OUTPUT_AUDIO),
    ("image_tokens", OUTPUT_IMAGE),
    ("video_tokens", OUTPUT_VIDEO),
    ("reasoning_tokens", OUTPUT_REASONING),
    ("citation_tokens", OUTPUT_CITATION),
)


class Terms(NamedTuple):
    """What a split gives where no detail contradicts another: a cell is a count less the counts that lie inside it.

    In the order of :attr:`Split.cells`. It holds while every difference, and what is left of the total, is not
    negative, and the counts ``inside`` do not exceed that of ``around``.
    """

    cells: list[tuple[str, str, tuple[str, ...]]]
    around: str = ""
    inside: tuple[str, ...] = ()


def input_terms(names: Sequence[str], own: frozenset[str]) -> Terms:
    """:func:`split_input` for details of these ``names``, whatever their counts."""

    def named(*wanted: str) -> tuple[str, ...]:
        return tuple(name for name in wanted if name in names)

    reads = [(name, cell) for name, cell in _READ_PARTS if name in names]
    cells: list[tuple[str, str, tuple[str, ...]]] = [(cell, name, ()) for name, cell in reads if cell in own]
    around, inside = "", ()
    if "cached_tokens" in names:
        cells.append((CACHE_READ, "cached_tokens", tuple(name for _, name, _ in cells)))
        if any(cell not in own for _, cell in reads):  # else the difference says it
            around, inside = "cached_tokens", tuple(name for name, _ in reads)
    else:
        cells += [(CACHE_READ, name, ()) for name, cell in reads if cell not in own]
    split = named("cache_write_5m_tokens", "cache_write_1h_tokens")
    for cell, name, less in (
        (CACHE_WRITE_1H, "cache_write_1h_tokens", ()),
        (CACHE_WRITE_5M, "cache_write_5m_tokens", ()),
        (CACHE_WRITE, "cache_write_tokens", split),
        *((cell, name, named(cached)) for name, cached, cell in (*_INPUT_PARTS, *_INPUT_REST) if cell in own),
    ):
        if name in names:
            cells.append((cell, name, less))
    return Terms(cells, around, inside)


def output_terms(names: Sequence[str], own: frozenset[str]) -> Terms:
    """:func:`split_output` for details of these ``names``, whatever their counts."""
    parts = (*_OUTPUT_PARTS, ("text_tokens", OUTPUT_TEXT))
    return Terms([(cell, name, ()) for name, cell in parts if cell in own and name in names])


def split_input(total: int, details: Mapping[str, int], own: frozenset[str]) -> Split:
    """The cells of the input. ``own`` names the cells worth splitting off; a detail outside it stays in its parent."""
    get = details.get
    wanted: list[tuple[str, int]] = []
    read = get("cached_tokens", 0)
    parts = 0
    for name, cell in _READ_PARTS:
        quantity = get(name, 0)
        if quantity > 0:
            parts += quantity
            if cell in own:
                wanted.append((cell, quantity))
    if read or parts:
        wanted.append((CACHE_READ, max(read, parts) - sum([quantity for _, quantity in wanted])))
    write_5m, write_1h = get("cache_write_5m_tokens", 0), get("cache_write_1h_tokens", 0)
    wanted.append((CACHE_WRITE_1H, write_1h))
    wanted.append((CACHE_WRITE_5M, write_5m))
    wanted.append((CACHE_WRITE, get("cache_write_tokens", 0) - write_5m - write_1h))
    for name, cached_name, cell in _INPUT_PARTS:
        if cell in own and name in details:
            wanted.append((cell, details[name] - get(cached_name, 0)))
    split = _take(total, wanted)
    rest = total - sum([quantity for _, quantity in split.cells])
    for name, cached_name, cell in _INPUT_REST:
        if rest > 0 and cell in own and (quantity := min(get(name, 0) - get(cached_name, 0), rest)) > 0:
            split.cells.append((cell, quantity))
            rest -= quantity
    if rest > 0:
        split.cells.append((INPUT, rest))
    return split


def split_output(total: int, details: Mapping[str, int], own: frozenset[str]) -> Split:
    """The cells of the output, in the manner of :func:`split_input`."""
    split = _take(total, [(cell, details[name]) for name, cell in _OUTPUT_PARTS if cell in own and name in details])
    rest = total - sum([quantity for _, quantity in split.cells])
    if rest > 0 and OUTPUT_TEXT in own and (quantity := min(details.get("text_tokens", 0), rest)) > 0:
        # Some providers count reasoning inside the text; what is left is the text that was shown.
        split.cells.append((OUTPUT_TEXT, quantity))
        rest -= quantity
    if rest > 0:
        split.cells.append((OUTPUT, rest))
    return split


def _take(total: int, wanted: Sequence[tuple[str, int]]) -> Split:
    """What ``wanted`` claims of ``total``, in order, until nothing is left."""
    cells: list[tuple[str, int]] = []
    cut = False
    for cell, quantity in wanted:
        if quantity > 0:
            if quantity > total:
                cut = True
                quantity = total  # noqa: PLW2901 - what is left
            if quantity:
                cells.append((cell, quantity))
                total -= quantity
    return Split(cells, cut)
