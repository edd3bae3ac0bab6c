"""Recorded traffic of real providers: what a client got once it gets again, byte for byte, from ledger and cassette."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from counterfoil.folder import DataFolder
from counterfoil.replay import cassette as cassettes
from counterfoil.replay import serving
from counterfoil.tenancy.admin import Admin
from e2e.test_wire_captures import COVERED, PROVIDERS, surface_of
from emulators import captures
from emulators.captures import Capture
from emulators.cassette import Cassette, Take
from emulators.gateway import Answer, Gateway
from emulators.raw import RawClient, post

pytestmark = pytest.mark.skipif(not captures.load(), reason=captures.ABSENT)
CUTS = (None, 1, 7, 61, 1024)
STRICT = {"x-counterfoil-playback": "strict"}


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, cassette: Cassette) -> Iterator[Gateway]:
    """Give a gateway in front of the cassette, with a provider for each recorded host."""
    own = {"type": "openai", "base_url": f"{cassette.url}/v1", "api_key": "none"}
    google = {"type": "google", "base_url": f"{cassette.url}/v1beta", "api_key": "none"}
    anthropic = {"type": "anthropic", "base_url": f"{cassette.url}/v1", "api_key": "none"}
    providers = dict.fromkeys([*PROVIDERS.values(), "other"], own)
    running = start_gateway({"providers": {**providers, "google": google, "vertex": google, "anthropic": anthropic}})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def admin(gateway: Gateway) -> Iterator[Admin]:
    """Give the gateway's tenancy, for a team a capture."""
    opened = Admin(DataFolder.existing(gateway.data))
    yield opened
    opened.close()


GOT: dict[int, Answer] = {}
"""What the client got of each capture when it was recorded, by the capture's number, in the order of recording."""


@pytest.mark.parametrize("capture", COVERED, ids=lambda capture: capture.name)
def test_a_ledger_gives_back_what_the_client_got(
    gateway: Gateway, admin: Admin, cassette: Cassette, capture: Capture
) -> None:
    """The kept request is what the client sent, and a played answer is what the client got: status, type and bytes."""
    surface = surface_of(capture)
    assert surface
    key = admin.create_key(f"team-{capture.number}", make_missing=True).key
    cut = CUTS[capture.number % len(CUTS)]
    cassette.play(
        Take(capture.body, capture.status, capture.content_type, cut=cut if len(capture.body) < 50_000 else 4096)
    )
    got = gateway.request("POST", surface.path, surface.body, key=key)
    GOT[capture.number] = got
    path = f"/v1/generations/{got.headers['x-generation-id']}/content?part="
    assert gateway.request("GET", path + "request", key=key).body == surface.body
    assert gateway.request("GET", path + "response", key=key).body == capture.body
    cassette.play(Take(b"never"))

    played = gateway.request("POST", surface.path, surface.body, key=key, headers=STRICT)

    assert cassette.requests == []
    assert (played.status, played.body) == (got.status, got.body)
    assert played.headers["content-type"] == got.headers["content-type"]
    assert played.headers["x-counterfoil-playback-of"] == got.headers["x-generation-id"]
    record = gateway.record(played.headers["x-generation-id"], key)
    assert (record["cost_nanos"], record["cost_state"]) == (0, "playback")
    assert record["success"] is gateway.record(got.headers["x-generation-id"], key)["success"]


def test_one_cassette_of_all_gives_back_the_same(gateway: Gateway, tmp_path: Path) -> None:
    """Exported into one file and served without a gateway, every answer is the one the client got, in its order."""
    if len(GOT) < len(COVERED):
        pytest.skip("only some captures were recorded before")
    path = tmp_path / "all.jsonl"
    gateway.command("cassette", "export", str(path), "--limit", "100000")
    read = cassettes.read(path)
    assert b"".join(cassettes.lines(read)) == path.read_bytes()
    assert len(read.interactions) == len(COVERED)

    with serving.in_thread(read) as served, RawClient(int(served.url.rpartition(":")[2])) as client:
        for capture in COVERED:
            surface = surface_of(capture)
            assert surface
            client.send(post(surface.path, surface.body, "anything"))
            reply = client.reply()
            got = GOT[capture.number]
            assert (reply.status, reply.body) == (got.status, got.body), capture.name
            assert reply.headers["content-type"] == got.headers["content-type"]


def test_the_ledger_verifies_after_all_that(gateway: Gateway) -> None:
    """Every played record is chained, adds up, and follows from its book."""
    gateway.stop()
    done = gateway.command("ledger", "verify", check=False)
    gateway.start()
    assert done.returncode == 0, done.stdout + done.stderr
