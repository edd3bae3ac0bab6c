"""A record as a person would like to read it: who, when, what, how long, how many tokens, what it cost and why.

Takes the record as ``GET /v1/generations`` gives it, so that a local folder and a remote gateway look the same.
Nothing from outside is read as markup or sent to the terminal as control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from counterfoil.cli import sheet
from counterfoil.record import words
from counterfoil.record.money import dollars

_DETAILS: Final = {
    "cached_tokens": "cached",
    "cache_write_tokens": "written to cache",
    "reasoning_tokens": "reasoning",
    "audio_tokens": "audio",
    "image_tokens": "image",
    "video_tokens": "video",
    "tool_tokens": "tool prompt",
}
_SOURCES: Final = {
    "reported": "reported by the provider",
    "estimated": "estimated",
    "partial": "known in part",
    "absent": "not reported by the provider",
}
WIDTH_MAX: Final = 1000
"""Wider than any row of a list."""
_STYLES: Final = {True: "green", False: "red"}
_REASONS: Final = {
    "not_captured": "the request was not captured",
    "policy": "the capture policy keeps no bodies",
    "too_large": "the request was too large to keep",
    "interrupted": "the gateway stopped before the request was kept",
    "expired": "the captured request is past its retention",
    "erased": "the captured request was erased",
    "not_an_object": "the request body is not a JSON object",
    "unreadable": "the captured request cannot be read",
    "forbidden": "this key may not read bodies",
}


def record(value: dict[str, Any]) -> RenderableType:
    """One record on one screen."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in _rows(value):
        grid.add_row(label, text)
    parts: list[RenderableType] = [grid]
    if value["pricing_lines"]:
        parts += [Text(), lines(value["pricing_lines"])]
    if len(value["attempts"]) > 1 or (value["attempts"] and not value["success"]):
        parts += [Text(), attempts(value["attempts"])]
    title = Text(words.printable(value["request_id"]), style="bold")
    return Panel(
        Group(*parts), title=title, title_align="left", expand=False, border_style=_STYLES[bool(value["success"])]
    )


class Listing:
    """Many records in the order given: a row each where that fits the terminal, else two short lines each."""

    def __init__(self, values: Iterable[dict[str, Any]]) -> None:
        self._values = list(values)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = _wide(self._values)
        fits = Measurement.get(console, options.update(width=WIDTH_MAX), wide).maximum <= options.max_width
        yield wide if fits else _narrow(self._values)


