"""A settlement becomes a row: bodies sealed, canonical bytes made, columns picked. Everything but its place.

A settlement that cannot become a row (a lone surrogate in a text, a number that no column holds) must neither stop
its batch nor vanish. It is cleaned and tried again; should that fail too, its call still gets a record, of the bare
facts, with ``gateway:internal``.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, Final

import msgspec
import zstandard
from msgspec import UNSET, Struct

from counterfoil.capture import body
from counterfoil.capture.seal import BodyUnreadable, Sealer
from counterfoil.capture.sharing import SHARED_FROM_BYTES, SHARED_MAX_BYTES, Kept, Shared, Shelf, bucket_of
from counterfoil.ledger.packing import Packer
from counterfoil.ledger.settlement import Settlement
from counterfoil.record import codec
from counterfoil.record.charge import CostState
from counterfoil.record.coverage import paid_nanos, unpriced
from counterfoil.record.ids import parse
from counterfoil.record.links import judging
from counterfoil.record.record import CaptureInfo, CapturePolicy, CaptureState, Record

MS_PER_DAY: Final = 86_400_000

UNFIT: Final = (
    ValueError,  # also UnicodeEncodeError
    TypeError,
    OverflowError,
    RecursionError,
    msgspec.MsgspecError,
    zstandard.ZstdError,
    BodyUnreadable,
)
"""What making a row of an unfit settlement raises."""

GENERATION_COLUMNS: Final = (
    "seq, writer, sequence, digest, id, created_at_ms, team_id, app_id, key_id, endpoint, model_id, provider, stream, "
    "byok, status_code, error_code, latency_us, generation_us, prompt_tokens, completion_tokens, cost_nanos, "
    "cost_state, unpriced, paid_nanos, fee_nanos, fee_state, provider_cost_nanos, "
    "capture_state, expires_at_ms, native_response_id, native_key, session_id, session_key, "
    "replay_of, replay_key, end_user, end_user_key, record"
)

_NUL_FREE = str.maketrans({"\0": "�"})


class Row(Struct, gc=False):
    """A record ready to be appended.

    ``columns`` follow the first four of :data:`GENERATION_COLUMNS`; ``data`` are the canonical bytes.
    """

    settlement: Settlement
    waiter: Any  # a Waiter, or None when nobody waits
    columns: tuple[Any, ...]
    data: bytes
    sealed: bytes | None
    shared: Shared | None = None


class RowMaker:
    """Makes rows, in the writer's thread. ``retention_days`` is how long bodies are kept."""

    def __init__(self, sealer: Sealer, retention_days: int) -> None:
        self._sealer = sealer
        self._shelf = Shelf()
        self._close = codec.Closer().close
        self._pack = Packer().pack
        self._retention_ms = retention_days * MS_PER_DAY
        self._stored = _stored(retention_days)
        self._uncaptured = {
            (policy, state): codec.closing(CaptureInfo(policy=policy, state=state))
            for policy in CapturePolicy
            for state in CaptureState
        }

    def row(self, settlement: Settlement, waiter: Any) -> Row:
        """The row of ``settlement``, whatever it holds. Raises one of :data:`UNFIT` only for an id that is not ours."""
        try:
            return self._row(settlement, settlement.record, waiter)
        except UNFIT:
            pass
        try:
            return self._row(settlement, _clean(settlement.record), waiter)
        except UNFIT:
            return self.bare(settlement, waiter)

    def bare(self, settlement: Settlement, waiter: Any) -> Row:
        """The row of a call whose record cannot be stored: the facts that cannot be wrong, and no bodies."""
        return self._row(msgspec.structs.replace(settlement, capture=None), _bare_record(settlement), waiter)

    def _row(self, settlement: Settlement, record: Record, waiter: Any) -> Row:
        value = parse(record.request_id)
        if value is None:
            raise ValueError(f"{record.request_id!r} is not an id of ours.")
        identity = value.to_bytes(16, "big")
        sealed = expires_at_ms = shared = None
        capture = settlement.capture
        if capture is not None and settlement.policy is CapturePolicy.FULL:
            may_share = len(capture.request) >= SHARED_FROM_BYTES
            plain = body.encode(capture, apart=may_share)
            if may_share and len(plain) <= SHARED_MAX_BYTES:
                sealed, digest, shared = self._share(record, identity, capture.request, plain)
            else:
                sealed = self._sealer.seal(record.team_id, identity, plain)
                digest = hashlib.sha256(sealed).hexdigest()
            expires_at_ms = settlement.created_at_ms + self._retention_ms
            state = CaptureState.STORED
            end = self._stored % (len(sealed), digest.encode())
        else:
            state = settlement.capture_state
            end = self._uncaptured[settlement.policy, state]
        data = self._close(record, end)
        columns = columns_of(record, state, identity, settlement.created_at_ms, expires_at_ms)
        return Row(settlement, waiter, (*columns, self._pack(data)), data, sealed, shared)

    def _share(self, record: Record, identity: bytes, request: bytes, plain: bytes) -> tuple[bytes, str, Shared]:
        """The blob of a body that may repeat another, its commitment, and what the store has to know."""
        seal, team_id = self._sealer.seal, record.team_id
        bucket = bucket_of(team_id, record.key_id, request)
        base = self._shelf.base_for(bucket, request, len(plain))
        kept = Kept(bucket, plain, body.request_at(plain), len(request))
        shared = Shared(self._shelf, kept, base, lambda: seal(team_id, identity, plain))
        if base is None:
            sealed = shared.whole()
            return sealed, hashlib.sha256(sealed).hexdigest(), shared
        sealed = seal(team_id, identity, plain, base.stretch(kept.request_at))
        return sealed, self._sealer.commitment(identity, plain), shared


