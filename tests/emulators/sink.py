"""An address that takes signed checkpoints, or refuses them, or does not answer: whatever a test tells it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from emulators.waiting import PATIENCE_S


@dataclass
class Sink:
    """What arrived. ``status`` is what is answered; ``silent`` answers nothing until it is cleared."""

    port: int = 0
    status: int = 204
    lines: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refused: int = 0
    talking: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where to send them."""
        return f"http://127.0.0.1:{self.port}/checkpoints"

    def take(self, headers: dict[str, str], line: bytes) -> int:
        """Judge one POST; give its status."""
        self.talking.wait(PATIENCE_S)
        if self.status // 100 != 2:
            self.refused += 1
        else:
            self.lines.append(line)
            self.headers.append(headers)
        return self.status


@contextlib.contextmanager
def running() -> Iterator[Sink]:
    """A sink on a loopback port until the block ends."""
    sink = Sink()
    sink.talking.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the base class's name
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = sink.take(headers, self.rfile.read(int(headers["content-length"])))
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sink.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.talking.set()
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()
