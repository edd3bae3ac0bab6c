"""``counterfoil playback``: recordings that answer, with no gateway behind them."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import App, Parameter

from counterfoil.errors import CallerFault, ConfigError
from counterfoil.gateway.playback import SPEED_MAX, speed_of
from counterfoil.replay import cassette as cassettes
from counterfoil.replay.serving import CassetteServer, counts

app = App(name="playback", help="Serve recordings with no gateway, provider or key.")


@app.command
def serve(
    *,
    cassette: Annotated[Path, Parameter(help="The cassette to serve.")],
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen on; 0 lets the system choose.")] = 8080,
    timing: Annotated[str, Parameter(help="none: at once; original: as recorded; 10: ten times as fast.")] = "none",
) -> None:
    """Answer every protocol's calls from a cassette, until Ctrl-C. Any key is taken, and none is needed."""
    try:
        speed = speed_of(timing.encode())
    except CallerFault as error:
        raise ConfigError(f"--timing is none, original, or a factor up to {SPEED_MAX:.0f}.") from error
    read = cassettes.read(cassette)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. Choose another with --port."
        ) from error
    shown = f"[{host}]" if ":" in host else host
    told = ", ".join(f"{count} of {endpoint}" for endpoint, count in counts(read)) or "nothing"
    sys.stderr.write(f"The cassette {cassette} plays on http://{shown}:{listener.getsockname()[1]}  ·  {told}\n")
    sys.stderr.flush()
    uvloop.run(_serve(CassetteServer(read, speed), listener))


async def _serve(server: CassetteServer, listener: socket.socket) -> None:
    await server.host(signals=True).serve(sockets=[listener])
