"""What a reader is served: the record's canonical bytes, spliced with what may change after it was written.

The canonical bytes are never decoded and encoded again. Everything up to ``capture`` is served as it was hashed, so
whoever has the answer and the previous digest can check the chain; ``capture`` is the last field of the record and is
followed by what is known only at reading time: the chain, and whether the request can be run again.
"""

from __future__ import annotations

import msgspec

from counterfoil.errors import CallerFault
from counterfoil.ledger.kept import Unavailable
from counterfoil.ledger.query import StoredRecord
from counterfoil.record import codec
from counterfoil.record.record import CaptureState, Chain
from counterfoil.wire.json_object import read

_encode = msgspec.json.Encoder().encode


def served(record: bytes, chain: Chain, state: CaptureState, request: bytes | Unavailable) -> bytes:
    """The answer for one record: its canonical bytes, its place in the chain, and the request or why there is none.

    ``state`` is the capture state now; ``request`` the raw JSON object to embed as it is.
    """
    if isinstance(request, Unavailable):
        tail = b'"replay_supported":false,"replay_unavailable_reason":%b' % _encode(request)
    else:
        tail = b'"replay_supported":true,"replay_request":%b' % request
    return b"%b,%b}" % (listed(record, chain, state)[:-1], tail)


def listed_now(stored: StoredRecord) -> bytes:
    """A record in a list as it is now."""
    return listed(stored.data, stored.chain, stored.capture_state)


def listed(record: bytes, chain: Chain, state: CaptureState) -> bytes:
    """A record in a list: all but what its bodies would have to be read for."""
    written = codec.capture_of(record)
    head = record[:-1]
    if written.state is not state:
        now = codec.closing(msgspec.structs.replace(written, state=state))
        head = b'%b%b,"recorded_state":%b}' % (codec.without_capture(record), now[:-2], _encode(written.state))
    return b'%b,"chain":%b}' % (head, _encode(chain))


def is_object(body: bytes) -> bool:
    """Whether ``body`` is a JSON object with at least one member, which may be embedded in an answer as it is.

    Judged by the same reader that admits requests, so whatever could be called can be shown.
    """
    try:
        return bool(read(body).values)
    except CallerFault:
        return False
