"""Each kind of price an operator may set, from the line in the file through a relayed call to the lines of its record.

And each worth a cost may have (``cost_state``), reached as a client reaches it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, answer, chat_answer, chat_frames, chunked

PRICES = """
providers:
  near: {prices: local, region: eu}
prices:
  - {name: base, provider: local, model: plain, rates: {input_tokens: 2, output_tokens: 10}}
  - name: steps
    provider: local
    model: steps
    rates: {input_tokens: {price: 8, graduated: {100: 4, 200: 2}}, output_tokens: {price: 10, above: {200: 20}}}
  - name: tools
    provider: local
    model: tools
    rates: {input_tokens: 1, output_tokens: 1, web_searches: {price: 10, per: 1000, included: 2}}
  - name: night
    provider: local
    model: clock
    rates: {input_tokens: 4, output_tokens: 4}
    windows:
      - {from: "00:00", to: "12:00", times: 0.5}
  - {name: old, provider: local, model: dated, to: 2020-01-01, rates: {input_tokens: 90, output_tokens: 90}}
  - {name: now, provider: local, model: dated, from: 2020-01-01, rates: {input_tokens: 1, output_tokens: 1}}
  - {name: later, provider: local, model: dated, from: 2100-01-01, rates: {input_tokens: 70, output_tokens: 70}}
  - {name: here, provider: local, model: placed, rates: {input_tokens: 1, output_tokens: 1}}
  - {name: there, provider: local, model: placed, region: eu, rates: {input_tokens: 3, output_tokens: 3}}
  - {name: everybody, provider: local, model: shared, rates: {input_tokens: 5, output_tokens: 5}}
  - {name: friends, provider: local, model: shared, team: friends, rates: {input_tokens: 1, output_tokens: 1}}
  - {name: tiered, provider: local, model: tiered, rates: {input_tokens: 4, output_tokens: 4}}
  - {name: flexed, provider: local, model: tiered, tier: flex, rates: {input_tokens: 2, output_tokens: 2}}
  - {name: gift, provider: local, model: gift, free: true}
  - {name: fixed, provider: local, model: fixed, only: true, rates: {requests: 0.003}}
  - {name: picture, provider: local, model: picture, rates: {images: 0.01, images.hd: 0.05, images.hd.1024x1792: 0.08}}
  - {name: ear, provider: local, model: ear, rates: {input_audio_seconds: 0.0001}}
  - {name: minutes, provider: local, model: minutes, rates: {input_audio_minutes: {price: 0.006}}}
  - {name: voice, provider: local, model: voice, rates: {characters: {price: 15, per: 1M}}}
  - {name: vectors, provider: local, model: vectors, rates: {input_tokens: 0.02}}
  - {name: half, provider: local, model: half, rates: {input_tokens: 2}}
  - {name: cut, provider: local, model: cut, rates: {input_tokens: 2, output_tokens: 10}}
  - {name: marked, provider: local, model: marked, rates: {input_tokens: 2, output_tokens: 10}}
adjust:
  - {name: resale, provider: local, model: resold, percent: 5}
  - {name: contract, provider: local, model: cut, percent: -10}
  - {name: margin, provider: local, model: marked, percent: 5, meters: [output_tokens]}
fees:
  - {name: desk, provider: local, model: marked, request: 0.0001}
