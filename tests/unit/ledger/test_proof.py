"""A record can be proven with nothing but the proof, the public key, SHA-256 and Ed25519."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger.evidence import Evidence
from counterfoil.ledger.proof import prove
from counterfoil.ledger.query import LedgerReader
from emulators.control import settlement
from emulators.ledgers import opened, settle_all


def check(proof: dict[str, Any], public_key: bytes) -> None:
    """Check a proof as an auditor would. Shares no code with the gateway. Raises AssertionError or InvalidSignature."""
    record = proof["record"].encode()
    digest = sha256(bytes.fromhex(proof["previous"]) + record).digest()
    group = [bytes.fromhex(each) for each in proof["group"]]
    groups = [bytes.fromhex(each) for each in proof["groups"]]
    statement = json.loads(proof["statement"])
    assert group[proof["place"]] == digest
    assert groups[proof["group_number"]] == sha256(b"".join(group)).digest()
    assert statement["root"] == sha256(b"".join(groups)).hexdigest()
    place = statement["first_sequence"] + proof["group_number"] * 64 + proof["place"]
    assert (proof["chain"]["sequence"], proof["chain"]["writer"]) == (place, statement["writer"])
    assert json.loads(record)["request_id"] == proof["request_id"]
    Ed25519PublicKey.from_public_bytes(public_key).verify(
        bytes.fromhex(proof["signature"]), b"counterfoil/checkpoint/1\0" + proof["statement"].encode()
    )


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Give the proofs of every record of a ledger with two writers and several checkpoints."""
    folder = DataFolder.create(tmp_path_factory.mktemp("proof") / "data")

    async def fill() -> None:
        for start, count in ((1, 1), (2, 63), (65, 64), (200, 130)):
            async with opened(folder) as ledger, opened(folder) as other:
                await settle_all(ledger, [settlement(n, request=None) for n in range(start, start + count)])
                await other.settle(settlement(10_000 + start, request=None))

    asyncio.run(fill())
    reader = LedgerReader(folder)
    made = [prove(folder, stored) for stored in reader.all()]
    reader.close()
    return made


def test_every_record_is_proven(proofs: list[dict[str, Any]]) -> None:
    """The proof of every record holds, wherever it stands in its stretch, and survives a trip through JSON."""
    assert len(proofs) == 262
    for proof in proofs:
        check(json.loads(json.dumps(proof)), bytes.fromhex(proofs[0]["public_key"]))


def test_a_proof_shows_no_other_record(proofs: list[dict[str, Any]]) -> None:
    """A proof has at most 64 digests of its group and one hash for each group; nothing of another record's content."""
    for proof in proofs:
        assert len(proof["group"]) <= 64
        assert json.dumps(proof).count("gen_") == 2


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another record": lambda p: p.update(record=p["record"].replace("1000", "1001")),
    "another predecessor": lambda p: p.update(previous="00" * 32),
    "another place": lambda p: p.update(place=(p["place"] + 1) % len(p["group"])),
    "another id": lambda p: p.update(request_id="gen_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    "another sequence": lambda p: p["chain"].update(sequence=p["chain"]["sequence"] + 1),
    "another statement": lambda p: p.update(statement=p["statement"].replace('"w0"', '"w1"')),
    "another group": lambda p: p["group"].reverse(),
    "another root": lambda p: p["groups"].append("00" * 32),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_false_proof_fails(proofs: list[dict[str, Any]], change: str) -> None:
    """A proof in which anything was changed does not check."""
    proof = copy.deepcopy(proofs[150])
    CHANGES[change](proof)
    with pytest.raises((AssertionError, InvalidSignature)):
        check(proof, bytes.fromhex(proofs[0]["public_key"]))


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    """A record that no checkpoint covers yet is told so, with what to do."""
    folder = DataFolder.create(tmp_path / "data")

    async def ask() -> None:
        async with opened(folder) as ledger:
            await ledger.settle(settlement(1))
            reader = LedgerReader(folder)
            (stored,) = reader.all()
            with pytest.raises(ConfigError, match="No checkpoint"):
                prove(folder, stored)
            reader.close()

    asyncio.run(ask())


def test_a_chain_with_a_gap_proves_nothing(tmp_path: Path) -> None:
    """A record that was taken out is no internal error of whoever asks for the proof of its neighbour."""
    folder = DataFolder.create(tmp_path / "data")

    async def fill() -> None:
        async with opened(folder) as ledger:
            await settle_all(ledger, [settlement(number) for number in range(1, 4)])

    asyncio.run(fill())
    reader = LedgerReader(folder)
    first = next(reader.all())
    with contextlib.closing(apsw.Connection(str(folder.ledger_db))) as connection:
        connection.execute("DELETE FROM generations WHERE sequence = 2")
    with pytest.raises(GatewayFault):
        Evidence(folder).proof(first)
    reader.close()
