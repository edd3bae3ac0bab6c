"""The only module that wires: a configuration and a data folder become a running worker.

Everything else takes what it needs through its constructor. Read :func:`serve` for what a worker is made of and in
which order it starts and stops.
"""

from __future__ import annotations

import asyncio
import difflib
import itertools
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from counterfoil.api.app import build as build_api
from counterfoil.api.app import prefixes
from counterfoil.api.parts import ControlParts, Figures, Health, Waits
from counterfoil.clock import wall_ms
from counterfoil.config.model import Config
from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.gateway.board import Board
from counterfoil.gateway.estimate import Estimator, Tokenizer
from counterfoil.gateway.host import Host
from counterfoil.gateway.playback import LedgerLibrary, Playback
from counterfoil.gateway.repeats import Repeats
from counterfoil.gateway.run import Gateway, Parts
from counterfoil.ledger import books, reserve, tally
from counterfoil.ledger.claims import Claims
from counterfoil.ledger.evidence import Evidence
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.recordings import Recordings
from counterfoil.ledger.verification import Verifications
from counterfoil.ledger.witness import places
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay import NO_OVERLAY, Serves
from counterfoil.pricing.overlay_file import read_overlay
from counterfoil.providers.addresses import TeamAddresses
from counterfoil.providers.provider import Provider
from counterfoil.providers.provider import build as build_provider
from counterfoil.record.ids import IdSource
from counterfoil.record.record import CapturePolicy
from counterfoil.replay.bulk.runs import Runs
from counterfoil.replay.bulk.store import RunStore
from counterfoil.replay.one import Replayer
from counterfoil.routing.plan import Alias, Routes, Target
from counterfoil.surfaces import registry
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.principal import Principal
from counterfoil.wire.canonical import pointers


async def serve(config: Config, folder: DataFolder) -> Host:
    """Make a worker's parts and its host, not yet serving. The ledger has recovered when this returns.

    Raises :class:`ConfigError` for a configuration or a folder that cannot be used.
    """
    loop = asyncio.get_running_loop()
    estimator = await make_estimator(loop) if config.estimates.tokens else None
    book = price_book(config, folder)
    routes = make_routes(config)
    ledger = open_ledger(config, folder, loop)
    directory = Directory(folder)
    reader = LedgerReader(folder)
    library = LedgerLibrary(Recordings(folder, reader, wall_ms))
    control: list[str] = []
    byok = config.byok
    team_addresses = TeamAddresses.of(byok.allow_private, byok.ports)
    gateway = Gateway(
        Parts(
            ledger=ledger,
            directory=directory,
            routes=routes,
            book=lambda: book,
            ids=IdSource(wall_ms, os.urandom),
            limits=config.limits,
            capture_default=CapturePolicy(config.capture.default),
            capture_bytes_max=config.capture.body_bytes_max,
            find_surface=registry.find,
            unknown_surface=registry.unknown,
            is_control=lambda path: path.startswith(tuple(control)) and not registry.is_google(path),
            playback=Playback(library, pointers(",".join(config.playback.ignore)), config.playback.speed),
            estimator=estimator,
            team_addresses=team_addresses,
            team_ca_file=str(byok.ca_file) if byok.ca_file is not None else None,
        ),
        loop,
    )
    board = Board(gateway, ledger, folder.journal, loop)
    gateway.repeats = make_repeats(config, folder, gateway, ledger, reader)
    replayer = Replayer(gateway, reader, routes, lambda: book, wall_ms)
    runs = make_runs(folder, replayer, directory, config.replays.retention_days)
    verifications = Verifications(folder, wall_ms, config.ledger.checkpoint_folder)
    app = build_api(
        ControlParts(
            reader=reader,
            directory=directory,
            admin=Admin(folder, check_address=team_addresses.check),
            book=lambda: book,
            erase=ledger.erase,
            replayer=runs.replayer,
            runs=runs,
            evidence=Evidence(folder),
            verifications=verifications,
            models=lambda principal: models_of(routes, book, principal),
            health=lambda: health_of(gateway, ledger),
            metrics=lambda: figures_of(board.figures(), reader, folder),
        )
    )
    control.extend(prefixes(app))

    stopper = _stopper(board, verifications, runs, gateway.repeats, ledger, library, reader, directory)
    host = Host(gateway, app, config.server, stopper)
    board.start(host.give_up)
    runs.take_up()
    return host


