"""The gateway as an operator runs it: ``counterfoil serve`` in a process of its own, and its command line."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from counterfoil.demo.processes import Process
from emulators.ports import HOST, free_port
from emulators.waiting import PATIENCE_S


class Answer(NamedTuple):
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Gateway:
    """A running gateway. ``config`` is what ``counterfoil.yaml`` holds; data folder, host and port are added here."""

    def __init__(
        self, folder: Path, config: Mapping[str, Any], environment: Mapping[str, str] | None = None, workers: int = 1
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.environment = environment
        self.wrapper: Sequence[str] = ()  # a command that runs the gateway's in its own place
        self.config = folder / "counterfoil.yaml"
        # JSON is YAML, and says exactly what it means.
        settings = {"data": str(self.data), "host": HOST, "port": self.port, "workers": workers, **config}
        self.config.write_text(json.dumps(settings))
        self._keys: dict[tuple[str, str | None], str] = {}
        self.start()

    def start(self) -> None:
        """Start it (again, after :meth:`stop` or a kill) on the same folder and port; return when it is ready."""
        command = [*self.wrapper, sys.executable, "-m", "counterfoil", "serve", "--config", str(self.config)]
        self.process = Process("The gateway", command, self.folder / "gateway.log", environment=self.environment)
        try:
            self.process.wait_until_ready(HOST, self.port, "/health/ready", PATIENCE_S)
        except BaseException:
            self.process.stop()
            raise

    def stop(self) -> int:
        """Stop it as an operator would; give its exit status."""
        return self.process.stop(PATIENCE_S)

    def command(
        self, *arguments: str, check: bool = True, stdin: str | None = None, local: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``counterfoil …``, with ``local`` on this gateway's data folder; ``stdin`` is what it reads."""
        where = ["--data", str(self.data)] if local else []
        command = [sys.executable, "-m", "counterfoil", *arguments, *where]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert not check or done.returncode == 0, f"{command} gave {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def key(self, team: str = "acme", app: str | None = None) -> str:
        """An active key of ``team``, made on first use."""
        if (team, app) not in self._keys:
            named = ["--app", app] if app else []
            self._keys[team, app] = self.command("keys", "create", "--team", team, *named).stdout.strip()
        return self._keys[team, app]

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One plain HTTP request on a connection of its own. ``key`` is sent as a bearer token."""
        fields = dict(headers or {})
        if key is not None:
            fields["Authorization"] = f"Bearer {key}"
        if isinstance(body, Mapping):
            body = json.dumps(body).encode()
        if body is not None:
            fields.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body=body, headers=fields)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def look_up(self, generation_id: str, key: str | None = None) -> Answer:
        """``GET /v1/generations?id=…``, whatever it answers."""
        return self.request("GET", f"/v1/generations?{urlencode({'id': generation_id})}", key=key or self.key())

    def record(self, generation_id: str, key: str | None = None) -> dict[str, Any]:
        """The record of a generation, which must be there."""
        answer = self.look_up(generation_id, key)
        assert answer.status == 200, f"the lookup of {generation_id} gave {answer.status}: {answer.body!r}"
        return answer.json()
