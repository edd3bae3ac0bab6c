"""The words that every captured body repeats, so that a small body compresses as well as a large one.

A body of a kilobyte is too short for a compressor to learn from; most of it is the protocol's own field names in the
order a provider writes them. This text holds those skeletons, and bodies are compressed against it.

It is part of the storage format. A body says which dictionary it was compressed with (its codec byte), so this text may
never be edited: a better one is added under a new number.

The second dictionary is the same text behind tables of how often letters, lengths and distances come, so that zstd need
not make its own for every body: a fifth faster and a quarter smaller.
"""

from __future__ import annotations

import base64
from typing import Final

_ENDS = (
    # Rare first, frequent last: a match close to the end is cheapest to refer to.
    '{"candidates":[{"content":{"parts":[{"text":"","thought":true,"thoughtSignature":""}],"role":"model"},'
    '"finishReason":"STOP","index":0,"avgLogprobs":-0.0,"safetyRatings":[{"category":"HARM_CATEGORY_","probability":'
    '"NEGLIGIBLE"}],"citationMetadata":{"citationSources":[]}}],"promptFeedback":{},'
    '"usageMetadata":{"promptTokenCount":'
    '1,"candidatesTokenCount":1,"totalTokenCount":1,"promptTokensDetails":[{"modality":"TEXT","tokenCount":1}],'
    '"candidatesTokensDetails":[{"modality":"TEXT","tokenCount":1}],"thoughtsTokenCount":1,"cachedContentTokenCount":1,'
    '"toolUsePromptTokenCount":1},"modelVersion":"gemini-2.5-flash","responseId":"","createTime":"2026-"}\r\n\r\n'
    '{"contents":[{"role":"user","parts":[{"text":""},{"functionCall":{"name":"","args":{}}},{"functionResponse":'
    '{"name":"","response":{}}},{"inlineData":{"mimeType":"image/png","data":""}}]}],"systemInstruction":{"parts":'
    '[{"text":"You are a helpful assistant."}],"role":"user"},"tools":[{"functionDeclarations":[{"name":"",'
    '"description":"","parameters":{"type":"OBJECT","properties":{}}}]}],"toolConfig":{"functionCallingConfig":'
    '{"mode":"AUTO"}},"generationConfig":{"temperature":1,"topP":0.95,"maxOutputTokens":1024,"responseMimeType":'
    '"application/json","responseSchema":{},"thinkingConfig":{"includeThoughts":true,"thinkingBudget":1024}}}'
    '{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0,-0.0]}],'
    '"model":"text-embedding-3-small",'
    '"usage":{"prompt_tokens":1,"total_tokens":1}}{"id":"modr-","model":"omni-moderation-latest","results":[{"flagged":'
    'false,"categories":{"harassment":false,"hate":false,"self-harm":false,"sexual":false,"violence":false},'
    '"category_scores":{}}]}{"created":1,"data":[{"b64_json":"","url":"https://","revised_prompt":""}]}'
    '{"error":{"message":"","type":"invalid_request_error","param":null,"code":null}}'
    '{"type":"error","error":{"type":"invalid_request_error","message":""},"request_id":"req_"}'
    '{"error":{"code":400,"message":"","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/"}]}}'
    # Messages.
    'event: message_start\ndata: {"type":"message_start","message":{"model":"claude-sonnet-4-5","id":"msg_01","type":'
    '"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,'
    '"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,'
    '"ephemeral_1h_input_tokens":0},"output_tokens":1,"service_tier":"standard","inference_geo":"not_available"}}}\n\n'
    'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":'
    '""}}\n\nevent: ping\ndata: {"type": "ping"}\n\nevent: content_block_start\ndata: {"type":"content_block_start",'
    '"index":1,"content_block":{"type":"tool_use","id":"toolu_01","name":"",'
    '"input":{}}}\n\nevent: content_block_delta\n'
    'data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}\n\n'
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta",'
    '"thinking":""}}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":'
    '"signature_delta","signature":""}}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    '"delta":{"type":"text_delta","text":""}}\n\nevent: content_block_stop\ndata: {"type":"content_block_stop","index":'
    '0}\n\nevent: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    '"usage":{"output_tokens":1}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
    '{"model":"claude-sonnet-4-5-20250929","id":"msg_01","type":"message","role":"assistant","content":[{"type":"text",'
    '"text":""},{"type":"tool_use","id":"toolu_01","name":"","input":{}}],"stop_reason":"end_turn",'
    '"stop_sequence":null,'
    '"usage":{"input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}'
    '{"model":"claude-sonnet-4-5","max_tokens":1024,"system":[{"type":"text","text":"","cache_control":{"type":'
    '"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":""},{"type":"tool_result",'
    '"tool_use_id":'
    '"toolu_01","content":"","is_error":false},{"type":"image","source":{"type":"base64","media_type":"image/png",'
    '"data":""}}]}],"tools":[{"name":"","description":"","input_schema":{"type":"object","properties":{},'
    '"required":[]}}'
    '],"tool_choice":{"type":"auto"},"thinking":{"type":"enabled","budget_tokens":1024},"metadata":{"user_id":""}}'
    # Responses.
    'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"resp_","object":'
    '"response","created_at":1,"status":"in_progress","background":false,"error":null,"incomplete_details":null,'
    '"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":"gpt-4o-mini","output":[],'
    '"parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,'
    '"reasoning":{"effort":null,"summary":'
    'null},"safety_identifier":null,"service_tier":"default","store":true,"temperature":1.0,"text":{"format":{"type":'
    '"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,'
    '"truncation":"disabled",'
    '"usage":{"input_tokens":1,"input_tokens_details":{"cached_tokens":0},"output_tokens":1,"output_tokens_details":'
    '{"reasoning_tokens":0},"total_tokens":1},"user":null,"metadata":{}}}\n\nevent: response.output_item.added\ndata: '
    '{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"id":"msg_","type":"message",'
    '"status":"in_progress","content":[],"role":"assistant"}}\n\nevent: response.content_part.added\ndata: {"type":'
    '"response.content_part.added","sequence_number":2,"item_id":"msg_","output_index":0,"content_index":0,"part":'
    '{"type":"output_text","annotations":[],"logprobs":[],"text":""}}\n\nevent: response.output_text.delta\ndata: '
    '{"type":"response.output_text.delta","sequence_number":3,"item_id":"msg_","output_index":0,"content_index":0,'
    '"delta":"","logprobs":[],"obfuscation":""}\n\nevent: response.function_call_arguments.delta\ndata: {"type":'
    '"response.function_call_arguments.delta","item_id":"fc_","output_index":0,"delta":""}\n\n'
    'event: response.completed\ndata: {"type":"response.completed","sequence_number":9,'
    '"response":{"id":"resp_","object":'
    '"response","status":"completed","output":[{"id":"rs_","type":"reasoning","summary":[]},{"id":"msg_","type":'
    '"message","status":"completed","content":[{"type":"output_text","annotations":[],"logprobs":[],"text":""}],"role":'
    '"assistant"},{"id":"fc_","type":"function_call","status":"completed","arguments":"{}","call_id":"call_",'
    '"name":""}]'
    '{"model":"gpt-4o-mini","instructions":"You are a helpful assistant.","input":[{"role":"user","content":[{"type":'
    '"input_text","text":""}]}],"stream":true,"store":false,"include":["reasoning.encrypted_content"]}'
    # Chat completions: by far the most frequent.
    '{"model":"openai/gpt-4o-mini","messages":[{"role":"system","content":"You are a helpful assistant."},'
    '{"role":"user",'
    '"content":"What is the "},{"role":"user","content":[{"type":"text","text":""},{"type":"image_url",'
    '"image_url":{"url":'
    '"data:image/png;base64,"}}]},{"role":"assistant","content":null,"tool_calls":[{"id":"call_","type":"function",'
    '"function":{"name":"","arguments":"{}"}}]},{"role":"tool","tool_call_id":"call_","content":""}],"tools":[{"type":'
    '"function","function":{"name":"","description":"","parameters":{"type":"object","properties":{"":{"type":"string",'
    '"description":""}},"required":[],"additionalProperties":false},"strict":true}}],"tool_choice":"auto",'
    '"response_format":{"type":"json_schema","json_schema":{"name":"","schema":{},"strict":true}},"temperature":0.7,'
    '"top_p":1,"n":1,"max_tokens":256,"max_completion_tokens":1024,"presence_penalty":0,"frequency_penalty":0,"seed":1,'
    '"stop":null,"user":"","reasoning_effort":"low","stream":true,"stream_options":{"include_usage":true}}'
    "application/json text/event-stream; charset=utf-8 "
    'data: {"id":"chatcmpl-","object":"chat.completion.chunk","created":17,"model":"gpt-4o-mini-2024-07-18",'
    '"service_tier":"default","system_fingerprint":"fp_","choices":[{"index":0,"delta":{"role":"assistant",'
    '"content":"",'
    '"refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":""}\n\n'
    'data: {"id":"chatcmpl-","object":"chat.completion.chunk","created":17,"model":"gpt-4o-mini","choices":[{"index":0,'
    '"delta":{"tool_calls":[{"index":0,"id":"call_","type":"function","function":{"name":"","arguments":""}}]},'
    '"finish_reason":null}]}\n\ndata: {"id":"chatcmpl-","object":"chat.completion.chunk","created":17,"model":'
    '"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" the"},"finish_reason":null}]}\n\n'
    'data: {"id":"chatcmpl-","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\ndata: [DONE]\n\n'
    '{\n  "id": "chatcmpl-",\n  "object": "chat.completion",\n  "created": 17,\n  "model": "gpt-4o-mini-2024-07-18",\n'
    '  "choices": [\n    {\n      "index": 0,\n      "message": {\n        "role": "assistant",'
    '\n        "content": "",\n'
    '        "refusal": null,\n        "annotations": []\n      },\n      "logprobs": null,'
    '\n      "finish_reason": "stop"'
    '\n    }\n  ],\n  "usage": {\n    "prompt_tokens": 1,\n    "completion_tokens": 1,\n    "total_tokens": 2,\n    '
    '"prompt_tokens_details": {\n      "cached_tokens": 0,\n      "audio_tokens": 0\n    },\n    '
    '"completion_tokens_details": {\n      "reasoning_tokens": 0,\n      "audio_tokens": 0,\n      '
    '"accepted_prediction_tokens": 0,\n      "rejected_prediction_tokens": 0\n    }\n  },'
    '\n  "service_tier": "default",\n'
    '  "system_fingerprint": "fp_"\n}\n'
    '{"id":"chatcmpl-","object":"chat.completion","created":17,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"","reasoning_content":"","tool_calls":[{"id":"call_","type":"function",'
    '"function":{"name":"","arguments":"{\\"\\":\\"\\"}"}}],"refusal":null,"annotations":[]},"logprobs":null,'
    '"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,'
    '"prompt_tokens_details":'
    '{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default",'
    '"system_fingerprint":"fp_"}'
)

DICTIONARY_1: Final = _ENDS.encode()
"""The first dictionary: protocol skeletons of the chat, responses, messages, Gemini and small surfaces."""

DICTIONARY_2: Final = (
    base64.b64decode(
        "N6Qw7AIAAABFEJBjm3QADAAMAIxCEEAQQBBAsA7Pj1Qak0b2NtrdhtVLLJFELlvUp+TR2dm5U6eMkkLDR0NrN1sCCz/FdgUhPxLr4NgUEwEgFB"
        "iMBsRiGcU+PQAE4ACVHB6TjQdGwqEgSAaGwaAwIAAAgIIAIAAQAAICACAYFAiAKEyFDwAA1I7Ik5lMHgyjGARBDIRBSjnIlJEAAAABAAAABAAA"
        "AAgAAAA="
    )
    + DICTIONARY_1
)
"""The second: the tables, made by ``tools/dictionary_tables.py`` and never again under this number, and the first."""