def check(config: Config, folder: DataFolder) -> None:
    """Find what would keep every worker from starting, before the first is. Raises :class:`ConfigError`."""
    if config.estimates.tokens:
        Tokenizer()
    price_book(config, folder)
    make_routes(config)


async def make_estimator(loop: asyncio.AbstractEventLoop) -> Estimator:
    """What counts tokens, loaded, so that no call waits for it. Raises :class:`ConfigError` without its extra."""
    tokenizer = Tokenizer()
    return Estimator(loop, await loop.run_in_executor(None, tokenizer.load))


def open_ledger(config: Config, folder: DataFolder, loop: asyncio.AbstractEventLoop) -> Ledger:
    """The ledger of ``folder`` for this worker, recovered. Raises :class:`ConfigError`."""
    ledger = config.ledger
    return Ledger.open(
        folder,
        durability=ledger.durability,
        loop=loop,
        retention_days=config.capture.retention_days,
        checkpoint_seconds=ledger.checkpoint_seconds,
        seconds=places(ledger.checkpoint_folder, ledger.checkpoint_url, ledger.checkpoint_token),
    )


def make_runs(folder: DataFolder, replayer: Replayer, directory: Directory, retention_days: int) -> Runs:
    """The bulk runs of ``folder``, as this worker drives them."""
    return Runs(RunStore(folder), replayer, folder.journal, directory.holder, wall_ms, retention_days)


def _stopper(
    board: Board,
    verifications: Verifications,
    runs: Runs,
    repeats: Repeats,
    ledger: Ledger,
    library: LedgerLibrary,
    reader: LedgerReader,
    directory: Directory,
) -> Callable[[], Awaitable[None]]:
    """What a worker leaves in order, once its last call has settled."""

    async def stopped() -> None:
        board.stop()
        await verifications.close()
        await runs.close()
        await repeats.close()
        await ledger.close()
        library.close()
        reader.close()
        directory.close()

    return stopped


def make_repeats(config: Config, folder: DataFolder, gateway: Gateway, ledger: Ledger, reader: LedgerReader) -> Repeats:
    """The idempotency keys of this worker. Raises :class:`ConfigError` when their table cannot be opened."""
    keep_ms = config.idempotency.keep_hours * 3_600_000

    def has_record(request_id: str) -> bool:
        return reader.find(None, request_id) is not None

    try:
        claims = Claims(folder, ledger.writer_number, config.ledger.durability, keep_ms, has_record)
    except GatewayFault as error:
        raise ConfigError(f"{error.message} Look at idempotency.db in {folder.root}.") from error
    return Repeats(gateway, ledger, reader, claims, wall_ms, config.idempotency.wait_seconds)


def price_book(config: Config, folder: DataFolder) -> PriceBook:
    """The book this gateway prices with, stored in the folder before any record refers to it."""
    if config.prices_book is not None:
        return books.load(folder.books, config.prices_book)
    book = make_book(config)
    for name, one in config.providers.items():
        book.lists.provider(one.prices or name)  # decoded now, which takes milliseconds, and not during its first call
    try:
        books.store(folder.books, book)
    except OSError as error:
        raise ConfigError(f"The price book cannot be stored in {folder.books} ({error.strerror}).") from error
    return book


