"""Check a proof of one record offline: ``python check_proof.py proof.json [public-key-in-hex]``.

Knows nothing of the gateway: SHA-256 from the standard library, Ed25519 from ``cryptography``, and the steps that
docs/guarantees.md writes down. Name the public key that you noted earlier; without one, only the proof's own is used,
and all that is shown is that somebody signed it. Exit status: 0 it holds, 1 it does not.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PURPOSE = b"counterfoil/checkpoint/1\0"


def sha256(data: bytes) -> bytes:
    """Give the digest."""
    return hashlib.sha256(data).digest()


def led_to(trusted_key: str, handovers: list[dict[str, str]]) -> set[str]:
    """Give the keys to which handovers, each signed by both of its keys, lead from a trusted one, either way."""
    trusted = {trusted_key}
    for handover in handovers + handovers[::-1]:
        statement = json.loads(handover["statement"])
        pair = {statement["previous"], statement["next"]}
        message = b"counterfoil/handover/1\0" + handover["statement"].encode()
        if pair & trusted:
            try:
                for key, signature in (("previous", "signature"), ("next", "countersignature")):
                    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(statement[key]))
                    public.verify(bytes.fromhex(handover[signature]), message)
            except InvalidSignature:
                continue
            trusted |= pair
    return trusted


def fault_of(proof: dict[str, Any], trusted_key: str | None) -> str | None:
    """Give what is wrong with ``proof``, or None when it holds."""
    statement = json.loads(proof["statement"])
    record = json.loads(proof["record"])
    group = [bytes.fromhex(digest) for digest in proof["group"]]
    groups = [bytes.fromhex(digest) for digest in proof["groups"]]
    place, number = proof["place"], proof["group_number"]
    if trusted_key is not None and proof["public_key"] not in led_to(trusted_key, proof.get("handovers", [])):
        return "it is signed with another key"
    if record["request_id"] != proof["request_id"]:
        return "the record is another one"
    digest = sha256(bytes.fromhex(proof["previous"]) + proof["record"].encode())
    if not 0 <= place < len(group) or group[place] != digest:
        return "the record is not at its place in the chain"
    if place > 0 and group[place - 1].hex() != proof["previous"]:
        return "the record does not follow the one before it"
    if not 0 <= number < len(groups) or groups[number] != sha256(b"".join(group)):
        return "the group is not the one that was committed to"
    if sha256(b"".join(groups)).hex() != statement["root"]:
        return "the statement does not commit to these groups"
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(proof["public_key"]))
        key.verify(bytes.fromhex(proof["signature"]), PURPOSE + proof["statement"].encode())
    except InvalidSignature:
        return "the signature is wrong"
    return None


def main() -> int:
    """Check one file."""
    proof = json.loads(Path(sys.argv[1]).read_text())
    try:
        fault = fault_of(proof, sys.argv[2] if len(sys.argv) > 2 else None)
    except (KeyError, ValueError, TypeError) as error:
        fault = f"it is no proof ({error!r})"
    print(f"NOT PROVEN: {fault}." if fault else f"Proven: {proof['request_id']}, key {proof['public_key']}.")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
