"""The peers: other gateways, installed outside the repository, each set up as its documentation says for speed.

`python -m benchmarks peers install` fetches them by package name into `~/.cache/counterfoil-bench` (or
`COUNTERFOIL_BENCH_HOME`).  A peer that is not there is skipped, and the report says so.  None of them keeps a durable
record of a call in these rounds: LiteLLM has no database, Portkey and aiohttp have no store.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.targets import REPOSITORY, SCRATCH, Target


class LiteLLM(Target):
    """LiteLLM proxy on uvicorn, one worker.

    From https://docs.litellm.ai/docs/proxy/prod: production mode, errors only in the log, no verbose mode, a master
    key.  No database and no Redis: each would only add to its cost.  The price map comes from the package, for there
    is no network.
    """

    name = "litellm"
    _KEY = "sk-benchmarks-0123456789"

    def missing(self) -> str:
        return "" if _program(self.name).exists() else "not installed (python -m benchmarks peers install)"

    def version(self) -> str:
        return _pip_version(self.name, "litellm")

    def command(self, upstream_port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        upstream = {
            "model": "openai/gpt-4o-mini",
            "api_base": f"http://127.0.0.1:{upstream_port}/v1",
            "api_key": "none",
        }
        document = {
            "model_list": [{"model_name": self.model, "litellm_params": upstream}],
            "general_settings": {"master_key": self._KEY},
            "litellm_settings": {"set_verbose": False, "request_timeout": 600, "drop_params": False},
        }
        (folder / "config.yaml").write_text(json.dumps(document))
        self.headers = {"Authorization": f"Bearer {self._KEY}"}
        environment = {
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
        }
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1"]
        return [str(_program(self.name)), "--config", str(folder / "config.yaml"), *address], environment


class Portkey(Target):
    """Portkey's open-source gateway on Node, without its console; provider and address come in headers."""

    name = "portkey"
    _PACKAGE = SCRATCH / "portkey/node_modules/@portkey-ai/gateway"

    def missing(self) -> str:
        if not shutil.which("node"):
            return "node is not installed"
        return "" if self._PACKAGE.exists() else "not installed (python -m benchmarks peers install)"

    def version(self) -> str:
        return json.loads((self._PACKAGE / "package.json").read_text())["version"]

    def command(self, upstream_port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        self.headers = {
            "Authorization": "Bearer none",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
        }
        command = [shutil.which("node") or "node", str(self._PACKAGE / "build/start-server.js")]
        return [*command, "--headless", f"--port={self.port}"], {"NODE_ENV": "production"}


class Bifrost(Target):
    """Bifrost's HTTP transport, its log store switched off and its pools at the sizes of its own benchmarks."""

    name = "bifrost"
    model = "openai/gpt-4o-mini"

    def missing(self) -> str:
        return "" if self._binary() else "not installed (python -m benchmarks peers install needs Go and its modules)"

    def version(self) -> str:
        ended = subprocess.run([self._binary(), "-version"], capture_output=True, text=True, check=False)
        return (ended.stdout or ended.stderr).strip()[-40:]

    def command(self, upstream_port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        provider = {
            "keys": [{"name": "bench", "value": "none", "models": [], "weight": 1.0}],
            "network_config": {"base_url": f"http://127.0.0.1:{upstream_port}"},
            "concurrency_and_buffer_size": {"concurrency": 1000, "buffer_size": 5000},
        }
        document = {
            "client": {"initial_pool_size": 5000, "enable_logging": False, "drop_excess_requests": False},
            "providers": {"openai": provider},
            "config_store": {"enabled": False},
            "logs_store": {"enabled": False},
        }
        (folder / "config.json").write_text(json.dumps(document))
        address = ["-host", "127.0.0.1", "-port", str(self.port), "-log-level", "error"]
        return [self._binary(), "-app-dir", str(folder), *address], {"GOMAXPROCS": "1"}

    @staticmethod
    def _binary() -> str:
        return shutil.which("bifrost-http", path=f"{SCRATCH / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}") or ""


class Aiohttp(Target):
    """A minimal proxy on aiohttp's server and client with uvloop: what plain good Python costs without a gateway."""

    name = "aiohttp"

    def missing(self) -> str:
        return "" if _program(self.name, "python").exists() else "not installed (python -m benchmarks peers install)"

    def version(self) -> str:
        return _pip_version(self.name, "aiohttp")

    def command(self, upstream_port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        script = REPOSITORY / "benchmarks/aiohttp_proxy.py"
        return [str(_program(self.name, "python")), str(script), str(self.port), str(upstream_port)], {}


PEERS: tuple[type[Target], ...] = (LiteLLM, Portkey, Bifrost, Aiohttp)


def install(names: Sequence[str]) -> int:
    """Install the named peers, all when none is named; 1 when one of them could not be had."""
    steps = {
        "litellm": lambda: _pip("litellm", "litellm[proxy]"),
        # Later versions of this dependency break its streams: https://github.com/Portkey-AI/gateway/issues/1389
        "portkey": lambda: _npm("portkey", "@portkey-ai/gateway", {"@hono/node-server": "1.14.1"}),
        "bifrost": lambda: _go("github.com/maximhq/bifrost/transports/bifrost-http@latest"),
        "aiohttp": lambda: _pip("aiohttp", "aiohttp", "uvloop"),
        "py-spy": lambda: _pip("tools", "py-spy"),  # no peer, but the profiler
    }
    failed = False
    for name in names or steps:
        ok = steps[name]()
        failed |= not ok
        sys.stdout.write(f"{name}: {'installed' if ok else 'could not be installed'}\n")
    return int(failed)


def _pip(folder: str, *packages: str) -> bool:
    place = SCRATCH / folder
    return _succeeds([sys.executable, "-m", "venv", str(place)]) and _succeeds(
        [str(place / "bin/pip"), "install", "--quiet", "--upgrade", *packages]
    )


def _npm(folder: str, package: str, overrides: dict[str, str]) -> bool:
    place = SCRATCH / folder
    place.mkdir(parents=True, exist_ok=True)
    manifest = {"private": True, "dependencies": {package: "latest"}, "overrides": overrides}
    (place / "package.json").write_text(json.dumps(manifest))
    return _succeeds(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(place)])


def _go(package: str) -> bool:
    return _succeeds(["go", "install", package], {"GOBIN": str(SCRATCH / "bin")})


def _succeeds(command: list[str], environment: dict[str, str] | None = None) -> bool:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    try:
        ended = subprocess.run(command, env={**os.environ, **(environment or {})}, cwd=SCRATCH, check=False)
    except FileNotFoundError:
        return False
    return ended.returncode == 0


def _program(folder: str, name: str = "") -> Path:
    return SCRATCH / folder / "bin" / (name or folder)


def _pip_version(folder: str, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    ended = subprocess.run([str(_program(folder, "python")), "-c", code], capture_output=True, text=True, check=False)
    return ended.stdout.strip()
