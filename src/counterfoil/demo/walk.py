"""The demonstration from start to end: model, gateway, team and key, calls, records, reruns, and what to try next.

Everything lives in one folder (``.demo`` unless told otherwise): the gateway's configuration, its data folder, and the
logs of the two processes. A second run uses the same folder and adds to the same ledger.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from counterfoil.cli import render
from counterfoil.demo.clients import SEED, Answer, Applications, look_up, resubmit
from counterfoil.demo.model import MODEL
from counterfoil.demo.printing import Run, side_by_side
from counterfoil.demo.processes import Process, free_port, port_is_free

HOST: Final = "127.0.0.1"
PORT: Final = 8080
"""Where the gateway listens when nobody says otherwise and nobody else is there."""
TEAM: Final = "demo"
APP: Final = "walk"
MODEL_ID: Final = f"local/{MODEL}"
UNLISTED_ID: Final = f"unlisted/{MODEL}"
QUESTION: Final = "Name three colours of the rainbow and say in one sentence why we see them."
STREAMED_QUESTION: Final = "Tell me in two sentences what a receipt is for."
CHANGES: Final[dict[str, Any]] = {"temperature": 1.2, "seed": SEED + 1}
COMMAND_SECONDS_MAX: Final = 30.0

CONFIG: Final = """\
# Written by `counterfoil demo`.
data: {data}
host: {host}
port: {port}
prices_file: {prices}
providers:
  local: {{type: openai, base_url: "http://{host}:{model_port}/v1", api_key: none}}
  # The same model once more, under a name that has no prices.
  unlisted: {{type: openai, base_url: "http://{host}:{model_port}/v1", api_key: none}}
"""

PRICES: Final = """\
# Written by `counterfoil demo`. The model is in no price list, so this is the operator's own price, made up for the
# show: dollars per million tokens. `unlisted` has none: its costs are unknown, and are never shown as zero.
prices:
  - provider: local
    model: {model}
    rates: {{input_tokens: 0.15, cache_read_tokens: 0.075, output_tokens: 0.60}}
"""


class DemoFailed(Exception):
    """The demonstration cannot go on. The text says what to do."""


class Place(NamedTuple):
    """Where this demonstration keeps its things."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def config(self) -> Path:
        return self.root / "counterfoil.yaml"

    @property
    def prices(self) -> Path:
        return self.root / "prices.yaml"


class Gateway(NamedTuple):
    """A running gateway: its address and the key of the demonstration's application."""

    url: str
    key: str


def run(console: Console, root: Path, port: int | None, *, keep: bool) -> None:
    """Tell the whole story. Raises :class:`DemoFailed` or :class:`~counterfoil.demo.processes.ProcessFailed`."""
    start = time.monotonic()
    place = Place(root.absolute())
    place.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        model_port = _start_model(console, stack, place)
        gateway = _start_gateway(console, stack, place, _listening_port(console, port), model_port)
        records = _calls(console, gateway)
        _reruns(console, gateway, records[0])
        console.print(f"\nThat took {time.monotonic() - start:.0f} s.", style="dim")
        _what_next(console, place, gateway, records[0].record, keep=keep)
        if keep:
            _wait_for_interrupt()
            console.print("\nStopping the gateway and the model.")


def _start_model(console: Console, stack: ExitStack, place: Place) -> int:
    console.print(Rule("A real model and the gateway", align="left"))
    port = free_port(HOST)
    with _step(console, "loading SmolLM2-135M, 93 MB of weights"):
        command = [sys.executable, "-m", "counterfoil.demo.model", str(port)]
        model = stack.enter_context(Process("The model server", command, place.root / "model.log"))
        model.wait_until_ready(HOST, port, "/health")
    console.print(f"[dim]model    [/]http://{HOST}:{port}/v1  ({MODEL}, process {model.pid})")
    return port


def _listening_port(console: Console, wanted: int | None) -> int:
    if wanted is not None and not port_is_free(HOST, wanted):
        raise DemoFailed(
            f"Port {wanted} is in use. Stop what listens there (find it with: ss -ltnp 'sport = :{wanted}'), "
            "or leave out --port to have a free one chosen."
        )
    if wanted is not None or port_is_free(HOST, PORT):
        return wanted or PORT
    port = free_port(HOST)
    console.print(f"[dim]Port {PORT} is in use; the gateway takes {port} instead.[/]")
    return port


def _start_gateway(console: Console, stack: ExitStack, place: Place, port: int, model_port: int) -> Gateway:
    paths = {"data": json.dumps(str(place.data)), "prices": json.dumps(str(place.prices))}
    place.config.write_text(CONFIG.format(**paths, host=HOST, port=port, model_port=model_port))
    place.prices.write_text(PRICES.format(model=MODEL))
    with _step(console, "starting the gateway"):
        command = [sys.executable, "-m", "counterfoil", "serve", "--config", str(place.config)]
        gateway = stack.enter_context(Process("The gateway", command, place.root / "gateway.log"))
        gateway.wait_until_ready(HOST, port, "/health/ready")
    console.print(f"[dim]gateway  [/]http://{HOST}:{port}  (process {gateway.pid}, data in {escape(str(place.data))})")
    key = _make_key(console, place)
    return Gateway(f"http://{HOST}:{port}", key)


