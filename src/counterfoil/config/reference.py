"""The reference of every key as Markdown tables, made from the structs. ``docs/configuration.md`` holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from counterfoil.config.known import KNOWN_PROVIDERS
from counterfoil.config.schema import schema

_SECTIONS: Final = (
    ("Config", ""),
    ("ProviderConfig", "providers.NAME."),
    ("TlsConfig", "providers.NAME.tls."),
    ("Timeouts", "timeouts."),
    ("RouteConfig", "models.ALIAS."),
    ("TargetConfig", "models.ALIAS.targets[]."),
    ("CaptureConfig", "capture."),
    ("ByokConfig", "byok."),
    ("EstimatesConfig", "estimates."),
    ("PlaybackConfig", "playback."),
    ("IdempotencyConfig", "idempotency."),
    ("ReplaysConfig", "replays."),
    ("LedgerConfig", "ledger."),
    ("Limits", "limits."),
    ("ServerConfig", "server."),
    ("LogConfig", "log."),
)


def keys() -> str:
    """One table of every key: its path, its type, its default, its meaning."""
    parts: dict[str, dict[str, Any]] = schema()["$defs"]
    rows = [
        f"| `{prefix}{name}` | {_type(prop)} | {_default(prop)} | {_meaning(prop)} |"
        for part, prefix in _SECTIONS
        for name, prop in _properties(parts[part])
        if "$ref" not in prop or part != "Config"
    ]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])


def providers() -> str:
    """One table of the providers known by name."""
    rows = [
        f"| `{name}` | {known.type} | `{known.base_url}` | {_code(*known.variables)} |"
        for name, known in KNOWN_PROVIDERS.items()
    ]
    return "\n".join(["| name | type | base_url | usual variable |", "|---|---|---|---|", *rows])


def _properties(part: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    full = part if "properties" in part else part["anyOf"][-1]
    yield from full["properties"].items()


def _type(prop: dict[str, Any]) -> str:
    choices = [
        choice for choice in prop.get("anyOf", [prop]) if "${" not in str(choice.get("pattern")).replace("\\", "")
    ]
    return " or ".join(dict.fromkeys(_word(choice) for choice in choices if choice.get("type") != "null"))


def _word(choice: dict[str, Any]) -> str:
    if "$ref" in choice:
        return "keys and values"
    if "enum" in choice:
        return ", ".join(f"`{value}`" for value in choice["enum"] if value is not None)
    word = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    if choice["type"] == "array":
        return "list"
    return word.get(choice["type"], "keys and values") + _bounds(choice)


def _bounds(choice: dict[str, Any]) -> str:
    least = choice.get("minimum", choice.get("exclusiveMinimum"))
    most = choice.get("maximum")
    if least is None and most is None:
        return ""
    above = "above " if "exclusiveMinimum" in choice else ""
    return f", {above}{least}" + (" or more" if most is None else f" to {most}")


def _default(prop: dict[str, Any]) -> str:
    value = prop.get("default")
    if value is None or value == {}:
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(prop: dict[str, Any]) -> str:
    return str(prop.get("description", "")).replace("|", "\\|")


def _code(*words: str) -> str:
    return ", ".join(f"`{word}`" for word in words) or "– (no key)"
