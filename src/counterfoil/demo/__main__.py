"""``python -m counterfoil.demo``: what ``counterfoil demo`` runs once it has seen that everything is installed."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

import anthropic
import openai
from rich.console import Console

from counterfoil.demo.clients import RequestRefused
from counterfoil.demo.processes import ProcessFailed
from counterfoil.demo.walk import DemoFailed, run


def main(arguments: list[str]) -> int:
    """Run the demonstration; give 0, or 1 after saying on the error stream what went wrong and what to do."""
    parser = argparse.ArgumentParser(prog="counterfoil demo")
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--port", type=int, default=None, help="the gateway's port (default: 8080, or a free one)")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where the demonstration keeps its things")
    options = parser.parse_args(arguments)
    # A plain "terminate" must stop the model and the gateway too: it becomes the exit that every `with` block sees.
    signal.signal(signal.SIGTERM, _leave)
    try:
        run(Console(), options.folder, options.port, keep=options.keep)
    except (DemoFailed, ProcessFailed, RequestRefused, openai.OpenAIError, anthropic.AnthropicError) as failure:
        Console(stderr=True).print(f"{failure}\nThe logs are in {options.folder}.", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
