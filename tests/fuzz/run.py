"""Fuzz one target: ``python -m fuzz.run NAME SECONDS [NEW]`` with ``tests`` on the path.

Coverage guides the search, so the gateway's modules are instrumented as they are imported here. New inputs that reach
new code are kept in the folder NEW (nowhere, when it is left out); an input that breaks the target ends the run, is
printed in base64 and belongs into ``corpus/NAME`` with the fix.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["counterfoil", "fuzz"]):
    from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
INPUT_BYTES_MAX = 4096


def main() -> None:
    """Run the target that the command line names."""
    name, seconds, *new = sys.argv[1:]
    options = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=10", "-rss_limit_mb=1500"]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", *new, str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
