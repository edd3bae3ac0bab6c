"""What a reader is served is the canonical bytes, spliced; never decoded and encoded again."""

from __future__ import annotations

import json

import pytest

from counterfoil.api import view
from counterfoil.ledger import kept
from counterfoil.ledger.kept import Unavailable
from counterfoil.record import codec
from counterfoil.record.charge import CostState
from counterfoil.record.record import CaptureInfo, CapturePolicy, CaptureState, Chain, Record

CHAIN = Chain("w0", 7, "ab" * 32)
RECORD = Record(
    created_at="2026-11-01T10:00:00.000Z",
    request_id="gen_00000000000000000000000000",
    team_id="acme",
    app_id=None,
    key_id="k1",
    endpoint="/v1/chat/completions",
    model_id="openai/gpt-4o-mini",
    provider="openai",
    native_response_id="chatcmpl-1",
    stream=False,
    byok=False,
    status_code=200,
    success=True,
    error_code=None,
    error_message=None,
    latency_ms=1.5,
    generation_ms=2.0,
    throughput=None,
    cost_nanos=0,
    cost_state=CostState.UNKNOWN,
    session_id='tricky ,"capture":{"state":"stored"}',
)
STORED = CaptureInfo(
    policy=CapturePolicy.FULL, state=CaptureState.STORED, bytes=12, digest="cd" * 32, retention_days=30
)
BYTES = codec.encode(RECORD, STORED)


def test_an_answer_begins_with_the_canonical_bytes() -> None:
    """Whoever has the answer has the very bytes that the chain hashed, but for the closing brace."""
    body = view.served(BYTES, CHAIN, CaptureState.STORED, b'{"model":"m"}')
    assert body.startswith(BYTES[:-1])
    assert json.loads(body)["chain"] == {"writer": "w0", "sequence": 7, "digest": "ab" * 32}


def test_the_request_is_embedded_byte_for_byte() -> None:
    """Spaces, key order and number forms of the captured request survive the lookup."""
    request = b'{ "b" : 1.50,\n "a":"\\u00e9" }'
    body = view.served(BYTES, CHAIN, CaptureState.STORED, request)
    assert b'"replay_supported":true,"replay_request":' + request + b"}" in body
    assert json.loads(body)["replay_request"] == {"b": 1.5, "a": "é"}


def test_a_capture_state_that_changed_is_told_as_of_now() -> None:
    """After an erasure the reader sees erased, and what the record said when it was written."""
    answer = json.loads(view.served(BYTES, CHAIN, CaptureState.ERASED, Unavailable.ERASED))
    assert answer["capture"] == {
        "policy": "full",
        "state": "erased",
        "bytes": 12,
        "digest": "cd" * 32,
        "retention_days": 30,
        "recorded_state": "stored",
    }
    assert answer["session_id"] == RECORD.session_id
    assert answer["replay_supported"] is False
    assert answer["replay_unavailable_reason"] == "erased"
    assert "replay_request" not in answer


@pytest.mark.parametrize(
    ("policy", "state", "reason"),
    [
        pytest.param(CapturePolicy.FULL, CaptureState.STORED, None, id="stored"),
        pytest.param(CapturePolicy.FULL, CaptureState.NOT_CAPTURED, Unavailable.NOT_CAPTURED, id="nothing came"),
        pytest.param(CapturePolicy.METADATA, CaptureState.NOT_CAPTURED, Unavailable.POLICY, id="metadata only"),
        pytest.param(CapturePolicy.OFF, CaptureState.NOT_CAPTURED, Unavailable.POLICY, id="off"),
        pytest.param(CapturePolicy.FULL, CaptureState.TOO_LARGE, Unavailable.TOO_LARGE, id="too large"),
        pytest.param(CapturePolicy.FULL, CaptureState.INTERRUPTED, Unavailable.INTERRUPTED, id="interrupted"),
        pytest.param(CapturePolicy.FULL, CaptureState.EXPIRED, Unavailable.EXPIRED, id="expired"),
        pytest.param(CapturePolicy.FULL, CaptureState.ERASED, Unavailable.ERASED, id="erased"),
    ],
)
def test_what_was_not_kept_says_why(policy: CapturePolicy, state: CaptureState, reason: Unavailable | None) -> None:
    """Lost, forbidden and never captured never look alike."""
    assert kept.why_not(policy, state) is reason


@pytest.mark.parametrize(
    ("body", "embeddable"),
    [
        pytest.param(b'{"model":"m"}', True, id="object"),
        pytest.param(b' \n{"a":1}\r\n', True, id="white space around"),
        pytest.param('{"a":"é"}'.encode(), True, id="utf-8"),
        pytest.param(b"{}", False, id="empty object"),
        pytest.param(b"[1]", False, id="array"),
        pytest.param(b'"text"', False, id="string"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"not json", False, id="not json"),
        pytest.param(b'{"a":1}{"b":2}', False, id="two objects"),
        pytest.param(b'{"a":"\xff"}', False, id="not utf-8"),
        pytest.param(b'{"a":"\x00"}', False, id="raw control character"),
        pytest.param(b'{"a":NaN}', False, id="NaN"),
        pytest.param(b'{"a":"\\ud800"}', True, id="lone surrogate"),
        pytest.param(b"\xef\xbb\xbf{}", False, id="byte order mark"),
        pytest.param(b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", False, id="nested without end"),
    ],
)
def test_only_a_non_empty_json_object_is_embedded(body: bytes, embeddable: bool) -> None:
    """Nothing that would break the answer around it, or that no endpoint takes, is offered for replay."""
    assert view.is_object(body) is embeddable
