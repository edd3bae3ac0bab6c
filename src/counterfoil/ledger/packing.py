"""Records at rest: the canonical bytes, compressed against a record every reader knows.

A record has about 2 KiB, nine tenths of it field names. Against a dictionary that holds a whole record it packs to
some 240 bytes in 2.5 µs, which is less than the kernel takes to write the bytes saved. What is hashed, chained and
served are the canonical bytes; packing is the ledger's own business.

A packed record begins with its codec: 0 plain, 1 zstd with dictionary 1 (the text alone), 2 zstd with dictionary 2
(tables of how often letters, lengths and distances come, and the text; zstd need not make its own for every record:
a fifth faster, and a quarter smaller). Dictionaries are part of the format and never edited; a better one is added
under a new number.
"""

from __future__ import annotations

import base64
from typing import Final

import zstandard

PLAIN: Final = 0
DICTIONARY_1: Final = 1
DICTIONARY_2: Final = 2

RECORD_BYTES_MAX: Final = 64 * 1024 * 1024

_LEVEL = 1
_HASH_LOG = 12  # of places in the text that are remembered: all of them, in 16 KiB
_MATCH_BYTES = 6  # a record repeats long names, and its short repetitions are chance
_WINDOW_LOG = 17
_PLAIN_CODE = bytes([PLAIN])
_DICTIONARY_2_CODE = bytes([DICTIONARY_2])

# Rare variants first, the usual record last: what is near the end is cheapest to refer to.
RECORD_TEXT: Final = (
    b'"error_code":"upstream:timeout","error_message":"The provider did not answer in time."'
    b'"error_code":"upstream:rate_limited","error_message":"The provider is over its rate limit."'
    b'"error_code":"user:client_disconnected","error_message":"'
    b'The client closed the connection before the answer ended."'
    b'"error_code":"user:provider_rejected","error_message":"The provider rejected the request."'
    b'"error_code":"gateway:interrupted","error_message":"The gateway stopped before this call ended."'
    b'"status_code":502,"success":false,"status_code":429,"success":false,"status_code":499,"status_code":400,'
    b'"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"source":"absent"},"cost_nanos":0,'
    b'"currency":"USD",'
    b'"pricing_lines":[],"cost_state":"unknown","cost_reason":"no price","cost_state":"free",'
    b'"cost_reason":"no provider '
    b'served this call","cost_state":"estimated","cost_state":"partial","source":"partial","source":"estimated",'
    b'"state":"unpriced","reason":"","state":"fallback","state":"provider_reported","finish_reason":"tool_calls",'
    b'"finish_reason":"length","finish_reason":"end_turn","finish_reason":"completed","finish_reason":"STOP",'
    b'"endpoint":"/v1/embeddings","endpoint":"/v1beta/models/gemini-2.5-flash:generateContent",'
    b'"google/gemini-2.5-flash",'
    b'"endpoint":"/v1/responses","resp_","endpoint":"/v1/messages","anthropic/claude-sonnet-4-5",'
    b'"provider":"anthropic",'
    b'"native_response_id":"msg_01","meter":"cache_write_tokens","meter":"reasoning_tokens","meter":"requests",'
    b'"session_id":"","tags":{"","bytes_delivered":,"capture":{"policy":"metadata","state":"not_captured","bytes":0,'
    b'"digest":null,"retention_days":null}'
    b'{"created_at":"2026-12-01T10:00:00.000Z","request_id":"gen_01","team_id":"default","app_id":"web","key_id":"",'
    b'"endpoint":"/v1/chat/completions","model_id":"openai/gpt-4o-mini","provider":"openai","native_response_id":'
    b'"chatcmpl-","stream":true,"byok":false,"status_code":200,"success":true,"error_code":null,"error_message":null,'
    b'"latency_ms":412.3,"generation_ms":1322.0,"throughput":92.2,"usage":{"prompt_tokens":61,"completion_tokens":122,'
    b'"total_tokens":183,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":'
    b'{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0},'
    b'"meters":{},'
    b'"source":"reported"},"cost_nanos":82350,"currency":"USD","pricing_lines":[{"meter":"input_tokens","quantity":61,'
    b'"unit_size":1000000,"unit_price_nanos":150000000,"amount_nanos":9150,'
    b'"rule_id":"openai/gpt-4o-mini/input","book":"",'
    b'"state":"priced"},{"meter":"cached_tokens","quantity":10,"unit_size":1000000,"unit_price_nanos":75000000,'
    b'"amount_nanos":750,"rule_id":"openai/gpt-4o-mini/cached","book":"","state":"priced"},{"meter":"output_tokens",'
    b'"quantity":122,"unit_size":1000000,"unit_price_nanos":600000000,"amount_nanos":73200,"rule_id":'
    b'"openai/gpt-4o-mini/output","book":"","state":"priced"}],"cost_state":"exact","cost_reason":null,"attempts":'
    b'[{"number":1,"provider":"openai","model":"gpt-4o-mini","key_source":"operator","status_code":200,'
    b'"error_code":null,'
    b'"error_message":null,"latency_ms":412.3,"generation_ms":1322.0,"native_response_id":"chatcmpl-"}],'
    b'"finish_reason":'
    b'"stop","gateway_ms":0.4,"requested_model":"openai/gpt-4o-mini","native_model":"gpt-4o-mini-2024-07-18",'
    b'"service_tier":"default","provider_cost_nanos":null,"replay_of":null,"session_id":null,"end_user":null,'
    b'"bytes_delivered":1024,"book":"","schema":1,"capture":{"policy":"full","state":"stored","bytes":512,"digest":"",'
    b'"retention_days":30}}'
)