"""
CHAT, IMAGES, HEAR = "/v1/chat/completions", "/v1/images/generations", "/v1/audio/transcriptions"
USED = chat_answer(prompt=1000, completion=100)


class Case(NamedTuple):
    """A call, what the provider answers, and what must stand in its record: (meter, quantity, nanos), and the state."""

    model: str
    lines: list[tuple[str, int, int]]
    state: str = "exact"
    says: dict[str, Any] = USED
    path: str = CHAT
    asks: dict[str, Any] | None = None
    rules: tuple[str, ...] = ()
    team: str = "acme"


def used(**fields: Any) -> dict[str, Any]:
    """Give an answer with more in its usage; a field without underscores in it is one of the answer itself."""
    usage = USED["usage"] | {name: value for name, value in fields.items() if "_" in name}
    return USED | {name: value for name, value in fields.items() if "_" not in name} | {"usage": usage}


ONE = [("input_tokens", 1000, 1_000_000), ("output_tokens", 100, 100_000)]
PLAIN = [("input_tokens", 1000, 2_000_000), ("output_tokens", 100, 1_000_000)]
CASES = {
    "tokens": Case("plain", PLAIN, rules=("own/base:input_tokens", "own/base:output_tokens")),
    "graduated steps, and a threshold that reprices the whole": Case(
        "steps",
        [
            ("input_tokens", 100, 800_000),
            ("input_tokens", 100, 400_000),
            ("input_tokens", 800, 1_600_000),
            ("output_tokens", 100, 2_000_000),
        ],
        rules=("own/steps:input_tokens", "own/steps:input_tokens>100", "own/steps:input_tokens>200"),
    ),
    "included units": Case(
        "tools",
        [*ONE, ("web_searches", 2, 0), ("web_searches", 3, 30_000_000)],
        says=used(server_tool_use={"web_search_requests": 5}),
    ),
    "a price of today, between one of yesterday and one of tomorrow": Case(
        "dated", ONE, rules=("own/now:input_tokens",)
    ),
    "elsewhere": Case("placed", ONE),
    "a region": Case(
        "near/placed",
        [("input_tokens", 1000, 3_000_000), ("output_tokens", 100, 300_000)],
        rules=("own/there:input_tokens",),
    ),
    "everybody's price": Case("shared", [("input_tokens", 1000, 5_000_000), ("output_tokens", 100, 500_000)]),
    "a team's price": Case("shared", ONE, team="friends"),
    "a service tier as it was served": Case(
        "tiered",
        [("input_tokens", 1000, 2_000_000), ("output_tokens", 100, 200_000)],
        says=used() | {"service_tier": "flex"},
    ),
    "a service tier that was asked for and not served": Case(
        "tiered",
        [("input_tokens", 1000, 4_000_000), ("output_tokens", 100, 400_000)],
        says=used() | {"service_tier": "default"},
        asks={"service_tier": "flex"},
    ),
    "a service tier without a price": Case(
        "tiered",
        [("input_tokens", 1000, 4_000_000), ("output_tokens", 100, 400_000)],
        "estimated",
        says=used() | {"service_tier": "priority"},
    ),
    "a free model": Case("gift", [("input_tokens", 1000, 0), ("output_tokens", 100, 0)], "free"),
    "a fixed price a request": Case("fixed", [("requests", 1, 3_000_000)]),
    "images by quality and size": Case(
        "picture",
        [("images.hd.1024x1792", 2, 160_000_000)],
        says={"created": 1, "data": [{"b64_json": "AA=="}, {"b64_json": "AA=="}]},
        path=IMAGES,
        asks={"prompt": "a hat", "n": 2, "quality": "hd", "size": "1024x1792"},
    ),
    "images of a size without a price of its own": Case(
        "picture",
        [("images.hd.512x512", 1, 50_000_000)],
        says={"created": 1, "data": [{"b64_json": "AA=="}]},
        path=IMAGES,
        asks={"prompt": "a hat", "quality": "hd", "size": "512x512"},
    ),
    "seconds of sound": Case(
        "ear", [("input_audio_ms", 7300, 730_000)], says={"text": "hm", "duration": 7.3}, path=HEAR
    ),
    "minutes of sound": Case(
        "minutes",
        [("input_audio_ms", 90_000, 9_000_000)],
        says={"text": "hm", "usage": {"type": "duration", "seconds": 90}},
        path=HEAR,
    ),
    "characters spoken": Case(
        "voice",
        [("characters", 1000, 15_000_000)],
        "estimated",  # the provider reports nothing; the text was asked for
        path="/v1/audio/speech",
        asks={"input": "x" * 1000, "voice": "v"},
    ),
    "embeddings": Case(
        "vectors",
        [("input_tokens", 5000, 100_000)],
        says={"data": [], "model": "v", "usage": {"prompt_tokens": 5000, "total_tokens": 5000}},
        path="/v1/embeddings",
        asks={"input": "x"},
    ),
    "a discount": Case(
        "cut",
        [("input_tokens", 1000, 1_800_000), ("output_tokens", 100, 900_000)],
        rules=("own/cut:input_tokens*own/contract",),
    ),
    "a mark-up on one meter, and a fee": Case(
        "marked",
        [("input_tokens", 1000, 2_000_000), ("output_tokens", 100, 1_050_000), ("request_fee", 1, 100_000)],
        rules=("own/marked:input_tokens", "own/marked:output_tokens*own/margin", "own/desk:request_fee"),
    ),
    "a fallback": Case(
        "plain",
        [("input_tokens", 600, 1_200_000), ("cache_read_tokens", 400, 800_000), PLAIN[1]],
        "estimated",
        says=used(prompt_tokens_details={"cached_tokens": 400}),
    ),
    "details that contradict their total": Case(
        "plain", [("cache_read_tokens", 1000, 2_000_000), PLAIN[1]], "estimated",
        says=used(prompt_tokens_details={"cached_tokens": 4000}),
    ),
    "a tool without a price": Case(
        "plain", [*PLAIN, ("web_searches", 3, 0)], "partial", says=used(server_tool_use={"web_search_requests": 3})
    ),
    "a side without a price": Case("half", [PLAIN[0], ("output_tokens", 100, 0)], "partial"),
    "a model without a price": Case("nameless", [("input_tokens", 1000, 0), ("output_tokens", 100, 0)], "unknown"),
    "a model without a price, at the provider's word": Case(
        "nameless", [("provider_cost", 4_200_001, 4_200_001)], says=used(estimated_cost=0.004200001),
        rules=("local:provider_cost",),
    ),
    "the provider's word with a mark-up": Case(
        "resold", [("provider_cost", 4_200_001, 4_410_001)], says=used(estimated_cost=0.004200001),
        rules=("local:provider_cost*own/resale",),
    ),
    "the provider's word that it cost nothing": Case("nameless", [], "free", says=used(estimated_cost=0)),
    "the provider's word beside a price": Case("plain", PLAIN, says=used(estimated_cost=0.9)),
    "no usage": Case("plain", [], "unknown", says={name: value for name, value in USED.items() if name != "usage"}),
    "nothing consumed": Case("plain", [], "free", says=chat_answer("", prompt=0, completion=0)),
}  # fmt: skip


class Place:
    """A gateway with prices, and the provider behind it, which answers as a test wants."""

    def __init__(self, gateway: Gateway, upstream: ScriptedUpstream) -> None:
        self.gateway, self.upstream = gateway, upstream

    def record(self, case: Case) -> dict[str, Any]:
        """Give the record of a case's call."""
        speaks = case.path == "/v1/audio/speech"
        self.upstream.script = answer(b"RIFF", content_type="audio/wav") if speaks else answer(case.says)
        body = {"model": case.model if "/" in case.model else f"local/{case.model}", **(case.asks or {})}
        if case.path == CHAT:
            body["messages"] = [{"role": "user", "content": "hello"}]
        return self.send(body, case.path, case.team)

    def send(self, body: dict[str, Any], path: str = CHAT, team: str = "acme") -> dict[str, Any]:
        """Give the record of one call."""
        key, sent, headers = self.gateway.key(team), body, {}
        if path == HEAR:
            sent, headers = form(body), {"Content-Type": "multipart/form-data; boundary=b"}
        got = self.gateway.request("POST", path, sent, key=key, headers=headers)
        record = self.gateway.record(got.headers["x-request-id"], key)
        if "x-cost-nanos" in got.headers:  # not in the head of a stream, which left before the cost was known
            told = int(got.headers["x-cost-nanos"]), got.headers["x-cost-state"]
            assert told == (record["cost_nanos"], record["cost_state"])
        return record


