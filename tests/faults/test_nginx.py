"""nginx reads the same bytes: as a third opinion, in front of the gateway, and between it and the provider."""

from __future__ import annotations

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from emulators import nginx
from emulators.gateway import Gateway
from emulators.raw import RawClient
from emulators.scripted import ScriptedUpstream
from faults import malformed
from faults.malformed import AMBIGUOUS, Case
from faults.reading import EXPLAINED, MARK, bodies, config, echo, every_case, marks, outcome, second_opinion

pytestmark = pytest.mark.skipif(nginx.missing() is not None, reason=nginx.missing() or "")

THREADS = 128
"""Most of them wait for one side to close."""


@pytest.fixture(scope="module")
def cases(reader: Gateway) -> list[Case]:
    """Give every case."""
    return every_case(reader.key())


@pytest.fixture(scope="module")
def ours(reader: Gateway, echoing: ScriptedUpstream, cases: list[Case]) -> dict[str, bytes]:
    """Give what reaches the provider through the gateway alone, by mark."""
    play(reader.port, cases)
    return bodies(echoing)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, cases: list[Case]) -> dict[str, bytes]:
    """Give what reaches a server through nginx alone, by mark."""
    with ScriptedUpstream(echo) as alone:
        with nginx.running(tmp_path_factory.mktemp("nginx"), f"127.0.0.1:{alone.port}") as port:
            play(port, cases)
        return bodies(alone)


def play(port: int, cases: list[Case]) -> None:
    """Send every case on a connection of its own and wait for its end."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda case: outcome(port, case), cases))


def test_what_is_served_is_what_nginx_reads(
    cases: list[Case], ours: dict[str, bytes], theirs: dict[str, bytes]
) -> None:
    """Of what the gateway serves nginx reads the same requests, byte for byte, or there is a reason."""
    read = {mark: body.replace(b"local/", b"") for mark, body in theirs.items()}
    wrong = [
        (case.name, mark, read.get(mark))
        for case in cases
        for mark in marks(case) & ours.keys()
        if read.get(mark) != ours[mark] and "nginx" not in EXPLAINED.get(case.name, "").partition(":")[0]
    ]
    assert not wrong


def test_each_reason_is_needed(cases: list[Case], ours: dict[str, bytes], theirs: dict[str, bytes]) -> None:
    """The table of reasons says what is so: each case is served, and refused by whoever it names."""
    by_name = {case.name: case for case in cases}
    for name, reason in EXPLAINED.items():
        case = by_name[name]
        refusing = {"nginx"} if case.mark not in theirs else set()
        refusing |= {"h11"} if len(second_opinion(case.data)) < len(marks(case) & ours.keys()) else set()
        assert case.mark in ours, f"{name} is not served any more"
        assert refusing == set(reason.partition(":")[0].split(", ")), f"{name}: refused by {refusing}"


def test_we_are_the_strictest(cases: list[Case], ours: dict[str, bytes], theirs: dict[str, bytes]) -> None:
    """What nginx lets through and the gateway refuses is counted, and is more than the other way round."""
    counts = Counter(
        (
            case.kind,
            "we serve" if case.mark in ours else "we refuse",
            "nginx serves" if case.mark in theirs else "nginx refuses",
        )
        for case in cases
    )
    print("\n".join(f"{count:4} {' · '.join(key)}" for key, count in sorted(counts.items())))
    assert not [key for key in counts if key[0] == AMBIGUOUS and key[1] == "we serve"]


@pytest.mark.parametrize("place", ["nginx in front", "nginx behind"])
def test_no_desync(
    start_gateway: Any,
    tmp_path_factory: pytest.TempPathFactory,
    theirs: dict[str, bytes],
    ours: dict[str, bytes],
    place: str,
) -> None:
    """With nginx on either side, on connections that both keep for the next request: none becomes two or is lost.

    Honest requests run between the cases. Each gets its own answer, and the provider sees nothing but requests that
    the reader at the door, alone, takes for requests as well.
    """
    folder = tmp_path_factory.mktemp("nginx")
    numbers = itertools.count()
    with ScriptedUpstream(echo) as provider:
        if place == "nginx in front":
            gateway = start_gateway(config(provider.base_url))
            target, door = f"127.0.0.1:{gateway.port}", theirs
        else:
            target, door = f"127.0.0.1:{provider.port}", ours
        with nginx.running(folder, target) as port:
            door_port = port
            if place == "nginx behind":
                gateway = start_gateway(config(f"http://127.0.0.1:{port}/v1"))
                door_port = gateway.port

            def one(case: Case) -> tuple[str, bytes]:
                outcome(door_port, case)
                mark = f"probe-{next(numbers)}"
                return mark, probe(door_port, malformed.good(mark, gateway.key()).bytes())

            key = gateway.key()
            with ThreadPoolExecutor(THREADS) as pool:
                answered = list(pool.map(one, every_case(key)))
            gateway.stop()
        crossed = [(mark, said[:200]) for mark, said in answered if b'"content": "%b"' % mark.encode() not in said]
        assert not crossed
        assert not [seen.body for seen in provider.seen if not MARK.match(seen.body)]
        assert max(Counter(seen.body for seen in provider.seen).values()) == 1
        served = {mark for mark in bodies(provider) if mark.startswith("call-")}
        assert served <= door.keys()
        assert served, "no case was served at all"


def probe(port: int, request: bytes) -> bytes:
    """The answer to an honest request."""
    with RawClient(port) as client:
        client.send(request)
        return client.reply().body
