"""``counterfoil``: the command line, and how it ends.

Commands are named by import path and loaded when they are called, so ``counterfoil keys create`` does not wait for the
gateway's modules. Whatever goes wrong in a foreseen way is one line on the standard error: exit code 1, or 2 when the
command line itself was wrong. A traceback is a bug.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from counterfoil import __version__
from counterfoil.errors import ConfigError, Fault

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141

_COMMANDS: Final = (
    ("serve", "serve:serve", "Start the gateway."),
    ("demo", "demo:demo", "Run a real small model on this machine, end to end."),
    ("keys", "keys:app", "API keys: create, list, disable, rotate, expire, revoke."),
    ("teams", "teams:app", "Teams: create, list, show, set, disable."),
    ("apps", "apps:app", "Applications of a team."),
    ("provider-keys", "provider_keys:app", "A team's own provider keys."),
    ("generations", "generations:app", "Records: list, show, follow, add up, export, replay, compare, erase."),
    ("replays", "replays:app", "Bulk runs: start, watch, cancel, resume, report, delete."),
    ("cassette", "cassette:app", "Recordings in a file: export, import."),
    ("playback", "playback:app", "Serve recordings with no gateway, provider or key."),
    ("ledger", "ledger:app", "The ledger: verify, figures, checkpoints, repricing."),
    ("prices", "prices:app", "Price books: show, compare."),
    ("secrets", "secrets:app", "The folder's own secrets: show, rotate, retire."),
    ("backup", "backup:backup", "Copy the data folder, also while the gateway runs."),
    ("config", "config:app", "The configuration: check it, print its schema."),
    ("doctor", "doctor:doctor", "Find out what is wrong with this installation."),
)
_NAMES: Final = tuple(name for name, _, _ in _COMMANDS)
_HELP: Final = "(see: counterfoil --help)"

app = App(
    name="counterfoil",
    help="A self-hosted AI gateway that keeps the counterfoil of every generation.",
    version=__version__,
    result_action="return_value",
)
for _name, _path, _help in _COMMANDS:
    app.command(f"counterfoil.cli.{_path}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; give its exit code."""
    first = next(iter(arguments), "-")
    if not first.startswith("-") and first not in _NAMES:
        # The parser would import every command to suggest one.
        near = next(iter(difflib.get_close_matches(first, _NAMES, n=1)), None)
        return _said(f"There is no command {first!r}{f'; did you mean {near}?' if near else '.'} {_HELP}", MISUSED)
    try:
        result = app(list(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        return _said(f"{error} {_HELP}", MISUSED)
    except (ConfigError, Fault) as error:
        return _said(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return result if isinstance(result, int) else 0


def _said(text: str, code: int) -> int:
    sys.stderr.write(f"counterfoil: {text}\n")
    return code