def columns_of(
    record: Record,
    state: CaptureState,
    identity: bytes,
    created_at_ms: int,
    expires_at_ms: int | None,
) -> tuple[Any, ...]:
    """The columns of ``generations`` between the chain's and the record, which follow from the canonical bytes."""
    usage = record.usage
    native = record.native_response_id
    session = record.session_id
    replay = record.replay_of if record.judge_of is UNSET else judging(record.judge_of)
    user = record.end_user
    fee = record.byok_fee
    return (
        identity,
        created_at_ms,
        record.team_id,
        record.app_id,
        record.key_id,
        record.endpoint,
        record.model_id,
        record.provider,
        record.stream,
        record.byok,
        record.status_code,
        record.error_code,
        int(record.latency_ms * 1000),
        int(record.generation_ms * 1000),
        usage.prompt_tokens,
        usage.completion_tokens,
        record.cost_nanos,
        record.cost_state,
        unpriced(record.cost_state, record.pricing_lines, usage.estimated),
        paid_nanos(record.byok, record.cost_nanos, record.attempts),
        None if fee is UNSET else fee.nanos,
        None if fee is UNSET else fee.state,
        record.provider_cost_nanos,
        state,
        expires_at_ms,
        native,
        None if native is None else value_key(native),
        session,
        None if session is None else value_key(session),
        replay,
        None if replay is None else value_key(replay),
        user,
        None if user is None else value_key(user),
    )


def _stored(retention_days: int) -> bytes:
    """The end of the canonical bytes of a record with bodies, to be filled with their size and their digest."""
    info = CaptureInfo(
        policy=CapturePolicy.FULL, state=CaptureState.STORED, bytes=0, digest="%b", retention_days=retention_days
    )
    return codec.closing(info).replace(b'"bytes":0', b'"bytes":%d')


def value_key(text: str) -> int:
    """The key under which ``by_value`` finds a text. Equal texts have equal keys; the text itself is compared after."""
    return zlib.crc32(text.encode())


def late(record: Record) -> Record:
    """``record`` as it is kept when the ledger could not be written until its client had been refused the answer."""
    return msgspec.structs.replace(
        record,
        status_code=record.status_code if record.stream else 503,
        success=False,
        error_code="gateway:ledger_unavailable",
        error_message="The ledger could not be written in time; the answer was withheld from the client.",
    )


def _clean(record: Record) -> Record:
    """``record`` with every text storable: lone surrogates and NUL replaced, tags dropped when nothing else helps."""
    changes = {
        name: value.encode(errors="replace").decode().translate(_NUL_FREE)
        for name in record.__struct_fields__
        if type(value := getattr(record, name)) is str
    }
    return msgspec.structs.replace(record, **changes, tags={})


def _bare_record(settlement: Settlement) -> Record:
    """The facts that cannot be wrong, for a record whose others could not be written."""
    record = _clean(settlement.record)
    return Record(
        created_at=record.created_at,
        request_id=record.request_id,
        team_id=record.team_id,
        app_id=None,
        key_id=record.key_id,
        endpoint=record.endpoint,
        model_id="unknown",
        provider=record.provider,
        native_response_id=None,
        stream=bool(record.stream),
        byok=bool(record.byok),
        status_code=500,
        success=False,
        error_code="gateway:internal",
        error_message="The record of this call could not be written as it was.",
        latency_ms=0.0,
        generation_ms=0.0,
        throughput=None,
        cost_nanos=0,
        cost_state=CostState.UNKNOWN,
    )