def make_book(config: Config) -> PriceBook:
    """The newest catalogue under the operator's own prices. Raises :class:`ConfigError` for those that cannot be used.

    A provider whose ``prices`` name nobody that has any would leave every one of its calls without a price.
    """
    overlay = read_overlay(config.prices_file) if config.prices_file is not None else NO_OVERLAY
    # Whose prices a provider charges becomes part of the book, so that a record and its book are all a price needs.
    serves = {name: Serves(one.prices) for name, one in config.providers.items() if one.prices not in ("", name)}
    overlay = msgspec.structs.replace(overlay, providers=serves | overlay.providers)
    book = PriceBook.build(books.bundled_catalog(), overlay)
    own = {price.provider for price in overlay.prices}
    for name, served in overlay.providers.items():
        if served.prices not in book.lists.names and served.prices not in own and not any("*" in one for one in own):
            near = difflib.get_close_matches(served.prices, book.lists.names, 1)
            hint = f"; did you mean {near[0]}?" if near else "; `counterfoil prices show` lists those there are"
            raise ConfigError(f"providers.{name}.prices: there is no price list of {served.prices!r}{hint}")
    return book


def make_routes(config: Config) -> Routes:
    """The providers and aliases of ``config``, ready for calls."""
    providers = {name: build_provider(name, provider) for name, provider in config.providers.items()}
    aliases = {
        name: Alias(
            targets=tuple(_target(providers, target.target) for target in route.targets),
            weights=tuple(target.weight for target in route.targets) if route.strategy == "weighted" else (),
        )
        for name, route in config.models.items()
    }
    return Routes(providers, aliases, random.SystemRandom().random)


_ELSEWHERE: Final = "claude-"
"""Google's price list has what Vertex resells of Anthropic's too. These models do not speak Gemini's protocol, which is
all that a provider of type ``google`` does."""


def models_of(routes: Routes, book: PriceBook, principal: Principal) -> list[dict[str, Any]]:
    """What a key may call, as OpenAI model objects: the aliases first, then each provider's priced models."""
    del principal  # every key of every team may call every model; limits are a later room
    listed: dict[str, dict[str, Any]] = {}
    for name, alias in routes.aliases().items():
        targets = [target.model_id for target in alias.targets]
        protocols = sorted({target.provider.family for target in alias.targets})
        listed[name] = _model(name, "alias", *protocols) | {"targets": targets}
    for provider in routes.providers().values():
        for model in book.lists.models(provider.prices):
            if provider.family == "google" and model.startswith(_ELSEWHERE):
                continue
            model_id = f"{provider.name}/{model}"
            listed[model_id] = _model(model_id, provider.name, provider.family)
    return list(listed.values())


def _model(name: str, owner: str, *protocols: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner, "protocols": protocols}


def health_of(gateway: Gateway, ledger: Ledger) -> Health:
    """Whether this worker takes calls, and why not."""
    reasons: list[str] = []
    if not ledger.healthy:
        reasons.append("the ledger cannot be written")
    if gateway.stopping:
        reasons.append("shutting down")
    return Health(live=True, ready=not reasons, reasons=tuple(reasons))


def figures_of(found: tally.Figures, reader: LedgerReader, folder: DataFolder) -> Figures:
    """The figures of all workers, for ``/metrics`` and ``/health``."""
    counts, state, waits = found.counts, found.state, found.waits
    return Figures(
        admitted=counts.admitted,
        settled=counts.settled,
        open=state.open,
        refused=counts.refused,
        interrupted=counts.interrupted,
        unauthorized=counts.unrecorded,
        rejected=counts.rejected,
        crashed=counts.crashed,
        records=_records(reader),
        commits=counts.commits,
        commit_wait=Waits(
            tally.WAIT_BOUNDS_MS,
            tuple(itertools.accumulate(waits.counts[:-1])),
            waits.total,
            waits.sum_us / 1000,
            waits.quantile_ms(0.99),
        ),
        queue_depth=state.queue_depth,
        last_checkpoint_ms=state.last_checkpoint_ms or None,
        unwitnessed=state.unwitnessed,
        disk_reserve_bytes=reserve.held_bytes(folder.reserve),
        disk_free_bytes=reserve.free_bytes(folder.root),
        workers=found.workers,
        workers_ready=state.ready,
    )


def _records(reader: LedgerReader) -> int | None:
    try:
        return reader.records()
    except GatewayFault:
        return None  # which the figures say, and the lookups


def _target(providers: dict[str, Provider], name: str) -> Target:
    provider, _, model = name.partition("/")
    return Target(providers[provider], model, name)
