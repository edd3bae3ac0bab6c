"""What the pytest plugin does once a test has a cassette: serve it, or record it from a running gateway.

A recording is told from others by its time and its key: what the gateway's newest records of this key were is noted
when a test begins, and what is newer when it ends belongs to the test. So tests are recorded one at a time, with a key
of their own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from counterfoil.cli.cassette import content_of
from counterfoil.cli.remote import Remote
from counterfoil.errors import ConfigError
from counterfoil.gateway.playback import speed_of
from counterfoil.replay import cassette, serving
from counterfoil.replay.redact import Rules
from counterfoil.tenancy.keys import KeyReason, parse
from counterfoil.wire import canonical

PAGE: Final = 100
SERVED: Final = frozenset({"speed", "ignore", "redact_pointers", "redact_patterns"})


@contextmanager
def served(path: Path, options: Mapping[str, Any]) -> Generator[serving.Served]:
    """Serve the cassette at ``path``. Raises :class:`ConfigError` for options that are none."""
    _check(options)
    speed = speed_of(str(options.get("speed", "none")).encode())
    with serving.in_thread(cassette.read(path), speed) as server:
        yield server


class Recorder:
    """Records what one test asks of a running gateway. ``url`` has no slash at its end."""

    def __init__(self, url: str, key: str, options: Mapping[str, Any]) -> None:
        """Raises :class:`ConfigError` when there is no gateway, or the key is none."""
        _check(options)
        if not url or not key:
            raise ConfigError("To record, set COUNTERFOIL_URL (or --counterfoil-url) and COUNTERFOIL_KEY.")
        parsed = parse(key)
        if isinstance(parsed, KeyReason):
            raise ConfigError(f"COUNTERFOIL_KEY is no key of a gateway ({parsed.value}).")
        self.url = url.rstrip("/")
        self.key = key
        self._options = options
        self._remote = Remote(self.url, key)
        self._query = {"key": parsed.kid, "limit": PAGE}
        self._before = {record["request_id"] for record in self._page(None)["data"]}

    def write(self, path: Path) -> None:
        """Write what was recorded since this was made, the oldest first."""
        fresh = [cassette.of_record(record, partial(content_of, self._remote, record)) for record in self._fresh()]
        whole = [one for one in fresh if one is not None]
        rules = Rules(tuple(self._options.get("redact_pointers", ())), tuple(self._options.get("redact_patterns", ())))
        ignored = canonical.pointers(",".join(self._options.get("ignore", ())))
        cassette.write(path, cassette.redacted(whole[::-1], rules, ignored))

    def _fresh(self) -> Iterator[dict[str, Any]]:
        """The records of this key that were not there at the beginning, the newest first."""
        cursor: str | None = None
        while True:
            page = self._page(cursor)
            for record in page["data"]:
                if record["request_id"] in self._before:
                    return
                yield record
            cursor = page["next"]
            if cursor is None:
                return

    def _page(self, cursor: str | None) -> dict[str, Any]:
        return self._remote.get("/v1/generations/search", {**self._query, "cursor": cursor})


def _check(options: Mapping[str, Any]) -> None:
    unknown = sorted(options.keys() - SERVED)
    if unknown:
        raise ConfigError(f"@pytest.mark.counterfoil does not know {', '.join(unknown)}.")
