"""How near estimates come to what providers reported, on recorded traffic (which is not part of this repository)."""

from __future__ import annotations

import gzip
import json
import os
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
from benchmarks.estimates import compared

from counterfoil.gateway.estimate import Tokenizer

pytest.importorskip("bpe_openai", reason="the extra `tokenizer` is not installed")
DATA = Path(os.environ.get("COUNTERFOIL_TEST_DATA", Path(__file__).parents[3] / "shared/data"))


def test_half_of_the_estimated_answers_are_near() -> None:
    """Of answers in text alone, half are within 5 % at OpenAI, and within 25 % anywhere: as docs/pricing.md says."""
    path = DATA / "wire-captures-open.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"recorded traffic is not here: {path}")
    tokenizer, errors = Tokenizer().load(), defaultdict[str, list[float]](list)
    with gzip.open(path, "rt") as lines:
        for line in lines:
            for one in compared(json.loads(line), tokenizer):
                if one.side == "output":
                    errors[one.host].append(abs(one.ours - one.theirs) / one.theirs)
    middles = {host: statistics.median(found) for host, found in errors.items() if len(found) >= 5}
    assert middles["api.openai.com"] <= 0.05
    assert len(middles) >= 5
    assert max(middles.values()) <= 0.25
