"""``counterfoil generations``: records for people and for programs."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from counterfoil.api import lookup
from counterfoil.api.view import served
from counterfoil.cli import output, render
from counterfoil.cli.times import moment_ms
from counterfoil.cli.where import LOCAL, AsJson, Source
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger.proof import prove
from counterfoil.ledger.query import Filter, LedgerReader, StoredRecord

app = App(name="generations", help="Records: list, show, follow, export, replay, compare.")

TAIL_SECONDS: Final = 0.5
Team = Annotated[str | None, Parameter(help="Only this team's. Locally, every team by default.")]
Since = Annotated[str | None, Parameter(help="Only later ones: 2h, 7d, 2026-11-01.")]
Model = Annotated[str | None, Parameter(help="Only this model, provider/model.")]
Provider = Annotated[str | None, Parameter(help="Only this provider's.")]
AppId = Annotated[str | None, Parameter(name="--app", help="Only this application's.")]
Session = Annotated[str | None, Parameter(help="Only this session's.")]
ErrorCode = Annotated[str | None, Parameter(help="Only with this error code, such as upstream:timeout.")]
Failed = Annotated[bool | None, Parameter(name="--failed", negative="--succeeded", help="Only failures, or successes.")]


def chosen(
    team: str | None,
    since: str | None,
    model: str | None,
    provider: str | None,
    app_id: str | None,
    session: str | None,
    error_code: str | None,
    failed: bool | None,  # noqa: FBT001  # as the command line gives it
) -> Filter:
    """The filter that the options describe."""
    now = time.time_ns() // 1_000_000
    since_ms = None
    if since is not None:
        moment = moment_ms(since, now)
        # A duration means "so long ago" here.
        since_ms = None if moment is None else 2 * now - moment if moment > now else moment
    return Filter(
        team_id=team,
        since_ms=since_ms,
        model_id=model,
        provider=provider,
        app_id=app_id,
        session_id=session,
        error_code=error_code,
        success=None if failed is None else not failed,
    )


@app.command(name="list")
def list_(
    *,
    team: Team = None,
    since: Since = None,
    model: Model = None,
    provider: Provider = None,
    app_id: AppId = None,
    session: Session = None,
    error_code: ErrorCode = None,
    failed: Failed = None,
    limit: Annotated[int, Parameter(help="At most so many.")] = 50,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """List records, newest first."""
    wanted = chosen(team, since, model, provider, app_id, session, error_code, failed)
    remote = source.remote()
    if remote is not None:
        page = remote.get("/v1/generations/search", {**_query(wanted), "limit": limit})
    else:
        with _reader(source) as reader:
            found = reader.page(wanted, None, limit)
            page = {"data": [_listed(record) for record in found.records], "more": found.next is not None}
    if as_json:
        output.json(page)
    elif page["data"]:
        _console().print(render.listing(page["data"]))
    else:
        sys.stderr.write("There are no such records.\n")


@app.command
def show(
    generation_id: Annotated[str, Parameter(help="Our id (gen_…), or the provider's own.")],
    *,
    proof: Annotated[bool, Parameter(help="Print a proof that anyone can check offline.", negative=())] = False,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Show one record."""
    if proof:
        _show_proof(generation_id, source)
        return
    data = _one(generation_id, source)
    if as_json:
        sys.stdout.write(msgspec.json.format(data, indent=2).decode() + "\n")
    else:
        _console().print(render.record(msgspec.json.decode(data)))


