"""What can be measured: a `Target` is started before a round, asked for its processes, and stopped at the end.

Every target runs on core 0 with one worker, keeps its upstream connections open, writes no access log and gets the
settings that its own documentation recommends for speed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import clocks
from counterfoil.folder import DataFolder
from counterfoil.ledger.query import LedgerReader

TARGET_CORE: Final = 0
LOAD_CORE: Final = 1
START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 15.0
REPOSITORY: Final = Path(__file__).resolve().parent.parent
SCRATCH: Final = Path(os.environ.get("COUNTERFOIL_BENCH_HOME", "~/.cache/counterfoil-bench")).expanduser()


class TargetFailed(Exception):
    """A target did not start or ended by itself; the message carries the end of its output."""


class Target(ABC):
    """One thing that answers chat completions and forwards them to the mock at `upstream_port`."""

    name: str
    model: str = "gpt-4o-mini"
    path: str = "/v1/chat/completions"

    def __init__(self) -> None:
        self.port = 0
        self.headers: dict[str, str] = {}
        self.cores: frozenset[int] = frozenset({TARGET_CORE})
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    @abstractmethod
    def missing(self) -> str:
        """Why this target cannot run here, or an empty string when it can."""

    @abstractmethod
    def version(self) -> str:
        """The version that is measured."""

    @abstractmethod
    def command(self, upstream_port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        """The command to run and what to add to its environment; may write its configuration into the folder."""

    def start(self, upstream_port: int) -> None:
        """Start on its core and return when it answers."""
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix=f"counterfoil-bench-{self.name}-"))
        command, environment = self.command(upstream_port, self._folder)
        with clocks.pinned(self.cores), (self._folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=self._folder,
                start_new_session=True,
            )
        self._await_ready()

    def stop(self) -> None:
        """End its processes and remove its folder."""
        if self._process:
            _, *children = self.pids()
            end(self._process)
            for pid in children:  # a target that leaves its workers behind must not disturb the next
                _kill(pid)
            self._process = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def pids(self) -> list[int]:
        """All living processes of the target."""
        return clocks.process_tree(self._process.pid) if self._process else []

    def records(self) -> int | None:
        """How many calls the target has on record; None for a target that keeps none."""
        return None

    def ready(self) -> bool:
        """Whether one call goes through."""
        body = json.dumps({"model": self.model, "messages": [{"role": "user", "content": "ready?"}]}).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        url = f"http://127.0.0.1:{self.port}{self.path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
                return answer.status == 200 and b"chatcmpl-" in answer.read()
        except OSError:
            return False

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.ready():
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                message = f"{self.name} did not start:\n{self._output_end()}"
                self.stop()
                raise TargetFailed(message)
            time.sleep(0.1)

    def _output_end(self) -> str:
        try:
            return ((self._folder or Path()) / "output").read_text(errors="replace")[-3000:]
        except OSError:
            return ""


class Direct(Target):
    """The mock itself, with nothing between: the baseline that latencies are compared with."""

    name = "direct"

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        return ""

    def command(self, upstream_port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        raise NotImplementedError

    def start(self, upstream_port: int) -> None:
        self.port = upstream_port


class Nginx(Target):
    """nginx as a plain reverse proxy: the floor."""

    name = "nginx"

    def missing(self) -> str:
        return "" if _nginx() else "nginx is not installed"

    def version(self) -> str:
        ended = subprocess.run([_nginx(), "-v"], capture_output=True, text=True, check=False)
        return ended.stderr.strip().rpartition("/")[2]

    def command(self, upstream_port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        # The mock marks its streams `X-Accel-Buffering: no`, which is `proxy_buffering off` for these answers only.
        configuration = f"""
            worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log crit;
            events {{ worker_connections 16384; }}
            http {{
                access_log off; server_tokens off; tcp_nodelay on;
                keepalive_requests 1000000000; keepalive_timeout 600s;
                client_max_body_size 64m; client_body_buffer_size 8m; client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
                scgi_temp_path {folder}/s;
                upstream mock {{ server 127.0.0.1:{upstream_port}; keepalive 4096; keepalive_requests 1000000000; }}
                server {{
                    listen 127.0.0.1:{self.port} backlog=4096;
                    location / {{
                        proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
                        proxy_buffers 64 16k; proxy_read_timeout 600s;
                    }}
                }}
            }}"""
        (folder / "nginx.conf").write_text(configuration)
        return [_nginx(), "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")], {}


@dataclass(frozen=True, slots=True)
class Audit:
    """What the gateway keeps in a round: capture policy and durability, as in its configuration."""

    capture: str = "full"
    durability: str = "fsync"

    @property
    def label(self) -> str:
        """Short text for tables."""
        return f"{self.capture}/{self.durability}"


# All load comes from one address, which a gateway by default allows a thousand connections.
CONNECTIONS_MAX: Final = 20_000
LIMITS: Final = {"connections": 20_000, "connections_per_client": CONNECTIONS_MAX, "in_flight": 16_000}


class Counterfoil(Target):
    """The gateway of this repository, audit on unless told otherwise."""

    model = "mock/gpt-4o-mini"

    def __init__(
        self, audit: Audit | None = None, workers: int = 1, cores: frozenset[int] = frozenset({TARGET_CORE})
    ) -> None:
        super().__init__()
        self.cores = cores
        self.audit = audit or Audit()
        self.workers = workers
        self.name = "counterfoil"
        if audit:
            self.name += f"-{audit.capture}-{audit.durability}"
        if workers > 1:
            self.name += f"-{workers}w"
        self.data = Path()
        self.checkpoint_seconds = 60.0

    def missing(self) -> str:
        ended = subprocess.run([*self._program(), "serve", "--help"], capture_output=True, check=False)
        return "" if ended.returncode == 0 else "counterfoil is not installed in this environment"

    def version(self) -> str:
        code = "import counterfoil; print(counterfoil.__version__)"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()

    def command(self, upstream_port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        self.data = folder / "data"
        configuration = {
            "providers": self.providers(upstream_port),
            "capture": {"default": self.audit.capture},
            "ledger": {"durability": self.audit.durability, "checkpoint_seconds": self.checkpoint_seconds},
            "limits": LIMITS,
        }
        (folder / "counterfoil.yaml").write_text(json.dumps(configuration))  # JSON is YAML
        key = self._call("keys", "create", "--team", "bench").strip()
        self.headers = {"Authorization": f"Bearer {key}"}
        return self.serving(folder)

    def serving(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        """The command that serves, and what to add to its environment."""
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", str(self.workers)]
        config = ["--config", str(folder / "counterfoil.yaml"), "--data", str(self.data)]
        return [*self._program(), "serve", *config, *address], {}

    def providers(self, upstream_port: int) -> dict[str, Any]:
        """The configuration's providers."""
        upstream = f"http://127.0.0.1:{upstream_port}/v1"
        mock = {"type": "openai", "base_url": upstream, "api_key": "none", "prices": "openai"}
        return {"mock": mock | {"connections_max": CONNECTIONS_MAX}}

    def records(self) -> int | None:
        return self.stats()["records"]

    def stats(self) -> dict[str, int]:
        """The ledger's own figures: records, open intents, bodies, bytes."""
        reader = LedgerReader(DataFolder.existing(self.data))
        try:
            return reader.stats()
        finally:
            reader.close()

    @staticmethod
    def _program() -> list[str]:
        return [str(Path(sys.executable).with_name("counterfoil"))]

    def _call(self, *arguments: str) -> str:
        command = [*self._program(), *arguments, "--data", str(self.data)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise TargetFailed(f"{' '.join(arguments)}: {ended.stdout[-500:]}{ended.stderr[-1500:]}")
        return ended.stdout


class Variant(Counterfoil):
    """The gateway with one thing otherwise (`benchmarks.variant`): `log_pages`, no `ledger`, other checkpoints."""

    def __init__(
        self, name: str, *, log_pages: int | None = None, ledger: bool = True, checkpoint_seconds: float = 60.0
    ) -> None:
        super().__init__()
        self.name = name
        self.ledger = ledger
        self.checkpoint_seconds = checkpoint_seconds
        self._changed = {"ledger": ledger} | ({"log_pages": log_pages} if log_pages else {})

    def records(self) -> int | None:
        return super().records() if self.ledger else None

    def serving(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        program = [sys.executable, "-m", "benchmarks.variant", json.dumps(self._changed)]
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        return [*program, str(folder / "counterfoil.yaml"), str(self.data), str(self.port)], {"PYTHONPATH": path}


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, then make it."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _nginx() -> str:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
