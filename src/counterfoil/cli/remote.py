"""A gateway's control plane over HTTP, for commands given ``--url``. Standard library only, a connection each."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec

from counterfoil import __version__
from counterfoil.errors import ConfigError
from counterfoil.tenancy.keys import KeyReason
from counterfoil.tenancy.principal import KeyRefused

TIMEOUT_SECONDS: Final = 60.0
ANSWER_BYTES_MAX: Final = 256 << 20


class Answer(NamedTuple):
    """A complete answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Remote:
    """Speaks to one gateway with one key."""

    def __init__(self, url: str, key: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Raises :class:`ConfigError` for a ``url`` that is not one, and for an empty key."""
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} is not the address of a gateway; write --url http://127.0.0.1:8080.") from error
        if parts.scheme not in ("http", "https") or not self._host:
            raise ConfigError(f"{url!r} is not the address of a gateway; write --url http://127.0.0.1:8080.")
        if not key:
            raise ConfigError("A key is needed to ask a gateway: set COUNTERFOIL_KEY, or give --key.")
        if not key.isascii() or not key.isprintable():
            raise ConfigError("The key given for the gateway holds characters no key has.")
        self._secure = parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Accept": "application/json",
            "User-Agent": f"counterfoil/{__version__}",
        }
        self._timeout = timeout_seconds
        self._url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def get(self, path: str, query: Mapping[str, str | int | None] | None = None) -> Any:
        """The JSON at ``path``. Raises :class:`ConfigError` when the gateway refuses or cannot be reached."""
        return self.call("GET", path, query)

    def call(
        self, method: str, path: str, query: Mapping[str, str | int | None] | None = None, body: object = None
    ) -> Any:
        """The JSON answer to a request whose body, if any, is JSON; None when the answer is empty."""
        data = self.read(path, query, method, None if body is None else msgspec.json.encode(body))
        try:
            return msgspec.json.decode(data) if data else None
        except msgspec.DecodeError as error:
            raise ConfigError(f"{self._url} did not answer as a Counterfoil gateway does.") from error

    def read(
        self,
        path: str,
        query: Mapping[str, str | int | None] | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> bytes:
        """The body of an answer as it came. Raises :class:`ConfigError` when the gateway refuses."""
        return self.accepted(self.send(method, path, query, body))

    def accepted(self, answer: Answer) -> bytes:
        """The body of ``answer``. Raises :class:`ConfigError` when it is a refusal."""
        if answer.status >= 400:
            raise ConfigError(self._refused(answer))
        return answer.body

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int | None] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request, its answer whatever its status. Raises :class:`ConfigError` when there is none."""
        chosen = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{self._base}{path}" + (f"?{urlencode(chosen)}" if chosen else "")
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        connection = self._connection()
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            data = response.read(ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            raise ConfigError(
                f"The gateway at {self._url} cannot be reached ({_why(error)}). Is it running?"
            ) from error
        finally:
            connection.close()
        if len(data) > ANSWER_BYTES_MAX:
            raise ConfigError(f"The answer of {self._url} is larger than {ANSWER_BYTES_MAX >> 20} MiB.")
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _refused(self, answer: Answer) -> str:
        try:
            value = msgspec.json.decode(answer.body, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError):
            value = {}
        said = [str(value[name]) for name in ("error", "reason", "message") if value.get(name)]
        if value.get("reason") in set(KeyReason):
            return f"The gateway at {self._url} refused the key: {KeyRefused(KeyReason(value['reason'])).message}"
        return f"The gateway at {self._url} refused: {answer.status} {', '.join(said)}".rstrip(" ,")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