@app.command
def tail(*, team: Team = None, as_json: AsJson = False, source: Source = LOCAL) -> None:
    """Follow new records as they are written, until Ctrl-C."""
    console = _console()
    for record in _following(Filter(team_id=team, since_ms=time.time_ns() // 1_000_000), source):
        if as_json:
            sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
            sys.stdout.flush()
        else:
            cost = render.words.cost(record)
            outcome = "ok" if record["success"] else record["error_code"]
            line = f"{record['created_at']}  {record['request_id']}  {record['model_id']}  {outcome}  {cost}"
            console.print(escape(line), highlight=False)


@app.command
def export(
    *,
    team: Team = None,
    since: Since = None,
    model: Model = None,
    provider: Provider = None,
    app_id: AppId = None,
    session: Session = None,
    error_code: ErrorCode = None,
    failed: Failed = None,
    to: Annotated[Path | None, Parameter(help="Write to this file instead of the standard output.")] = None,
    source: Source = LOCAL,
) -> None:
    """Write every record as a JSON line, newest first, then a manifest with their number and SHA-256."""
    wanted = chosen(team, since, model, provider, app_id, session, error_code, failed)
    digest, count = hashlib.sha256(), 0
    stream = to.open("wb") if to is not None else sys.stdout.buffer
    try:
        for line in _lines(wanted, source):
            digest.update(line)
            stream.write(line)
            count += 1
        manifest = {"manifest": {"records": count, "sha256": digest.hexdigest()}}
        stream.write(msgspec.json.encode(manifest) + b"\n")
        stream.flush()
    finally:
        if to is not None:
            stream.close()


def _one(generation_id: str, source: Source) -> bytes:
    """One record as it is served. The local operator sees everything that is in the folder."""
    remote = source.remote()
    if remote is not None:
        return msgspec.json.encode(remote.get("/v1/generations", {"id": generation_id}))
    with _reader(source) as reader:
        stored = reader.find(None, generation_id)
        if stored is None:
            raise ConfigError(f"There is no generation {generation_id} in {source.root}.")
        found = lookup.replayable(lookup.captured(reader, stored))
        return served(stored.data, stored.chain, stored.capture_state, found)


def _show_proof(generation_id: str, source: Source) -> None:
    if source.remote() is not None:
        raise ConfigError("A proof is made from the data folder; use --data.")
    folder = DataFolder.existing(source.root)
    with _reader(source) as reader:
        stored = reader.find(None, generation_id)
        if stored is None:
            raise ConfigError(f"There is no generation {generation_id} in {source.root}.")
        output.json(prove(folder, stored))


def _lines(wanted: Filter, source: Source) -> Iterator[bytes]:
    remote = source.remote()
    if remote is not None:
        cursor: str | None = None
        while True:
            page = remote.get("/v1/generations/search", {**_query(wanted), "limit": 1000, "cursor": cursor})
            for record in page["data"]:
                yield msgspec.json.encode(record) + b"\n"
            cursor = page["next"]
            if cursor is None:
                return
    with _reader(source) as reader:
        for stored in reader.each(wanted):
            yield b'%b,"chain":%b}\n' % (stored.data[:-1], msgspec.json.encode(stored.chain))


def _following(wanted: Filter, source: Source) -> Iterator[dict[str, Any]]:
    """New records, oldest first, each once."""
    seen: set[str] = set()
    remote = source.remote()
    while True:
        if remote is not None:
            rows: list[dict[str, Any]] = remote.get("/v1/generations/search", {**_query(wanted), "limit": 1000})["data"]
        else:
            with _reader(source) as reader:
                rows = [_listed(record) for record in reader.page(wanted, None, 1000).records]
        for row in reversed(rows):
            if row["request_id"] not in seen:
                seen.add(row["request_id"])
                yield row
        time.sleep(TAIL_SECONDS)


def _listed(record: StoredRecord) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.json.decode(record.data)
    value["chain"] = msgspec.to_builtins(record.chain)
    return value


def _query(wanted: Filter) -> dict[str, str | int | None]:
    """The filter as the control plane's query parameters."""
    names = {"team_id": "team", "app_id": "app", "key_id": "key", "model_id": "model", "session_id": "session"}
    chosen_values = msgspec.structs.asdict(wanted)
    return {
        names.get(name, name): str(value).lower() if isinstance(value, bool) else value
        for name, value in chosen_values.items()
        if value is not None
    }


@contextmanager
def _reader(source: Source) -> Generator[LedgerReader]:
    """The ledger of a source, closed at the end."""
    reader = LedgerReader(DataFolder.existing(source.root))
    try:
        yield reader
    finally:
        reader.close()


def _console() -> Console:
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)
