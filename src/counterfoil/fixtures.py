"""A pytest plugin: recordings answer an application's tests, offline and free (the extra ``pytest``).

::

    def test_summary(counterfoil_cassette):
        client = openai.OpenAI(base_url=counterfoil_cassette.base_url, api_key=counterfoil_cassette.api_key)
        ...

The cassette of a test is ``cassettes/<module>/<test>.jsonl`` beside its file, or what
``@pytest.mark.counterfoil("path")`` names. ``pytest --counterfoil-record`` lets a running gateway answer instead
(``COUNTERFOIL_URL``, ``COUNTERFOIL_KEY``) and writes the cassette of each test that passed.

Every pytest run of an environment imports this module, so it imports nothing but the standard library and pytest; what
serves a cassette is loaded by the first test that has one.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

MARKER: Final = "counterfoil"
_MARKER_HELP: Final = (
    "counterfoil(path=None, *, speed='none', ignore=(), redact_pointers=(), redact_patterns=()): the test's cassette, "
    "relative to the test's file; the pace; and what a recording leaves out of the match and takes out of bodies."
)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_passed = pytest.StashKey[bool]()


class CassetteEndpoint:
    """Where a test's calls go: ``base_url`` for OpenAI's SDK, ``url`` for Anthropic's and Google's, one ``api_key``.

    ``path`` is the cassette; ``recording`` is whether a real gateway answers and the cassette is written afterwards.
    """

    def __init__(self, url: str, api_key: str, path: Path, server: Any = None) -> None:
        self.url = url
        self.base_url = f"{url}/v1"
        self.api_key = api_key
        self.path = path
        self.recording = server is None
        self._server = server

    @property
    def played(self) -> Sequence[str]:
        """The recorded generations that answered so far, in their order; empty while recording."""
        return () if self._server is None else self._server.played


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--counterfoil-record`` and where the gateway is."""
    group = parser.getgroup("counterfoil")
    group.addoption(
        "--counterfoil-record",
        action="store_true",
        help="let a running gateway answer, and write the cassettes of the tests that pass",
    )
    group.addoption(
        "--counterfoil-url",
        default=None,
        help="the gateway to record from (default: COUNTERFOIL_URL); its key is COUNTERFOIL_KEY",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER_HELP)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether a test passed: a failed one leaves its cassette as it was."""
    report = yield
    if call.when == "call":
        item.stash[_passed] = report.passed
    return report


@pytest.fixture
def counterfoil_cassette(request: pytest.FixtureRequest) -> Iterator[CassetteEndpoint]:
    """Give an address and a key at which recordings answer."""
    marker = request.node.get_closest_marker(MARKER)
    named = marker.args[0] if marker is not None and marker.args else None
    options = dict(marker.kwargs) if marker is not None else {}
    path = _path(request, options.pop("path", named))
    session = importlib.import_module("counterfoil.testing")
    if request.config.getoption("--counterfoil-record"):
        url = request.config.getoption("--counterfoil-url") or os.environ.get("COUNTERFOIL_URL", "")
        recorder = session.Recorder(url, os.environ.get("COUNTERFOIL_KEY", ""), options)
        yield CassetteEndpoint(recorder.url, recorder.key, path)
        if request.node.stash.get(_passed, False):
            recorder.write(path)
        return
    if not path.exists():
        pytest.fail(f"There is no cassette {path}. Make it: pytest --counterfoil-record", pytrace=False)
    with session.served(path, options) as server:
        yield CassetteEndpoint(server.url, "cassette", path, server)


def _path(request: pytest.FixtureRequest, named: str | None) -> Path:
    folder = request.path.parent
    if named is not None:
        return folder / named
    return folder / "cassettes" / request.path.stem / f"{_UNSAFE.sub('-', request.node.name).strip('-')}.jsonl"