DICTIONARY_2_TABLES: Final = base64.b64decode(
    "N6Qw7AIAAAAzELhSpQP8/////////z9oMbE1cbSKX8fIfim3ZBe8b+exrGzT9/0ER6RMKcmUEm+8/7+EUwEAAAYCggOCAZsrAAQAQJGaj5GPiw"
    "YFhAkCZJIARBAERCGRSADDYRCIgoEIYkAAxpk5AAAAJHWS6HAaY1GIAQwAgBgAzgGYBAAAAAEAAAAEAAAACAAAAA=="
)
"""What zstd finds before the text: made by ``tools/dictionary_tables.py``, never again under this number."""


class Packer:
    """Packs records. For one thread."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(  # pyright: ignore[reportUnknownMemberType]
            _LEVEL, hash_log=_HASH_LOG, min_match=_MATCH_BYTES, window_log=_WINDOW_LOG, write_dict_id=False
        )
        dictionary = _dictionary_2()
        dictionary.precompute_compress(compression_params=parameters)  # pyright: ignore[reportUnknownMemberType]
        self._compress = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress

    def pack(self, data: bytes) -> bytes:
        """``data`` as it is stored."""
        packed = self._compress(data)
        return _DICTIONARY_2_CODE + packed if len(packed) < len(data) else _PLAIN_CODE + data


class Unpacker:
    """Unpacks records. For one thread."""

    def __init__(self) -> None:
        self._decompress_1 = zstandard.ZstdDecompressor(dict_data=_dictionary_1()).decompress
        self._decompress_2 = zstandard.ZstdDecompressor(dict_data=_dictionary_2()).decompress

    def unpack(self, packed: bytes) -> bytes:
        """The canonical bytes. Raises :class:`ValueError` when ``packed`` is damaged or of an unknown codec."""
        try:
            if packed[0] == DICTIONARY_2:
                return self._decompress_2(packed[1:], RECORD_BYTES_MAX)
            if packed[0] == DICTIONARY_1:
                return self._decompress_1(packed[1:], RECORD_BYTES_MAX)
        except (zstandard.ZstdError, IndexError, MemoryError) as error:
            raise ValueError("The packed record is damaged.") from error
        if packed[0] == PLAIN:
            return packed[1:]
        raise ValueError(f"The record was packed with codec {packed[0]}, which this version does not know.")


def _dictionary_1() -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(RECORD_TEXT, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _dictionary_2() -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(DICTIONARY_2_TABLES + RECORD_TEXT, dict_type=zstandard.DICT_TYPE_FULLDICT)