def _make_key(console: Console, place: Place) -> str:
    key = _command("keys", "create", "--team", TEAM, "--app", APP, "--data", str(place.data)).strip()
    console.print(f"[dim]key      [/]{escape(key[:14])}…  (team {TEAM}, app {APP}; shown once, stored as a digest)")
    return key


def _command(*arguments: str) -> str:
    """Run one command of the gateway's own command line; give what it printed."""
    command = [sys.executable, "-m", "counterfoil", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False)
    if done.returncode != 0:
        raise DemoFailed(f"This command failed: counterfoil {shlex.join(arguments)}\n{done.stderr or done.stdout}")
    return done.stdout


def _calls(console: Console, gateway: Gateway) -> list[Run]:
    applications = Applications(gateway.url, gateway.key)

    def show(piece: str) -> None:
        console.print(piece, end="", markup=False, highlight=False)

    stories: list[tuple[str, str, Callable[[], Answer]]] = [
        ("OpenAI SDK, in one piece", QUESTION, lambda: applications.ask_openai(MODEL_ID, QUESTION)),
        (
            "OpenAI SDK, streamed",
            STREAMED_QUESTION,
            lambda: applications.stream_openai(MODEL_ID, STREAMED_QUESTION, show),
        ),
        ("Anthropic SDK, in one piece", QUESTION, lambda: applications.ask_anthropic(MODEL_ID, QUESTION)),
        (
            "Anthropic SDK, streamed, from a provider whose prices nobody has written down",
            QUESTION,
            lambda: applications.stream_anthropic(UNLISTED_ID, QUESTION, show),
        ),
    ]
    runs: list[Run] = []
    for heading, question, call in stories:
        console.print(Rule(heading, align="left"))
        console.print(f"[dim]>[/] {question}")
        streamed = "streamed" in heading
        with _step(console, "the model is thinking", shown=not streamed):
            answer = call()
        console.print("" if streamed else answer.text, markup=False, highlight=False)
        # The answer has just ended; its record is already there.
        runs.append(Run(heading, answer.text, look_up(gateway.url, gateway.key, answer.generation_id)))
        console.print(render.record(runs[-1].record))
    return runs


def _reruns(console: Console, gateway: Gateway, original: Run) -> None:
    console.print(Rule("The captured request, run again", align="left"))
    runs = [original._replace(heading="the original")]
    for heading, changes in (("run again", {}), ("run again, hotter and with another seed", CHANGES)):
        with _step(console, f"posting replay_request to {original.record['endpoint']}"):
            answer = resubmit(gateway.url, gateway.key, original.record, changes)
        runs.append(Run(heading, answer.text, look_up(gateway.url, gateway.key, answer.generation_id)))
    console.print(side_by_side(runs))


def _what_next(console: Console, place: Place, gateway: Gateway, record: dict[str, Any], *, keep: bool) -> None:
    data = f"--data {shlex.quote(_short(place.data))}"
    program = shlex.quote(_program())
    commands = [
        ("every call so far", f"{program} generations list {data}"),
        ("one record", f"{program} generations show {record['request_id']} {data}"),
        ("is the ledger whole and unaltered?", f"{program} ledger verify {data}"),
        ("how much is in it", f"{program} ledger stats {data}"),
    ]
    if keep:
        lookup = f"{gateway.url}/v1/generations?id={record['request_id']}"
        commands += [
            ("the same record over HTTP", f"curl -s -H 'Authorization: Bearer {gateway.key}' '{lookup}'"),
            ("the API", f"{gateway.url}/docs"),
        ]
    else:
        commands.append(("all of this, and leave it running", "make demo ARGS=--keep"))
    console.print(Rule("To go on", align="left"))
    for purpose, command in commands:
        console.print(f"[dim]# {purpose}[/]\n  {escape(command)}", highlight=False, soft_wrap=True)
    if keep:
        console.print("\nThe gateway and the model are running. Ctrl-C stops both.")


def _program() -> str:
    """The command line as one would type it here: by its name where the shell finds it, else by its path."""
    beside = Path(sys.executable).with_name("counterfoil")
    found = shutil.which("counterfoil")
    return "counterfoil" if found and Path(found).samefile(beside) else _short(beside)


def _short(path: Path) -> str:
    """``path`` as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _wait_for_interrupt() -> None:
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: done.set())
    done.wait()


@contextmanager
def _step(console: Console, doing: str, *, shown: bool = True) -> Generator[None]:
    """Say what is being done while it is done; on a terminal with a spinner, elsewhere not at all."""
    if not (shown and console.is_terminal):
        yield
        return
    with console.status(f"{doing} …"):
        yield