def _narrow(values: Iterable[dict[str, Any]]) -> Table:
    """For 80 columns: what must be whole stays whole, an id above all, since it is there to be copied."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    table.add_column(justify="right", no_wrap=True)
    for value in values:
        when, request_id, said, model, app, *tokens, took, cost = _cells(value)
        named = model if value["app_id"] is None else Text(" · ").join([model, app])
        used = "" if tokens[0].plain == "–" else f"{tokens[0]} in, {tokens[1]} out, "
        table.add_row(
            Text("\n").join([request_id, when]), Text("\n").join([said, named]), Text(f"{cost}\n{used}{took}")
        )
    return table


def _wide(values: Iterable[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, style in (("when (UTC)", "dim"), ("id", ""), ("status", ""), ("model", ""), ("app", "dim")):
        table.add_column(heading, style=style, no_wrap=heading in ("when (UTC)", "id", "status"), overflow="fold")
    for heading in ("in", "out", "time", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for value in values:
        table.add_row(*_cells(value))
    return table


def lines(values: Iterable[dict[str, Any]]) -> Table:
    """The pricing lines; under them, once each, the rules and the book they were made by and what is not plain."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Cost, line by line", title_justify="left")
    table.add_column("meter", no_wrap=True)
    for heading in ("quantity", "price", "amount"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    rules: dict[str, None] = {}
    for line in values:
        unpriced = line["state"] == "unpriced"
        price = f"{dollars(line['unit_price_nanos'])} / {line['unit_size']:,}"
        table.add_row(
            _text(line["meter"]),
            f"{line['quantity']:,}",
            "unknown" if unpriced else price,
            "unknown" if unpriced else dollars(line["amount_nanos"]),
            _text(line["state"], "yellow" if line["state"] != "priced" else ""),
        )
        if line["rule_id"]:
            rules[f"{_rule(line['rule_id'])} in book {line['book'][:12]}"] = None
        if line.get("reason"):
            rules[f"{line['state']}: {line['reason']}"] = None
    table.caption = Text("\n").join(_text(rule, "dim") for rule in rules)
    table.caption_justify = "left"
    return table


def _rule(rule_id: str) -> str:
    """A rule without the meter in it, which stands in the line already; with the adjustments behind it."""
    stem, _, rest = rule_id.rpartition(":")
    return stem + "".join(rest.partition("*")[1:]) if stem else rule_id


def attempts(values: Iterable[dict[str, Any]]) -> Table:
    """Every try at a provider."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Attempts", title_justify="left")
    table.add_column("#", justify="right")
    for heading in ("provider", "model", "key", "status", "time", "what happened"):
        table.add_column(heading, overflow="fold")
    for one in values:
        happened = ": ".join(part for part in (one["error_code"], one["error_message"]) if part) or "answered"
        table.add_row(
            str(one["number"]),
            _text(one["provider"]),
            _text(one["model"]),
            _text(one["key_source"]),
            "–" if one["status_code"] is None else str(one["status_code"]),
            words.duration(one["generation_ms"]),
            _text(happened, _STYLES[one["error_code"] is None]),
        )
    return table


def _rows(value: dict[str, Any]) -> Iterator[tuple[str, Text]]:
    yield "Outcome", _outcome(value)
    yield "Who", _who(value)
    yield "When", _text(value["created_at"].replace("T", " ").replace("Z", " UTC"))
    yield "What", _what(value)
    yield "How long", _how_long(value)
    yield "Usage", _text(usage(value["usage"]))
    yield "Cost", _cost(value)
    if "byok_fee" in value:
        yield "Operator's fee", _fee(value["byok_fee"])
    yield "Kept", _kept(value["capture"])
    yield "Replay", _replay(value)
    if "chain" in value:
        chain = value["chain"]
        yield "Chain", _text(f"{chain['writer']} #{chain['sequence']} · {chain['digest'][:16]}…", "dim")


def _outcome(value: dict[str, Any]) -> Text:
    said = _text(f"{value['status_code']} {'answered' if value['success'] else value['error_code']}")
    said.stylize(f"bold {_STYLES[bool(value['success'])]}")
    if value["error_message"]:
        said.append(f" – {words.printable(value['error_message'])}")
    if value.get("finish_reason"):
        said.append(f" · finished: {words.printable(value['finish_reason'])}")
    return said


def _who(value: dict[str, Any]) -> Text:
    return _joined(
        ("team", value["team_id"]),
        ("app", value["app_id"]),
        ("key", value["key_id"]),
        ("end user", value.get("end_user")),
        ("session", value.get("session_id")),
        ("labels", sheet.labels(value.get("tags") or {})),
    )


def _what(value: dict[str, Any]) -> Text:
    mode = "streamed" if value["stream"] else "in one piece"
    said = _text(f"{value['model_id']} · {value['endpoint']} · {mode}")
    asked, native = value.get("requested_model"), value.get("native_model")
    keyed: dict[str, Any] = value.get("idempotency", {})
    rest = _joined(
        ("asked for as", asked if asked != value["model_id"] else None),
        ("answered as", native if native and not value["model_id"].endswith(f"/{native}") else None),
        ("tier", value.get("service_tier")),
        ("provider's id", value["native_response_id"]),
        ("with", "the team's own provider key" if value["byok"] else None),
        ("a rerun of", value.get("replay_of")),
        ("a judge's call about", value.get("judge_of")),
        ("played from", value.get("playback_of")),
        ("by its idempotency key a repeat of", keyed.get("repeat_of")),
        ("by its idempotency key tried again after", keyed.get("retry_of")),
    )
    return said.append_text(_text(" · ")).append_text(rest) if rest.plain else said


def _how_long(value: dict[str, Any]) -> Text:
    total = words.duration(value["generation_ms"])
    said = f"{words.duration(value['latency_ms'])} to the first output, {total} in all"
    if not value["success"] and value["latency_ms"] == value["generation_ms"]:
        said = f"{total} until it failed"
    if value["throughput"] is not None:
        said += f", {value['throughput']:.1f} tokens/s"
    if value.get("gateway_ms") is not None:
        said += f", {words.duration(value['gateway_ms'])} in the gateway"
    return _text(said)


def usage(value: dict[str, Any]) -> str:
    """``281 in (64 cached) + 101 out = 382 tokens, reported by the provider``; absent usage is not shown as zeros."""
    source = _SOURCES.get(str(value["source"]), str(value["source"]))
    if value["source"] == "absent":
        return source
    tokens = (
        f"{value['prompt_tokens']:,} in{_parts(value.get('prompt_tokens_details'))} + "
        f"{value['completion_tokens']:,} out{_parts(value.get('completion_tokens_details'))} = "
        f"{value['total_tokens']:,} tokens"
    )
    counts: dict[str, int] = value.get("meters") or {}
    meters = [f"{count:,} {name}" for name, count in counts.items() if count]
    return ", ".join([tokens, *meters, source])


def _parts(details: dict[str, int] | None) -> str:
    named = [f"{details[key]:,} {word}" for key, word in _DETAILS.items() if details.get(key)] if details else []
    return f" ({', '.join(named)})" if named else ""


def _fee(value: dict[str, Any]) -> Text:
    """The operator's own charge for a call that the team's key paid: never part of the cost above it."""
    said = _text(words.cost(value["nanos"], value["state"]), "bold")
    parts = ", ".join(f"{line['rule_id']} {dollars(line['amount_nanos'])}" for line in value["lines"])
    said.append(f"  {words.printable(parts)}" if parts else "")
    if value["reason"]:
        said.append(f" – {words.printable(value['reason'])}")
    return said


def _cost(value: dict[str, Any]) -> Text:
    said = _text(words.cost(value["cost_nanos"], value["cost_state"]), "bold")
    if value["cost_state"] in ("estimated", "partial"):
        said.append(f"  {value['cost_state']}", "yellow")
    if value.get("cost_reason"):
        said.append(f" – {words.printable(value['cost_reason'])}")
    if value.get("provider_cost_nanos") is not None:
        drift = value["provider_cost_nanos"] - value["cost_nanos"]
        said.append(f" · the provider says {dollars(value['provider_cost_nanos'])} (drift {dollars(drift)})")
    return said


def _kept(capture: dict[str, Any]) -> Text:
    said = f"{capture['state'].replace('_', ' ')} (policy {capture['policy']})"
    return _text(f"{said}, {words.size(capture['bytes'])}" if capture["bytes"] else said)


def _replay(value: dict[str, Any]) -> Text:
    if value["replay_supported"]:
        return _text(f"post replay_request to {value['endpoint']}")
    reason = value.get("replay_unavailable_reason", "not_captured")
    return _text(f"not possible: {_REASONS.get(reason, reason)}", "yellow")


def _cells(value: dict[str, Any]) -> Iterator[Text]:
    known = value["usage"]["source"] != "absent"
    yield Text(value["created_at"].replace("T", " ").removesuffix("Z"), style="dim")
    yield _text(value["request_id"])
    said = str(value["status_code"]) + ("" if value["success"] else f" {value['error_code']}")
    yield _text(said, _STYLES[bool(value["success"])])
    yield _text(value["model_id"])
    yield _text(value["app_id"] or "–")
    yield Text(f"{value['usage']['prompt_tokens']:,}" if known else "–")
    yield Text(f"{value['usage']['completion_tokens']:,}" if known else "–")
    yield Text(words.duration(value["generation_ms"]))
    yield _text(words.cost(value["cost_nanos"], value["cost_state"]))


def _joined(*pairs: tuple[str, str | None]) -> Text:
    return _text(" · ".join(f"{name} {text}" for name, text in pairs if text))


def _text(text: str, style: str = "") -> Text:
    return Text(words.printable(text), style=style)