def form(fields: dict[str, Any]) -> bytes:
    """Give a form with a file."""
    parts = [
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    parts.append('--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n')
    return "".join(parts).encode()


@pytest.fixture(scope="module")
def place(start_gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give both."""
    prices = tmp_path_factory.mktemp("prices") / "prices.yaml"
    prices.write_text(PRICES)
    with ScriptedUpstream() as upstream:
        one = {"base_url": upstream.base_url, "api_key": "none"}
        types = {"local": "openai", "near": "openai", "openai": "openai", "anthropic": "anthropic"}
        providers = {name: {"type": family, **one} for name, family in types.items()}
        started = start_gateway({"providers": providers, "prices_file": str(prices)})
        yield Place(started, upstream)
        assert started.command("ledger", "verify").stdout.startswith("Intact")
        started.stop()


def lines_of(record: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Give a record's lines in short; they add up to its cost."""
    lines = record["pricing_lines"]
    assert record["cost_nanos"] == sum(line["amount_nanos"] for line in lines)
    return [(line["meter"], line["quantity"], line["amount_nanos"]) for line in lines]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_price_reaches_the_record(case: Case, place: Place) -> None:
    """The lines, their rules and what the sum is worth are those of the file; the calculator says the same."""
    record = place.record(case)
    assert lines_of(record) == case.lines
    assert record["cost_state"] == case.state
    assert [line["rule_id"] for line in record["pricing_lines"]][: len(case.rules)] == list(case.rules)
    reported = any(line["state"] == "provider_reported" for line in record["pricing_lines"])
    assert reported == any(meter == "provider_cost" for meter, _, _ in case.lines)
    provider, _, model = record["model_id"].partition("/")
    asked = {"provider": provider, "model": model, "usage": record["usage"], "at": record["created_at"]}
    asked |= {name: record[name] for name in ("service_tier", "provider_cost_nanos") if record[name] is not None}
    got = place.gateway.request("POST", "/v1/pricing/calculate", asked, key=place.gateway.key(case.team)).json()
    if case.state != "unknown":
        assert got["pricing_lines"] == record["pricing_lines"]
        assert (got["cost_nanos"], got["cost_state"]) == (record["cost_nanos"], record["cost_state"])


def test_a_person_is_told_every_rule_on_a_line_of_its_own(place: Place) -> None:
    """Under the lines stand the rules that made them, and why a line is not simply priced."""
    record = place.record(CASES["a mark-up on one meter, and a fee"])
    shown = place.gateway.command("generations", "show", record["request_id"]).stdout
    told = [line.strip(" │") for line in shown.splitlines()]
    for rule in ("own/marked", "own/marked*own/margin", "own/desk"):
        assert f"{rule} in book {record['book'][:12]}" in told


def test_a_window_of_the_day(place: Place) -> None:
    """Before noon (UTC) the rates are halved; the moment is that of the record."""
    record = place.record(Case("clock", []))
    morning = int(record["created_at"][11:13]) < 12
    rate = 2000 if morning else 4000
    assert lines_of(record) == [("input_tokens", 1000, 1000 * rate), ("output_tokens", 100, 100 * rate)]


def test_a_region_as_it_was_served(place: Place) -> None:
    """Where the provider says that it served a call in a dearer region, that region's price applies."""
    said = {"id": "m", "type": "message", "model": "claude-opus-4-8", "stop_reason": "end_turn"}
    said |= {"content": [{"type": "text", "text": "Hello."}]}
    costs: list[int] = []
    for geography in ("global", "us"):
        usage = {"input_tokens": 1000, "output_tokens": 100, "inference_geo": geography}
        place.upstream.script = answer({**said, "usage": usage})
        asked = {"model": "anthropic/claude-opus-4-8", "max_tokens": 9, "messages": []}
        costs.append(place.send(asked, "/v1/messages")["cost_nanos"])
    assert costs[1] * 10 == costs[0] * 11


def test_an_empty_answer_is_not_charged_where_a_rule_says_so(start_gateway: Any, tmp_path: Path) -> None:
    """The cost is suppressed: zero, with what was forgone, in the record and in every sum."""
    (tmp_path / "prices.yaml").write_text(PRICES + "suppress: {empty_answers: true}\n")
    with ScriptedUpstream() as upstream:
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none"}
        gateway = start_gateway({"providers": {"local": one}, "prices_file": str(tmp_path / "prices.yaml")})
        place = Place(gateway, upstream)
        record = place.record(Case("plain", [], says=chat_answer("", prompt=1000, completion=0)))
        assert (record["cost_nanos"], record["cost_state"], record["pricing_lines"]) == (0, "suppressed", [])
        assert record["cost_reason"] == "the answer has no output; 2000000 nanos were not charged"
        assert place.record(Case("plain", []))["cost_nanos"] == 3_000_000
        summary = gateway.request("GET", "/v1/generations/summary", key=gateway.key()).json()
        assert (summary["cost_nanos"], summary["by_cost_state"]) == (3_000_000, {"suppressed": 1, "exact": 1})
        assert gateway.command("ledger", "verify").stdout.startswith("Intact")
        gateway.stop()


SAID = {
    "OpenRouter": {"cost": 0.0031},
    "OpenRouter, with a key of one's own": {
        "cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.003},
    },
    "xAI": {"cost_in_usd_ticks": 31_000_000},
    "Perplexity": {"cost": {"total_cost": 0.0031, "currency": "USD"}},
    "DeepInfra": {"estimated_cost": 0.0031},
}  # fmt: skip


def test_what_providers_say_stands_beside_ours(place: Place) -> None:
    """In each provider's own words: kept in the record, with the drift in sums and for people; ours stays the cost."""
    key = place.gateway.key("doubters")
    for words in SAID.values():
        record = place.record(Case("plain", [], says=USED | {"usage": USED["usage"] | words}, team="doubters"))
        assert (lines_of(record), record["provider_cost_nanos"]) == (PLAIN, 3_100_000)
    shown = place.gateway.command("generations", "show", record["request_id"]).stdout
    assert "the provider says $0.0031 (drift $0.0001)" in shown
    count = len(SAID)
    assert place.gateway.request("GET", "/v1/generations/summary", key=key).json()["provider_reported"] == {
        "records": count,
        "cost_nanos": count * 3_000_000,
        "provider_cost_nanos": count * 3_100_000,
        "drift_nanos": count * 100_000,
        "incomparable": 0,
    }


SEARCHED = {
    "a preview model that does not reason": ("gpt-4o-search-preview", "web_searches.preview", 25_000_000),
    "the small one": ("gpt-4o-mini-search-preview", "web_searches.preview", 25_000_000),
    "the later model": ("gpt-5-search-api", "web_searches", 10_000_000),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("model", "meter", "nanos"), SEARCHED.values(), ids=SEARCHED)
def test_a_search_that_the_usage_does_not_count(model: str, meter: str, nanos: int, stream: bool, place: Place) -> None:
    """A search model searched at least once: that is charged, and the cost says that there may have been more."""
    frames = [frame.replace(b'"gpt-4o-mini"', json.dumps(model).encode()) for frame in chat_frames("Hello.")]
    place.upstream.script = chunked(*frames) if stream else answer(chat_answer(model=model))
    record = place.send({"model": f"openai/{model}", "messages": [], "stream": stream})
    assert lines_of(record)[-1] == (meter, 1, nanos)
    assert (record["usage"]["source"], record["usage"]["estimated"]) == ("partial", [meter])
    assert record["cost_state"] == "partial"
    assert f"the provider does not report {meter}" in record["cost_reason"]


def test_an_answer_that_cites_the_web(place: Place) -> None:
    """Whatever the model, somebody searched; without a price for it the meter is named."""
    cited = chat_answer()
    cited["choices"][0]["message"]["annotations"] = [
        {"type": "url_citation", "url_citation": {"url": "https://a.test"}}
    ]
    place.upstream.script = answer(cited)
    record = place.send({"model": "local/plain", "messages": []}, team="readers")
    assert lines_of(record)[-1] == ("web_searches", 1, 0)
    assert record["cost_state"] == "partial"
    key = place.gateway.key("readers")
    summary = place.gateway.request("GET", "/v1/generations/summary", key=key).json()
    assert (summary["partial_cost"], summary["unpriced_meters"]) == (1, {"web_searches": 1})


def test_a_refused_search_costs_nothing(place: Place) -> None:
    """A search model that refuses a request has searched for nothing."""
    place.upstream.script = answer({"error": {"message": "no", "type": "invalid_request_error"}}, 400)
    record = place.send({"model": "openai/gpt-4o-search-preview", "messages": []})
    assert (record["usage"]["source"], record["cost_nanos"], record["pricing_lines"]) == ("absent", 0, [])


def test_a_meter_that_is_only_named_is_counted_in_sums(place: Place) -> None:
    """A sum names the meter of which too little is known, not only that something is missing."""
    model = "gpt-4o-search-preview"
    place.upstream.script = answer(chat_answer(model=model))
    place.send({"model": f"openai/{model}", "messages": []}, team="searchers")
    key = place.gateway.key("searchers")
    expected = {"web_searches.preview": 1}
    assert place.gateway.request("GET", "/v1/generations/summary", key=key).json()["unpriced_meters"] == expected
    page = place.gateway.request("GET", "/v1/generations/search", key=key).json()["sums"]
    assert (page["coverage"]["partial_cost"], page["coverage"]["unpriced_meters"]) == (1, expected)
    manifest = json.loads(place.gateway.command("generations", "export", "--team", "searchers").stdout.splitlines()[-1])
    assert manifest["manifest"]["coverage"]["unpriced_meters"] == expected
    assert "web_searches.preview (1)" in place.gateway.command("generations", "list", "--team", "searchers").stdout
