"""What the tests of malformed requests share: their provider, their gateway's settings, and how a case is played."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

import h11

from emulators.raw import RawClient
from emulators.scripted import ScriptedUpstream, Seen, Step, answer, chat_answer
from faults import malformed, smuggled
from faults.malformed import Case

THREADS = 64  # nearly all of them wait for a second to pass
MARK = re.compile(
    rb'\A\{"model": "(?:local/)?gpt-4o-mini", "user": "((?:call|probe)-[a-z0-9-]+)", "messages": \[\]\}\Z'
)
"""A whole body of ours: a mark that is found inside something else was not read as a request."""

REFUSED = (400, 405, 408, 413, 431, 501, 505)
LIMITS = {"header_seconds": 1, "body_seconds": 1, "keep_alive_seconds": 1}

EXPLAINED: dict[str, str] = {
    "a length with a tab before": "nginx: RFC 9110, 5.5 allows a tab as well as a space around a value; h11 agrees.",
    "an empty line before": "h11: RFC 9112, 2.2 wants at least one empty line to be ignored; nginx agrees.",
    "two empty lines before": "h11: as one empty line; nginx agrees.",
    "one behind the other, with empty lines between": "h11: as empty lines before the first; nginx agrees.",
    "a bare LF before": "h11: RFC 9112, 2.2 lets LF alone end a line; nothing stands in it; nginx agrees.",
    "two spaces before the target": "h11: RFC 9112, 3 lets words be split at any white space; nginx agrees.",
    "two spaces before the version": "h11: the same; nginx agrees.",
    "RTSP/1.0": "h11, nginx: llhttp takes this name too, and does not tell; framing and meaning are those of HTTP/1.0.",
}
"""What we serve although one of the others refuses it: who, and why we do."""


class Outcome(NamedTuple):
    """What came back. ``status`` is 0 when the connection was closed without a word."""

    case: Case
    status: int
    closed: bool
    seconds: float


def every_case(key: str) -> list[Case]:
    """Both tables."""
    plain = list(malformed.cases(key))
    return plain + list(smuggled.cases(key, len(plain)))


def echo(seen: Seen) -> list[Step]:
    """Answer with the mark of the request, so that nobody can take another's answer for their own."""
    found = MARK.match(seen.body)
    return answer(chat_answer(found[1].decode() if found else "unmarked"))


def config(base_url: str) -> dict[str, Any]:
    """A gateway that waits a second at the most for the rest of a request."""
    one = {"type": "openai", "base_url": base_url, "api_key": "none", "prices": "openai"}
    return {"providers": {"local": one}, "limits": LIMITS}


def outcome(port: int, case: Case) -> Outcome:
    """Send one case and read until the connection is closed."""
    began = time.monotonic()
    with RawClient(port) as client:
        client.send(case.data)
        try:
            said = client.read_all().removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            closed = True
        except TimeoutError:
            said, closed = b"", False
    status = int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/1.1 ") else 0
    return Outcome(case, status, closed, time.monotonic() - began)


def bodies(upstream: ScriptedUpstream) -> dict[str, bytes]:
    """The bodies that reached the provider, by their marks."""
    return {match[1].decode(): seen.body for seen in upstream.seen if (match := MARK.match(seen.body))}


def marks(case: Case) -> set[str]:
    """The marks of the requests that somebody may find in a case."""
    return {case.mark, f"{case.mark}-second"}


def second_opinion(data: bytes) -> list[bytes]:
    """The bodies of the requests that h11 reads, up to the first thing it refuses."""
    found: list[bytes] = []
    while data:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(data)
        body = b""
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if not isinstance(event, h11.Request | h11.Data):
                    return found
                body += event.data if isinstance(event, h11.Data) else b""
        except h11.RemoteProtocolError:
            return found
        found.append(body)
        data = connection.trailing_data[0]
    return found
