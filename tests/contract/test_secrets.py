"""Secrets of the folder exchanged from the command line, around a gateway that runs before and after."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from counterfoil.cli import rotation
from counterfoil.folder import DataFolder
from counterfoil.ledger import handover
from counterfoil.ledger.packing import Packer, Unpacker
from counterfoil.ledger.signing import Signer
from counterfoil.record import codec
from emulators.control import settlement, write
from emulators.gateway import Gateway
from emulators.ledgers import verified
from emulators.scripted import ScriptedUpstream, answer, chat_answer
from emulators.waiting import wait_until

SCRIPT = Path(__file__).parents[1] / "faults" / "check_proof.py"
CALL = {"model": "local/gpt-4o-mini", "messages": [{"role": "user", "content": "yes?"}]}


class Exchange(NamedTuple):
    """A gateway whose three secrets were exchanged; its keys and a record from before; what was known then."""

    gateway: Gateway
    used: str
    unused: str
    generation: str
    public_key: str
    seed: bytes
    lines: bytes


@pytest.fixture(scope="module")
def exchange(start_gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """Give what is left of a gateway that took a call, was stopped, and had every secret exchanged."""
    second = tmp_path_factory.mktemp("second")
    with ScriptedUpstream(answer(chat_answer("yes"))) as upstream:
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
        ledger = {"checkpoint_seconds": 0.1, "checkpoint_folder": str(second)}
        gateway: Gateway = start_gateway({"providers": {"local": one}, "ledger": ledger})
        used = gateway.key()
        unused = gateway.command("keys", "create", "--team", "acme").stdout.strip()
        generation = gateway.request("POST", "/v1/chat/completions", CALL, key=used).headers["x-request-id"]
        refused = gateway.command("secrets", "rotate", "kek", check=False)
        assert (refused.returncode, "Another gateway is running" in refused.stderr) == (1, True)
        assert gateway.stop() == 0
        public_key = json.loads(gateway.command("secrets", "show", "--json").stdout)["signing"]["public_key"]
        seed = DataFolder(gateway.data).secret("signing")
        for name in ("kek", "pepper", "signing"):
            assert f"{name} is exchanged." in gateway.command("secrets", "rotate", name).stdout
        lines = (second / "w0.jsonl").read_bytes()
        gateway.start()
        yield Exchange(gateway, used, unused, generation, public_key, seed, lines)
        gateway.stop()


def test_everything_from_before_is_as_it_was(exchange: Exchange, tmp_path: Path) -> None:
    """Keys work, bodies open, the chain and a second place from before agree, and calls go on."""
    gateway = exchange.gateway
    assert gateway.record(exchange.generation, exchange.used)["replay_request"] == CALL
    after = gateway.request("POST", "/v1/chat/completions", CALL, key=exchange.used)
    assert after.status == 200
    assert gateway.record(after.headers["x-request-id"], exchange.used)["chain"]["sequence"] == 2
    kept = tmp_path / "before.jsonl"
    kept.write_bytes(exchange.lines)
    assert "Intact" in gateway.command("ledger", "verify", "--checkpoints", str(kept)).stdout
    shown = json.loads(gateway.command("secrets", "show", "--json").stdout)
    assert shown["signing"]["before"] == [exchange.public_key]
    assert shown["signing"]["public_key"] != exchange.public_key


def test_a_record_is_proven_by_whichever_key_was_noted(exchange: Exchange, tmp_path: Path) -> None:
    """The key of before, under which it was signed, or the one of now, to which that one handed over; no other."""
    gateway = exchange.gateway
    now = json.loads(gateway.command("secrets", "show", "--json").stdout)["signing"]["public_key"]
    proof = json.loads(gateway.command("generations", "show", exchange.generation, "--proof").stdout)
    assert proof["public_key"] == exchange.public_key
    path = tmp_path / "proof.json"
    path.write_text(json.dumps(proof))

    def status(key: str) -> int:
        command = [sys.executable, "-I", str(SCRIPT), str(path), key]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert [status(key) for key in (exchange.public_key, now, "ab" * 32)] == [0, 0, 1]
    proof["handovers"][0]["countersignature"] = proof["handovers"][0]["signature"]
    path.write_text(json.dumps(proof))
    assert [status(key) for key in (exchange.public_key, now)] == [0, 1]
    later = gateway.request("POST", "/v1/chat/completions", CALL, key=exchange.used).headers["x-request-id"]
    path = f"/v1/generations/{later}/proof"
    wait_until(lambda: gateway.request("GET", path, key=exchange.used).status == 200)
    newer = gateway.request("GET", path, key=exchange.used).json()
    assert (newer["public_key"], newer.get("handovers")) == (now, None)


def test_a_key_moves_to_the_new_pepper_when_it_is_used(exchange: Exchange) -> None:
    """One that was used hangs on the newest, another on the old one; destroying that loses the latter alone."""
    gateway = exchange.gateway
    gateway.look_up(exchange.generation, exchange.used)

    def waiting() -> int:
        return json.loads(gateway.command("secrets", "show", "--json").stdout)["pepper"]["older"][0]["keys"]

    wait_until(lambda: waiting() == 1)
    assert gateway.stop() == 0
    refused = gateway.command("secrets", "retire", check=False)
    assert (refused.returncode, "1 keys have not been used" in refused.stderr) == (1, True)
    lost = json.loads(gateway.command("secrets", "retire", "--yes", "--json").stdout)
    assert len(lost["keys_lost"]) == 1
    gateway.command("secrets", "rotate", "pepper")  # its number is a new one, though the one before is destroyed
    gateway.start()
    assert gateway.look_up(exchange.generation, exchange.used).status == 200
    unknown = gateway.look_up(exchange.generation, exchange.unused)
    assert (unknown.status, unknown.json()["reason"]) == (401, "unknown_key")
    made = gateway.command("keys", "create", "--team", "acme").stdout.strip()
    assert gateway.look_up(exchange.generation, made).status == 200


def rewritten(folder: DataFolder, seed: bytes) -> None:
    """Change the first record and make everything after it fit, as whoever has the first signing key could."""
    database = apsw.Connection(str(folder.ledger_db))
    digest, digests = codec.GENESIS, {}
    pack, unpack = Packer().pack, Unpacker().unpack
    for seq, sequence, packed in list(
        database.execute("SELECT seq, sequence, record FROM generations WHERE writer = 0 ORDER BY seq")
    ):
        data = unpack(packed)
        if sequence == 1:
            data = data.replace(b'"gateway_ms":', b'"gateway_ms":9')
        digest = digests[sequence] = codec.link(digest, data)
        database.execute("UPDATE generations SET digest = ?, record = ? WHERE seq = ?", (digest, pack(data), seq))
    for number, first, last, last_seq, statement in list(
        database.execute("SELECT number, first_sequence, last_sequence, last_seq, statement FROM checkpoints")
    ):
        signed_at_ms: int = json.loads(statement)["signed_at_ms"]
        signer = Signer(seed, partial(int, signed_at_ms))
        stretch = [digests[at] for at in range(first, last + 1)]
        made = signer.checkpoint(0, last, digests[last], stretch, last_seq)
        values = (made.statement, made.signature, number)
        database.execute("UPDATE checkpoints SET statement = ?, signature = ? WHERE number = ?", values)
    database.close()


def test_the_old_key_cannot_rewrite_what_it_handed_over(tmp_path: Path) -> None:
    """With the leaked key of before, a history made to fit in every other way is not believed any more."""
    from_before = DataFolder.create(tmp_path / "data")
    write_one(from_before)
    seed = from_before.secret("signing")
    rewritten(from_before, seed)
    assert verified(from_before, deep=False).problems == []  # who has the key can do that, until it is exchanged
    exchange_signing(from_before)
    rewritten(from_before, seed)
    kinds = {problem.kind for problem in verified(from_before, deep=False).problems}
    assert "handover" in kinds


def write_one(folder: DataFolder) -> None:
    """A ledger of two records."""
    write(folder, [settlement(1, gateway_ms=0.5)])
    write(folder, [settlement(2)])


def exchange_signing(folder: DataFolder) -> None:
    """Exchange the signing key."""
    assert rotation.rotate(folder, "signing").done == 1


def test_an_altered_handover_is_found(tmp_path: Path) -> None:
    """A handover whose words were changed makes the older checkpoints nobody's, and says so itself."""
    folder = DataFolder.create(tmp_path / "data")
    write_one(folder)
    exchange_signing(folder)
    assert verified(folder).problems == []
    assert len(handover.read(folder)) == 1
    folder.handovers.write_text(folder.handovers.read_text().replace("handed_over_at_ms", "handed_over_at_mz"))
    assert {problem.kind for problem in verified(folder).problems} == {"handover", "checkpoint"}
    folder.handovers.unlink()
    assert {problem.kind for problem in verified(folder).problems} == {"checkpoint"}
