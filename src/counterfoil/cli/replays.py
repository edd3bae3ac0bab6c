"""``counterfoil replays``: many recorded calls run again, from a terminal.

Runs are driven by a gateway and go on without this command. What a run is judged by in Python
(``--judge module:function``) runs here, in this process: a gateway never imports what a request names.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from counterfoil.cli import judging, output, rehearsal
from counterfoil.cli.records import ALL, Selection
from counterfoil.cli.remote import Remote
from counterfoil.cli.replay import edit_of, patch_of
from counterfoil.cli.where import LOCAL, AsJson, Source
from counterfoil.errors import ConfigError
from counterfoil.record import words
from counterfoil.record.money import dollars

app = App(name="replays", help="Bulk runs: start, watch, cancel, resume, report, delete.")

POLL_SECONDS: Final = 0.4
_COLUMNS: Final = ("run_id", "state", "name", "items", "done", "failed", "skipped", "spent")
RunId = Annotated[str, Parameter(help="The run's id (run_…), or `last` for the newest.")]
LAST: Final = "last"
JudgeOption = Annotated[
    tuple[str, ...],
    Parameter(
        help="exact, regex:PATTERN, not:PATTERN, schema:@FILE, model:PROVIDER/MODEL, or MODULE:FUNCTION, "
        "a Python function that runs here.",
        negative=(),
    ),
]


@app.command
def start(
    ids: Annotated[tuple[str, ...], Parameter(help="Generations to run again, instead of a filter.")] = (),
    *,
    selection: Selection = ALL,
    target: Annotated[
        tuple[str, ...], Parameter(name=("--target", "-t"), help="provider/model or an alias; several for several.")
    ] = (),
    patch: Annotated[str | None, Parameter(help="A JSON merge patch of every request, or @FILE.")] = None,
    edit: Annotated[tuple[str, ...], Parameter(help="POINTER=VALUE in every request.")] = (),
    name: Annotated[str | None, Parameter(help="What to call the run.")] = None,
    sample: Annotated[int | None, Parameter(help="So many of them, drawn by the seed.")] = None,
    seed: Annotated[int, Parameter(help="Equal seeds draw equal samples.")] = 0,
    concurrency: Annotated[int, Parameter(help="Calls at once.")] = 4,
    rate: Annotated[float | None, Parameter(help="Calls begun a second, at most.")] = None,
    budget: Annotated[
        str | None,
        Parameter(help="Dollars that bound the run, such as 2.50: no call starts whose highest estimate does not fit."),
    ] = None,
    retries: Annotated[int, Parameter(help="How often a refusal (429) is tried again.")] = 2,
    judge: JudgeOption = (),
    dry_run: Annotated[
        bool, Parameter(help="Only say how many calls it would be, which cannot be made, and the cost.", negative=())
    ] = False,
    watch: Annotated[bool, Parameter(help="Wait for the end. A Python judge needs it.")] = True,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> int:
    """Run many generations again through a running gateway. Ctrl-C stops watching, not the run."""
    remote = _remote(source)
    changes = {"patch": patch_of(patch), "edits": [edit_of(text) for text in edit] or None}
    changes = {key: value for key, value in changes.items() if value is not None}
    judges = [judging.parsed(text) for text in judge]
    filters = {key: value for key, value in selection.query().items() if value is not None and key != "team"}
    asked = {
        "name": name,
        "ids": list(ids) or None,
        "filter": None if ids else _typed(filters),
        "sample": sample,
        "seed": seed,
        "targets": [{"model": one, **changes} for one in target] or [changes],
        "concurrency": concurrency,
        "rate": rate,
        "budget_nanos": None if budget is None else nanos_of(budget),
        "retries": retries,
        "judges": [one.asked for one in judges],
        "dry_run": dry_run or None,
    }
    body = {key: value for key, value in asked.items() if value is not None}
    run: dict[str, Any] = remote.call("POST", "/v1/replays", {"team": selection.team}, body)
    if dry_run:
        rehearsal.show(run, as_json=as_json)
        return 0
    if not watch:
        _print(run, as_json=as_json)
        return 0
    if not as_json:
        output.lines(run["run_id"])
    return _watched(remote, run["run_id"], judges, as_json=as_json)


@app.command(name="list")
def list_(
    *,
    team: Annotated[str | None, Parameter(help="Only this team's.")] = None,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """List the bulk runs, newest first."""
    found: list[dict[str, Any]] = _remote(source).get("/v1/replays", {"team": team})["data"]
    rows = found if as_json else [_row(run) for run in found]
    output.listing(rows, _COLUMNS, as_json=as_json, empty="There are no bulk runs.")


@app.command
def show(run_id: RunId, *, as_json: AsJson = False, source: Source = LOCAL) -> None:
    """Show one run: what was asked, its state and how far it is."""
    remote = _remote(source)
    _print(remote.get(_path(_named(remote, run_id))), as_json=as_json)


@app.command
def watch(run_id: RunId, *, judge: JudgeOption = (), as_json: AsJson = False, source: Source = LOCAL) -> int:
    """Follow a run to its end. Python judges take up what they have not judged yet."""
    remote = _remote(source)
    return _watched(remote, _named(remote, run_id), [judging.parsed(text) for text in judge], as_json=as_json)


@app.command
def cancel(run_id: RunId, *, as_json: AsJson = False, source: Source = LOCAL) -> None:
    """Start no more calls of a run. Those in flight end, and count."""
    remote = _remote(source)
    _print(remote.call("POST", _path(_named(remote, run_id), "/cancel")), as_json=as_json)


@app.command
def resume(
    run_id: RunId,
    *,
    budget: Annotated[str | None, Parameter(help="Another budget in dollars, for the whole run.")] = None,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Go on with a run that was cancelled or stopped. Nothing finished is paid again."""
    body = {} if budget is None else {"budget_nanos": nanos_of(budget)}
    remote = _remote(source)
    _print(remote.call("POST", _path(_named(remote, run_id), "/resume"), None, body), as_json=as_json)


