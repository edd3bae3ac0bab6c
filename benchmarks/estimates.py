"""How far estimated tokens are from reported ones, on recorded calls: median and 95th percentile by provider.

    COUNTERFOIL_TEST_DATA=… python -m benchmarks.estimates

The recordings are not part of the project. Each call's request and answer are counted as the gateway would count them
had the provider reported nothing, and compared with what it did report. Calls with tools, pictures, sound,
files, or a state kept at the provider have input that no tokenizer can see; they are left out, as the gateway calls
them partial. So are answers with hidden reasoning; and prompts under 50 tokens and answers under 20, where an
error of a few tokens is a large share of little.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from counterfoil.gateway.estimate import Tokenizer, framing
from counterfoil.record.usage import Usage, UsageSource
from counterfoil.surfaces import prose, registry
from counterfoil.surfaces.base import Call

ENDS = {"/chat/completions": "/v1/chat/completions", "/responses": "/v1/responses", "/v1/messages": "/v1/messages"}


class Compared(NamedTuple):
    """One count of one call: what we counted and what the provider reported."""

    host: str
    side: str
    ours: int
    theirs: int


def compared(row: dict[str, Any], tokenizer: Tokenizer) -> list[Compared]:
    """Give both sides of one recorded call, as far as they can be compared."""
    path = next((ours for end, ours in ENDS.items() if row["path"].endswith(end)), None)
    if path is None and "/models/" in row["path"] and "enerateContent" in row["path"]:
        path = "/v1beta/models/x:" + row["path"].rpartition(":")[2]
    surface = registry.find(path) if path else None
    if surface is None or row["status"] != 200 or not isinstance(row["request"], dict):
        return []
    streamed = "event-stream" in row["content_type"]
    text = row["response"]
    body = (text if isinstance(text, str) else json.dumps(text)).encode()
    meter = surface.meter(Call(endpoint="", model="m", stream=streamed, body=b"", content_type=""))
    if streamed:
        meter.push(body)
        meter.end()
    else:
        meter.whole(200, body)
    reading = meter.reading()
    asked, answered = prose.asked(json.dumps(row["request"]).encode()), prose.answered(body, streamed=streamed)
    if reading.usage.source is not UsageSource.REPORTED or asked is None or answered is None:
        return []
    model = str(row["request"].get("model") or "")
    return _sides(row["host"], model, reading.usage, asked, answered, tokenizer)


def _sides(
    host: str, model: str, used: Usage, asked: prose.Prose, answered: prose.Prose, tokenizer: Tokenizer
) -> list[Compared]:
    found: list[Compared] = []
    inside, outside = used.prompt_tokens_details or {}, used.completion_tokens_details or {}
    media = sum(inside.get(f"{kind}_tokens", 0) for kind in ("image", "audio", "video", "tool"))
    if asked.whole and not media and not used.meters and used.prompt_tokens >= 50:
        counted = sum(tokenizer.count(piece, model) for piece in asked.pieces) + framing(asked)
        found.append(Compared(host, "input", counted, used.prompt_tokens))
    if (
        not outside.get("reasoning_tokens")
        and not used.meters
        and used.completion_tokens >= 20
        and answered.whole
        and answered.pieces[0]
    ):
        counted = tokenizer.count(answered.pieces[0], model)
        found.append(Compared(host, "output", counted, used.completion_tokens))
    return found


def main() -> None:
    """Print the table."""
    data = Path(os.environ["COUNTERFOIL_TEST_DATA"]) / "wire-captures-open.jsonl.gz"
    tokenizer = Tokenizer().load()
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    with gzip.open(data, "rt") as lines:
        for line in lines:
            for one in compared(json.loads(line), tokenizer):
                errors[one.host, one.side].append((one.ours - one.theirs) / one.theirs * 100)
    print("| provider | side | calls | median error | median of the absolute error | 95 % within |")
    for (host, side), found in sorted(errors.items()):
        if len(found) >= 5:
            sizes = sorted(map(abs, found))
            within = sizes[min(len(sizes) - 1, int(len(sizes) * 0.95))]
            middle = statistics.median(found)
            row = (host, side, len(found), f"{middle:+.0f} %", f"{statistics.median(sizes):.0f} %", f"{within:.0f} %")
            print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
