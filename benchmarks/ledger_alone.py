"""What the ledger does without a gateway, on one core: records a second written (P9), verified and repriced (P12).

Both measurements are programs of their own (`ledger_writer`, `verification`), run here one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks import clocks
from benchmarks.targets import REPOSITORY, TARGET_CORE

IN_FLIGHT: Final = 256
RECORDS: Final = 100_000


def measure(times: int, seconds: float = 2.0, records: int = RECORDS) -> dict[str, Any]:
    """Records a second by name."""
    writing = ["--rounds", str(times), "--seconds", str(seconds), "--in-flight", str(IN_FLIGHT)]
    whole = _run("benchmarks.ledger_writer", *writing)["figures"][0]
    metadata = _run("benchmarks.ledger_writer", *writing, "--metadata")["figures"][0]
    proved = _run("benchmarks.verification", "--records", str(records), "--rounds", str(min(times, 3)))
    return {
        "written with bodies": round(whole["rate"]),
        "written, metadata only": round(metadata["rate"]),
        "verified, chain": proved["chain"],
        "verified, everything": proved["everything"],
        "repriced": proved["reprice"],
        "bytes a record with bodies": round(whole["bytes_a_record"]),
        "bytes a record, metadata only": round(metadata["bytes_a_record"]),
    }


def _run(module: str, *arguments: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, clocks.pinned({TARGET_CORE}):
        output = Path(folder) / "figures.json"
        command = [sys.executable, "-m", module, *arguments, "--json", str(output)]
        subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(output.read_text())