@app.command
def delete(run_id: RunId, *, source: Source = LOCAL) -> None:
    """Forget a run that is over: what was asked, results and verdicts. The records of its calls stay."""
    remote = _remote(source)
    output.lines(f"{remote.call('DELETE', _path(_named(remote, run_id)))['deleted']} is deleted.")


@app.command
def report(
    run_id: RunId,
    *,
    html: Annotated[bool, Parameter(help="An HTML page.", negative=())] = False,
    texts: Annotated[bool, Parameter(help="Show in the page what the largest differences say.", negative=())] = False,
    output_file: Annotated[Path | None, Parameter(name=("--output", "-o"), help="Write to this file.")] = None,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Print the report on a run: Markdown, or JSON, or a page."""
    kind = "html" if html else "json" if as_json else "markdown"
    query = {"format": kind, "texts": "true" if texts else None}
    remote = _remote(source)
    data = remote.read(_path(_named(remote, run_id), "/report"), query)
    if kind == "json":
        data = msgspec.json.format(data, indent=2) + b"\n"
    if output_file is None:
        sys.stdout.write(data.decode())
        return
    try:
        output_file.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{output_file} cannot be written ({error.strerror or error}).") from error


def nanos_of(text: str) -> int:
    """Dollars as people write them (``2.50``, ``$2.50``) in nanos, exactly. Raises :class:`ConfigError`."""
    whole, _, fraction = text.strip().removeprefix("$").partition(".")
    if not (whole + fraction).isascii() or not (whole + fraction).isdigit() or len(fraction) > 9:
        raise ConfigError(f"{text!r} is no amount of dollars; write 2.50.")
    return int(whole or "0") * 1_000_000_000 + int(fraction.ljust(9, "0"))


def _watched(remote: Remote, run_id: str, judges: list[judging.Judge], *, as_json: bool) -> int:
    """Follow a run to its end; 0 when it finished, 1 when it was cancelled or stopped."""
    local = [one for one in judges if one.function is not None]
    bench = judging.Bench(remote, _path(run_id), local) if local else None
    run: dict[str, Any] = {}
    for run in _bar(_states(remote, run_id)):  # noqa: B007  # the last one is shown below
        if bench is not None:
            bench.judge()
    if bench is not None:
        bench.judge()
    _print(run, as_json=as_json)
    return 0 if run["state"] == "finished" else 1


def _states(remote: Remote, run_id: str) -> Iterator[dict[str, Any]]:
    """The run as it is now and then, until it is over."""
    while True:
        run: dict[str, Any] = remote.get(_path(run_id))
        yield run
        if run["state"] != "running" and not run["in_flight"]:
            return
        time.sleep(POLL_SECONDS)


def _bar(states: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same states, with a progress bar beside them where there is a terminal to draw it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        for run in states:
            progress = run["progress"]
            ended = progress["done"] + progress["failed"] + progress["skipped"]
            bar.update(task, description=_spent(progress), completed=ended, total=progress["total"])
            yield run


def _spent(progress: dict[str, Any]) -> str:
    held = f" (+ ≤ {dollars(progress['held_nanos'])} not known)" if progress["held_nanos"] else ""
    return f"{dollars(progress['spent_nanos'])}{held}"


def _row(run: dict[str, Any]) -> dict[str, Any]:
    progress = run["progress"]
    counts = {name: progress[name] for name in ("done", "failed", "skipped")}
    state = run["state"] if run["reason"] is None else f"{run['state']} ({run['reason']})"
    return {**run, **counts, "state": state, "spent": _spent(progress)}


def _print(run: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.json(run)
        return
    row = _row(run)
    interrupted = run["progress"]["interrupted"]
    shown = {name: row[name] for name in ("run_id", "name", "state", "items", "done", "failed", "skipped", "spent")}
    shown["targets"] = [words.printable(target["name"]) for target in run["targets"]]
    if run["budget_nanos"] is not None:
        shown["budget"] = dollars(run["budget_nanos"])
    if interrupted:
        shown["in_flight_at_a_kill"] = f"{interrupted}: perhaps paid, made again"
    output.details(shown, as_json=False)
    if row["failed"] or row["skipped"]:
        sys.stderr.write(f"Why some were not answered: counterfoil replays report {run['run_id']}\n")


def _typed(filters: dict[str, Any]) -> dict[str, Any]:
    """Filters as JSON has them: the control plane's query writes booleans as words."""
    return {name: value == "true" if value in ("true", "false") else value for name, value in filters.items()}


def _path(run_id: str, rest: str = "") -> str:
    return f"/v1/replays/{output.in_path(run_id)}{rest}"


def _named(remote: Remote, run_id: str) -> str:
    """The id that ``run_id`` means."""
    if run_id != LAST:
        return run_id
    found: list[dict[str, Any]] = remote.get("/v1/replays")["data"]
    if not found:
        raise ConfigError("There are no bulk runs.")
    return found[0]["run_id"]


def _remote(source: Source) -> Remote:
    remote = source.remote()
    if remote is None:
        raise ConfigError("A bulk run goes through a running gateway: give --url and set COUNTERFOIL_KEY.")
    return remote
