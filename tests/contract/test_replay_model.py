"""The walk of docs/replay.md on a real model."""

from __future__ import annotations

from emulators import inprocess

SEEDED = {
    "model": "local/smollm2",
    "messages": [{"role": "user", "content": "Name three colours."}],
    "seed": 7,
    "temperature": 0.2,
    "max_tokens": 24,
    "cache_prompt": False,
}


def test_equal_input_gives_equal_output(model_server, tmp_path):
    """With a seed a rerun differs in nothing it says; at another temperature it says something else."""
    provider = {"type": "openai", "base_url": f"{model_server}/v1", "api_key": "none"}
    with inprocess.running(tmp_path, {"providers": {"local": provider}}) as gateway:
        key = gateway.key()
        first = gateway.request("POST", "/v1/chat/completions", SEEDED, key=key)
        assert first.status == 200, first.body
        path = f"/v1/generations/{first.headers['x-request-id']}/replay"
        [same] = gateway.request("POST", path, {}, key=key).json()["runs"]
        assert same["difference"]["equal"], same["difference"]["text"]
        assert same["difference"]["text"]["similarity"] == 1.0
        [warm] = gateway.request("POST", path, {"patch": {"temperature": 1.8, "seed": 8}}, key=key).json()["runs"]
        assert not warm["difference"]["text"]["equal"]
        assert warm["difference"]["cost_nanos"]["a"] is None  # nobody prices this model: unknown, not 0
