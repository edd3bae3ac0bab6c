"""A gateway inside the test's own process, with the replay endpoints in front of its control plane."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from counterfoil import compose, config
from counterfoil.api import answers
from counterfoil.api.replay import ReplayParts, router
from counterfoil.clock import wall_ms
from counterfoil.errors import Fault
from counterfoil.folder import DataFolder
from counterfoil.gateway.host import Host
from counterfoil.ledger.query import LedgerReader
from counterfoil.replay.one import Replayer
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.directory import Directory
from emulators.gateway import Answer
from emulators.ports import HOST, free_port
from emulators.waiting import PATIENCE_S, until


class InProcess:
    """A running gateway; ``request`` speaks HTTP to it, ``replayer`` is at hand for the tests that look inside."""

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self.port = free_port()
        path = root / "counterfoil.yaml"
        path.write_text(json.dumps({"data": str(root / "data"), "host": HOST, "port": self.port, **settings}))
        self.config = config.load(path, {}, {})
        self.folder = DataFolder.create(root / "data")
        self.admin = Admin(self.folder)
        self.reader = LedgerReader(self.folder)
        self.failure: BaseException | None = None

    def key(self, team: str = "acme", **more: Any) -> str:
        """A new key of ``team``."""
        return self.admin.create_key(team, make_missing=True, **more).key

    def request(self, method: str, path: str, body: Any = None, *, key: str = "", **headers: str) -> Answer:
        """One request on a connection of its own."""
        fields = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, data, fields)
            response = connection.getresponse()
            return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    async def serve(self, ready: threading.Event) -> None:
        """Run until told to stop."""
        self.loop = asyncio.get_running_loop()
        self.host = _Quiet.of(await compose.serve(self.config, self.folder))
        gateway = self.host._gateway
        directory = Directory(self.folder)
        routes = compose.make_routes(self.config)
        book = compose.price_book(self.config, self.folder)
        replayer = Replayer(gateway, self.reader, routes, lambda: book, wall_ms)
        app = FastAPI(telemetry={"auto_configure": False}, docs_url=None, redoc_url=None, openapi_url=None)
        app.add_exception_handler(Fault, answers.on_fault)
        app.include_router(router(ReplayParts(directory, replayer)))
        app.mount("/", self.host.config.app)
        self.host.config.app = app
        self.host.config.host, self.host.config.port = HOST, self.port
        watch = asyncio.create_task(self._ready(ready))
        await self.host.serve()
        await watch
        directory.close()

    async def _ready(self, ready: threading.Event) -> None:
        await until(lambda: self.host.started)  # uvicorn has a flag and no event
        ready.set()


class _Quiet(Host):
    """A host in a thread, where signals cannot be caught."""

    @classmethod
    def of(cls, host: Host) -> Host:
        host.__class__ = cls
        return host

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def running(root: Path, settings: Mapping[str, Any]) -> Iterator[InProcess]:
    """A gateway until the block ends."""
    gateway = InProcess(root, settings)
    ready = threading.Event()

    def run() -> None:
        try:
            asyncio.run(gateway.serve(ready))
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="gateway")
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        assert thread.is_alive(), "the gateway did not start; its thread says why"
        yield gateway
    finally:
        if thread.is_alive():
            gateway.loop.call_soon_threadsafe(gateway.host.stop)
        thread.join(PATIENCE_S)
        gateway.reader.close()
        gateway.admin.close()
