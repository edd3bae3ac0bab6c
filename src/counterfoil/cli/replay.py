"""``counterfoil generations replay`` and ``counterfoil generations diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from counterfoil.cli import output, records
from counterfoil.cli.where import LOCAL, AsJson, Source
from counterfoil.errors import ConfigError
from counterfoil.ledger.query import LedgerReader, StoredRecord
from counterfoil.record import codec, words
from counterfoil.record.record import CaptureState
from counterfoil.replay import diff as differences
from counterfoil.replay.text import Said, said

_OPENED: Final = {"equal": "", "delete": "[-", "insert": "{+"}
_CLOSED: Final = {"equal": "", "delete": "-]", "insert": "+}"}
Id = Annotated[str, Parameter(help="Our id (gen_…), or the provider's own.")]


def replay(
    generation_id: Id,
    /,
    *,
    model: Annotated[str | None, Parameter(help="Another model: provider/model or an alias.")] = None,
    provider: Annotated[str | None, Parameter(help="Another provider of the same model.")] = None,
    patch: Annotated[str | None, Parameter(help="A JSON merge patch of the request, or @FILE.")] = None,
    edit: Annotated[tuple[str, ...], Parameter(help="POINTER=VALUE, such as /messages/0/content=Hi.")] = (),
    stream: Annotated[bool | None, Parameter(help="Ask for a stream, or not.")] = None,
    n: Annotated[int, Parameter(name="-n", help="How many times.")] = 1,
    max_cost_nanos: Annotated[int | None, Parameter(help="Refuse when all runs together may cost more.")] = None,
    dry_run: Annotated[bool, Parameter(help="Only say what would be sent.", negative=())] = False,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Run a generation again through a running gateway, and show what differs."""
    remote = source.remote()
    if remote is None:
        raise ConfigError("A rerun goes through a running gateway: give --url and set COUNTERFOIL_KEY.")
    asked = {
        "model": model,
        "provider": provider,
        "patch": patch_of(patch),
        "edits": [edit_of(text) for text in edit] or None,
        "stream": stream,
        "n": n,
        "max_cost_nanos": max_cost_nanos,
        "dry_run": dry_run,
    }
    body = {name: value for name, value in asked.items() if value is not None}
    found: dict[str, Any] = remote.call("POST", f"/v1/generations/{output.in_path(generation_id)}/replay", None, body)
    if as_json:
        output.json(found)
    elif dry_run:
        output.details({name: value for name, value in found.items() if name != "ok"}, as_json=False)
    else:
        for run in found["runs"]:
            output.lines(*(_told(run["difference"]) if run.get("difference") else [f"{run['request_id']}: no record"]))


def diff(a: Id, b: Id, /, *, as_json: AsJson = False, source: Source = LOCAL) -> None:
    """Compare two generations: text, tool calls, tokens, times and cost."""
    remote = source.remote()
    found: dict[str, Any] = (
        remote.get("/v1/generations/diff", {"a": a, "b": b}) if remote is not None else _local(source, a, b)
    )
    if as_json:
        output.json(found)
    else:
        output.lines(*_told(found))


def _local(source: Source, a: str, b: str) -> dict[str, Any]:
    with records.reader(source) as ledger:
        left, right = (records.found(ledger, any_id, str(source.root)) for any_id in (a, b))
        both = codec.decode(left.data), codec.decode(right.data)
        return differences.plain(differences.compare(*both, _said(ledger, left), _said(ledger, right)))


def _said(reader: LedgerReader, stored: StoredRecord) -> Said | None:
    capture = reader.capture(stored) if stored.capture_state is CaptureState.STORED else None
    return None if capture is None else said(capture)


def patch_of(text: str | None) -> Any:
    """The merge patch in ``text``, or in the file that ``@FILE`` names. Raises :class:`ConfigError`."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"--patch is no JSON that can be read: {error}") from error


def edit_of(text: str) -> dict[str, Any]:
    """``POINTER=VALUE``; a value that is no JSON is text."""
    path, mark, value = text.partition("=")
    if not mark:
        raise ConfigError(f"--edit is POINTER=VALUE, such as /messages/0/content=Hi; {text!r} has no `=`.")
    try:
        return {"path": path, "value": msgspec.json.decode(value)}
    except msgspec.DecodeError:
        return {"path": path, "value": value}


def _told(found: dict[str, Any]) -> list[str]:
    """A difference as lines for people."""
    lines = [f"{found['a']} → {found['b']}  {'equal' if found['equal'] else 'different'}"]
    lines += [
        f"  {name}: {_cell(found[name]['a'])} → {_cell(found[name]['b'])}"
        for name in ("model", "status_code", "error_code", "finish_reason", "refusal")
        if not found[name]["equal"]
    ]
    costs = [
        words.cost(figure, state) if figure is not None else "unknown"
        for figure, state in ((found["cost_nanos"][side], found["cost_state"][side]) for side in ("a", "b"))
    ]
    lines.append(f"  cost: {costs[0]} → {costs[1]}")
    lines += [
        f"  {name}: {words.duration(found[name]['a'])} → {words.duration(found[name]['b'])}"
        for name in ("latency_ms", "generation_ms")
    ]
    lines += [
        f"  {name}: {_cell(figure['a'])} → {_cell(figure['b'])}"
        for name, figure in found["tokens"].items()
        if figure["change"] != 0
    ]
    lines += [f"  tool call {call['index']}: {_cell(call['fields']) or 'differs'}" for call in found["tool_calls"]]
    text = found["text"]
    if text is not None and not text["equal"]:
        lines.append(f"  similarity: {_cell(text['similarity'])}")
        marked = "".join(f"{_OPENED[c['op']]}{c['text']}{_CLOSED[c['op']]}" for c in text["changes"])
        lines += [f"  {words.printable(line)}" for line in marked.splitlines()]
    elif not found["content"]:
        lines.append("  the answers were not compared: a body is missing")
    return lines


def _cell(value: Any) -> str:
    return words.printable("–" if value is None else ", ".join(value) if isinstance(value, list) else str(value))  # pyright: ignore[reportUnknownArgumentType]
