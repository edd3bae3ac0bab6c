"""Recorded traffic of real providers, read from a folder beside the project; it is no part of it.

``COUNTERFOIL_TEST_DATA`` names the folder, else ``../shared/data`` is tried. Where it is absent :func:`load` gives
nothing, and the tests over it say that they were skipped.
"""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(os.environ.get("COUNTERFOIL_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
FILE = FOLDER / "wire-captures-open.jsonl.gz"
ABSENT = f"there is no recorded traffic in {FOLDER} (set COUNTERFOIL_TEST_DATA)"


class Capture(NamedTuple):
    """One recorded request and its answer. ``body`` is the answer's bytes; JSON answers were recorded parsed."""

    number: int
    host: str
    path: str
    query: str
    request: Any
    status: int
    content_type: str
    body: bytes

    @property
    def name(self) -> str:
        """A short name for reports: the line's number, the provider's host and the last part of the path."""
        return f"{self.number}-{self.host.split('.')[-2:][0]}-{self.path.rsplit('/', 1)[-1]}"


@cache
def load() -> tuple[Capture, ...]:
    """Every recorded exchange, in the file's order; none when the file is absent."""
    if not FILE.exists():
        return ()
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        return tuple(_capture(number, json.loads(line)) for number, line in enumerate(lines, 1))


def _capture(number: int, line: dict[str, Any]) -> Capture:
    answer = line["response"]
    body = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return Capture(
        number,
        line["host"],
        line["path"],
        line["query"] or "",
        line["request"],
        line["status"],
        line["content_type"],
        body.encode(),
    )
