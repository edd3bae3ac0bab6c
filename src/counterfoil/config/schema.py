"""The JSON Schema of the configuration, made from the structs, so that editors complete and check the file.

The short ways of writing a route and a target, and variables in place of numbers, are added by hand: they are this
loader's, not the structs'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from counterfoil.config.known import KNOWN_PROVIDERS
from counterfoil.config.model import Config

ID: Final = "counterfoil.schema.json"
_VARIABLE: Final = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
_TARGET: Final = {"type": "string", "pattern": "^[^/]+/.+$", "description": "provider/model."}


def schema() -> dict[str, Any]:
    """The schema as plain JSON values (JSON Schema 2020-12)."""
    (root,), parts = msgspec.json.schema_components([Config], schema_hook=_paths, ref_template="#/$defs/{name}")
    for part in parts.values():
        _drop_hollow_defaults(part)
        _allow_variables(part)
        part.pop("title", None)
    _allow_short_routes(parts)
    providers = parts["Config"]["properties"]["providers"]
    providers["propertyNames"] = {
        "anyOf": [{"enum": list(KNOWN_PROVIDERS)}, {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}]
    }
    providers["additionalProperties"] = {"anyOf": [providers["additionalProperties"], {"type": "null"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "counterfoil.yaml",
        **root,
        "$defs": parts,
    }


def document() -> bytes:
    """The schema as the published file: indented, one newline at the end."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2) + b"\n"


def _paths(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string", "minLength": 1}
    raise NotImplementedError(kind)


def _drop_hollow_defaults(part: dict[str, Any]) -> None:
    """Take away defaults that repeat a part's own, and empty ones that the loader fills in."""
    for prop in part.get("properties", {}).values():
        if "$ref" in prop or prop.get("default") == "":
            prop.pop("default", None)
    part["properties"].get("type", {}).pop("default", None)


def _allow_variables(part: dict[str, Any]) -> None:
    """Numbers and choices may also be written as ``${NAME}``."""
    for name, prop in part.get("properties", {}).items():
        if prop.get("type") in ("integer", "number", "boolean") or "enum" in prop:
            beside = {key: prop[key] for key in ("description", "default") if key in prop}
            bare = {key: value for key, value in prop.items() if key not in beside}
            part["properties"][name] = {**beside, "anyOf": [bare, _VARIABLE]}


def _allow_short_routes(parts: dict[str, Any]) -> None:
    target, route = parts["TargetConfig"], parts["RouteConfig"]
    parts["TargetConfig"] = {"description": target.pop("description", ""), "anyOf": [_TARGET, target]}
    targets = {"type": "array", "minItems": 1, "maxItems": 32, "items": {"$ref": "#/$defs/TargetConfig"}}
    parts["RouteConfig"] = {"description": route.pop("description", ""), "anyOf": [_TARGET, targets, route]}
